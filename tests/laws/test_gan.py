"""Laws of adversarial training: the best discriminator, the value of the game and the Jensen-Shannon divergence."""
import numpy as np
import pytest

from ref import gan, layers, optim
from ref.nets.gan import discriminator, discriminator_backward
from tests import assert_close
from tests.laws.test_vae import BROKEN, KEPT, kit


# Two densities on 41 points, as counts: point i is there REAL[i] times among the real and FAKE[i] times among the
# fakes.
POINTS = np.linspace(-2.5, 2.5, 41)
REAL = np.round(2000 * np.exp(-((POINTS + 0.4) ** 2) / 2)).astype(int) + 20
FAKE = np.round(1000 * np.exp(-((POINTS - 0.8) ** 2) / 0.8)).astype(int) + 20
P_DATA, P_G = REAL / REAL.sum(), FAKE / FAKE.sum()


def value_and_gradient(f, logits):
    """The discriminator's loss with these logits at POINTS, and its gradient in them; its means are over real and fake
    examples."""
    real, fake = np.repeat(logits, REAL), np.repeat(logits, FAKE)
    dreal, dfake = f.discriminator_loss_backward(1.0, real, fake)
    point = np.arange(41)
    gradient = np.bincount(np.repeat(point, REAL), dreal, 41) + np.bincount(np.repeat(point, FAKE), dfake, 41)
    return f.discriminator_loss(real, fake), gradient


def law_of_the_trained_discriminator(f):
    """Gradient descent on a free logit for each point, from 0: where it ends is `optimal_discriminator`. The curvature
    at a point is at most (p + q) / 4, so a step of its inverse can only go down."""
    logits = np.zeros(41)
    for _ in range(600):
        logits -= 4 / (P_DATA + P_G) * value_and_gradient(f, logits)[1]
    return np.abs(layers.sigmoid(logits) - f.optimal_discriminator(P_DATA, P_G)).max()


def one_mean_for_both(dloss, real_logits, fake_logits):
    dreal, dfake = gan.discriminator_loss_backward(dloss, real_logits, fake_logits)
    total = real_logits.size + fake_logits.size
    return dreal * real_logits.size / total, dfake * fake_logits.size / total


WRONG_DISCRIMINATORS = {
    "real and fake swapped": dict(
        discriminator_loss_backward=lambda d, real, fake: gan.discriminator_loss_backward(d, fake, real)[::-1]),
    "one mean for both": dict(discriminator_loss_backward=one_mean_for_both),
    "p_g on top": dict(optimal_discriminator=lambda p_data, p_g: p_g / (p_data + p_g)),
    "the ratio alone": dict(optimal_discriminator=lambda p_data, p_g: p_data / p_g),
}


def test_a_trained_discriminator_is_p_over_p_plus_q():
    assert law_of_the_trained_discriminator(kit()) < KEPT


@pytest.mark.parametrize("name", WRONG_DISCRIMINATORS)
def test_a_wrong_one_trains_to_something_else(name):
    assert law_of_the_trained_discriminator(kit(**WRONG_DISCRIMINATORS[name])) > BROKEN


def test_the_mlp_discriminator_approaches_it_too():
    """1 -> 16 -> 16 -> 1 with tanh, 1,200 full steps of Adam from a fixed start: within 0.01 at every point, and the
    loss within 1e-4 of the best, which it never beats."""
    best = gan.optimal_discriminator(P_DATA, P_G)
    lowest = value_and_gradient(kit(), np.log(best / (1 - best)))[0]
    rng = np.random.default_rng(0)
    shapes = {"w1": (16, 1), "b1": (16,), "w2": (16, 16), "b2": (16,), "w3": (1, 16), "b3": (1,)}
    params = {name: rng.standard_normal(shape) / np.sqrt(shape[-1]) for name, shape in shapes.items()}
    m, v = ({name: np.zeros_like(p) for name, p in params.items()} for _ in range(2))
    for step in range(1, 1201):
        logits, cache = discriminator(params, POINTS[:, None], "tanh")
        value, dlogits = value_and_gradient(kit(), logits)
        _, gradients = discriminator_backward(dlogits, params, cache)
        for name in params:
            params[name], m[name], v[name] = optim.adam_step(params[name], gradients[name], m[name], v[name], step,
                                                             0.02, 0.9, 0.999, 1e-8, 0.0)
        assert value > lowest
    assert np.abs(layers.sigmoid(logits) - best).max() < 0.01 and value - lowest < 1e-4


def law_of_the_minimax_value(f):
    """[GAN] eq. 6: at D* the value, which is minus the loss, is 2 JSD - log 4; and at any other D it is lower."""
    best = f.optimal_discriminator(P_DATA, P_G)
    logits = np.log(best) - np.log(1 - best)
    top = -value_and_gradient(f, logits)[0]
    others = [-value_and_gradient(f, logits + shift)[0] for shift in (0.1, -0.1, 0.1 * np.sin(POINTS), -0.5 * logits)]
    return max(abs(top - (2 * f.jensen_shannon(P_DATA, P_G) - np.log(4))), max(others) - top)


WRONG_VALUES = {
    "JSD in bits": dict(jensen_shannon=lambda p, q: gan.jensen_shannon(p, q) / np.log(2)),
    "JSD without its half": dict(jensen_shannon=lambda p, q: 2 * gan.jensen_shannon(p, q)),
    "the KL for the JSD": dict(jensen_shannon=lambda p, q: np.sum(p * np.log(p / q))),
    "p_g on top": WRONG_DISCRIMINATORS["p_g on top"],
    "the mean of both means": dict(discriminator_loss=lambda real, fake: gan.discriminator_loss(real, fake) / 2),
    "real and fake swapped": dict(discriminator_loss=lambda real, fake: gan.discriminator_loss(fake, real)),
}


def test_the_minimax_value_is_twice_the_jsd_less_log_4():
    assert law_of_the_minimax_value(kit()) < KEPT
    for name, wrong in WRONG_VALUES.items():
        assert law_of_the_minimax_value(kit(**wrong)) > BROKEN, name
    zeros = np.zeros(7)  # p = q: D* = 1/2 and the value -log 4, the least there is
    assert_close(-gan.discriminator_loss(zeros, zeros), -np.log(4))
    assert_close(gan.optimal_discriminator(P_G, P_G), np.full(41, 0.5))


def law_of_the_jsd(f):
    """Symmetric, 0 for equals, at most log 2 and that for strangers; its root keeps the triangle inequality."""
    rng = np.random.default_rng(5)
    p, q, r = rng.dirichlet(np.full(6, 0.3), (3, 50))
    ends = np.abs([f.jensen_shannon(p, p).max(), f.jensen_shannon([1.0, 0.0], [0.0, 1.0]) - np.log(2)]).max()
    pq, qp = f.jensen_shannon(p, q), f.jensen_shannon(q, p)
    triangle = np.sqrt(pq) - np.sqrt(f.jensen_shannon(p, r)) - np.sqrt(f.jensen_shannon(r, q))
    return max(ends, np.abs(pq - qp).max(), (-pq).max(), (pq - np.log(2)).max(), triangle.max())


def test_the_jsd_is_a_squared_distance():
    assert law_of_the_jsd(kit()) < KEPT
    assert law_of_the_jsd(kit(jensen_shannon=lambda p, q: gan.jensen_shannon(p, q) / np.log(2))) > BROKEN
    assert law_of_the_jsd(kit(jensen_shannon=lambda p, q: 2 * gan.jensen_shannon(p, q))) > BROKEN
    assert law_of_the_jsd(kit(jensen_shannon=lambda p, q: gan.jensen_shannon(p, q) ** 2)) > BROKEN
