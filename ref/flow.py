"""Flow matching on straight lines: the path, its velocity, the loss, the times, and conversions to and from a
diffusion.

Everything here is float64. B examples first, then any data axes. t = 0 is data, t = 1 is noise,
x_t = (1 - t) x0 + t eps, and the velocity eps - x0 points to the noise: a sampler goes from t = 1 down to 0. That is
the time of [SD3]; in [FM] and [RF] it runs from noise to data.

Papers
    [FM]   Lipman et al., "Flow Matching for Generative Modeling", 2023
    [RF]   Liu et al., "Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow", 2023
    [SD3]  Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", 2024
"""
import numpy as np

from ref.numerics import two_product, two_sum
from ref.shapes import float64, not_empty, number, per_example, same_shape, unit_interval


def interpolate(x0, eps, t):
    """[SD3] eq. 13:  x_t = (1 - t) x0 + t eps.

    x0, eps: (B, ...). t: a number in [0, 1], or (B,).
    Returns xt (B, ...) float64.
    Raises ValueError where shapes differ or t is outside [0, 1].
    """
    x0, eps = same_shape(x0=x0, eps=eps)
    t = _time(t, x0)
    return (1 - t) * x0 + t * eps


def velocity_target(x0, eps):
    """[RF] eq. 1 with time reversed:  v = d x_t / dt = eps - x0, the same at every t.

    x0, eps: (B, ...).
    Returns v (B, ...) float64.
    Raises ValueError where shapes differ.
    """
    x0, eps = same_shape(x0=x0, eps=eps)
    return eps - x0


def flow_loss(v, x0, eps):
    """[RF] eq. 1:  L = mean((v - (eps - x0))^2) over all elements.

    v: the network's velocity at (x_t, t), (B, ...). x0, eps: (B, ...), at least one element.
    Returns L, a float.
    Raises ValueError where shapes differ or there is nothing to average.
    """
    v, x0, eps = same_shape(v=v, x0=x0, eps=eps)
    not_empty(v=v, x0=x0, eps=eps)
    return np.mean((v - (eps - x0)) ** 2)


def flow_loss_backward(dloss, v, x0, eps):
    """Gradients of `flow_loss`:  dv = 2 (v - (eps - x0)) / N dloss,  dx0 = dv,  deps = -dv.

    dloss: float. v, x0, eps: as in `flow_loss`; N is the number of elements.
    Returns dv, dx0, deps, each (B, ...) float64.
    Raises as `flow_loss` does.
    """
    v, x0, eps = same_shape(v=v, x0=x0, eps=eps)
    not_empty(v=v, x0=x0, eps=eps)
    dv = 2 * (v - (eps - x0)) / v.size * number(dloss, "dloss")
    return dv, dv.copy(), -dv


def logit_normal_times(z, mean=0.0, std=1.0):
    """[SD3] eq. 19, drawn:  t = sigmoid(mean + std z), times that favour the middle of the path.

    z: standard normals, any shape. mean, std: of logit t; std > 0.
    Returns t of that shape, float64, in [0, 1].
    Raises ValueError where std <= 0.
    """
    mean, std = number(mean, "mean"), number(std, "std")
    if not std > 0:
        raise ValueError(f"std: expected a positive number, got {std}")
    # u, and what its rounding lost: that is a factor of e^-|u|
    product, low = two_product(std, np.asarray(z, np.float64))
    u, rest = two_sum(mean, product)
    e = np.exp(-np.abs(u)) * (1 - np.sign(u) * (low + rest))
    return np.where(u >= 0, 1, e) / (1 + e)


def shift_times(t, shift):
    """[SD3] eq. 23:  t' = shift t / (1 + (shift - 1) t). Larger images need shift > 1, more of the time near the noise.

    t: any shape, in [0, 1]. shift: in (0, inf); 1 changes nothing, 1 / shift undoes it.
    Returns t' of that shape, float64, with 0 and 1 where they were.
    Raises ValueError for t outside [0, 1] or another shift.
    """
    shift = number(shift, "shift")
    if not 0 < shift < np.inf:
        raise ValueError(f"shift: expected a positive, finite number, got {shift}")
    t = unit_interval(t, "t")
    return shift * t / ((1 - t) + shift * t)  # the denominator in a form that is never below the numerator


def straightness(xs):
    """[RF] eq. 3, how far paths are from straight lines at even speed, over n equal steps of time:

        S = mean over steps and examples of |(x_n - x_0) - n (x_{i+1} - x_i)|^2

    xs: (n + 1, B, ...), n >= 1, the states of a sampler at equally spaced times, in either direction.
    Returns S, a float: 0 where every path is straight, and one Euler step does what n do.
    Raises ValueError for fewer than two states or no example.
    """
    xs = np.asarray(xs, np.float64)
    if xs.ndim < 2 or xs.shape[0] < 2 or xs.shape[1] == 0:
        raise ValueError(f"xs: expected shape (n + 1, B, ...) with n >= 1 and B >= 1, got {xs.shape}")
    n = xs.shape[0] - 1
    bend = (xs[-1] - xs[0]) - n * np.diff(xs, axis=0)
    return np.sum(bend**2) / (n * xs.shape[1])


def x0_from_velocity(xt, v, t):
    """[SD3] eq. 13 solved for the data:  x0 = x_t - t v.

    xt, v: (B, ...). t: a number in [0, 1], or (B,).
    Returns x0 (B, ...) float64.
    Raises ValueError where shapes differ or t is outside [0, 1].
    """
    xt, v = same_shape(xt=xt, v=v)
    return xt - _time(t, xt) * v


def eps_from_velocity(xt, v, t):
    """[SD3] eq. 13 solved for the noise:  eps = x_t + (1 - t) v.

    xt, v: (B, ...). t: a number in [0, 1], or (B,).
    Returns eps (B, ...) float64.
    Raises ValueError where shapes differ or t is outside [0, 1].
    """
    xt, v = same_shape(xt=xt, v=v)
    return xt + (1 - _time(t, xt)) * v


def velocity_from_x0(xt, x0, t):
    """The inverse of `x0_from_velocity`:  v = (x_t - x0) / t.

    xt, x0: (B, ...). t: a number in (0, 1], or (B,).
    Returns v (B, ...) float64.
    Raises ValueError where shapes differ, t is outside [0, 1] or t = 0 (x_t is x0 there, and v is anything).
    """
    xt, x0 = same_shape(xt=xt, x0=x0)
    t = _time(t, xt)
    if np.any(t == 0):
        raise ValueError("t = 0: x_t is x0 and does not determine the velocity")
    return (xt - x0) / t


def velocity_from_eps(xt, eps, t):
    """The inverse of `eps_from_velocity`:  v = (eps - x_t) / (1 - t).

    xt, eps: (B, ...). t: a number in [0, 1), or (B,).
    Returns v (B, ...) float64.
    Raises ValueError where shapes differ, t is outside [0, 1] or t = 1 (x_t is eps there, and v is anything).
    """
    xt, eps = same_shape(xt=xt, eps=eps)
    t = _time(t, xt)
    if np.any(t == 1):
        raise ValueError("t = 1: x_t is eps and does not determine the velocity")
    return (eps - xt) / (1 - t)


def abar_from_flow_time(t):
    """The diffusion time with the same signal-to-noise ratio:  abar = (1 - t)^2 / ((1 - t)^2 + t^2).

    t: any shape, in [0, 1]. Returns abar of that shape, float64, from 1 to 0. Raises ValueError for t outside [0, 1].
    """
    t = unit_interval(t, "t")
    return (1 - t) ** 2 / ((1 - t) ** 2 + t**2)


def flow_time_from_abar(abar):
    """The inverse of `abar_from_flow_time`:  t = sqrt(1 - abar) / (sqrt(abar) + sqrt(1 - abar)).

    abar: any shape, in [0, 1]. Returns t of that shape, float64. Raises ValueError for a value outside [0, 1].
    """
    abar = unit_interval(abar, "abar")
    return np.sqrt(1 - abar) / (np.sqrt(abar) + np.sqrt(1 - abar))


def vp_from_flow(xt, t):
    """The state of the variance-preserving diffusion at abar_from_flow_time(t):  x_t / sqrt((1 - t)^2 + t^2).

    Same x0, same eps; `flow_from_vp` is the inverse. xt: (B, ...). t: a number in [0, 1], or (B,).
    Returns (B, ...) float64.
    Raises ValueError where t does not fit or is outside [0, 1].
    """
    xt = float64(xt)
    t = _time(t, xt)
    return xt / np.sqrt((1 - t) ** 2 + t**2)


def flow_from_vp(xt, t):
    """The inverse of `vp_from_flow`:  sqrt((1 - t)^2 + t^2) x_t.

    xt: (B, ...), at abar_from_flow_time(t). t: a number in [0, 1], or (B,).
    Returns (B, ...) float64.
    Raises ValueError where t does not fit or is outside [0, 1].
    """
    xt = float64(xt)
    t = _time(t, xt)
    return xt * np.sqrt((1 - t) ** 2 + t**2)


def reverse_time(t):
    """The other direction of time, of [FM] and [RF], where 0 is noise and 1 is data:  t' = 1 - t; the velocity is -v
    there.

    t: any shape, in [0, 1]. Returns t' of that shape, float64; its own inverse. Raises ValueError for t outside [0, 1].
    """
    return 1 - unit_interval(t, "t")


def _time(t, x):
    """t, after its check, shaped to multiply x (B, ...)."""
    return per_example(unit_interval(t, "t"), x, "t")
