"""Seven Gaussians and the camera that sees them, of which the laws of Gaussians and of splatting are tested."""
import numpy as np

from ref import scene

KEPT, BROKEN = 1e-12, 1e-3
RNG = np.random.default_rng(8)
N, SIZE = 7, (10, 12)
Q, SCALE, MEAN = RNG.standard_normal((N, 4)), RNG.uniform(0.1, 0.5, (N, 3)), RNG.uniform(-0.5, 0.5, (N, 3))
COV = scene.covariance(SCALE, Q)
EYE = np.array([2.0, -3.0, 1.0])
CAMERA = np.array([15.0, 14.0]), np.array([6.0, 5.0]), *scene.look_at(EYE, np.zeros(3), np.array([0.0, 0, 1]))
UV, COV2, DEPTH = scene.perspective_gaussians(MEAN, COV, *CAMERA)
OPEN = dict(alpha_min=0.0, rest_min=0.0, sigmas=np.inf)  # nothing left out
