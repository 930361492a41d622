"""What holds for every equation, on its worked example: precision, inputs left alone, each example on its own."""
import inspect
import re

import numpy as np
import pytest

from ref import tree
from tests.ref import EQUATIONS, worked

NAMES = [name.removeprefix("ref.") for name in EQUATIONS]
KEEPS = (  # the dtype of their arrays
    "layers", "nets", "pipelines.stable_diffusion", "optim", "numerics.erf", "numerics.normal", "numerics.two_sum",
    "numerics.exp_difference", "numerics.blockwise", "fused.adam_ema_step", "fused.mlp_train",
)  # fmt: skip


def each(f, value):
    """f of every float array in a value."""
    if isinstance(value, (dict, list)):
        return tree.map(lambda a: each(f, a), value)
    if isinstance(value, tuple):
        return tuple(each(f, part) for part in value)
    return f(value) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value


def arrays_in(value):
    found = []
    each(lambda a: found.append(a) or a, value)
    return found


def single(a):
    a = a.astype(np.float32)
    a.flags.writeable = False
    return a


@pytest.mark.parametrize("name", NAMES)
def test_precision_and_inputs_that_are_not_overwritten(name):
    """Process math is float64 for float32 arguments, of their exact values; layers and networks keep float32."""
    function, arguments = worked(name)
    arguments = each(single, arguments)
    got = function(**arguments)
    for out in arrays_in(got):
        if name.startswith(KEEPS):
            assert out.dtype == np.float32 or name in DOUBLE
        elif "_penalty" not in name:  # what goes back into the network is the network's
            assert out.dtype == np.float64
            assert not any(np.shares_memory(out, given) for given in arrays_in(arguments))
    if not name.startswith((*KEEPS, "gan")) and not any(map(callable, arguments.values())):
        exact = function(**each(lambda a: a.astype(np.float64), arguments))
        for a, b in zip(arrays_in(got), arrays_in(exact), strict=True):
            np.testing.assert_array_equal(a, b)


DOUBLE = ("layers.time_embedding", "layers.sincos_2d", "fused.mlp_train", "pipelines.stable_diffusion.noise",
          "pipelines.stable_diffusion_3.times")  # which the samplers' float64 begins with
MEANS = r"elbo|bound|eps_loss|flow_loss|_step_|cache|embedding|_init"  # over the batch, or nothing for each example
TIMES = dict(t=np.array([500, 700]), s=np.array([0, 300]), u=np.array([700, 800]))
SETTINGS = {
    "diffusion.ddpm_step": [dict(variance=variance, clip=clip) for variance in ("small", "large")
                            for clip in (None, 0.5)],
    "diffusion.ddim_step": [dict(eta=eta, clip=clip) for eta in (0.0, 0.5, 1.0) for clip in (None, 0.5)],
    "samplers.ddpm": [dict(variance="small"), dict(variance="large")],
    "samplers.ddim": [dict(eta=0.0), dict(eta=0.7)],
    "samplers.unipc": [dict(order=order) for order in (1, 2, 3)],
    "samplers.heun": [dict(s_churn=0.0), dict(s_churn=1.0)],
}
OF_EXAMPLES = (r"diffusion|guidance\.[gd]|objectives|edm\.[vh]|sde\.[vrpbl]|flow\.|vae|samplers|nets"
               r"|fused\.(guided|q_sample|heun)")
NOT_OF = rf"{MEANS}|nets.*_backward|wavenet_[qsg]|drawn|marginal|diffusion$|time|buckets|straight|min_snr|log_snr"
PER_EXAMPLE = [(name, given) for name in NAMES if re.match(OF_EXAMPLES, name) and not re.search(NOT_OF, name)
               for given in SETTINGS.get(name, [{}])]


@pytest.mark.parametrize("name, given", PER_EXAMPLE)
def test_an_example_alone_equals_the_same_in_its_batch(name, given):
    """And a NaN stays in its example. Each example has its own t and s, one of them 0, where a function takes ints."""
    if name.startswith(("diffusion", "objectives", "fused.guided_d", "fused.q")):
        times = TIMES | ({"s": TIMES["u"]} if name == "diffusion.ddim_inverse_step" else {})
        given = given | {n: t for n, t in times.items() if n in inspect.signature(worked(name)[0]).parameters}
    function, arguments = worked(name, **given)
    batch = {n: a for n, a in arguments.items() if isinstance(a, np.ndarray) and a.ndim and len(a) == 2}
    rtol = 1e-12 if name.startswith("nets") else 0  # matrix products add in another order

    def examples(**changed):
        got = function(**arguments | changed)
        return [a for a in (got if isinstance(got, tuple) else (got,)) if isinstance(a, np.ndarray)]

    whole = examples()
    assert batch and whole and all(len(a) == 2 for a in whole)
    spoiled = {n: np.where(np.arange(2).reshape((2,) + (1,) * (a.ndim - 1)), np.nan, a) for n, a in batch.items()
               if a.dtype.kind == "f"}
    with_nan = examples(**spoiled)
    assert not spoiled or any(np.isnan(a[1]).any() for a in with_nan)  # a text is ints
    for a, b in zip(with_nan, whole, strict=True):
        np.testing.assert_allclose(a[0], b[0], rtol=rtol, atol=rtol)
    # their noise and models are of the whole batch
    if not name.startswith(("samplers", "fused.q")) and "stream" not in arguments:
        for i in range(2):
            for a, b in zip(examples(**{n: a[i:i + 1] for n, a in batch.items()}), whole, strict=True):
                np.testing.assert_allclose(a[0], b[i], rtol=rtol, atol=rtol)
