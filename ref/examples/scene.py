"""Worked examples of `ref.scene`: a few rays, points and Gaussians."""
import numpy as np

from ref.examples.base import sines
from ref.scene.camera import look_at, to_opengl

ROTATION, TRANSLATION = look_at(np.array([2.0, -1.0, 1.5]), np.array([0.1, 0.2, -0.1]), np.array([0.0, 0.0, 1.0]))

RAYS = dict(
    sigma=1.5 + sines((2, 4)), color=0.5 + sines((2, 4, 3), 1) / 2, delta=0.5 + sines((2, 4), 2) / 4,
    t=2 + np.arange(4) / 2 + sines((2, 4), 3) / 9, background=np.array([1.0, 0.9, 0.8]),
)

CAMERA = dict(
    uv=4 + 3 * sines((3, 2), 7), focal=np.array([7.0, 8.0]), centre=np.array([4.0, 3.5]), rotation=ROTATION,
    translation=TRANSLATION, points=sines((3, 3), 8) / 2,
)

GAUSSIANS = dict(
    scale=0.3 + sines((3, 3), 13) / 5, q=sines((3, 4), 25), mean=sines((3, 3), 8) / 2,
    depth=np.array([3.0, 2.0, 2.5]),
    cov=np.eye(3) / 4 + sines((3, 3, 3), 15) / 20,
)

ARGUMENTS = RAYS | CAMERA | GAUSSIANS | dict(
    eye=np.array([2.0, -1.0, 1.5]), target=np.array([0.1, 0.2, -0.1]), up=np.array([0.0, 0.1, 1.0]), size=(2, 3),
    pose=to_opengl(ROTATION, TRANSLATION),
    near=np.array([2.0, 1.5]), far=np.array([6.0, 5.0]), u=0.5 + 0.45 * sines((2, 4), 4),
)

DATA = dict(mu=np.array([0.5, -0.3, 0.1]), cov=np.diag([0.5, 0.2, 0.3]) + 0.1, t=250)

FUNCTIONS = {
    "gaussian_eps": DATA | dict(xt=sines((2, 3), 18)),
    "gaussian_distillation": DATA | dict(x=sines((2, 3), 18)),
    "score_distillation": dict(t=250),
    "distillation_weight": dict(t=250),
    "annealed_time": dict(step=30, steps=100),
    "splat": dict(  # a picture of six Gaussians
        uv=2 + sines((6, 2), 19), cov2=np.array([[2.0, 0.5], [0.5, 1.5]]) + sines((6, 1, 1), 18) * np.eye(2) / 2,
        depth=2 + sines((6,), 19), opacity=0.6 + sines((6,), 20) / 3, color=0.5 + sines((6, 2), 17) / 2,
        background=np.array([1.0, 0.9]), size=(4, 3),
    ),
    "trilinear": dict(grid=sines((2, 2, 3, 2), 9), x=0.9 * sines((3, 3), 10)),
    "voxels": dict(grid=2 * sines((4, 2, 3, 2), 9), x=0.9 * sines((3, 3), 10), shift=0.3),
    "triplane": dict(planes=sines((3, 2, 3, 3), 9), x=0.9 * sines((3, 3), 10)),
    "spherical_harmonics": dict(direction=2 * sines((3, 3), 11)),
    "harmonic_color": dict(coefficients=sines((3, 16, 2), 12), direction=2 * sines((3, 3), 11)),
    "positional_encoding": dict(x=sines((3, 2), 10), octaves=3, identity=True),
    "inverse_cdf": dict(edges=2 + np.arange(4) + sines((2, 4), 5) / 4, w=0.5 + sines((2, 3), 6) / 3,
                        u=0.5 + 0.45 * sines((2, 5), 4)),
}
