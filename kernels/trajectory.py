"""What the loops of every backend share: the coefficients of a whole trajectory, and the features of its times.

Symbols, equations and errors as in `kernels.coefficients`.
"""
import functools
from decimal import Context, Decimal, localcontext

import numpy as np

from kernels import coefficients

DIGITS = Context(prec=50)
SPLIT = 2.0**27 + 1  # cuts a float64 into two halves of 26 bits


def ddim_trajectory(times, eta, abar, predict):
    """`coefficients.ddim_step` from each of times to the next, with c0 and c1 those of x0_hat from the net's output.
    Where that is not eps, x0_hat is always to be "clipped", to infinity at least, since eps_hat is derived from it, and
    abar may be 0 at the first time.

    times: (n + 1,) ints. eta: in [0, 1]. abar: (T + 1,). predict: "eps", "x0" or "v". Returns (7, n).
    """
    t, s = _steps(times, predict)
    if predict == "eps":
        return coefficients.ddim_step(t, s, eta, abar, t.shape)
    rest = np.array(coefficients.ddim_from_x0(*coefficients.step(t, s, abar, t.shape), eta))
    first = coefficients.x0_from_v(t, abar, t.shape) if predict == "v" else np.array([[0.0], [1.0]])
    return np.concatenate([np.broadcast_to(first, (2, t.size)), rest])


def ddim_chain(times, abar, predict):
    """A trajectory of linear steps, x_s = a x_t + b output, where nothing is clipped and there is no noise.

    times, abar, predict: as in `ddim_trajectory`. Returns a and b of each step, (2, n), and of the whole: what
    multiplies x_T, and what a constant output adds, floats."""
    t, s = _steps(times, predict)
    abar_t, abar_s = coefficients.step(t, s, abar, t.shape)
    signal, noise, signal_s, noise_s = np.sqrt([abar_t, 1 - abar_t, abar_s, 1 - abar_s])
    if predict == "eps":
        coefficients.x0_from_eps(t, abar, t.shape)  # that there is a signal
        a = signal_s / signal
        b = -(abar_s - abar_t) / abar_t / (noise_s + a * noise)  # noise_s - a noise
    else:
        a = noise_s / noise
        b = (abar_s - abar_t) / (1 - abar_t) / (signal_s + a * signal)  # signal_s - a signal
        if predict == "v":
            a, b = signal * signal_s + noise * noise_s, -noise * b
    whole, offset = 1.0, 0.0
    for a_i, b_i in zip(a.tolist(), b.tolist()):
        whole, offset = a_i * whole, a_i * offset + b_i
    return np.array([a, b]), whole, offset


def time_embedding(t, width, max_period=10000.0):
    """`ref.layers.time_embedding`, (n, width): sines, then cosines, of t max_period^(-2 i / width), to the last digits.
    t: (n,). width: even int. max_period: float."""
    if width % 2:
        raise ValueError(f"width: expected an even number, got {width}")
    t, (f, f_rest) = np.asarray(t, np.float64)[:, None], _frequencies(int(width) // 2, float(max_period))
    # The angle, and what rounding it lost, from products of halves
    angle, (t1, t2), (f1, f2) = t * f, _halves(t), _halves(f)
    rest = t2 * f2 - (((angle - t1 * f1) - t2 * f1) - t1 * f2) + t * f_rest
    sin, cos = np.sin(angle), np.cos(angle)
    return np.concatenate([sin + rest * cos, cos - rest * sin], axis=1)


@functools.cache
def _frequencies(n, max_period):
    with localcontext(DIGITS):
        exact = [Decimal(max_period) ** (-Decimal(i) / n) for i in range(n)]
        f = np.array(exact, np.float64)
        return f, np.array([e - Decimal(value) for e, value in zip(exact, f.tolist())], np.float64)


def _halves(x):
    large = SPLIT * x
    upper = large - (large - x)
    return upper, x - upper


def _steps(times, predict):
    if predict not in ("eps", "x0", "v"):
        raise ValueError(f'predict: expected "eps", "x0" or "v", got {predict!r}')
    return np.array(times[:-1]), np.array(times[1:])
