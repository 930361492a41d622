"""Every gradient in `ref/`: each pair `f`, `f_backward` is found by its name and checked in three ways.

    complex step        Im f(x + i h u) / h is the derivative along u with no subtraction; the whole Jacobian, to 1e-13,
                        but for networks of more than LARGE numbers
    dot product         <J u, w> = <u, J^T w> for random u and w, J^T w in one call of the backward, to 1e-13
    central differences five points in float64 along random directions, and nothing complex about them, to 1e-9

A pair is tried on its worked example (`ref.examples`), with the arguments in GIVEN in place of the example's.
`f_backward(dout, ...)` takes one gradient for each output, then arrays under the names they have in `f`, its inputs or
what it returned, and returns the gradients in the order of `f`'s differentiable arguments, as its docstring names them.
"""
import importlib
import inspect
import itertools
import pkgutil
from dataclasses import dataclass

import numpy as np
import pytest

import ref
from ref import diffusion, schedules, tree
from ref.examples import example
from ref.nets import gan as gan_nets
from ref.nets import vae as vae_nets
from ref.nets.mlp import residual_init
from ref.reading.catalogue import full
from ref.reading.gradients import FIXED, gradient_names

ABAR = schedules.alpha_bar(schedules.linear_betas(20, 0.01, 0.3))
RNG = np.random.default_rng(20)
LARGE = 400  # inputs, from which on random directions alone are tried


@dataclass(frozen=True)
class Worked:
    """Arguments of `f` by name, and which of them it has gradients for."""

    arguments: dict
    wrt: tuple


def numbers(*shape):
    return RNG.standard_normal(shape)


def redrawn(params):
    return tree.map(lambda a: numbers(*a.shape), params)


SMOOTH = np.array([[-3.0, -0.4, 0.0], [0.7, 2.5, 20.0]])
OFF_THE_KINK = np.array([[-3.0, -0.4, -0.1], [0.7, 2.5, 0.2]])  # relu is analytic on either side of 0
DISCRIMINATOR = dict(w1=numbers(5, 3), b1=numbers(5), w2=numbers(4, 5), b2=numbers(4), w3=numbers(1, 4), b3=numbers(1))
REAL, FAKE = np.array([-3.0, 0.4, 0.9, 1.3, 8.0]), np.array([[-2.0, -1.1], [0.3, 6.0]])  # hinge's kinks are at 1 and -1

GIVEN = {  # arguments in place of the examples': kinks, repeated rows, ends of a range, biases off 0
    "ref.diffusion.q_sample": dict(x0=numbers(3, 2, 3), t=np.array([0, 7, 20]), eps=numbers(3, 2, 3), abar=ABAR),
    "ref.objectives.normal_kl": dict(mean1=numbers(2, 3), logvar1=numbers(2, 3), mean2=numbers(2, 3), logvar2=0.3),
    # open bins from both sides of their end, and one inside; bins wider than a deviation are in test_objectives.py, for
    # central differences need steps that are small in deviations
    "ref.discretized.discretized_gaussian_log_likelihood": dict(x=2 * np.array([100, 100, 101, 0, 0, 255,
                                                                               255]) / 255 - 1,
                                                                               means=np.array([0.3, -0.9, -0.2, -0.7,
                                                                                               -1.3, 0.8, 1.2]),
             log_scales=np.array([0.0, -0.5, -0.7, -0.5, -0.6, -0.4, 0.5])),
    "ref.objectives.learned_logvar": dict(v=numbers(3, 2), t=np.array([1, 7, 20]), s=np.array([0, 3, 19]), abar=ABAR),
    "ref.objectives.vlb_terms": dict(x0=np.array([[0.2, -1.0], [-0.4, 1.0], [1.0, -0.6]]), xt=numbers(3, 2),
                                     t=np.array([1, 7, 2]),
                                            s=np.array([0, 6, 0]), mean_hat=numbers(3, 2), logvar_hat=numbers(3, 2),
                                            abar=ABAR),
    "ref.consistency.pseudo_huber_loss": dict(c=0.3),
    "ref.consistency.consistency_loss": dict(student=numbers(3, 2), target=numbers(3, 2),
                                             sigma_t=np.array([0.5, 2.0, 9.0]),
                                                    sigma_s=np.array([0.3, 1.9, 4.0]), c=0.3),
    "ref.layers.relu": dict(x=OFF_THE_KINK),
    "ref.layers.leaky_relu": dict(x=OFF_THE_KINK, slope=0.3),
    "ref.layers.tanh": dict(x=SMOOTH),
    "ref.layers.sigmoid": dict(x=SMOOTH),
    "ref.layers.silu": dict(x=SMOOTH),
    "ref.layers.softplus": dict(x=SMOOTH),
    "ref.nets.mlp.simple_mlp": dict(params=dict(w1=numbers(6, 4), b1=numbers(6), w2=numbers(3, 6), b2=numbers(3)),
                                        x=numbers(4, 3), t=np.array([1, 2, 3, 4])),
    # residual_init for the names and shapes only: it starts each w2 at 0, and nothing would reach w1
    "ref.nets.mlp.residual": dict(params=redrawn(residual_init(0, 3, 4, 2, 2, 6)),
                                         x=numbers(4, 3), t=np.array([1, 5, 9, 20]), labels=np.array([0, 2, 1, 2])),
    "ref.vae.bernoulli_nll": dict(logits=3 * numbers(3, 2, 2), x=RNG.uniform(size=(3, 2, 2))),
    "ref.vae.clamp_logvar": dict(logvar=np.array([[-3.0, -0.9, 0.0], [1.9, 2.1, 50.0]]), low=-1.0, high=2.0),
    "ref.gan.hinge_discriminator_loss": dict(real_logits=REAL, fake_logits=FAKE),
    # inits for the names and shapes only: a bias that is 0 hides what reaches it
    "ref.nets.vae.encoder": dict(params=redrawn(vae_nets.encoder_init(0, 3, 4, 2)), x=numbers(4, 3)),
    "ref.nets.vae.decoder": dict(params=redrawn(vae_nets.decoder_init(0, 3, 4, 2)), z=numbers(4, 2)),
    "ref.nets.gan.generator": dict(params=redrawn(gan_nets.generator_init(0, 2, 4, 3)), z=numbers(4, 2)),
    "ref.nets.gan.discriminator": dict(params=DISCRIMINATOR, x=numbers(4, 3), act="tanh"),
    "ref.nets.gan.discriminator_input_gradient": dict(params=DISCRIMINATOR, x=numbers(4, 3), act="tanh"),
    "ref.nets.mlp.residual_block": dict(params=redrawn(residual_init(0, 3, 4, 1, 2, 6))["blocks"][0], h=numbers(3, 4),
                                        c=numbers(3, 4)),
}


def find_pairs():
    """{full name of f: (f, f_backward)} for everything called *_backward in any module of `ref`, written there."""
    pairs = {}
    for found in pkgutil.walk_packages(ref.__path__, "ref."):
        module = importlib.import_module(found.name)
        for name, backward in inspect.getmembers(module, inspect.isfunction):
            if name.endswith("_backward") and backward.__module__ == module.__name__:
                forward = getattr(module, name.removesuffix("_backward"), None)
                assert forward is not None, f"{module.__name__}.{name} has no forward beside it"
                pairs[full(forward)] = forward, backward
    return pairs


PAIRS = find_pairs()
SMALL = np.array([[[-0.3, 0.8]], [[0.5, -0.9]]])  # (2, 1, 2), in place of the examples' two digits
WORKED = {name: Worked(example(f, {"x0": SMALL} | GIVEN.get(name, {})), tuple(gradient_names(b)))
          for name, (f, b) in PAIRS.items()}


def leaves(value):
    """The arrays in an array, a number, or a dict, list or tuple of such."""
    if isinstance(value, (dict, list, tuple)):
        parts = value.values() if isinstance(value, dict) else value
        return [leaf for part in parts for leaf in leaves(part)]
    return [np.asarray(value)]


def vector(value):
    return np.concatenate([np.ravel(leaf) for leaf in [np.zeros(0), *leaves(value)]])


def plus(value, steps):
    """value + the next numbers of the iterator `steps`, in the order of `leaves`."""
    return tree.map(lambda a: a + np.reshape(list(itertools.islice(steps, np.size(a))), np.shape(a)), value)


def outputs_and_cache(forward, arguments):
    """What f returns, as a list of arrays; and what it returns for its backward alone (a dict, list or tuple), or
    None."""
    returned = forward(**arguments)
    returned = list(returned) if isinstance(returned, tuple) else [returned]
    cache = [r for r in returned if isinstance(r, (dict, list, tuple))]
    assert len(cache) <= 1
    return [r for r in returned if not isinstance(r, (dict, list, tuple))], cache[0] if cache else None


def along(forward, worked, u, method):
    """J u: the derivative of all outputs of f along u, a vector over the arguments in worked.wrt."""
    def f(step):
        moved = plus({name: worked.arguments[name] for name in worked.wrt}, iter(step * u))
        return vector(outputs_and_cache(forward, worked.arguments | moved)[0])

    if method == "complex step":
        return f(1e-30j).imag / 1e-30
    h = (1e-3 if u.size <= LARGE else 2e-4) / max(1.0, np.abs(u).max())
    return (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)


def pulled_back(forward, backward, worked, w):
    """J^T w from the backward, after the checks that need no derivative: names, number, shapes, dtype, inputs
    untouched."""
    outputs, cache = outputs_and_cache(forward, worked.arguments)
    names = list(inspect.signature(backward).parameters)
    douts, position = [], 0
    for output in outputs:
        douts.append(np.reshape(w[position:position + np.size(output)], np.shape(output))[()])
        position += np.size(output)
    named = {}
    for name in names[len(outputs):]:
        if name in worked.arguments:
            named[name] = worked.arguments[name]
        elif cache is not None and name == "cache":
            named[name] = cache
        elif len(outputs) == 1:
            named[name] = outputs[0]  # an output, under the name the docstring gives it
        else:
            raise AssertionError(f"{backward.__name__} asks for {name}, which f neither takes nor returns")
    before = [np.copy(leaf) for leaf in leaves(list(named.values()) + douts)]
    gradients = backward(*douts, **named)
    for leaf, copy in zip(leaves(list(named.values()) + douts), before, strict=True):
        np.testing.assert_array_equal(leaf, copy, err_msg=f"{backward.__name__} overwrote its input")
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    assert len(gradients) == len(worked.wrt), f"{len(gradients)} gradients for the arguments {worked.wrt}"
    for name, gradient in zip(worked.wrt, gradients):
        argument = worked.arguments[name]
        assert [*tree.named(gradient)] == [*tree.named(argument)], f"d{name} has the leaves {[*tree.named(gradient)]}"
        for g, a in zip(leaves(gradient), leaves(argument), strict=True):
            assert g.shape == a.shape
            assert g.dtype == np.float64, f"d{name} is {g.dtype} {g.shape}, {name} is {a.dtype} {a.shape}"
    return vector(list(gradients))


def check_pair(forward, backward, worked):
    """Raises AssertionError where the backward is not the transposed derivative of the forward."""
    order = sorted((name for name in inspect.signature(forward).parameters if name in worked.wrt),
                   key=lambda name: name == "params")
    assert order == list(worked.wrt), f"gradients come in the order of f's arguments, the parameters' last, {order}"
    exact, tolerance = "complex step", 1e-13
    inputs = sum(vector(worked.arguments[name]).size for name in worked.wrt)
    outputs = vector(outputs_and_cache(forward, worked.arguments)[0]).size

    # All inputs move one at a time for the forward, all outputs one at a time for the backward
    if inputs <= LARGE:
        jacobian = np.stack([along(forward, worked, unit, exact) for unit in np.eye(inputs)], axis=1)
        transposed = np.stack([pulled_back(forward, backward, worked, unit) for unit in np.eye(outputs)], axis=0)
        size = np.abs(jacobian).max()
        assert size > 0, "these worked numbers have no gradient to check"
        off = np.abs(jacobian - transposed).max() / size
        assert off <= tolerance, f"{exact}: the Jacobian is off by {off:.2g} of its largest element"

    rng = np.random.default_rng(1)
    free = vector([tree.from_named({path: np.full(np.shape(a), not path.endswith(FIXED), float)
                                    for path, a in tree.named(worked.arguments[name]).items()}) for name in worked.wrt])
    for _ in range(4):
        u, w = free * rng.standard_normal(inputs), rng.standard_normal(outputs)
        gradient, derivative = pulled_back(forward, backward, worked, w), along(forward, worked, u, exact)
        off = abs(derivative @ w - u @ gradient) / (np.abs(derivative) @ np.abs(w) + np.abs(u) @ np.abs(gradient))
        assert off <= tolerance, f"dot product: <J u, w> and <u, J^T w> differ by {off:.2g}"
        central = along(forward, worked, u, "central differences") @ w
        off = abs(central - u @ gradient) / (np.abs(u) @ np.abs(gradient))
        assert off <= 1e-9, f"central differences: off by {off:.2g}"


def test_pairs_are_found_by_name():
    assert {"ref.diffusion.q_sample", "ref.diffusion.eps_loss"} <= set(PAIRS)
    assert set(GIVEN) <= set(PAIRS), f"arguments for what is not there: {set(GIVEN) - set(PAIRS)}"


@pytest.mark.parametrize("name", PAIRS)
def test_backward_is_the_transposed_derivative_of_forward(name):
    check_pair(*PAIRS[name], WORKED[name])


def wrong(gradients, how):
    """The same gradients with one mistake in them, or None where that mistake changes nothing."""
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    parts = leaves(list(gradients))
    if how == "nothing":
        changed = [0 * g for g in parts]
    elif how == "sign":
        changed = [-g for g in parts]
    elif how == "a missing factor":
        changed = [2 * g for g in parts]
    elif how == "a factor on the first one only":
        changed = [1.5 * parts[0]] + parts[1:]
    elif how == "one element by a millionth":
        changed = [g.copy() for g in parts]
        changed[0].flat[np.abs(changed[0]).argmax()] *= 1 + 1e-6
    elif how == "rolled by one":
        changed = [np.roll(g.ravel(), 1).reshape(g.shape) for g in parts]
    elif how == "float32":
        return tuple(tree.map(np.float32, g) for g in gradients)
    new = iter(vector(changed) - vector(parts))
    return tuple(plus(gradient, new) for gradient in gradients)


@pytest.mark.parametrize("how", ["nothing", "sign", "a missing factor", "a factor on the first one only",
                                 "one element by a millionth",
                                 "rolled by one", "float32"])
@pytest.mark.parametrize("name", PAIRS)
def test_a_wrong_backward_is_rejected(name, how):
    forward, backward = PAIRS[name]

    def wrong_backward(*args, **kwargs):
        return wrong(backward(*args, **kwargs), how)

    wrong_backward.__signature__ = inspect.signature(backward)
    if how == "rolled by one":
        w = np.random.default_rng(2).standard_normal(vector(outputs_and_cache(forward, WORKED[name].arguments)[0]).size)
        if np.array_equal(pulled_back(forward, wrong_backward, WORKED[name], w),
                          pulled_back(forward, backward, WORKED[name], w)):
            return  # one number, or equal ones, roll onto themselves
    with pytest.raises(AssertionError):
        check_pair(forward, wrong_backward, WORKED[name])


def test_a_backward_that_overwrites_its_input_is_rejected():
    def overwriting(dloss, eps_hat, eps):
        gradients = diffusion.eps_loss_backward(dloss, eps_hat, eps)
        eps_hat -= eps
        return gradients

    own = {name: a.copy() for name, a in WORKED["ref.diffusion.eps_loss"].arguments.items()}
    with pytest.raises(AssertionError, match=r"\boverwriting\b"):
        check_pair(diffusion.eps_loss, overwriting, Worked(own, ("eps_hat", "eps")))


def test_gradients_in_the_wrong_order_are_rejected():
    with pytest.raises(AssertionError):
        check_pair(diffusion.q_sample, lambda dxt, t, abar: diffusion.q_sample_backward(dxt, t, abar)[::-1],
                   WORKED["ref.diffusion.q_sample"])
    with pytest.raises(AssertionError, match="in the order of f's arguments"):
        check_pair(diffusion.q_sample, diffusion.q_sample_backward,
                   Worked(WORKED["ref.diffusion.q_sample"].arguments, ("eps", "x0")))
