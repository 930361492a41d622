"""Results that lie over an input, beside one, over each other, or around the cache, for every operation."""
import importlib

import numpy as np
import pytest

from kernels import registry
from kernels.numba_cpu.intrinsics import LINE
from tests.kernels.backends import last, make, named, on_each, run, same

CLIP, SHAPE, SHIFT = "optim.clip_by_global_norm", (3, 700), 5
N = SHAPE[0] * SHAPE[1]


def writing(b):
    """Each operation that writes arrays like its data, in one dtype."""
    return [(op,) for op in registry.OPS if op.writes and op.data and (op.in_place or not op.shapes) and op.name != CLIP
            and registry.kernel(op, b.name)]  # fmt: skip


def placed(b, arguments):
    """The arguments with each array in the middle of memory of its own: (arguments, {name: memory})."""
    whole = {}
    for name, array in registry.arrays(arguments).items():
        host = np.zeros(N + 2 * SHIFT, array.dtype)
        host[SHIFT : SHIFT + N] = array.reshape(-1)
        whole[name] = b.send(host)
    return arguments | {n: w[SHIFT : SHIFT + N].reshape(SHAPE) for n, w in whole.items()}, whole


def call(b, op, arguments, outs):
    out = {"out": outs if op.writes > 1 else outs[0]}
    return registry.call(op, registry.kernel(op, b.name), arguments, "float32", **out)


def fresh(b, op):
    return [b.send(np.zeros(SHAPE, np.float32)) for _ in range(op.writes)]


def reads_both(op, i, name):
    """Whether result i is written before the argument is read: of the two losses of a discriminator."""
    return "discriminator" in op.name and ("real", "fake").index(name[:4]) != i


@on_each(lambda b: [row for row in writing(b) if row[0].writes > 1 or not b.slow], ["op"])
def test_any_result_may_lie_exactly_over_any_input(b, op):
    arguments = make(op, SHAPE, **last(op))
    want = run(b, op, arguments)
    for i in range(op.writes):
        for name in list(registry.arrays(arguments))[i % 2 if b.slow else 0 :: 1 + b.slow]:
            mine, _ = placed(b, arguments)
            outs = fresh(b, op)
            outs[i] = mine[name]
            if b.name == "triton_gpu" and reads_both(op, i, name):
                with pytest.raises(ValueError, match=r"\bout\b"):
                    call(b, op, mine, tuple(outs))
                assert same(b.receive(mine[name]), arguments[name])
            else:
                got = [b.receive(r) for r in call(b, op, mine, tuple(outs))]
                assert all(map(same, got, want)), (i, name)


@on_each(writing, ["op"])
def test_a_result_beside_an_input_is_right_or_refused(b, op):
    """By a shift in either direction: the CPU goes by way of other memory, a GPU refuses and writes nothing."""
    arguments = make(op, SHAPE, **last(op))
    want = run(b, op, arguments) if b.name == "numba_cpu" else None
    for i in range(op.writes):
        for name in registry.arrays(arguments):
            for shift in (1, 2 * SHIFT - 1):
                mine, whole = placed(b, arguments)
                outs = fresh(b, op)
                outs[i] = whole[name][shift : shift + N].reshape(SHAPE)
                if b.name == "triton_gpu":
                    with pytest.raises(ValueError, match=r"\bout\b"):
                        call(b, op, mine, tuple(outs))
                    assert same(b.receive(mine[name]), arguments[name])
                else:
                    assert all(map(same, call(b, op, mine, tuple(outs)), want)), (i, name, shift)


@on_each(lambda b: [row for row in writing(b) if row[0].writes > 1], ["op"])
def test_results_that_share_an_element_are_refused(b, op):
    arguments = registry.sent(make(op, SHAPE, **last(op)), b.send)
    for i in range(op.writes):
        for j in range(i):
            for shift in (0, 1, N - 1, -1, 1 - N):
                memory = b.send(np.full(3 * N, 7, np.float32))
                outs = fresh(b, op)
                outs[i], outs[j] = (memory[at : at + N].reshape(SHAPE) for at in (N, N + shift))
                with pytest.raises(ValueError, match=r"\bout\b"):
                    call(b, op, arguments, tuple(outs))
                assert np.all(b.receive(memory) == 7)


@on_each(lambda b: [(shift,) for shift in (0, 1, 3)], ["shift"])
def test_clipped_gradients_may_lie_over_their_own_and_no_other(b, shift):
    """Each is read after the ones before it were written: over another's memory the CPU keeps it, a GPU refuses."""
    rng, clip = np.random.default_rng(0), b.modules.optim.clip_by_global_norm
    grads = list(rng.standard_normal((2, 40)).astype(np.float32))
    want = list(map(b.receive, clip([b.send(g.copy()) for g in grads], 1.0)[0]))
    memory = b.send(np.concatenate([grads[1], np.zeros(8, np.float32)]))
    mine = [b.send(grads[0].copy()), memory[:40]]
    outs = [memory[shift : shift + 40], b.send(np.zeros(40, np.float32))]
    if b.name == "triton_gpu":
        with pytest.raises(ValueError, match=r"\bout\b"):
            clip(mine, 1.0, out=outs)
        assert same(b.receive(mine[1]), grads[1])
    else:
        assert all(map(same, clip(mine, 1.0, out=outs)[0], want))
    with pytest.raises(ValueError, match=r"\bout\b"):
        clip([b.send(g.copy()) for g in grads], 1.0, out=[memory[:40], memory[shift : shift + 40]])


@on_each()
def test_a_trajectory_over_the_weights_is_right_or_refused(b):
    op = named("fused.mlp_sample")
    arguments = make(op, (4, 5), width=4) | {"times": [500, 20, 0]}
    (want,), mine = run(b, op, arguments), registry.sent(arguments, lambda a: b.send(a.copy()))
    over = mine["params"]["w2"].reshape(4, 5)
    if b.name == "triton_gpu":
        with pytest.raises(ValueError, match=r"\bout\b"):
            registry.kernel(op, b.name)(**mine, out=over)
        assert same(b.receive(over).reshape(5, 4), arguments["params"]["w2"])
    else:
        assert same(registry.kernel(op, b.name)(**mine, out=over), want)


def streaming(b):
    ops = [op for op in registry.OPS if op.writes and not op.shapes and op.name != CLIP and b.name == "numba_cpu"]
    return [(op, d) for op in ops if registry.kernel(op, b.name) for d in op.dtypes]


@on_each(streaming, ["op", "dtype"])
def test_streamed_stores_write_every_element_once(b, op, dtype, monkeypatch):
    """As results larger than the cache are written, from every place in a line, and also less than a line."""
    engine, step = importlib.import_module("kernels.numba_cpu.engine"), np.dtype(registry.like(dtype)).itemsize
    monkeypatch.setattr(engine, "CACHE_BYTES", 0)
    for shape in ((2, 3), (2, 549)):
        arguments = make(op, shape, dtype, **last(op))
        with monkeypatch.context() as patched:
            patched.setattr(engine, "CACHE_BYTES", 2**40)
            want = run(b, op, arguments, dtype)
        size = int(np.prod(shape))
        for first in range(LINE // step):
            memory = [np.full(size + 3 * LINE // step, 7, registry.like(dtype)) for _ in range(op.writes)]
            outs = tuple(m[first : first + size].reshape(shape) for m in memory)
            got = run(b, op, arguments, dtype, out=outs if op.writes > 1 else outs[0])
            assert all(map(same, got, want)), (shape, first)
            assert all(np.all(m[:first] == 7) and np.all(m[first + size :] == 7) for m in memory)
