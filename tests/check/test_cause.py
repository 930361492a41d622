"""The guess at the cause: each known mistake is named, and none that was not made."""
import contextlib
import itertools

import numpy as np
import pytest

from kernels import registry
from kernels.check import check, mistakes
from kernels.check.grade import LESS_ACCURATE
from kernels.numba_cpu import diffusion
from ref.diffusion import ddim_step
from tests.check.wrong import WRONG, Q, wrong

FEW = dict(examples=100)


def applicable():
    """{mistake: {the operations to which it applies}}."""
    found = {}
    for op, last in itertools.product((op for op in registry.OPS if not op.orders), (-1, -2)):
        options = {n: choices[last % len(choices)] for n, choices in op.options.items()}
        arguments = registry.exact(op.make(np.random.default_rng(last + 2), (3, 3), op.dtypes[0], "normal", **options))
        for name, mistake in mistakes.of(op).items():
            with np.errstate(all="ignore"), contextlib.suppress(ValueError):  # the truth refuses a time out of range
                found.setdefault(name, {}).update({op.name: op} if mistake(**arguments) is not None else {})
    return {name: ops for name, ops in found.items() if ops}


MADE = applicable()
SEEN = {cause for _, _, cause in WRONG}  # made independently of the catalogue
REST = [name for name in MADE if name not in SEEN and not name.endswith(" swapped")]


@pytest.mark.parametrize("name, how, cause", WRONG, ids=[f"{op}-{c or i}" for i, (op, _, c) in enumerate(WRONG)])
def test_a_known_mistake_is_caught_and_named(name, how, cause):
    verdict = check(wrong(name, how), name, **FEW)
    assert not verdict and verdict.kind in ("wrong values", "raises", "breaks a law", "NaN")
    assert verdict.cause.startswith(cause) and (cause or not verdict.cause), str(verdict)


@pytest.mark.parametrize("name", REST)
def test_every_other_mistake_of_the_catalogue_is_caught_and_named(name):
    *_, op = MADE[name].values()

    def how(f, **arguments):
        return registry.outputs(f()) if (made := mistakes.of(op)[name](**arguments)) is None else made

    verdict = check(wrong(op.name, how), op.name, examples=100)
    assert verdict.cause == name, str(verdict)


@pytest.mark.parametrize("op", [op for op in registry.OPS if op.sums and not op.shapes], ids=lambda op: op.name)
def test_a_mistake_that_was_not_made_is_not_named(op):
    """Right but for a little more than is allowed."""
    for factor in (1 + 2e-6, 1 - 1e-5):
        near = wrong(op.name, lambda f, **_: [x * factor for x in registry.outputs(f())])
        verdict = check(near, op.name, examples=20)
        assert verdict.kind == "wrong values" and verdict.cause == "", str(verdict)


def test_every_mistake_applies_to_an_operation():
    """An entry that names an argument no operation has would never be used."""
    assert mistakes.OWN.keys() <= {op.name for op in registry.OPS}
    assert {name for table in (mistakes.ANY, *mistakes.OWN.values()) for name in table} <= MADE.keys()


def test_the_tail_of_a_block_is_named():
    def tail(x0, t, eps, abar):
        out, right = np.full(x0.size, 7, x0.dtype), diffusion.q_sample(x0, t, eps, abar).reshape(-1)
        out[: right.size // 256 * 256] = right[: right.size // 256 * 256]
        return out.reshape(x0.shape)

    verdict = check(tail, "q_sample", **FEW)
    assert "(4099,)" in verdict.cause and "4096" in verdict.cause, str(verdict)


def test_strides_that_are_ignored_are_named():
    def strides(x0, t, eps, abar):
        flat = np.lib.stride_tricks.as_strided(eps, eps.shape, np.zeros(eps.shape, eps.dtype).strides)
        return diffusion.q_sample(x0, t, np.array(flat), abar)

    verdict = check(strides, "q_sample", **FEW)
    assert "strides" in verdict.cause and "eps" in verdict.cause, str(verdict)
    assert "arguments, {'eps': '" in verdict.code


def test_float32_arithmetic_that_loses_digits_is_named():
    def rounded(xt, eps_hat, t, s, z, eta, abar, clip=None):
        return ddim_step(xt, eps_hat, t, s, z, eta, abar.astype(xt.dtype), clip).astype(xt.dtype)

    verdict = check(rounded, "ddim_step", **FEW)
    assert verdict.grade == LESS_ACCURATE and "abar is rounded to float32" in verdict.mend, str(verdict)
    assert not any("float64" in line for line in verdict.less)


def test_a_fault_of_one_call_is_not_named_strides():
    calls = itertools.count()
    verdict = check(lambda x0, t, eps, abar: Q(x0, t, eps, abar) + (next(calls) == 40), "q_sample", **FEW)
    assert not verdict.cause and "not every time" in verdict.message, str(verdict)
