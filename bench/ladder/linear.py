"""A matrix product on the CPU, y = x w^T: n multiply-adds for each number of the result, so arithmetic is the limit."""
import numba
import numpy as np

from kernels.numba_cpu import layers
from kernels.numba_cpu.engine import COMPILE

OP, OPTIONS = "layers.linear", {"outputs": 512, "bias": False}
SHAPE, SMALL = (512, 512), (19, 45)
PLAIN = COMPILE | {"cache": False}
BLOCK, TERMS, ROWS = 16, 4, 3  # terms of a block, terms and rows at a time


@numba.njit(**PLAIN)
def _sums(y, x, w):
    for i in range(len(x)):
        for j in range(len(w)):
            s = x.dtype.type(0)
            for k in range(x.shape[1]):
                s += x[i, k] * w[j, k]
            y[i, j] = s


def one_sum(x, w, b):
    """Three loops: each number of the result is a sum over the terms.

    Predicted: a sum waits four cycles for the one before, and no order but this is allowed: 1 % of the peak."""
    y = np.empty((len(x), len(w)), x.dtype)
    _sums(y, x, w)
    return y


@numba.njit(**PLAIN)
def _rows(y, x, turned, begin, end):
    for i in range(len(x)):
        row = y[i]
        for k in range(begin, end):
            a, p = x[i, k], turned[k]
            for j in range(row.size):
                row[j] += a * p[j]


def across(x, w, b):
    """The loop over outputs is the inner one, over w turned round: 8 or 16 sums at a time, none of which waits.

    Predicted: two loads and a store for each multiply-add of a vector, and for each row all of w from the second-level
    cache: 15 times, 15 % of the peak."""
    y = np.zeros((len(x), len(w)), x.dtype)
    _rows(y, x, np.ascontiguousarray(w.T), 0, x.shape[1])
    return y


def in_blocks(x, w, b):
    """16 terms of w are used for all rows before the next ones.

    Predicted: w comes from the first-level cache, the loads and stores are as many: 1.3 times."""
    y, turned = np.zeros((len(x), len(w)), x.dtype), np.ascontiguousarray(w.T)
    for k in range(0, x.shape[1], BLOCK):
        _rows(y, x, turned, k, min(k + BLOCK, x.shape[1]))
    return y


@numba.njit(**PLAIN)
def _tiles(y, x, turned, begin, end):
    """For rows and terms that ROWS and TERMS divide."""
    for i in range(0, len(x) // ROWS * ROWS, ROWS):
        e, f, g = y[i], y[i + 1], y[i + 2]
        for k in range(begin, end, TERMS):
            e0, e1, e2, e3 = x[i, k], x[i, k + 1], x[i, k + 2], x[i, k + 3]
            f0, f1, f2, f3 = x[i + 1, k], x[i + 1, k + 1], x[i + 1, k + 2], x[i + 1, k + 3]
            g0, g1, g2, g3 = x[i + 2, k], x[i + 2, k + 1], x[i + 2, k + 2], x[i + 2, k + 3]
            p, q, r, s = turned[k], turned[k + 1], turned[k + 2], turned[k + 3]
            for j in range(e.size):
                e[j] += e0 * p[j] + e1 * q[j] + e2 * r[j] + e3 * s[j]
                f[j] += f0 * p[j] + f1 * q[j] + f2 * r[j] + f3 * s[j]
                g[j] += g0 * p[j] + g1 * q[j] + g2 * r[j] + g3 * s[j]


def three_by_four(x, w, b):
    """Three rows go through four terms together: a number of w is loaded for three multiply-adds, one of y for four.
    More than these 12 numbers and 7 vectors the compiler spills.

    Predicted: 10 loads and stores for 12 multiply-adds in place of 36: 2 times, a third of the peak."""
    y, turned = np.zeros((len(x), len(w)), x.dtype), np.ascontiguousarray(w.T)
    full, rows = x.shape[1] // TERMS * TERMS, len(x) // ROWS * ROWS
    for k in range(0, full, BLOCK):
        _tiles(y, x, turned, k, min(k + BLOCK, full))
    _rows(y[:rows], x[:rows], turned, full, x.shape[1])
    _rows(y[rows:], x[rows:], turned, 0, x.shape[1])
    return y


def kernel(x, w, b):
    """The project's kernel: a tile of 8 rows by two vectors has its sums in 16 registers over the whole depth, which
    takes code for the compiler's back end, since its loops spill them; w stands in panels of a tile's width.

    Predicted: 10 loads for 16 multiply-adds and no store: two multiply-adds a cycle, near the peak."""
    return layers.linear(x, w, b)


RUNGS = one_sum, across, in_blocks, three_by_four, kernel
