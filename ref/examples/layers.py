"""Worked examples of `ref.layers`."""
import numpy as np

from ref.examples.base import digits, sines

ARGUMENTS = dict(
    x=sines((2, 3)), w=sines((4, 3), 1), b=sines((4,), 2), index=np.array([2, 0, 2]),
    t=np.array([1.0, 500.0, 1000.0]), width=8, logits=3 * sines((2, 4)), labels=np.array([3, 0]), eps=1e-5, groups=2,
    patch=2, factor=2,
)

IMAGE = dict(x=sines((2, 2, 3, 4)))
NORM = dict(x=sines((2, 4)), w=1 + sines((4,), 1) / 2, b=sines((4,), 2))

FUNCTIONS = {
    "conv1d": dict(x=sines((2, 2, 6)), w=sines((3, 2, 2), 1), b=sines((3,), 2), padding=(2, 0), dilation=2),  # causal
    "conv2d": IMAGE | dict(w=sines((3, 2, 3, 3), 1), b=sines((3,), 2)),
    "conv3d": dict(x=sines((1, 2, 2, 3, 2)), w=sines((2, 2, 3, 3, 3), 1), b=sines((2,), 2)),
    "group_norm": dict(x=sines((2, 4, 2, 3)), w=1 + sines((4,), 1) / 2, b=sines((4,), 2)),
    "layer_norm": NORM,
    "rms_norm": NORM,
    "attention": dict(
        q=2 * sines((1, 2, 3, 4)), k=2 * sines((1, 2, 4, 4), 1), v=sines((1, 2, 4, 2), 2),
        mask=np.array([[True, True, False, True], [False] * 4, [True] * 4]), causal=True,
    ),
    "geglu": dict(x=sines((2, 6))),
    "upsample_nearest": IMAGE,
    "patchify": dict(x=digits()[:, None, :4, :6]),
    "unpatchify": dict(y=sines((2, 6, 4)), size=(4, 6)),
    "sincos_2d": dict(grid=(2, 3)),
    "rope": dict(x=sines((2, 3, 4)), t=np.arange(3)),
}
