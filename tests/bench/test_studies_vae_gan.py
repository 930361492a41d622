"""The studies vae, gan and gan_pathologies: their gradients against differences, figures by hand."""
import numpy as np
import pytest

from bench.studies import classifier, gan, gan_pathologies, metrics, vae
from ref import gan as losses
from ref import philox, tree
from ref import vae as truth
from ref.nets import gan as gan_nets
from ref.nets import vae as vae_nets
from tests.bench import along


def small_vae():
    return {part: getattr(vae_nets, f"{part}_init")(0, 6, 5, 2, np.float64) for part in ("encoder", "decoder")}


X = (philox.uniform(0, (7, 6), 1) < 0.4).astype(np.float64)


def test_the_vae_is_trained_down_its_negative_elbo():
    params, eps = small_vae(), philox.normal(0, (7, 2), 2)

    def loss(params):
        mu, logvar, _ = vae_nets.encoder(params["encoder"], X)
        logits, _ = vae_nets.decoder(params["decoder"], truth.reparameterize(mu, logvar, eps))
        return -truth.elbo(truth.bernoulli_nll(logits, X), truth.gaussian_kl(mu, logvar))

    np.testing.assert_allclose(*along(loss, params, vae.gradients(params, X, eps)), rtol=1e-7)


def test_the_bounds_of_a_vae_whose_decoder_ignores_the_latent(monkeypatch):
    """Its cost c is -log p(x) itself. An encoder at the prior wastes nothing, another one wastes its KL."""
    monkeypatch.setattr(vae, "LATENT", 2)
    params = tree.zeros_like(small_vae())
    params["decoder"]["b3"] = np.linspace(-1, 1, 6)
    cost = np.mean(truth.bernoulli_nll(np.tile(params["decoder"]["b3"], (7, 1)), X))
    found = vae.bounds(params, X, 5, 0)
    figures = [found[k] for k in ("nll", "kl", "negative_elbo", "importance_weighted")]
    np.testing.assert_allclose(figures, [cost, 0, cost, cost], atol=1e-12)
    assert found["active"] == 0
    params["encoder"]["b3"] = np.array([0.8, 0, 0, 0.01])  # the second latent has 2.5e-5 nats, which is nothing
    found = vae.bounds(params, X, 2000, 0)
    assert found["negative_elbo"] == pytest.approx(cost + found["kl"], abs=1e-12)
    assert found["kl"] == pytest.approx(0.32, abs=1e-4)
    assert found["importance_weighted"] == pytest.approx(cost, abs=0.03) and found["active"] == 1


def test_pixels_are_on_with_the_probability_of_their_grey():
    grey = np.tile(np.array([-1.0, -0.5, 0.0, 0.6, 1.0], np.float32), (40000, 1))
    x = vae.binarised(grey, 0, 5)
    assert set(np.unique(x)) == {0, 1} and x.dtype == np.float32
    assert np.array_equal(x, vae.binarised(grey, 0, 5)) and not np.array_equal(x, vae.binarised(grey, 0, 6))
    np.testing.assert_allclose(x.mean(axis=0), [0, 0.25, 0.5, 0.8, 1], atol=0.01)
    assert not np.any(x[:, 0]) and np.all(x[:, 4])


def test_sharpness_and_look_by_hand():
    x = np.full((2, 28, 28), -1.0)
    x[1, :, 14:] = 1  # one edge: 28 steps of 2 among the 28 x 27 to the right of the second image
    assert metrics.sharpness(x.reshape(2, 784)) == pytest.approx(4 / 27 / 2)
    assert metrics.sharpness(x.transpose(0, 2, 1).reshape(2, 784)) == pytest.approx(4 / 27 / 2)
    assert metrics.sharpness(x[:1].reshape(1, 784)) == 0
    x[0, 0, :7] = 0.5
    assert vae.look(x.reshape(2, 784))["undecided"] == 7 / 1568
    for bad in (np.zeros((3, 28, 28)), np.zeros((0, 784)), np.zeros((2, 700))):
        with pytest.raises(ValueError, match="images"):
            metrics.sharpness(bad)


def test_digits_are_shifted_by_whole_pixels():
    x = philox.uniform(0, (2, 784))
    moved = classifier.shifted(x, np.array([[1, 0], [0, -2]])).reshape(2, 28, 28)
    np.testing.assert_array_equal(moved[0, :27], x[0].reshape(28, 28)[1:])
    np.testing.assert_array_equal(moved[1, :, 2:], x[1].reshape(28, 28)[:, :26])
    assert np.all(moved[0, 27] == -1) and np.all(moved[1, :, :2] == -1)


def small_gan():
    pair = gan_nets.generator_init(0, 3, 6, 4, np.float64), gan_nets.discriminator_init(0, 4, 6, np.float64)
    return *pair, philox.normal(0, (5, 4), 1), philox.normal(0, (5, 4), 2), philox.normal(0, (5, 3), 3)


@pytest.mark.parametrize("way", [gan.DIGITS, *gan_pathologies.WAYS.values()], ids=["digits", *gan_pathologies.WAYS])
def test_the_discriminator_is_trained_down_its_loss_and_its_penalty(way):
    _, critic, real, fake, _ = small_gan()
    alpha = philox.uniform(0, (5,), 4)

    def loss(params):
        value, penalty, _ = gan.critic_gradients(params, real, fake, way, alpha)
        direct = losses.discriminator_loss(*(gan_nets.discriminator(params, x, gan.ACT)[0] for x in (real, fake)))
        between, of = losses.interpolate(real, fake, alpha), (gan.INPUT_GRADIENT, params)
        penalties = {"R1": (losses.r1_penalty, real), "gradient penalty": (losses.gradient_penalty, between)}
        function, at = penalties.get(way.penalty, (lambda *_: (0.0,), None))
        wanted = function(*of, at)[0]
        assert value == pytest.approx(direct, rel=1e-12) and penalty == pytest.approx(way.weight * wanted, rel=1e-12)
        return value + penalty

    np.testing.assert_allclose(*along(loss, critic, gan.critic_gradients(critic, real, fake, way, alpha)[2]), rtol=1e-6)


@pytest.mark.parametrize("pair", [gan_pathologies.SATURATING, gan_pathologies.NON_SATURATING])
def test_the_generators_are_trained_down_their_losses(pair):
    generator, critic, _, _, z = small_gan()
    loss = lambda params: pair[0](gan_nets.discriminator(critic, gan_nets.generator(params, z)[0], gan.ACT)[0])
    value, gradient = gan.generator_gradients(generator, critic, z, *pair)
    assert value == pytest.approx(loss(generator), rel=1e-12)
    np.testing.assert_allclose(*along(loss, generator, gradient), rtol=1e-6)


def test_the_ring_covers_itself_and_a_part_of_it_does_not():
    x = gan_pathologies.ring(20000, 0, 7)
    modes, good = gan_pathologies.covered(x)
    assert modes == 8 and good == pytest.approx(1 - np.exp(-4.5), abs=0.002)  # a Rayleigh deviate is under 3
    assert gan_pathologies.covered(x[(x[:, 0] > 0.1)])[0] == 3
    assert gan_pathologies.covered(np.zeros((10, 2))) == (0, 0.0)
    half = np.concatenate([x[:1000], np.zeros((1000, 2))])
    assert gan_pathologies.covered(half)[0] == 8 and gan_pathologies.covered(half)[1] == pytest.approx(0.5, abs=0.02)


def test_the_saturating_gradient_dies_as_the_discriminator_learns():
    generator = gan_nets.generator_init(0, gan_pathologies.LATENT, gan_pathologies.WIDTH, 2)
    rows = gan_pathologies.vanishing("non-saturating", generator, 300, 64, 0, lambda: None)
    assert rows[0]["step"] == 1 and rows[-1]["step"] == 300 and rows[-1]["fake_logit"] < rows[0]["fake_logit"]
    assert rows[-1]["saturating"] < 0.5 * rows[0]["saturating"]
    assert rows[-1]["non_saturating"] > 10 * rows[-1]["saturating"]
