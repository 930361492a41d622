"""What the functions of this backend share: coefficients as columns, and steps with `out=`."""
import numpy as np

from kernels import coefficients


def columns(table, x):
    """The K rows of a coefficient table, each shaped to multiply x, in its dtype. table: (K, R). x: (B, ...)."""
    shape = (-1,) + (1,) * (x.ndim - 1) if table.shape[1] != 1 or x.ndim == 0 else ()
    return [row.reshape(shape) for row in table.astype(x.dtype)]


def per_example(terms):
    """The sum over all axes but the first, in pairs whatever the strides. terms: (B, ...)."""
    return np.ascontiguousarray(terms).sum(axis=tuple(range(1, terms.ndim)))


def linear(table, a, b, out):
    """c0 a + c1 b. table: of coefficients (2, R). a, b: (B, ...). out: array or None."""
    return linear_of(columns(table, a), a, b, out)


def linear_of(c, a, b, out):
    """c[0] a + c[1] b. c: from `columns`. a, b, out: as in `linear`."""
    term = np.multiply(c[1], b)
    out = np.multiply(c[0], a, out=out)
    return np.add(out, term, out=out)


def guide(uncond, cond, w):
    """uncond + w (cond - uncond). uncond, cond: (B, ...). w: a number or (B,)."""
    guided = np.subtract(cond, uncond)
    (w,) = columns(coefficients.numbers("w", w, guided.shape).reshape(1, -1), guided)
    np.multiply(guided, w, out=guided)
    return np.add(guided, uncond, out=guided)


def copy(out, z):
    """z written into out. out, z: arrays."""
    out[...] = z
    return out


def softplus(u, out=None, scratch=None):
    """log(1 + e^u) and its derivative, both from e^-|u|. u: array. out: of the derivative. scratch: two arrays to work
    in, the second of which becomes the value, or None."""
    e, value = (None, None) if scratch is None else scratch
    large = np.exp(np.minimum(u, 0, out=out), out=out)  # e^u where u < 0, else 1
    e = np.abs(u, out=e)
    np.exp(np.negative(e, out=e), out=e)
    value = np.add(np.log1p(e, out=value), np.maximum(u, 0), out=value)
    return value, np.divide(large, np.add(e, 1, out=e), out=large)
