"""Twelve operations that the registry does not have, each with two right versions and three wrong ones.

`CASES`: a row is a truth, a right fast version, a right one in another order of operations, and {what is wrong: wrong
version}. The truths say in their annotations what their arguments are.
"""
from collections import namedtuple

import numpy as np

from tests.check import general_counts as counts
from tests.check import general_rows as rows

Row = namedtuple("Row", "truth fast order wrong")


# --- a 3 x 3 convolution ---------------------------------------------------------------------------------------------


def conv(x: "(B, C, H, W) float", weight: "(O, C, 3, 3) float", bias: "(O,) float"):
    H, W = x.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    terms = [np.einsum("bchw,oc->bohw", padded[:, :, i : i + H, j : j + W], weight[:, :, i, j])
             for i in range(3) for j in range(3)]
    return sum(terms) + bias[:, None, None]


def conv_fast(x, weight, bias):
    """One product of matrices, of the windows and the weights."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    (B, C, H, W), O = x.shape, weight.shape[0]
    columns = windows.transpose(0, 2, 3, 1, 4, 5).reshape(B * H * W, C * 9)
    return (columns @ weight.reshape(O, C * 9).T + bias).reshape(B, H, W, O).transpose(0, 3, 1, 2)


@rows.fast([4, 4, 1])
def conv_order(x, weight, bias):
    """A sum for each pixel, the padding skipped."""
    B, C, H, W = x.shape
    out = np.empty((B, weight.shape[0], H, W), x.dtype)
    for b in range(B):
        for o in range(weight.shape[0]):
            for h in range(H):
                for w in range(W):
                    total = bias[o]
                    for c in range(C):
                        for i in range(max(0, 1 - h), min(3, H + 1 - h)):
                            for j in range(max(0, 1 - w), min(3, W + 1 - w)):
                                total += x[b, c, h + i - 1, w + j - 1] * weight[o, c, i, j]
                    out[b, o, h, w] = total
    return out


def conv_flipped(x, weight, bias):
    return conv(x, weight[:, :, ::-1, ::-1], bias)


def conv_edges_repeated(x, weight, bias):
    H, W = x.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge" if x.size else "constant")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return np.einsum("bchwij,ocij->bohw", windows, weight) + bias[:, None, None]


def conv_last_column(x, weight, bias, block=16):
    """The columns after the last whole block lack the bias."""
    out = conv(x, weight, bias)
    whole = x.shape[3] // block * block or x.shape[3]
    out[..., whole:] -= bias[:, None, None]
    return out


# --- causal attention ------------------------------------------------------------------------------------------------


def attention(q: "(B, H, L, D) float", k: "(B, H, L, D) float", v: "(B, H, L, D) float"):
    L, D = q.shape[2:]
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(D)
    scores = np.where(np.tri(L, dtype=bool), scores, -np.inf)
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True) @ v


def attention_fast(q, k, v, block=16):
    """Blocks of keys, with a running maximum and sum."""
    (*_, L, D), kind = q.shape, q.dtype.type
    out, total = np.zeros_like(q), np.zeros((*q.shape[:3], 1), q.dtype)
    most = np.full((*q.shape[:3], 1), -np.inf, q.dtype)
    for first in range(0, L, block):
        keys = slice(first, first + block)
        scores = q @ k[:, :, keys].swapaxes(-1, -2) * kind(1.4426950408889634 / np.sqrt(D))
        seen = np.tri(L, dtype=bool)[:, keys]
        scores = np.where(seen, scores, kind(-np.inf))
        new = np.maximum(most, scores.max(axis=-1, keepdims=True))
        safe = np.where(np.isneginf(new), kind(0), new)
        p, shrink = np.exp2(scores - safe), np.exp2(most - safe)
        total = total * shrink + p.sum(axis=-1, keepdims=True)
        out, most = out * shrink + p @ np.where(seen.any(axis=0)[:, None], v[:, :, keys], 0), new
    return out / total


def attention_order(q, k, v):
    """A query at a time, over the keys that it sees."""
    out, scale = np.empty_like(q), q.dtype.type(q.shape[-1] ** -0.5)
    for i in range(q.shape[2]):
        scores = np.einsum("bhd,bhjd->bhj", q[:, :, i] * scale, k[:, :, : i + 1])
        p = np.exp(scores - scores.max(axis=-1, keepdims=True))
        out[:, :, i] = np.einsum("bhj,bhjd->bhd", p, v[:, :, : i + 1]) / p.sum(axis=-1)[..., None]
    return out


def _attention(q, k, v, seen, scale=None):
    scores = q @ k.swapaxes(-1, -2) * q.dtype.type(scale or q.shape[-1] ** -0.5)
    p = np.where(seen, np.exp(scores - scores.max(axis=-1, keepdims=True)), 0)
    return (p / p.sum(axis=-1, keepdims=True)).astype(q.dtype) @ v


def attention_sees_the_next(q, k, v):
    return _attention(q, k, v, np.tri(q.shape[2], k=1, dtype=bool))


def attention_scaled_twice(q, k, v):
    return _attention(q, k, v, np.tri(q.shape[2], dtype=bool), 1 / q.shape[-1])


def attention_not_renormalised(q, k, v):
    """The mask after the softmax."""
    scores = q @ k.swapaxes(-1, -2) * q.dtype.type(q.shape[-1] ** -0.5)
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True) * np.tri(q.shape[2], dtype=q.dtype) @ v


CASES = [
    Row(rows.softmax, rows.softmax_fast, rows.softmax_order, {
        "no maximum subtracted": rows.softmax_overflows, "sum over the wrong axis": rows.softmax_axis,
        "tail left out of the sum": rows.softmax_tail}),
    Row(rows.logsumexp, rows.logsumexp_fast, rows.logsumexp_order, {
        "no maximum subtracted": rows.logsumexp_overflows, "maximum of all rows": rows.logsumexp_of_all,
        "mean in place of sum": rows.logsumexp_mean}),
    Row(rows.layer_norm, rows.layer_norm_fast, rows.layer_norm_order, {
        "variance in one pass": rows.layer_norm_one_pass, "eps outside the root": rows.layer_norm_eps_outside,
        "N - 1 in place of N": rows.layer_norm_unbiased}),
    Row(rows.rms_norm, rows.rms_norm_fast, rows.rms_norm_order, {
        "eps outside the root": rows.rms_norm_eps_outside, "mean subtracted": rows.rms_norm_centred,
        "width rounded up": rows.rms_norm_padded}),
    Row(rows.rotary, rows.rotary_fast, rows.rotary_order, {
        "sign of the angle": rows.rotary_backwards, "halves in place of pairs": rows.rotary_halves,
        "reads what it has overwritten": rows.rotary_in_place}),
    Row(counts.top_k, counts.top_k_fast, counts.top_k_order, {
        "not sorted": counts.top_k_unsorted, "by absolute value": counts.top_k_of_sizes,
        "index within a block": counts.top_k_in_block}),
    Row(counts.cross_entropy, counts.cross_entropy_fast, counts.cross_entropy_order, {
        "ignored labels counted in the mean": counts.cross_entropy_ignored_counted,
        "ignored labels taken as 0": counts.cross_entropy_ignored_as_0,
        "no maximum subtracted": counts.cross_entropy_no_maximum}),
    Row(counts.cumulative_sum, counts.cumulative_sum_fast, counts.cumulative_sum_order, {
        "exclusive": counts.cumulative_sum_exclusive, "wrong axis": counts.cumulative_sum_axis,
        "no carry between blocks": counts.cumulative_sum_no_carry}),
    Row(counts.int8, counts.int8_fast, counts.int8_order, {
        "half rounded up": counts.int8_half_up, "wraps in place of clipping": counts.int8_wraps,
        "truncated": counts.int8_truncates}),
    Row(counts.histogram, counts.histogram_fast, counts.histogram_order, {
        "last edge left out": counts.histogram_end_left_out, "values outside counted": counts.histogram_outside_counted,
        "nearest edge": counts.histogram_nearest}),
    Row(conv, conv_fast, conv_order, {
        "flipped": conv_flipped, "edges repeated in place of zeros": conv_edges_repeated,
        "no bias in the last columns": conv_last_column}),
    Row(attention, attention_fast, attention_order, {
        "sees the next key": attention_sees_the_next, "scaled twice": attention_scaled_twice,
        "not normalised again after the mask": attention_not_renormalised}),
]  # fmt: skip
