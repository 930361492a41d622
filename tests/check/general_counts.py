"""Operations with integers and sums: a truth, two right versions and three wrong ones of each, see `general_cases`."""
import numba
import numpy as np

from tests.check.general_rows import fast, lying_anyhow


# --- top-k -----------------------------------------------------------------------------------------------------------


def top_k(x: "(B, N) float", k: "int in [1, N]"):
    index = np.argsort(-x, axis=-1)[:, :k]
    return np.take_along_axis(x, index, axis=-1), index


def top_k_fast(x, k):
    some = np.argpartition(-x, k - 1, axis=-1)[:, :k]
    order = np.argsort(-np.take_along_axis(x, some, axis=-1), axis=-1, kind="stable")
    index = np.take_along_axis(some, order, axis=-1)
    return np.take_along_axis(x, index, axis=-1), index


def top_k_order(x, k):
    """From the end of an ascending order: of equal elements the last comes first. Indices of 32 bits."""
    index = np.argsort(x, axis=-1, kind="stable")[:, ::-1][:, :k].astype(np.int32)
    return np.take_along_axis(x, index, axis=-1), index


def top_k_unsorted(x, k):
    index = np.argpartition(-x, k - 1, axis=-1)[:, :k]
    return np.take_along_axis(x, index, axis=-1), index


def top_k_of_sizes(x, k):
    index = np.argsort(-np.abs(x), axis=-1)[:, :k]
    return np.take_along_axis(x, index, axis=-1), index


def top_k_in_block(x, k, block=64):
    """Indices count from the start of their block."""
    values, index = top_k(x, k)
    return values, index % block


# --- cross-entropy with ignored labels -------------------------------------------------------------------------------


def cross_entropy(logits: "(B, C) float", labels: "(B,) ints below C or -100"):
    kept = labels != -100
    most = logits.max(axis=-1, keepdims=True)
    log_p = logits - most - np.log(np.exp(logits - most).sum(axis=-1, keepdims=True))
    chosen = np.take_along_axis(log_p, np.where(kept, labels, 0)[:, None], axis=-1)[:, 0]
    return -np.sum(np.where(kept, chosen, 0)) / np.sum(kept)


@fast([2], lying_anyhow(numba.int64, 1))
def cross_entropy_fast(logits, labels):
    total, count = 0.0, 0
    for i in range(logits.shape[0]):
        if labels[i] == -100:
            continue
        most, sum_ = logits[i].max(), 0.0
        for j in range(logits.shape[1]):
            sum_ += np.exp(logits[i, j] - most)
        total += np.log(sum_) + most - logits[i, labels[i]]
        count += 1
    return total / count


def cross_entropy_order(logits, labels):
    """Only the rows that count."""
    rows = np.flatnonzero(labels >= 0)
    kept = logits[rows]
    total = np.logaddexp.reduce(kept, axis=1) if kept.size else kept[:, 0]
    return np.mean(total - kept[np.arange(rows.size), labels[rows]])


def cross_entropy_ignored_counted(logits, labels):
    return cross_entropy(logits, labels) * logits.dtype.type(np.mean(labels != -100))


def cross_entropy_ignored_as_0(logits, labels):
    return cross_entropy(logits, np.where(labels == -100, 0, labels))


def cross_entropy_no_maximum(logits, labels):
    log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    rows = np.flatnonzero(labels != -100)
    return -log_p[rows, labels[rows]].mean()


# --- cumulative sum --------------------------------------------------------------------------------------------------


def cumulative_sum(x: "(B, N) float"):
    return np.cumsum(x, axis=1)


@fast([2])
def cumulative_sum_fast(x):
    out = np.empty_like(x)
    for i in range(x.shape[0]):
        total = x.dtype.type(0)
        for j in range(x.shape[1]):
            total += x[i, j]
            out[i, j] = total
    return out


def cumulative_sum_order(x, block=32, carry=True):
    """Within blocks, then the sums of the blocks before."""
    parts = [np.cumsum(x[:, i : i + block], axis=1) for i in range(0, x.shape[1], block)]
    before = np.zeros((x.shape[0], 1), x.dtype)
    for part in parts:
        part += before * carry
        before = part[:, -1:].copy()
    return np.concatenate(parts, axis=1) if parts else x.copy()


def cumulative_sum_exclusive(x):
    return np.concatenate([np.zeros_like(x[:, :1]), np.cumsum(x, axis=1)[:, :-1]], axis=1)


def cumulative_sum_axis(x):
    return np.cumsum(x, axis=0)


def cumulative_sum_no_carry(x):
    return cumulative_sum_order(x, 128, False)


# --- int8, there and back --------------------------------------------------------------------------------------------


def int8(x: "(B, N) float", scale: "float in [1e-3, 1]"):
    q = np.clip(np.rint(x / scale), -128, 127).astype(np.int8)
    return q, q.astype(x.dtype) * scale


@fast([2], numba.float64)
def int8_fast(x, scale):
    q, back, step = np.empty(x.shape, np.int8), np.empty_like(x), x.dtype.type(scale)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            q[i, j] = min(max(np.rint(x[i, j] / step), -128), 127)
            back[i, j] = q[i, j] * step
    return q, back


def int8_order(x, scale):
    """By the reciprocal, in the dtype of the data, clipped before it is rounded."""
    q = np.rint(np.clip(x * (1 / x.dtype.type(scale)), -128, 127))
    return q.astype(np.int8), q * x.dtype.type(scale)


def int8_half_up(x, scale):
    q = np.clip(np.floor(x / x.dtype.type(scale) + x.dtype.type(0.5)), -128, 127).astype(np.int8)
    return q, q.astype(x.dtype) * x.dtype.type(scale)


def int8_wraps(x, scale):
    q = np.rint(x / scale).astype(np.int64).astype(np.int8)
    return q, q.astype(x.dtype) * x.dtype.type(scale)


def int8_truncates(x, scale):
    q = np.clip(np.trunc(x / scale), -128, 127).astype(np.int8)
    return q, q.astype(x.dtype) * x.dtype.type(scale)


# --- histogram -------------------------------------------------------------------------------------------------------


def histogram(x: "(N,) float", bins: "int in [1, 32]", low: "float in [-4, -1]", high: "float in [1, 4]"):
    return np.histogram(x, bins, (low, high))[0]


@fast([1], numba.int64, numba.float64, numba.float64)
def histogram_fast(x, bins, low, high):
    counts = np.zeros(bins, np.int64)
    for i in range(x.size):
        if low <= x[i] <= high:
            counts[min(int((x[i] - low) * (bins / (high - low))), bins - 1)] += 1
    return counts


def histogram_order(x, bins, low, high):
    """Each edge looked up among the sorted values."""
    edges = np.linspace(low, high, bins + 1)
    x = np.sort(x[~np.isnan(x)])
    before = np.searchsorted(x, edges, side="left")
    before[-1] = np.searchsorted(x, edges[-1], side="right")
    return np.diff(before)


def histogram_end_left_out(x, bins, low, high):
    return np.histogram(x[x < high], bins, (low, high))[0]


def histogram_outside_counted(x, bins, low, high):
    return np.histogram(np.clip(x, low, high), bins, (low, high))[0]


def histogram_nearest(x, bins, low, high):
    """Rounds to the nearest edge in place of down."""
    inside = x[(x >= low) & (x <= high)]
    index = np.rint((inside - low) / (high - low) * bins).astype(int)
    return np.bincount(np.minimum(index, bins - 1), minlength=bins)
