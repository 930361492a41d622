"""What the checker draws besides data: forms in which a truth takes its arguments, shapes that people use, zeros in one
array, values next to thresholds. What misreads one of them is wrong, and what refuses a form is right."""
import inspect

import numpy as np
import pytest

from kernels import registry
from kernels.check import check, forms
from kernels.check.adapter import caller, find
from tests.check.test_ignored import CHECKED, caught
from tests.check.wrong import Q, in_data_dtype, wrong


def ends(a):
    """The number of axes of the times at the start of a step and at its end."""
    return next((np.ndim(a[one]), np.ndim(a[other])) for one, other in forms.STEPS if one in a)


SEEN = {  # form: whether arguments are in it
    "w of shape (B,)": lambda a: np.ndim(a["w"]), "z = None at eta = 0": lambda a: a["z"] is None,
    "one time at the start of a step and (B,) at its end": lambda a: ends(a) == (0, 1),
    "(B,) times at the start of a step and one at its end": lambda a: ends(a) == (1, 0),
    "real and fake logits of different sizes": lambda a: a["real_logits"].size != a["fake_logits"].size,
    "max_norm = inf": lambda a: np.isinf(a["max_norm"]), "a dict of gradients": lambda a: isinstance(a["grads"], dict),
    "40 arrays of gradients": lambda a: len(a["grads"]) == 40,
}  # fmt: skip
KERNELS = {op.name: registry.kernel(op, "numpy_cpu") for op in CHECKED}
TAKEN = {f"{op.name}-{form}": (op, form) for op in CHECKED for form in forms.of(caller(KERNELS[op.name], op))
         if form != forms.DEFAULTS}  # fmt: skip


def test_every_form_belongs_to_an_operation():
    assert {form for _, form in TAKEN.values()} == set(forms.FORMS) == set(SEEN)


@pytest.mark.parametrize("name", TAKEN)
def test_a_form_that_is_misread_is_wrong_and_one_that_is_refused_is_reported(name):
    op, form = TAKEN[name]

    def misread(f, **a):
        return [1.01 * np.asarray(x) for x in registry.outputs(f())] if SEEN[form](a) else f()

    def refused(**a):
        if SEEN[form](a):
            raise NotImplementedError("not this one")
        return KERNELS[op.name](**a)

    refused.__signature__ = inspect.signature(op.truth)
    assert caught(wrong(op.name, misread), op).case.options["form"] == form
    verdict = check(refused, op.name, dtype="float32", examples=40)
    assert verdict and any(form in words and "not this one" in words for words in verdict.untested), str(verdict)


DEFAULTS = [(op, name, p.default) for op in CHECKED for name, p in op.takes.items() if p.default is not p.empty]
OTHER = {"variance": "large", "clip": 0.5}


@pytest.mark.parametrize("op, name, default", DEFAULTS, ids=lambda x: getattr(x, "name", str(x)))
def test_another_default_is_wrong(op, name, default):
    def function(*given, **named):
        bound = inspect.signature(function).bind(*given, **named)
        bound.apply_defaults()
        return op.truth(*bound.args, **bound.kwargs)

    other = [p.replace(default=OTHER.get(name, 3)) if n == name else p for n, p in op.takes.items()]
    function = in_data_dtype_of(function, op, other)
    assert caught(function, op).case.options["form"] == forms.DEFAULTS


def in_data_dtype_of(function, op, parameters):
    """function with results in the dtype of its data, and another signature."""
    function.__signature__ = inspect.Signature(parameters)
    cast = in_data_dtype(function, function, op.dtypes[0])
    cast.__signature__ = function.__signature__
    return cast


def at_size(size, which):
    """The mistake of arrays with so many elements, in a row or in all."""
    def how(f, **a):
        x = next(iter(registry.arrays(a).values()))
        found = x.size if which == "all" else x.size // max(len(x), 1)
        return [1.01 * np.asarray(y) for y in registry.outputs(f())] if found == size else f()

    return how


@pytest.mark.parametrize("size", [784, 3072, 4096])
@pytest.mark.parametrize("which", ["a row", "all"])
@pytest.mark.parametrize("name", ["q_sample", "adam_step", "eps_loss_grad", "layers.rms_norm"])
def test_a_fault_at_a_usual_size_alone_is_seen(name, size, which):
    assert caught(wrong(name, at_size(size, which)), find(name))


@pytest.mark.parametrize("name", ["q_sample", "x0_from_v", "ddim_step"])
def test_a_time_along_the_other_axis_of_square_data_is_seen(name):
    def turned(f, t, abar, **a):
        arrays = registry.arrays(a)
        if np.ndim(t) == 0 or next(iter(arrays.values())).shape != (len(t), len(t)):
            return f()
        return [x.T for x in registry.outputs(f(**{n: x.T for n, x in arrays.items()}))]

    assert caught(wrong(name, turned), find(name))


@pytest.mark.parametrize("name, array", [("q_sample", "eps"), ("adam_step", "g"), ("guided_flow_step", "uncond")])
def test_zeros_in_one_array_alone_are_drawn(name, array):
    def kept(f, **a):
        zero = (a[array] == 0) & np.all([x != 0 for n, x in registry.arrays(a).items() if n != array], axis=0)
        return [np.where(zero, 1.01 * x, x) for x in registry.outputs(f())]

    assert caught(wrong(name, kept), find(name))


def cut(u, f, ends):
    """f with the limits in place of its values beyond 20."""
    return np.where(u > 20, ends(u), np.where(u < -20, 0, f(np.clip(u, -20, 20))))


@pytest.mark.parametrize("name", ["generator_loss_grad", "discriminator_loss_grad", "bernoulli_nll_grad"])
def test_a_sigmoid_that_is_cut_off_at_20_is_seen(name):
    def how(f, **a):
        loss, *gradients = f()
        x = [a[n].astype(np.float64) for n in ("real_logits", "fake_logits", "logits") if n in a]
        s = [cut(u, lambda v: 1 / (1 + np.exp(-v)), np.ones_like) - 1 / (1 + np.exp(-u)) for u in x]
        scale = np.reshape(a["dnll"], (-1,) + (1,) * (x[0].ndim - 1)) if "dnll" in a else 1
        return [loss, *(g + scale * d / (1 if "dnll" in a else d.size) for g, d in zip(gradients, s))]

    assert caught(wrong(name, how), find(name))


@pytest.mark.parametrize("name, function", [
    ("ema_step", lambda avg, p, decay: avg if decay == 1 else KERNELS["optim.ema_step"](avg, p, decay)),
    ("q_sample_backward", lambda dxt, t, abar: (dxt if np.all(np.equal(t, 0)) else Q(dxt, t, 0 * dxt, abar),
                                                Q(0 * dxt, t, dxt, abar))),
])  # fmt: skip
def test_a_result_that_is_an_argument_itself_is_seen(name, function):
    verdict = check(function, name)
    assert verdict.kind == "shares memory" and "itself" in verdict.message, str(verdict)


def test_what_is_not_drawn_is_reported():
    assert "infinities in arrays" in check(Q, "q_sample", dtype="float32", examples=5).untested


@pytest.mark.parametrize("name, how", [
    ("x0_from_v", lambda f, abar, **_: f(abar=np.maximum(abar, 1e-4) if abar[-1] == 0 else abar)),
    ("ddpm_step", lambda f, clip, **_: f(clip=clip and max(clip, 0.1))),
    ("layers.attention", lambda f, k, v, mask, causal, **_: (
        f(k=k[:, :, :64], v=v[:, :, :64]) if mask is None and not causal else f())),
])  # fmt: skip
def test_a_floor_at_zero_terminal_snr_a_small_clip_and_a_second_tile_are_drawn(name, how):
    assert check(wrong(name, how), name).kind == "wrong values"


def test_rows_that_come_again_after_2_to_the_16_less_1_are_seen():
    def again(x0, t, eps, abar):
        out = Q(x0, t, eps, abar)
        out[65_535:] = out[: max(len(out) - 65_535, 0)]
        return out

    assert check(again, "q_sample", dtype="float32").kind == "wrong values"


def test_empty_arrays_may_be_refused():
    def refuses(x0, t, eps, abar):
        if not x0.size:
            raise ValueError("nothing to do")
        return Q(x0, t, eps, abar)

    verdict = check(refuses, "q_sample")
    assert verdict and "refuses empty arrays: ValueError: nothing to do" in " ".join(str(verdict).split()), str(verdict)
