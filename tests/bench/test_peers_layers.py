"""Peers of the layers, gradients among them, do the kernels' work, with strides, masks and uneven padding."""
import pytest

from bench import peers
from bench.peers import sound
from kernels import registry, timing

# What torch has otherwise: one-pass variances; causal for keys and queries from the first on; NaN of no key at all
PLAIN = {"offset": 0.0, "causal": False, "masked": "keys"}
LAYERS = [op for op in registry.OPS if op.name.startswith("layers.") and op.bench]


@pytest.mark.parametrize("op", LAYERS, ids=lambda op: op.name)
def test_every_peer_of_a_layer_does_the_kernels_work(op):
    shape = next(s for s in op.shapes if len(s) > 2)
    options = {name: choices[-1] for name, choices in op.options.items()}
    options |= {name: value for name, value in PLAIN.items() if name in options}
    arguments = timing.problem(op, options, shape)
    truth = sound.Truth(op, arguments, shape, registry.expected(op, arguments, "float32"))
    for column in peers.available(["numpy", "torch"])[0]:
        made = peers.make(column, op, arguments, shape)
        assert made
        for call in made.values():
            truth.check(call())
