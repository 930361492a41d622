"""What is special to `audio.wavenet_generate` on every backend: a longer sound, u at its ends, no sound at all, an
example alone. And its rule, equality where each u is MARGIN from an end of its code's interval, sees every part of the
net."""
import numpy as np
import pytest

from kernels import registry, tolerance
from kernels.ops.audio import MARGIN, NETS, intervals
from ref import tree
from ref.nets import wavenet
from tests.kernels.backends import make, named, on_each, run, same

OP = named("audio.wavenet_generate")


def nets(b):
    return [(net, d) for net in NETS for d in registry.dtypes(OP, b.name)]


@on_each(lambda b: nets(b)[:: 1 + 2 * b.slow], ["net", "dtype"])
def test_a_sound_longer_than_what_is_drawn(b, net, dtype):
    arguments = make(OP, (2, 100), dtype, net=net, most=(2, 100))
    (codes,), (rule,) = run(b, OP, arguments), registry.expected(OP, arguments, dtype)
    tolerance.assert_matches(codes, rule)
    assert codes.dtype == np.int64


@on_each(lambda b: nets(b)[-1:], ["net", "dtype"])
def test_u_at_its_ends(b, net, dtype):
    arguments = make(OP, (1, 9), dtype, net=net)
    arguments["u"][0, -1], arguments["u"][0, -2] = 0, 1
    (codes,), truth = run(b, OP, arguments), OP.truth(**registry.exact(arguments))
    assert np.array_equal(codes, truth) and codes[0, -1] == 0 and codes[0, -2] == NETS[net][0] - 1


@on_each()
def test_an_example_depends_on_nothing_else(b):
    """Not on its batch, nor on the number of threads; what comes later changes nothing before."""
    arguments = make(OP, (3, 5 if b.slow else 48), net="all of one size" if b.slow else "two cycles")
    codes, u = run(b, OP, arguments)[0], arguments["u"]
    for part in (np.s_[1:2], np.s_[:, :3]):
        assert same(run(b, OP, arguments | {"u": u[part].copy()})[0], codes[part])
    assert all(same(other[0], codes) for other in b.repeat(lambda: run(b, OP, arguments), 1))
    for none in (u[:0], u[:, :0]):
        assert run(b, OP, arguments | {"u": none.copy()})[0].shape == none.shape


def test_the_margin_is_kept_in_float32():
    """What NumPy errs in float32 is a tenth of it, and each u is where it should be."""
    arguments = make(OP, (3, 48), net="256 classes")
    exact = registry.exact(arguments)
    codes = OP.truth(**exact)
    _, low, high = intervals(exact["params"], codes, exact["cycle"])
    _, *rough = intervals(arguments["params"], codes, exact["cycle"])
    inside = np.minimum(exact["u"] - low, high - exact["u"])
    assert np.allclose(inside, MARGIN["float32"], rtol=2e-3, atol=0)
    assert max(np.abs(rough[0] - low).max(), np.abs(rough[1] - high).max()) < MARGIN["float32"] / 10


def layers(change):
    """A fault: the parameters with change(i, layer) in place of each layer."""
    return lambda a: a | {"params": a["params"] | {"layers": [change(*x) for x in enumerate(a["params"]["layers"])]}}


def scaled(i, part, by, rows=np.s_[:], taps=np.s_[:]):
    """A fault: weights and biases of a part of layer i, multiplied. rows, taps: which of them."""
    def change(j, layer):
        if i != j:
            return layer
        new = tree.map(np.copy, layer[part])
        new["weight"][rows, :, taps] *= by
        new["bias"][rows] *= by
        return layer | {part: new}

    return layers(change)


def turned(part):
    """A fault: the halves of "dilated" swapped, of which one has tanh and the other the sigmoid; or its taps."""
    def change(_, layer):
        new = {name: np.roll(a, len(a) // 2, axis=0) for name, a in layer["dilated"].items()} if part == "gate" else (
            layer["dilated"] | {"weight": layer["dilated"]["weight"][..., ::-1]})
        return layer | {"dilated": new}

    return layers(change)


def end(i, kind):
    """A fault: weight or bias i of the end left out."""
    def change(a):
        ends = [dict(each) for each in a["params"]["end"]]
        ends[i][kind] = 0 * ends[i][kind]
        return a | {"params": a["params"] | {"end": ends}}

    return change


LAST = NETS["two cycles"][3] - 1
FAULTS = {  # of arguments -> those with which the truth does what a wrong kernel does
    "no dilation": lambda a: a | {"cycle": 1}, "a cycle of one layer more": lambda a: a | {"cycle": a["cycle"] + 1},
    "the taps swapped": turned("taps"), "tanh and the sigmoid swapped": turned("gate"),
    "the first skip left out": scaled(0, "skip", 0), "the last skip left out": scaled(LAST, "skip", 0),
    "a residual left out": scaled(1, "residual", 0),
    "a gate that is always half open": scaled(LAST, "dilated", 0, np.s_[4:]),
    "an old tap left out": scaled(LAST - 1, "dilated", 0, taps=0), "5 % too much": scaled(2, "dilated", 1.05),
    "no bias before the last product": end(0, "bias"), "no last bias": end(1, "bias"),
}  # fmt: skip
DILATIONS = {  # (layer, cycle) -> in place of the right one
    "each queue a place too long": lambda i, cycle: 2 ** (i % cycle) + 1,
    "the longest queue a place too short": lambda i, cycle: max(2 ** (i % cycle) - (i % cycle == cycle - 1), 1),
    "the dilation of the next layer": lambda i, cycle: 2 ** ((i + 1) % cycle),
}  # fmt: skip


@pytest.mark.parametrize("fault", [*FAULTS, *DILATIONS])
def test_a_wrong_kernel_is_caught(fault, monkeypatch):
    arguments = make(OP, (1, 20), net="two cycles")
    (rule,) = registry.expected(OP, arguments, "float32")
    tolerance.assert_matches(OP.truth(**registry.exact(arguments)), rule)
    if fault in DILATIONS:
        monkeypatch.setattr(wavenet, "_dilation", DILATIONS[fault])
    wrong = OP.truth(**registry.exact(FAULTS.get(fault, dict)(arguments)))
    with pytest.raises(tolerance.Mismatch):
        tolerance.assert_matches(wrong, rule)
