"""Schedule algebra folded to small float64 tables, shared by every backend.

Each function takes the times of one operation and returns (K, R) float64: K coefficients for R rows, where R = 1 if one
int holds for the whole batch and R = B for (B,) ints. A kernel multiplies row b of its data by column b; it never
computes sqrt(1 - abar) itself. `shape` is the data's, for the check of t. Symbols and equations as in `ref.diffusion`.

Raises, everywhere: TypeError where t or s is not an int; ValueError where one is out of range, where its shape does not
fit the data, or where a coefficient does not exist (abar[t] = 0, t = 0).
"""
import numpy as np


def q_sample(t, abar, shape):
    """x_t = c0 x0 + c1 eps. t: int or (B,) ints. abar: (T + 1,). shape: the data's. Returns (2, R)."""
    abar_t = at(abar, t, shape)
    table = np.empty((2, np.size(abar_t)))
    np.sqrt(abar_t, out=table[0])
    np.sqrt(1 - abar_t, out=table[1])
    return table


def v_target(t, abar, shape):
    """v = c0 x0 + c1 eps. Arguments as in `q_sample`. Returns (2, R)."""
    table = q_sample(t, abar, shape)[::-1].copy()
    table[0] *= -1
    return table


def x0_from_eps(t, abar, shape):
    """x0 = c0 x_t + c1 eps. Arguments as in `q_sample`. Returns (2, R)."""
    table = q_sample(t, abar, shape)
    if not table[0].all():
        raise ValueError("abar[t] = 0: x0 cannot be had from eps; predict v or x0")
    table[1] /= -table[0]
    table[0] = 1 / table[0]
    return table


def eps_from_x0(t, abar, shape):
    """eps = c0 x_t + c1 x0. Arguments as in `q_sample`. Returns (2, R)."""
    table = q_sample(t, abar, shape)[::-1].copy()
    if not table[0].all():
        raise ValueError("1 - abar[t] = 0: at t = 0 there is no noise to find")
    table[1] /= -table[0]
    table[0] = 1 / table[0]
    return table


def x0_from_v(t, abar, shape):
    """x0 = c0 x_t + c1 v. Arguments as in `q_sample`. Returns (2, R)."""
    table = q_sample(t, abar, shape)
    table[1] *= -1
    return table


def eps_from_v(t, abar, shape):
    """eps = c0 x_t + c1 v. Arguments as in `q_sample`. Returns (2, R)."""
    return q_sample(t, abar, shape)[::-1].copy()


def score_from_eps(t, abar, shape):
    """score = c0 eps. Arguments as in `q_sample`. Returns (1, R)."""
    root = q_sample(t, abar, shape)[1:]
    if not root.all():
        raise ValueError("1 - abar[t] = 0: at t = 0 the score does not exist")
    return -1 / root


def posterior(t, s, abar, shape):
    """mean = c0 x0 + c1 x_t, variance = c2. t, s: ints or (B,) ints, s < t. Returns (3, R)."""
    abar_t, abar_s = step(t, s, abar, shape)
    alpha = abar_t / abar_s
    beta = 1 - alpha
    table = np.empty((3, max(np.size(abar_t), np.size(abar_s))))
    table[0] = np.sqrt(abar_s) * beta / (1 - abar_t)
    table[1] = np.sqrt(alpha) * (1 - abar_s) / (1 - abar_t)
    table[2] = (1 - abar_s) / (1 - abar_t) * beta
    return table


def ddpm_step(t, s, abar, variance, shape):
    """x0_hat = c0 x_t + c1 eps_hat;  x_s = c2 x0_hat + c3 x_t + c4 z, c4 = 0 where s = 0. Returns (5, R).

    t, s: ints or (B,) ints, s < t. variance: "small" (beta tilde) or "large" (beta).
    """
    if variance not in ("small", "large"):
        raise ValueError(f'variance: expected "small" (beta tilde) or "large" (beta), got {variance!r}')
    table = np.empty((5, 1 if np.ndim(t) == np.ndim(s) == 0 else shape[0]))
    table[2:5] = posterior(t, s, abar, shape)
    table[0:2] = x0_from_eps(t, abar, shape)
    if variance == "large":
        abar_t, abar_s = step(t, s, abar, shape)
        table[4] = np.where(abar_s < 1, 1 - abar_t / abar_s, 0.0)
    np.sqrt(table[4], out=table[4])
    return table


def ddim_step(t, s, eta, abar, shape):
    """x0_hat = c0 x_t + c1 eps_hat, clipped; eps_hat again = c2 x_t + c3 x0_hat where it was;
    x_s = c4 x0_hat + c5 eps_hat + c6 z.  c6 = sigma, c5 = sqrt(1 - abar_s - sigma^2). Returns (7, R).

    t, s: ints or (B,) ints, s < t. eta: in [0, 1].
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta: expected 0 <= eta <= 1, got {eta}")
    abar_t, abar_s = step(t, s, abar, shape)
    table = np.empty((7, max(np.size(abar_t), np.size(abar_s))))
    root, noise = np.sqrt(abar_t), np.sqrt(1 - abar_t)
    if not np.all(root):
        raise ValueError("abar[t] = 0: x0 cannot be had from eps; predict v or x0")
    sigma = eta * np.sqrt((1 - abar_s) / (1 - abar_t) * (1 - abar_t / abar_s))
    table[0], table[1] = 1 / root, -noise / root
    table[2], table[3] = 1 / noise, -root / noise
    table[4], table[6] = np.sqrt(abar_s), sigma
    table[5] = np.sqrt(np.maximum(1 - abar_s - sigma * sigma, 0))
    return table


def adam_step(step, lr, beta1, beta2, eps, weight_decay):
    """(beta1, 1 - beta1, beta2, 1 - beta2, lr / (1 - beta1^step), 1 / sqrt(1 - beta2^step), eps, 1 - lr weight_decay).

    p <- c7 p - c4 m / (c5 sqrt(v) + c6). Returns (8,) float64. Raises ValueError for step < 1.
    """
    if step < 1:
        raise ValueError(f"step: expected at least 1, got {step}")
    return np.array([beta1, 1 - beta1, beta2, 1 - beta2, lr / (1 - beta1**step), (1 - beta2**step) ** -0.5, eps, 1 - lr * weight_decay])


def ema_step(decay):
    """avg <- c0 avg + c1 p. Returns (2, 1). Raises ValueError for decay outside [0, 1]."""
    if not 0 <= decay <= 1:
        raise ValueError(f"decay: expected 0 <= decay <= 1, got {decay}")
    return np.array([[decay], [1 - decay]])


def noise_key(seed, stream):
    """(seed lo, seed hi, stream lo, stream hi), (4,) uint32. Raises TypeError or ValueError for no 64-bit word."""
    for name, value in (("seed", seed), ("stream", stream)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
        if not 0 <= value < 2**64:
            raise ValueError(f"{name}: expected 0 <= {name} < 2**64, got {value}")
    low = 0xFFFFFFFF
    return np.array([int(seed) & low, int(seed) >> 32, int(stream) & low, int(stream) >> 32], np.uint32)


def clip_limit(clip):
    """clip as a float, inf for None. Raises ValueError for clip <= 0."""
    if clip is None:
        return np.inf
    if not clip > 0:
        raise ValueError(f"clip: expected a positive number or None, got {clip}")
    return float(clip)


def at(abar, t, shape, name="t"):
    """abar[t] after the checks: a float64 for one int, (B,) for (B,) ints. shape: the data's. name: for the message."""
    abar = np.asarray(abar, np.float64)
    t = np.asarray(t)
    if t.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected ints, got {t.dtype}")
    if t.ndim and t.shape != shape[:1]:
        raise ValueError(f"{name}: expected one int or shape {shape[:1]} for data of shape {shape}, got {t.shape}")
    # one pass for both ends: a negative number read as unsigned is larger than any T
    if t.size and np.maximum.reduce(t.astype(np.uint64, copy=False), axis=None) >= abar.size:
        raise ValueError(f"{name}: expected 0 <= {name} <= T = {abar.size - 1}, got {t.min()} to {t.max()}")
    return abar[t]


def step(t, s, abar, shape):
    """abar[t], abar[s] for a step from t down to s < t. Arguments as in `posterior`."""
    abar_t, abar_s = at(abar, t, shape), at(abar, s, shape, "s")
    if not np.all(np.less(s, t)):
        raise ValueError(f"a step goes from t to s < t, got t = {t} and s = {s}")
    return abar_t, abar_s
