"""What every backend shares: schedule algebra folded to small float64 tables, and the two polynomials behind exp and
log.

Each function takes the times of one operation and returns (K, R) float64: K coefficients for R rows, where R = 1 if one
int holds for the whole batch and R = B for (B,) ints. A kernel multiplies row b of its data by column b; it never
computes sqrt(1 - abar) itself. `shape` is the data's, for the check of t. Symbols and equations as in `ref.diffusion`.

Raises, everywhere: TypeError where t or s is not an int; ValueError where one is out of range, where its shape does not
fit the data, where abar[0] is not 1, or where a coefficient does not exist (abar[t] = 0, t = 0).

Every coefficient is within a few units of the last digit: differences of abar are taken from abar itself.
"""
import math

import numpy as np

# Minimax fits for float32 kernels. EXP: (exp(f) - 1 - f) / f^2 in f, |f| <= ln 2 / 2, to 1e-8 of exp(f). LOG1P: log(1
# + e) / e in e - 1/2, 0 <= e <= 1, to 5e-9 of itself.
EXP = 0.5000000013543258, 0.1666657664354715, 0.0416664641673128, 0.00836323538462835, 0.0013933733216366325
LOG1P = (
    0.8109302200080792, -0.2885271121890522, 0.13260900350473598, -0.06768760825341506, 0.036635481255850665,
    -0.02057159839953048, 0.01157609672270788, -0.006742963315037626, 0.005253457797334097, -0.0032563784698995423,
)  # fmt: skip
PER_STEP = 4  # streams of a training step, as in `ref.fused`
NEWTON_SCHULZ = 3.4445, -4.7750, 2.0315  # a, b, c of `ref.optim.orthogonalize`
ADAM = (("lr", np.inf), ("beta1", 1), ("beta2", 1), ("eps", np.inf), ("weight_decay", np.inf))  # from 0 to below these


def q_sample(t, abar, shape):
    """x_t = c0 x0 + c1 eps. t: int or (B,) ints. abar: (T + 1,). shape: the data's. Returns (2, R)."""
    signal, noise = _roots(at(abar, t, shape))
    return _table(signal, noise)


def v_target(t, abar, shape):
    """v = c0 x0 + c1 eps. Arguments as in `q_sample`. Returns (2, R)."""
    signal, noise = _roots(at(abar, t, shape))
    return _table(-noise, signal)


def x0_from_eps(t, abar, shape):
    """x0 = c0 x_t + c1 eps. Arguments as in `q_sample`. Returns (2, R)."""
    signal, noise = _roots(at(abar, t, shape), "signal")
    return _table(1 / signal, -noise / signal)


def eps_from_x0(t, abar, shape):
    """eps = c0 x_t + c1 x0. Arguments as in `q_sample`. Returns (2, R)."""
    signal, noise = _roots(at(abar, t, shape), "noise")
    return _table(1 / noise, -signal / noise)


def x0_from_v(t, abar, shape):
    """x0 = c0 x_t + c1 v. Arguments as in `q_sample`. Returns (2, R)."""
    signal, noise = _roots(at(abar, t, shape))
    return _table(signal, -noise)


def eps_from_v(t, abar, shape):
    """eps = c0 x_t + c1 v. Arguments as in `q_sample`. Returns (2, R)."""
    signal, noise = _roots(at(abar, t, shape))
    return _table(noise, signal)


def score_from_eps(t, abar, shape):
    """score = c0 eps. Arguments as in `q_sample`. Returns (1, R)."""
    return _table(-1 / _roots(at(abar, t, shape), "noise")[1])


def posterior(t, s, abar, shape):
    """mean = c0 x0 + c1 x_t, variance = c2. t, s: ints or (B,) ints, s < t. abar, shape: as in `q_sample`. Returns
    (3, R)."""
    abar_t, abar_s = step(t, s, abar, shape)
    scale, beta = (1 - abar_s) / (1 - abar_t), (abar_s - abar_t) / abar_s
    return _table(_sqrt(abar_s) * beta / (1 - abar_t), _sqrt(abar_t / abar_s) * scale, scale * beta)


def ddpm_step(t, s, abar, variance, shape):
    """x0_hat = c0 x_t + c1 eps_hat;  x_s = c2 x0_hat + c3 x_t + c4 z, c4 = 0 where s = 0. Returns (5, R).

    t, s: ints or (B,) ints, s < t. abar: (T + 1,). variance: "small" (beta tilde) or "large" (beta). shape: the data's.
    """
    abar_t, abar_s = step(t, s, abar, shape)
    signal, noise = _roots(abar_t, "signal")
    scale, beta = (1 - abar_s) / (1 - abar_t), (abar_s - abar_t) / abar_s
    if variance == "small":
        sigma2 = scale * beta
    elif variance == "large":
        sigma2 = beta * (abar_s < 1)
    else:
        raise ValueError(f'variance: expected "small" (beta tilde) or "large" (beta), got {variance!r}')
    mean = _sqrt(abar_s) * beta / (1 - abar_t), _sqrt(abar_t / abar_s) * scale
    return _table(1 / signal, -noise / signal, *mean, _sqrt(sigma2))


def ddim_step(t, s, eta, abar, shape):
    """x0_hat = c0 x_t + c1 eps_hat, clipped; eps_hat again = c2 x_t + c3 x0_hat where it was;
    x_s = c4 x0_hat + c5 eps_hat + c6 z.  c6 = sigma, c5 = sqrt(1 - abar_s - sigma^2). Returns (7, R).

    t, s: ints or (B,) ints, s < t. eta: in [0, 1]. abar: (T + 1,). shape: the data's.
    """
    abar_t, abar_s = step(t, s, abar, shape)
    signal, noise = _roots(abar_t, "signal")
    return _table(1 / signal, -noise / signal, *ddim_from_x0(abar_t, abar_s, eta))


def ddim_from_x0(abar_t, abar_s, eta):
    """`ddim_step` without its first two rows, where x0_hat is known: c2 to c6, a tuple. abar_t, abar_s: from `step`;
    abar_t may be 0. eta: in [0, 1]."""
    if not 0 <= eta <= 1:
        raise ValueError(f"eta: expected 0 <= eta <= 1, got {eta}")
    eta, (signal, noise) = float(eta), _roots(abar_t)
    scale, beta = (1 - abar_s) / (1 - abar_t), (abar_s - abar_t) / abar_s
    # 1 - abar_s - sigma^2 with 1 - abar_t = beta + (1 - abar_s) abar_t / abar_s
    direction = scale * ((1 - eta) * (1 + eta) * beta + (1 - abar_s) * abar_t / abar_s)
    return 1 / noise, -signal / noise, _sqrt(abar_s), _sqrt(direction), eta * _sqrt(scale * beta)


def dpmpp_2m_step(u, t, s, abar, shape):
    """x0_hat = c0 x_t + c1 eps_hat;  x_s = c2 x_t + c3 x0_hat + c4 x0_last, c4 = 0 without u and where abar_s = 1.
    Returns (5, R).

    u: int or (B,) ints, the time before t, or None. t, s: ints or (B,) ints, s < t < u. abar: (T + 1,). shape: the
    data's."""
    abar_t, abar_s = step(t, s, abar, shape)
    signal, noise = _roots(abar_t, "signal", "noise")
    ratio = _sqrt(1 - abar_s) / noise
    # sqrt(abar_s) (1 - e^-h), without the loss of a digit
    gain, half = (abar_s - abar_t) / (1 - abar_t) / (_sqrt(abar_s) + ratio * signal), 0.0
    if u is not None:
        abar_u, _ = step(u, t, abar, shape)
        _roots(abar_u, "signal")
        far = np.less(abar_s, 1)
        h, h_last = _climb(abar_t, np.where(far, abar_s, abar_t)), _climb(abar_u, abar_t)
        half = h / (2 * h_last)  # 1 / (2 r), and 0 where h is infinite
    return _table(*np.broadcast_arrays(1 / signal, -noise / signal, ratio, gain * (1 + half), -gain * half))


def flow_step(t, s, shape):
    """x_s = x_t + c0 v. t, s: numbers or (B,), 0 <= s < t <= 1. shape: the data's. Returns (1, R)."""
    t, s = numbers("t", t, shape), numbers("s", s, shape)
    if not np.all((s >= 0) & (s < t) & (t <= 1)):
        raise ValueError(f"a step goes from t <= 1 to 0 <= s < t, got t = {t} and s = {s}")
    return _table(s - t)


def heun_step(sigma, sigma_next, shape):
    """x_next = c0 x + c1 denoised + c2 denoised_next. Returns (3, R).

    sigma, sigma_next: numbers or (B,), 0 < sigma_next < sigma. shape: the data's.
    """
    sigma, sigma_next = numbers("sigma", sigma, shape), numbers("sigma_next", sigma_next, shape)
    if not np.all((sigma_next > 0) & (sigma_next < sigma) & (sigma < np.inf)):
        raise ValueError(f"expected 0 < sigma_next < sigma, got sigma = {sigma} and sigma_next = {sigma_next}")
    half = (sigma - sigma_next) / 2
    first = half / sigma * ((2 * sigma_next - sigma) / sigma_next)
    return _table(*np.broadcast_arrays(sigma_next / sigma, first, half / sigma_next))


def adam_step(step, lr, beta1, beta2, eps, weight_decay):
    """p <- p - (c4 m / (c5 sqrt(v) + c6) + c7 p), with c0 to c3 the weights of m, g, v and g^2. Returns (8,) float64.

    step, lr, beta1, beta2, eps, weight_decay: those of `ref.optim.adam_step`. Raises ValueError for step < 1 or another
    out of its range, TypeError for a step that is no int.
    """
    if isinstance(step, bool) or not isinstance(step, (int, np.integer)):
        raise TypeError(f"step: expected an int, got {type(step).__name__}")
    if step < 1:
        raise ValueError(f"step: expected at least 1, got {step}")
    values = [float(value) for value in (lr, beta1, beta2, eps, weight_decay)]
    for (name, end), value in zip(ADAM, values):
        if not 0 <= value < end:
            raise ValueError(f"{name}: expected 0 <= {name} < {end}, got {value}")
    lr, beta1, beta2, eps, weight_decay = values
    # 1 - beta^step, which would cancel
    rest1, rest2 = (-math.expm1(int(step) * math.log(beta)) if beta > 0 else 1.0 for beta in (beta1, beta2))
    return np.array([beta1, 1 - beta1, beta2, 1 - beta2, lr / rest1, rest2**-0.5, eps, lr * weight_decay])


def muon_step(lr, momentum, weight_decay, rows, columns):
    """p <- p - (c0 orthogonalize(u) + c2 p), and c1 the momentum, of matrices (rows, columns). Returns (3,) float64.

    lr, momentum, weight_decay: those of `ref.optim.muon_step`. Raises ValueError for one out of its range."""
    for name, value, end in (("lr", lr, np.inf), ("momentum", momentum, 1), ("weight_decay", weight_decay, np.inf)):
        if not 0 <= value < end:
            raise ValueError(f"{name}: expected 0 <= {name} < {end}, got {value}")
    return np.array([0.2 * lr * math.sqrt(max(rows, columns)), momentum, lr * weight_decay], np.float64)


def ema_step(decay):
    """avg <- c0 avg + c1 p. Returns (2, 1). Raises ValueError for decay outside [0, 1]."""
    if not 0 <= decay <= 1:
        raise ValueError(f"decay: expected 0 <= decay <= 1, got {decay}")
    return np.array([[float(decay)], [1 - float(decay)]])


def noise_key(seed, stream):
    """(seed lo, seed hi, stream lo, stream hi), (4,) uint32. Raises TypeError or ValueError for no 64-bit word."""
    for name, value in (("seed", seed), ("stream", stream)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
        if not 0 <= value < 2**64:
            raise ValueError(f"{name}: expected 0 <= {name} < 2**64, got {value}")
    low = 0xFFFFFFFF
    return np.array([int(seed) & low, int(seed) >> 32, int(stream) & low, int(stream) >> 32], np.uint32)


def at(abar, t, shape, name="t"):
    """abar[t] after the checks: a float for one int, (B,) for (B,) ints. shape: the data's. name: for the message."""
    abar = np.asarray(abar)
    if abar.ndim != 1 or abar.dtype.kind not in "fiu":
        raise ValueError(f"abar: expected (T + 1,) real values in [0, 1], got shape {abar.shape} of {abar.dtype}")
    if abar.size == 0 or abar[0] != 1:
        raise ValueError(f"abar: expected abar[0] = 1, the data, got {abar[:1]}; diffusers' begins with the first step")
    if type(t) is int:
        low = high = t
    else:
        t = np.asarray(t)
        if t.dtype.kind not in "iu":
            raise TypeError(f"{name}: expected ints, got {t.dtype}")
        if t.ndim and t.shape != shape[:1]:
            raise ValueError(f"{name}: expected one int or shape {shape[:1]} for data of shape {shape}, got {t.shape}")
        low, high = (np.minimum.reduce(t, axis=None), np.maximum.reduce(t, axis=None)) if t.size else (0, 0)
    if not (0 <= low and high < abar.size):
        raise ValueError(f"{name}: expected 0 <= {name} <= T = {abar.size - 1}, got {low} to {high}")
    abar_t = abar[t].astype(np.float64) if np.ndim(t) else float(abar[t])
    low, high = (abar_t, abar_t) if type(abar_t) is float else (abar_t.min(), abar_t.max()) if abar_t.size else (0, 0)
    if not (0 <= low and high <= 1):  # NaN too
        raise ValueError(f"abar: expected real values in [0, 1], got {low} to {high} at {name}")
    return abar_t


def examples(shape):
    """B and the elements of an example. shape: the data's. Raises ValueError where there is no batch axis."""
    if not shape:
        raise ValueError("expected shape (B, ...), got ()")
    return shape[0], math.prod(shape[1:])


def guided(w, table, shape):
    """A table with w of the guidance as its first row. w: a number or (B,). table: (K, R). shape: the data's. Returns
    (K + 1, R)."""
    w = numbers("w", w, shape)
    made = np.empty((len(table) + 1, w.size if w.ndim else table.shape[1]))
    made[0], made[1:] = w, table
    return made


def numbers(name, value, shape):
    """value as float64, one number or one for each example. name: for the message. shape: the data's."""
    if value is None:
        raise TypeError(f"{name}: expected one number or shape {shape[:1]}, got None")  # NumPy's is NaN
    value = np.asarray(value, np.float64)
    if value.ndim and value.shape != shape[:1]:
        raise ValueError(f"{name}: expected one number or shape {shape[:1]} for data {shape}, got {value.shape}")
    return value


def step(t, s, abar, shape):
    """abar[t], abar[s] of a step, both floats or both (B,). t, s, abar, shape: as in `posterior`."""
    abar_t, abar_s = at(abar, t, shape), at(abar, s, shape, "s")
    if not (t > s if type(t) is type(s) is int else np.all(np.less(s, t))):
        raise ValueError(f"a step goes from t to s < t, got t = {t} and s = {s}")
    if type(abar_t) is not type(abar_s):
        abar_t, abar_s = np.broadcast_arrays(abar_t, abar_s)
    _roots(abar_t, "noise")
    if _vanishes(abar_s):
        raise ValueError("abar[s] = 0: there is no signal to go to")
    if not (abar_t <= abar_s if type(abar_t) is float else np.all(abar_t <= abar_s)):
        raise ValueError(f"abar: expected to descend, got abar[t] > abar[s] for t = {t} and s = {s}")
    return abar_t, abar_s


def _roots(abar_t, *needed):
    """sqrt(abar_t) and sqrt(1 - abar_t). needed: "signal" or "noise", which then may not be 0."""
    signal, noise = _sqrt(abar_t), _sqrt(1 - abar_t)
    if "signal" in needed and _vanishes(signal):
        raise ValueError("abar[t] = 0: x0 cannot be recovered from eps; predict v or x0")
    if "noise" in needed and _vanishes(noise):
        raise ValueError("1 - abar[t] = 0: there is no noise to find")
    return signal, noise


def _climb(abar_t, abar_s):
    """Twice lambda_s - lambda_t, from the difference of the two abar."""
    d = abar_s - abar_t
    return np.log1p(d / abar_t) + np.log1p(d / (1 - abar_s))


def _vanishes(root):
    return not (root if type(root) is float else root.all())


def _sqrt(x):
    return math.sqrt(x) if type(x) is float else np.sqrt(x)  # a tenth of a microsecond against one


def _table(*rows):
    return np.array(rows).reshape(len(rows), -1)
