"""What public kernels of networks break, on every backend that has the operation: rows that see nothing, NaN that is
not seen, scores past what float16 holds, groups that several programs share, an example alone and in its batch."""
import importlib

import numpy as np
import pytest

from kernels import registry, tolerance
from tests.kernels.backends import last, make, named, on_each, run, same

EXAMPLES = {op.name: op.examples for op in registry.OPS if op.name.startswith("layers.") and op.examples}


def having(*names, on=""):
    """Parametrisation by backend and those of the operations that it has, in each dtype. on: the only backend."""

    def rows(b):
        if on not in ("", b.name):
            return []
        ops = [named(f"layers.{name}") for name in names]
        return [(op, d) for op in ops if registry.kernel(op, b.name) for d in registry.dtypes(op, b.name)]

    return on_each(rows, ["op", "dtype"])


def holds(b, op, arguments, dtype):
    for result, rule in zip(run(b, op, arguments, dtype), registry.expected(op, arguments, dtype), strict=True):
        tolerance.assert_matches(result, rule)


def heads(op, dtype, **told):
    return make(op, (2, 2, 19, 8), dtype, **{"keys": 3, "causal": False, "masked": None, "wide": None} | told)


@having(*(name.split(".")[1] for name in EXAMPLES))
def test_an_example_alone_has_the_bits_that_it_has_in_its_batch_and_keeps_its_nan(b, op, dtype):
    arguments = make(op, next(s for s in op.shapes if len(s) > 2 and s[0] > 1), dtype, **last(op))
    batch, names = run(b, op, arguments, dtype), [n for n in EXAMPLES[op.name] if arguments[n] is not None]
    alone = run(b, op, arguments | {n: np.ascontiguousarray(arguments[n][:1]) for n in names}, dtype)
    spoiled = {names[0]: arguments[names[0]].copy()}
    spoiled[names[0]][1:] = np.nan
    with_nan = run(b, op, arguments | spoiled, dtype)
    for whole, first, other in zip(batch, alone, with_nan, strict=True):
        assert same(first, whole[:1]) and same(other[:1], first)
    assert any(np.isnan(np.float64(other[1:])).any() for other in with_nan)


@having("attention", "attention_backward")
def test_a_query_that_sees_nothing_is_0_with_gradient_0(b, op, dtype):
    arguments = heads(op, dtype, masked="rows")
    results, rules = run(b, op, arguments, dtype), registry.expected(op, arguments, dtype)
    assert np.all(results[0][:, :, 0] == 0) and np.all(rules[0].truth[:, :, 0] == 0) and np.any(results[0] != 0)
    causal = heads(op, dtype, keys=-5, causal=True)  # the first five queries come before every key
    results = run(b, op, causal, dtype)
    assert np.all(results[0][:, :, :5] == 0) and np.all(np.any(results[0][:, :, 5:] != 0, axis=-1)[..., 1:])


@having("attention", "attention_backward")
def test_nan_counts_where_it_is_seen_and_nowhere_else(b, op, dtype):
    arguments = heads(op, dtype, masked="rows") | {"causal": True}
    arguments["mask"] = arguments["mask"].copy()
    arguments["mask"][:, :, 10:] = True
    gradient, unseen = "dy" in arguments, 4
    arguments["mask"][..., unseen] = False
    for name in ("k", "v"):
        arguments[name][:, :, unseen] = np.nan
    holds(b, op, arguments, dtype)
    if not gradient:
        arguments["v"][0, 0, 20, 3] = np.nan  # of a key that queries from 17 on see
        (y,) = run(b, op, arguments, dtype)
        assert np.array_equal(np.argwhere(np.isnan(np.float64(y))), [[0, 0, 17, 3], [0, 0, 18, 3]])


@having("attention", "attention_backward")
def test_scores_that_no_float16_holds(b, op, dtype):
    arguments = heads(op, dtype)
    for name in ("q", "k"):
        arguments[name] = (np.float64(arguments[name]) * 300).astype(arguments[name].dtype)
    scores = np.float64(arguments["q"]) @ np.float64(arguments["k"]).swapaxes(2, 3)
    assert np.max(np.abs(scores)) > 65504
    results, rules = run(b, op, arguments, dtype), registry.expected(op, arguments, dtype)
    assert all(np.all(np.isfinite(np.float64(r))) for r in results)
    assert all(tolerance.error(*pair) <= 1 for pair in zip(results, rules, strict=True))
    tolerance.assert_matches(results[-1], rules[-1])  # y or dv; little is left of the others


@having("attention")
def test_one_array_may_be_queries_keys_and_values(b, op, dtype):
    arguments = heads(op, dtype, keys=0)
    x = b.send(arguments["q"])
    want = run(b, op, arguments | {"k": arguments["q"], "v": arguments["q"]}, dtype)[0]
    assert same(b.receive(registry.kernel(op, b.name)(x, x, x)), want)


@having("attention_backward", on="triton_gpu")
def test_the_sums_that_the_forward_leaves_give_the_same_gradient(b, op, dtype):
    """With them the gradient takes no pass to make them again. Then y is rounded, so halves err by more."""
    kernel, forward = (registry.kernel(named(f"layers.{n}"), b.name) for n in ("attention_backward", "attention"))
    arguments = heads(op, dtype, masked="rows")
    sent = registry.sent(arguments, b.send)
    logs = b.send(np.empty((2, 2, 19), np.float32))
    y = forward(*(sent[n] for n in ("q", "k", "v", "mask")), scratch=logs)
    found = [np.float64(b.receive(g)) for g in kernel(**sent, scratch=(y, logs))]
    for gradient, rule in zip(found, registry.expected(op, arguments, dtype), strict=True):
        slack = 0 if dtype == "float32" else 4 * tolerance.EPS[dtype]
        tolerance.assert_matches(gradient, tolerance.Rule(rule.truth, rule.allowed + slack))


@having("group_norm_silu", "group_norm_silu_backward", on="triton_gpu")
def test_groups_that_several_programs_share(b, op, dtype, monkeypatch):
    group = importlib.import_module(f"kernels.{b.name}.layers.group")
    monkeypatch.setattr(group, "KEPT", {"forward": 0, "backward": 0})
    for shape, shared in (((2, 4, 5, 7), 1 << 16), ((1, 4, 3, 33), 10)):
        monkeypatch.setattr(group, "SHARED", shared)
        for offset in (0.0, 1e4):
            holds(b, op, make(op, shape, dtype, offset=offset, groups=2), dtype)
    monkeypatch.setattr(group, "WIDEST", 16)  # columns of a tile, so that there are several parts
    holds(b, op, make(op, (1, 6, 5, 41), dtype, offset=1e4, groups=2), dtype)


@having("group_norm_silu", "layer_norm_modulate", "gate_residual", "rms_norm")
def test_the_result_may_lie_over_the_input_and_on_a_gpu_not_next_to_it(b, op, dtype):
    arguments = make(op, op.shapes[1], dtype, **last(op))
    (want,) = run(b, op, arguments, dtype)
    mine, kernel = registry.sent(arguments, lambda a: b.send(a.copy())), registry.kernel(op, b.name)
    assert kernel(**mine, out=mine["x"]) is mine["x"] and same(b.receive(mine["x"]), want)
    memory = b.send(np.zeros(2 * want.size, arguments["x"].dtype))
    x, out = memory[: want.size].reshape(want.shape), memory[1 : 1 + want.size].reshape(want.shape)
    if b.name == "triton_gpu":
        with pytest.raises(ValueError, match=r"\bout\b"):
            kernel(**mine | {"x": x}, out=out)
