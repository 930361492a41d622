"""A prepared call computes what the plain call does, to the bit, with the numbers and times of each call."""
import numpy as np
import pytest

from kernels import registry
from kernels.prepare import prepare
from tests.kernels.backends import last, make, named, on_each, same

CHANGING = {"t", "s", "u", "seed", "stream", "w", "step", "sigma", "sigma_next", "decay", "eta", "dkl", "dnll", "dloss"}
LISTS = "fused.mlp_sample", "fused.mlp_train", "optim.clip_by_global_norm"  # of arrays
WAITS = "scene.splat"  # for how many programs its values need
SUMS = "vae.reparameterize_kl", "vae.bernoulli_nll_grad"  # which the CPU finishes in Python


def ready(b, op):
    sums = not op.rowwise or op.name in SUMS
    fits = op.data and op.writes and op.name not in (*LISTS, WAITS) and not (sums and b.name == "numba_cpu")
    return registry.kernel(op, b.name) and fits


def given(b, op, arguments):
    """The arguments that are prepared, with memory for the results, and those of each call."""
    sent = registry.sent(arguments, b.send, op)
    changing = {name: x for name, x in sent.items() if name in CHANGING and name not in op.data}
    fixed = {name: x for name, x in sent.items() if name not in changing}
    function = registry.kernel(op, b.name)
    like = [arguments[op.data[0]]] * op.writes
    if op.shapes and not op.orders:  # results have shapes of their own
        like = [b.receive(r) for r in registry.outputs(function(**sent))][: op.writes]
    arrays = tuple(b.send(np.zeros_like(x)) for x in like)
    takes_out = "out" in function.__code__.co_varnames
    return fixed | ({"out": arrays if op.writes > 1 else arrays[0]} if takes_out else {}), changing


@on_each(lambda b: [(op,) for op in registry.OPS if ready(b, op)], ["op"])
def test_a_prepared_call_is_the_call(b, op):
    arguments, function = make(op, (3, 40), "float32", **last(op)), registry.kernel(op, b.name)
    fixed, changing = given(b, op, arguments)
    call, free = prepare(function, **fixed), {n: x for n, x in fixed.items() if n != "out"}
    noise = {"seed": 5, "stream": 2**63} if "seed" in changing else {}
    times = {"t": 3, "s": 1} if "abar" in fixed and "s" in changing else {}
    for these in (changing, changing | noise, changing, changing | times, changing | times | noise):
        results = [np.array(b.receive(r)) for r in registry.outputs(call(**these))]
        wanted = registry.outputs(function(**free, **these))
        assert all(same(a, b.receive(w)) for a, w in zip(results, wanted, strict=True))


@on_each(lambda b: [("fused.guided_ddim_step",)], ["name"])
def test_the_arrays_are_read_as_they_are_at_each_call(b, name):
    if b.name == "triton_gpu" and not b.slow:
        pytest.skip("memory of a GPU is not written from here")
    op = named(name)
    arguments = make(op, (3, 40), "float32", **last(op))
    fixed, changing = given(b, op, arguments)
    call, function = prepare(registry.kernel(op, b.name), **fixed), registry.kernel(op, b.name)
    call(**changing)
    fixed["xt"][:] = fixed["cond"]
    again = np.array(call(**changing))
    assert same(again, function(**{n: x for n, x in fixed.items() if n != "out"}, **changing))


@on_each(lambda b: [("fused.guided_ddim_step",)], ["name"])
def test_what_cannot_be_prepared_is_refused(b, name):
    op = named(name)
    fixed, changing = given(b, op, make(op, (3, 40), "float32", **last(op)))
    function = registry.kernel(op, b.name)
    with pytest.raises(TypeError, match="out"):
        prepare(function, **{n: x for n, x in fixed.items() if n != "out"})
    call = prepare(function, **fixed)
    with pytest.raises(ValueError, match="s"):
        call(**changing | {"t": 3, "s": 3})
    with pytest.raises(TypeError, match="t"):
        call(**changing | {"t": 3.0, "s": 1})
    with pytest.raises(ValueError, match="seed"):
        call(**changing | {"seed": -1})
    call(**changing)
    with pytest.raises(ValueError, match="seed"):
        call(**changing | {"seed": 2**64})
    with pytest.raises(TypeError, match="missing"):
        call(**{n: x for n, x in changing.items() if n != "t"})
    with pytest.raises(TypeError, match="splat|sum"):
        splat = named(WAITS)
        arguments, _ = given(b, splat, make(splat, (3, 4, 5), "float32", cut=True))
        prepare(registry.kernel(splat, b.name), **arguments)()
    with pytest.raises(TypeError, match="params"):
        prepare(b.modules.fused.mlp_sample, params={}, out=fixed["out"])
    if b.name == "numba_cpu":
        loss = prepare(b.modules.fused.eps_loss_grad, fixed["xt"], fixed["cond"], out=fixed["out"])
        with pytest.raises(TypeError, match="sum"):
            loss()
