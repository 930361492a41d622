"""Operations along rows: a truth, two right versions and three wrong ones of each, see `general_cases`."""
import functools

import numba
import numpy as np


def lying_anyhow(dtype, ndim):
    """The type of an array of any layout, aligned or not, that is read: one for all arrays that the checker makes."""
    return numba.types.Array(dtype, ndim, "A", readonly=True, aligned=False)


def fast(dims, *more):
    """Decorates a function, which is compiled at its first call for float32 and for float64, and not again for each
    layout of each array. dims: of its arrays of these dtypes, which come first. more: types of its other arguments."""
    def decorated(function):
        compiled = numba.njit(error_model="numpy", cache=True)(function)

        @functools.wraps(function)
        def called(*given, **named):
            if not compiled.signatures:
                for dtype in (numba.float32, numba.float64):
                    compiled.compile((*(lying_anyhow(dtype, n) for n in dims), *more))
                compiled.disable_compile()
            return compiled(*given, **named)

        return called

    return decorated


# --- softmax ---------------------------------------------------------------------------------------------------------


def softmax(x: "(B, N) float"):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@fast([2])
def softmax_fast(x):
    """One pass over a row for the maximum and the sum, as on a GPU."""
    out = np.empty_like(x)
    for i in range(x.shape[0]):
        most, total = x[i, 0], x.dtype.type(0)
        for j in range(x.shape[1]):
            new = max(most, x[i, j]) if x[i, j] == x[i, j] and most == most else x.dtype.type(np.nan)
            total = total * np.exp(most - new) + np.exp(x[i, j] - new)
            most = new
        for j in range(x.shape[1]):
            out[i, j] = np.exp(x[i, j] - most) / total
    return out


def softmax_order(x):
    """By powers of two, with one reciprocal for a row."""
    scaled = x * x.dtype.type(1.4426950408889634)
    e = np.exp2(scaled - scaled.max(axis=1, keepdims=True))
    return e * (1 / e.sum(axis=1, keepdims=True))


def softmax_overflows(x):
    e = np.exp(x)
    return e / e.sum(axis=-1, keepdims=True)


def softmax_axis(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=0, keepdims=True)


def softmax_tail(x, block=128):
    """The columns after the last whole block are left out of the sum."""
    whole = x.shape[1] // block * block or x.shape[1]
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e[:, :whole].sum(axis=-1, keepdims=True)


# --- log-sum-exp -----------------------------------------------------------------------------------------------------


def logsumexp(x: "(B, N) float"):
    most = x.max(axis=1)
    return most + np.log(np.exp(x - most[:, None]).sum(axis=1))


def logsumexp_fast(x):
    most = np.maximum.reduce(x, axis=1, keepdims=True)
    e = np.subtract(x, most)
    np.exp(e, out=e)
    return np.log(np.add.reduce(e, axis=1)) + most[:, 0]


def logsumexp_order(x):
    """A pair at a time."""
    total = x[:, 0]
    for j in range(1, x.shape[1]):
        total = np.logaddexp(total, x[:, j])
    return np.array(total)


def logsumexp_overflows(x):
    return np.log(np.exp(x).sum(axis=1))


def logsumexp_of_all(x):
    most = x.max()
    return most + np.log(np.exp(x - most).sum(axis=1))  # underflows in rows far below the largest


def logsumexp_mean(x):
    most = x.max(axis=1)
    return most + np.log(np.exp(x - most[:, None]).mean(axis=1))


# --- layer norm ------------------------------------------------------------------------------------------------------


def layer_norm(x: "(B, N) float", gamma: "(N,) float", beta: "(N,)", eps: "float in [1e-6, 1e-3]"):
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = np.mean(centred**2, axis=-1, keepdims=True)
    return centred / np.sqrt(variance + eps) * gamma + beta


@fast([2, 1, 1], numba.float64)
def layer_norm_fast(x, gamma, beta, eps):
    """Welford's mean and variance."""
    out = np.empty_like(x)
    for i in range(x.shape[0]):
        mean, squares = 0 * eps, 0 * eps
        for j in range(x.shape[1]):
            off = x[i, j] - mean
            mean += off / (j + 1)
            squares += off * (x[i, j] - mean)
        scale = 1 / np.sqrt(squares / x.shape[1] + eps)
        for j in range(x.shape[1]):
            out[i, j] = (x[i, j] - mean) * scale * gamma[j] + beta[j]
    return out


def layer_norm_order(x, gamma, beta, eps):
    """x scale + shift, with both made per row."""
    mean, kind = x.mean(axis=1, keepdims=True), x.dtype.type
    scale = 1 / np.sqrt(np.square(x - mean).sum(axis=1, keepdims=True) / kind(x.shape[1]) + kind(eps))
    return (gamma * scale) * (x - mean) + beta


def layer_norm_one_pass(x, gamma, beta, eps):
    mean = x.mean(axis=-1, keepdims=True)
    variance = np.mean(x**2, axis=-1, keepdims=True) - mean**2
    return (x - mean) / np.sqrt(variance + eps) * gamma + beta


def layer_norm_eps_outside(x, gamma, beta, eps):
    return (x - x.mean(axis=-1, keepdims=True)) / (x.std(axis=-1, keepdims=True) + x.dtype.type(eps)) * gamma + beta


def layer_norm_unbiased(x, gamma, beta, eps):
    centred, kind = x - x.mean(axis=-1, keepdims=True), x.dtype.type
    variance = np.sum(centred**2, axis=-1, keepdims=True) / kind(max(x.shape[1] - 1, 1))
    return centred / np.sqrt(variance + kind(eps)) * gamma + beta


# --- RMS norm --------------------------------------------------------------------------------------------------------


def rms_norm(x: "(B, L, N) float", weight: "(N,) float", eps: "float in [1e-6, 1e-3]"):
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + eps) * weight


def rms_norm_fast(x, weight, eps):
    squares = np.einsum("bln,bln->bl", x, x) / x.dtype.type(x.shape[-1])
    return x * (weight / np.sqrt(squares + x.dtype.type(eps))[..., None])


def rms_norm_order(x, weight, eps):
    """The sum scaled by the largest element."""
    most = np.maximum(np.abs(x).max(axis=-1, keepdims=True), x.dtype.type(1e-3))
    small = x / most
    return weight * small / np.sqrt(np.mean(small * small, axis=-1, keepdims=True) + x.dtype.type(eps) / most / most)


def rms_norm_eps_outside(x, weight, eps):
    return x / (np.sqrt(np.mean(x**2, axis=-1, keepdims=True)) + x.dtype.type(eps)) * weight


def rms_norm_centred(x, weight, eps):
    return rms_norm(x - x.mean(axis=-1, keepdims=True), weight, eps)


def rms_norm_padded(x, weight, eps):
    """The mean over the width rounded up to a multiple of 4."""
    width = x.dtype.type(-(-x.shape[-1] // 4) * 4)
    return x / np.sqrt(np.sum(x**2, axis=-1, keepdims=True) / width + x.dtype.type(eps)) * weight


# --- rotary embedding ------------------------------------------------------------------------------------------------


def rotary(x: "(B, L, 2 * D) float", angle: "(L, D) float"):
    cos, sin = np.cos(angle), np.sin(angle)
    even, odd = x[..., ::2], x[..., 1::2]
    return np.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1).reshape(x.shape)


def rotary_fast(x, angle):
    out, cos, sin = np.empty_like(x), np.cos(angle), np.sin(angle)
    out[..., 0::2] = x[..., 0::2] * cos
    out[..., 0::2] -= x[..., 1::2] * sin
    out[..., 1::2] = x[..., 0::2] * sin
    out[..., 1::2] += x[..., 1::2] * cos
    return out


def rotary_order(x, angle):
    """As a product of complex numbers."""
    turned = (x[..., ::2] + 1j * x[..., 1::2]) * np.exp(1j * angle)
    return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape).astype(x.dtype)


def rotary_backwards(x, angle):
    return rotary(x, -angle)


def rotary_halves(x, angle):
    """The other convention: first half and second half in place of even and odd."""
    cos, sin, half = np.cos(angle), np.sin(angle), x.shape[-1] // 2
    first, second = x[..., :half], x[..., half:]
    return np.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)


def rotary_in_place(x, angle):
    """The second half reads what the first has overwritten."""
    out, cos, sin = np.array(x), np.cos(angle), np.sin(angle)
    out[..., ::2] = out[..., ::2] * cos - out[..., 1::2] * sin
    out[..., 1::2] = out[..., ::2] * sin + out[..., 1::2] * cos
    return out
