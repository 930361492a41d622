"""The edges of the whole loops on every backend: NaN in any input, keys and counts of 64 bits, labels of every type of
int, the ends of their settings, moments near 0; and sums that lose no small term."""
import numpy as np
import pytest

from kernels import registry, tolerance
from kernels.ops.loops import residual
from ref import tree
from tests.kernels.backends import make, named, on_each, run

SAMPLE, TRAIN = named("fused.mlp_sample"), named("fused.mlp_train")
NETS = {"simple": {}, "simple, noise": {"eta": 0.5}, "guided": {"w": 2.0}}
LARGEST = 2**64 - 1


def sampling(**told):
    net = {"params": residual(5, 4, 1)} if "w" in told else {}
    return make(SAMPLE, (3, 5), width=4, **told) | {"times": [900, 500, 20]} | net


def training(dtype="float32", **told):
    return make(TRAIN, (6, 5), dtype, width=4, batch=4, steps=2) | told


def hold(b, op, arguments, dtype="float32", slack=2.0**-20):
    """The results keep the rule; sums of so few terms need a slack, of the largest element."""
    results = map(np.asarray, run(b, op, arguments))
    for result, rule in zip(results, registry.expected(op, arguments, dtype), strict=True):
        largest = np.max(np.abs(rule.truth), where=np.isfinite(rule.truth), initial=0.0)
        tolerance.assert_matches(result, tolerance.Rule(rule.truth, rule.allowed + slack * largest))


@on_each(lambda b: [(net,) for net in NETS], ["net"])
def test_nan_in_any_weight_stays(b, net):
    """No ReLU makes a number of it, in whatever order the net is computed."""
    arguments = sampling(**NETS[net])
    for path, weight in list(tree.named(arguments["params"]).items())[:: 3 if b.slow and net == "guided" else 1]:
        poisoned = weight.copy()
        poisoned.flat[weight.size // 2] = np.nan
        params = tree.from_named(tree.named(arguments["params"]) | {path: poisoned})
        (out,), (rule,) = run(b, SAMPLE, arguments | {"params": params}), registry.expected(
            SAMPLE, arguments | {"params": params}, "float32")  # fmt: skip
        assert np.array_equal(np.isnan(out), np.isnan(rule.truth)) and (np.isnan(out).any() or path == "class.w"), path


@on_each()
def test_nan_in_the_data_stays_in_what_is_learned_of_it(b):
    arguments = training()
    for name in ("data", "b1", "w1", "w2", "b2")[: 2 if b.slow else None]:
        changed = tree.map(np.copy, arguments["params"] | {"data": arguments["data"]})
        changed[name].flat[1] = np.nan
        data = changed.pop("data")
        given = arguments | {"params": changed, "data": data}
        for result, rule in zip(run(b, TRAIN, given), registry.expected(TRAIN, given, "float32"), strict=True):
            assert np.array_equal(np.isnan(result), np.isnan(rule.truth)), name


@on_each(lambda b: [(key,) for key in ((2**63, 2**63 - 1), (2**32 - 1, LARGEST), (LARGEST, 2**32 - 1))], ["key"])
def test_keys_of_a_trajectory_have_64_bits_and_carry(b, key):
    for told in ({"eta": 1.0}, {"eta": 1.0, "w": 0.5})[: 1 if b.slow else 2]:
        hold(b, SAMPLE, sampling(**told) | {"seed": key[0], "stream": key[1], "times": [900, 700, 500, 20]})


@on_each(lambda b: [(done,) for done in (2**30, 2**31 + 5, 2**57)[b.slow :]], ["done"])
def test_steps_of_training_have_64_bits(b, done):
    """A step has four streams: from step 2^30 on they have a high word, and from 2^31 the step is no 32-bit int."""
    zeros = tree.map(np.zeros_like, training()["params"])
    state = {"step": done, "m": zeros, "v": zeros, "average": zeros}
    hold(b, TRAIN, training(state=state, seed=LARGEST - 1))


@on_each()
def test_labels_of_every_type_of_int(b):
    arguments = sampling(w=2.0)
    labels, kernel = [3, 0, 4], registry.kernel(SAMPLE, b.name)
    sent = registry.sent(arguments, b.send)
    want = b.receive(kernel(**sent | {"guidance": (labels, 2.0)}))
    for kind in "bBhHiIqQ"[7 * b.slow :]:
        assert np.array_equal(b.receive(kernel(**sent | {"guidance": (np.array(labels, kind), 2.0)})), want), kind
    hold(b, SAMPLE, arguments | {"guidance": (np.array(labels, np.uint64), 2.0)})


ENDS = dict(lr=0.3, beta1=0.0, beta2=0.5, weight_decay=0.5, decay=0.0, batch=1, eps=0.5)


@on_each(lambda b: [(name,) for name in ENDS if not b.slow or name in ("lr", "decay")], ["name"])
def test_every_setting_of_training(b, name):
    hold(b, TRAIN, training() | {name: ENDS[name]})


@on_each(lambda b: [(case,) for case in ("w = 0", "w < 0", "clip", "x0", "to t > 0", "one step")], ["case"])
def test_every_setting_of_a_trajectory(b, case):
    told, change = {
        "w = 0": ({"w": 0.0}, {}), "w < 0": ({"w": -1.5}, {}), "clip": ({"clip": 1e-3}, {}),
        "x0": ({"predict": "x0", "eta": 1e-3}, {}), "to t > 0": ({"eta": 1.0}, {"times": [1000, 1]}),
        "one step": ({}, {"times": [1, 0]}),
    }[case]
    hold(b, SAMPLE, sampling(**told) | change)


@on_each(lambda b: [(d,) for d in registry.dtypes(TRAIN, b.name)], ["dtype"])
def test_moments_are_kept_down_to_the_least_normal_number(b, dtype):
    """Of units that are never on, moments only shrink, and nothing that is no subnormal number becomes 0."""
    arguments = training(dtype)
    arguments["params"]["b1"][:] = -(10.0**6)
    for size in (1e-15, 1e-30) if dtype == "float32" else (1e-30, 1e-250):
        small = tree.map(lambda p: np.full_like(p, size), arguments["params"])
        state = {"step": 9, "m": small, "v": small, "average": small}
        _, state, _ = registry.kernel(TRAIN, b.name)(**registry.sent(arguments | {"state": state}, b.send))
        for part, beta in (("m", 0.9), ("v", 0.999)):
            assert np.allclose(b.receive(state[part]["w1"]), size * beta**2, rtol=1e-5, atol=0), (part, size)


@on_each()
def test_sums_lose_no_small_term_next_to_a_large_one(b):
    """Of 4096^2 and then many ones a float32 sum would keep the square alone."""
    for first in (5,) if b.slow else (0, 5, 1500):
        x = np.ones((1, 20_000), np.float32)
        x[0, first] = 4096.0
        zero, want = b.send(np.zeros_like(x)), 4096.0**2 + x.size - 1
        f, o, v = b.modules.fused, b.modules.optim, b.modules.vae
        total = float(b.receive(f.eps_loss_grad(b.send(x), zero)[0])) * x.size
        assert total == pytest.approx(want, rel=5e-7)
        assert b.receive(v.reparameterize_kl(b.send(x), zero, zero)[1])[0] == pytest.approx(want / 2, rel=5e-7)
        (clipped,), norm = o.clip_by_global_norm([b.send(x)], 1.0)
        assert b.receive(clipped)[0, first] == pytest.approx(4096 / want**0.5, rel=2e-7)
        assert float(b.receive(norm)) == pytest.approx(want**0.5, rel=1e-12)
