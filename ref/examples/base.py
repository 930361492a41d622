"""What the worked examples share: two digits of 16 x 16 pixels, a perfect model of them, and the arguments that most
functions take.

An entry that is a function makes the argument from others, taken by their names: x_t follows from t, and s is before
it.
"""
import numpy as np

from ref import schedules
from ref.diffusion import q_sample, score_from_eps, v_target
from ref.philox import normal

SPREAD = 0.25  # the deviation of the data about the two digits, for the models of samplers
PIXELS = 16
ABAR = schedules.alpha_bar(schedules.linear_betas())


def digits():
    """A nought and an eight, white on black, (2, 16, 16) in [-1, 1]."""
    y, x = np.mgrid[-1:1:16j, -1:1:16j]
    rings = [np.exp(-(((np.hypot(x / 0.45, (y - centre) / height) - 1) / 0.3) ** 2))
             for centre, height in ((0, 0.75), (-0.36, 0.37), (0.4, 0.41))]
    return 2 * np.stack([rings[0], np.maximum(rings[1], rings[2])]) - 1


def expected(x, x0, a, b):
    """E[x0 | x] for x = a x0 + b eps and data N(x0, SPREAD^2), the perfect prediction. x, x0: (B, ...). a, b:
    floats."""
    return x0 + (x - a * x0) * a * SPREAD**2 / (a**2 * SPREAD**2 + b**2)


def _noise_model(x0, abar):
    """The perfect prediction of the noise."""
    def model(xt, t):
        a, b = np.sqrt(abar[t]), np.sqrt(1 - abar[t])
        return (xt - a * expected(xt, x0, a, b)) / b

    return model


def critic(pixels):
    """Parameters of a small discriminator. pixels: int."""
    shapes = dict(w1=(6, pixels), b1=(6,), w2=(5, 6), b2=(5,), w3=(1, 5), b3=(1,))
    return {name: normal(i, shape) / np.sqrt(shape[-1]) for i, (name, shape) in enumerate(shapes.items())}


def sines(shape, k=0.0):
    """Numbers in (-1, 1), all different, that need no seed. shape: ints. k: another set for each."""
    return np.sin(1 + k + 2.3 * np.arange(np.prod(shape)) ** 1.1).reshape(shape)


ALL = dict(
    x0=digits(), t=250, s=lambda t: t // 2, u=lambda t, abar: (t + np.size(abar)) // 2, abar=ABAR,
    eps=lambda x0: normal(1, np.shape(x0)), z=lambda x0: normal(2, np.shape(x0)),
    noise=lambda x0: normal(3, (3, *np.shape(x0))), xt=lambda x0, t, eps, abar: q_sample(x0, t, eps, abar),
    v=lambda x0, eps, t, abar: v_target(x0, eps, t, abar), score=lambda eps, t, abar: score_from_eps(eps, t, abar),
    eps_hat=lambda eps: 0.9 * eps, cond=lambda eps: 0.9 * eps, uncond=lambda eps, x0: 0.9 * eps + 0.1 * x0, eta=0.5,
    w=2.0, w_paper=1.0, seed=0, shape=(2, 4), T=1000, c=0.00054 * PIXELS, x0_hat=lambda x0: 0.9 * x0,
    x0_last=lambda x0: 0.8 * x0, sigma=2.0, sigma_t=2.0, sigma_s=1.0, xT=lambda x0: normal(4, np.shape(x0)),
    times=schedules.spaced_times(1000, 3, "trailing"), model=_noise_model,
    denoise=lambda x0: lambda x, sigma: expected(x, x0, 1, sigma),
    f=lambda x0: lambda x, sigma: expected(x, x0, 1, sigma), x=lambda x0, sigma, eps: x0 + sigma * eps,
)
