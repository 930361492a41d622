"""GAN losses, penalties and the MLP discriminator: PyTorch's numbers, by hand, and at the ends of the floats."""
import numpy as np
import pytest

from ref import gan
from ref.nets.gan import (
    discriminator,
    discriminator_backward,
    discriminator_input_gradient,
    discriminator_input_gradient_backward,
)
from tests import assert_close, golden

GOLD = golden("vae_gan")
PARAMS = {name.lower(): GOLD[f"gan/{name}"] for name in ("W1", "b1", "W2", "b2", "w3", "b3")}
REAL, FAKE = GOLD["gan/real"], GOLD["gan/fake"]
ACTS = {"tanh": "tanh", "lrelu02": "leaky_relu", "softplus": "softplus"}  # the goldens' names, and ours
PAIRS = {"d_ns": gan.discriminator_loss, "d_hinge": gan.hinge_discriminator_loss,
         "d_wgan": gan.wasserstein_discriminator_loss}
KINDS = ("", "hinge_", "least_squares_", "wasserstein_")
DISCRIMINATOR_LOSSES = [f"{kind}discriminator_loss" for kind in KINDS]
GENERATOR_LOSSES = [f"{kind}generator_loss" for kind in KINDS] + ["generator_loss_saturating"]


def network(act):
    """The MLP as the penalties take a network."""
    return lambda params, x: discriminator_input_gradient(params, x, act), discriminator_input_gradient_backward


def both(loss, real, fake):
    """The loss and its gradients."""
    return getattr(gan, loss)(real, fake), getattr(gan, f"{loss}_backward")(1.0, real, fake)


def replay(name, loss, gradients):
    assert_close(loss, GOLD[name])
    for key, gradient in gradients.items():
        theirs = GOLD[f"{name}/grad/{key.upper() if key in ('w1', 'w2') else key}"]
        scale = max(np.abs(theirs).max(), 1.0)  # an element is a sum of terms of the others' size; b3's may cancel to 0
        assert_close(gradient, theirs, scale=scale)


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("name", PAIRS)
def test_discriminator_losses_replay_torch(name, act):
    real, real_cache = discriminator(PARAMS, REAL, ACTS[act])
    fake, fake_cache = discriminator(PARAMS, FAKE, ACTS[act])
    loss, (dreal, dfake) = both(PAIRS[name].__name__, real, fake)
    _, from_real = discriminator_backward(dreal, PARAMS, real_cache)
    _, from_fake = discriminator_backward(dfake, PARAMS, fake_cache)
    replay(f"gan/{act}/{name}", loss, {key: from_real[key] + from_fake[key] for key in from_real})


@pytest.mark.parametrize("act", ACTS)
def test_the_generators_loss_replays_torch(act):
    fake, cache = discriminator(PARAMS, FAKE, ACTS[act])
    _, gradients = discriminator_backward(gan.generator_loss_backward(1.0, fake), PARAMS, cache)
    replay(f"gan/{act}/g_ns", gan.generator_loss(fake), gradients)


@pytest.mark.parametrize("act", ACTS)
def test_the_gradient_penalty_replays_torchs_double_backward(act):
    x = gan.interpolate(REAL, FAKE, GOLD["gan/alpha"][:, 0])
    loss, cache = gan.gradient_penalty(network(ACTS[act]), PARAMS, x)
    replay(f"gan/{act}/wgan_gp", 10 * loss, gan.gradient_penalty_backward(10.0, network(ACTS[act]), PARAMS, cache))


@pytest.mark.parametrize("act", ACTS)
def test_r1_replays_torchs_double_backward(act):
    loss, cache = gan.r1_penalty(network(ACTS[act]), PARAMS, REAL)
    replay(f"gan/{act}/r1", 10 * loss, gan.r1_penalty_backward(10.0, network(ACTS[act]), PARAMS, cache))


def test_the_discriminator_by_hand():
    params = {"w1": np.array([[1.0, 2.0], [0, -1.0]]), "b1": np.array([0.0, 1.0]), "w2": np.array([[1.0, 1.0]]),
              "b2": np.array([-0.5]),
              "w3": np.array([[3.0]]), "b3": np.array([0.25])}
    x = np.array([[1.0, 1.0], [-5.0, 0.0]])
    logits, _ = discriminator(params, x, "leaky_relu")
    # first: h1 = (3, 0), a1 = (3, 0), h2 = 2.5; second: h1 = (-5, 1), a1 = (-1, 1), h2 = -0.5, a2 = -0.1
    assert_close(logits, np.array([7.75, -0.05]))
    dx, _ = discriminator_input_gradient(params, x, "leaky_relu")
    # first: 3 (w1_0 + 0.2 w1_1), the kink taken from below; second: 0.6 (0.2 w1_0 + w1_1)
    assert_close(dx, np.array([[3.0, 3 * 1.8], [0.12, 0.6 * -0.6]]))


@pytest.mark.parametrize("act", ACTS.values())
def test_the_input_gradient_is_the_backward_of_ones(act):
    _, cache = discriminator(PARAMS, REAL, act)
    dx, _ = discriminator_backward(np.ones(4), PARAMS, cache)
    assert_close(discriminator_input_gradient(PARAMS, REAL, act)[0], dx, scale=np.abs(dx).max())


@pytest.mark.parametrize("act", ACTS.values())
def test_the_discriminator_keeps_its_dtype_penalties_and_all(act):
    params = {name: p.astype(np.float32) for name, p in PARAMS.items()}
    x = REAL.astype(np.float32)
    logits, cache = discriminator(params, x, act)
    dx, gradients = discriminator_backward(np.ones(4, np.float32), params, cache)
    arrays = [logits, dx, discriminator_input_gradient(params, x, act)[0], *gradients.values()]
    for penalty in (gan.gradient_penalty, gan.r1_penalty):
        loss, cache = penalty(network(act), params, x)
        assert loss.dtype == np.float64  # process math; what goes back into the network is the network's
        arrays += getattr(gan, f"{penalty.__name__}_backward")(1.0, network(act), params, cache).values()
        np.testing.assert_allclose(loss, penalty(network(act), PARAMS, REAL)[0], rtol=1e-5)
    assert all(a.dtype == np.float32 for a in arrays)


def test_losses_by_hand():
    """D = 3/4 and 1/2 for the real, 1/4 for the one fake: logits log 3, 0 and -log 3. Each mean over its own number."""
    real, fake, two = np.array([np.log(3), 0.0]), np.array([-np.log(3)]), np.array([3.0, 0.5])
    for name, logits, loss in [
        ("discriminator_loss", (real, fake), (np.log(4 / 3) + np.log(2)) / 2 + np.log(4 / 3)),
        ("generator_loss", (fake,), np.log(4)), ("generator_loss_saturating", (fake,), np.log(3 / 4)),
        ("hinge_discriminator_loss", (two, np.array([-0.5, -2.0, 1.0, -1.5])), 0.25 + 2.5 / 4),
        ("least_squares_discriminator_loss", (two, np.array([2.0])), 4.25 / 4 + 2),
        ("least_squares_generator_loss", (two,), 4.25 / 4),
        ("wasserstein_discriminator_loss", (two, np.array([[2.0, 5.0]])), 3.5 - 1.75),
        ("wasserstein_generator_loss", (two,), -1.75), ("hinge_generator_loss", (two,), -1.75),
    ]:  # fmt: skip
        assert_close(getattr(gan, name)(*logits), np.float64(loss))


def test_the_hinge_has_no_gradient_at_its_kinks():
    dreal, dfake = gan.hinge_discriminator_loss_backward(1.0, np.array([1.0, np.nextafter(1, 0)]),
                                                         np.array([-1.0, np.nextafter(-1, 0)]))
    assert np.array_equal(dreal, [0, -0.5]) and np.array_equal(dfake, [0, 0.5])


def test_the_saturating_and_the_non_saturating_loss_are_different_functions():
    """At logit -20, where D is sure of a fake, the slopes are -2e-9 and -1. They agree only in their gradient at 0."""
    sure, zero = np.array([-20.0]), np.zeros(1)
    slopes = [gan.generator_loss_saturating_backward(1.0, sure), gan.generator_loss_backward(1.0, sure)]
    assert_close(np.array(slopes), np.array([[-np.exp(-20)], [-1.0]]) / (1 + np.exp(-20)))
    assert_close(gan.generator_loss(sure) - gan.generator_loss_saturating(sure), 20 + 2 * np.log1p(np.exp(-20)))
    assert gan.generator_loss_backward(1.0, zero) == gan.generator_loss_saturating_backward(1.0, zero) == -0.5


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [90, 800, 1e4])
def test_losses_and_gradients_are_finite_and_right_far_out(size, dtype):
    """sigmoid is 0 or 1 there in float32, and its logarithm -inf. Warnings are errors here."""
    far = np.array([size, -size], dtype)
    for name in DISCRIMINATOR_LOSSES:
        loss, gradients = both(name, far, far)
        assert np.isfinite(loss) and np.all(np.isfinite(gradients))
    for name in GENERATOR_LOSSES:
        assert np.isfinite(getattr(gan, name)(far)) and np.all(np.isfinite(getattr(gan, f"{name}_backward")(1.0, far)))
    assert_close(gan.discriminator_loss(far, far), np.float64(size), rel=1e-15)
    assert_close(gan.generator_loss(far), np.float64(size / 2), rel=1e-15)
    assert_close(gan.generator_loss_saturating(far), np.float64(-size / 2), rel=1e-15)
    assert_close(gan.generator_loss_backward(2.0, far), np.array([-np.exp(-size), -1.0]), rel=1e-15)
    assert_close(gan.generator_loss_saturating_backward(2.0, far), np.array([-1.0, -np.exp(-size)]), rel=1e-15)
    assert_close(gan.discriminator_loss_backward(2.0, far, -far),
                 (np.array([-np.exp(-size), -1.0]), np.array([np.exp(-size), 1.0])), rel=1e-15)


def linear_network():
    """D(x) = w . x: its gradient is w at every x, so the gradient of sum(ddx dx) in w is the sum of ddx over
    examples."""
    return (lambda params, x: (np.broadcast_to(params["w"], x.shape), None),
            lambda ddx, params, cache: (0 * ddx, {"w": ddx.sum(axis=0)}))


def test_penalties_by_hand():
    params, x = {"w": np.array([[3.0], [4.0]])}, np.zeros((5, 2, 1))  # |w| = 5 over both axes
    loss, cache = gan.gradient_penalty(linear_network(), params, x)
    assert loss == 16
    assert_close(gan.gradient_penalty_backward(1.0, linear_network(), params, cache)["w"], 8 * params["w"] / 5)
    loss, cache = gan.r1_penalty(linear_network(), params, x)
    assert loss == 12.5
    assert_close(gan.r1_penalty_backward(2.0, linear_network(), params, cache)["w"], 2 * params["w"])


def test_penalties_where_the_discriminator_is_flat():
    """|dx| has a kink at 0; the gradient taken there is 0."""
    params, x = {"w": np.zeros((2, 1))}, np.zeros((5, 2, 1))
    loss, cache = gan.gradient_penalty(linear_network(), params, x)
    assert loss == 1
    assert np.array_equal(gan.gradient_penalty_backward(1.0, linear_network(), params, cache)["w"], params["w"])
    loss, cache = gan.r1_penalty(linear_network(), params, x)
    assert loss == 0 and np.array_equal(gan.r1_penalty_backward(1.0, linear_network(), params, cache)["w"], params["w"])


def test_interpolate_by_hand():
    real, fake = np.array([[[1.0, 2.0]], [[3.0, 4.0]]]), np.array([[[-1.0, 0.0]], [[5.0, 8.0]]])
    assert np.array_equal(gan.interpolate(real, fake, np.array([0.25, 1.0])), [[[-0.5, 0.5]], [[3, 4]]])


def test_optimal_discriminator_by_hand():
    assert np.array_equal(gan.optimal_discriminator([0.0, 3.0, 2.0, 0.0], [1.0, 1.0, 0.0, 0.0]), [0, 0.75, 1, 0.5])
    assert gan.optimal_discriminator(1.0, 3.0) == 0.25


def test_jensen_shannon_by_hand():
    p, q = np.array([1.0, 0.0]), np.array([0.5, 0.5])
    wanted = (np.log(4 / 3) + 0.5 * np.log(2 / 3) + 0.5 * np.log(2)) / 2
    assert_close(gan.jensen_shannon(p, q), wanted)
    assert_close(gan.jensen_shannon(np.stack([[p, q], [p, p]]), np.stack([[q, p], [p, 1 - p]])),
                 np.array([[wanted, wanted], [0, np.log(2)]]))
    assert gan.jensen_shannon(q, q) == 0
    for tiny in (1e-17, 1e-300, 5e-324):  # beside a 1 their difference rounds to 1
        assert gan.jensen_shannon([1.0, tiny], [0.0, 1.0]) == gan.jensen_shannon([0.0, 1.0],
                                                                                 [1.0,
                                                                                  tiny]) == pytest.approx(np.log(2),
                                                                                                          rel=1e-15)


def test_jensen_shannon_keeps_its_precision_where_the_two_are_close():
    """JSD of (1/2 + d, 1/2 - d) and (1/2, 1/2) is d^2 / 2 + O(d^4): from terms of 1e-6 each."""
    d = 2.0**-20
    assert_close(gan.jensen_shannon([0.5 + d, 0.5 - d], [0.5, 0.5]), d**2 / 2, rel=1e-4)
