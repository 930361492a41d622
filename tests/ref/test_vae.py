"""The VAE's pieces: PyTorch's and diffusers' numbers, by hand, at the ends of the floats, and what is refused."""
import numpy as np
import pytest

from ref import layers, vae
from tests import assert_close, golden

GOLD = golden("vae_gan")
TORCH = golden("torch_ops")


def standardised():
    """KL(N(m1, s1) || N(m2, s2)) is the KL of N((m1 - m2) / s2, s1 / s2) to N(0, 1): mu and logvar of that, and s2."""
    m1, s1, m2, s2 = (GOLD[f"kl/{name}"].reshape(12, 1) for name in ("m1", "s1", "m2", "s2"))
    return (m1 - m2) / s2, 2 * np.log(s1 / s2), s1, s2


def test_gaussian_kl_replays_torch():
    mu, logvar, s1, s2 = standardised()
    terms = 1 + mu**2 + np.exp(logvar) + np.abs(logvar)
    assert_close(vae.gaussian_kl(mu, logvar), GOLD["kl/out"].ravel(), scale=terms.ravel())
    dmu, dlogvar = vae.gaussian_kl_backward(np.ones(12), mu, logvar)
    wanted = [GOLD[f"kl/grad{i}"].reshape(12, 1) for i in range(4)]
    for ours, theirs in zip([dmu / s2, 2 * dlogvar / s1, -dmu / s2, -(mu * dmu + 2 * dlogvar) / s2], wanted):
        assert_close(ours, theirs, scale=np.abs(theirs) + terms / np.minimum(s1, s2))


def test_gaussian_kl_of_full_covariances_in_their_common_axes():
    """In the axes where cov2 = I and cov1 is diagonal the KL of two full Gaussians is a `gaussian_kl`."""
    root = np.linalg.cholesky(GOLD["mvn/cov2"])
    variances, axes = np.linalg.eigh(np.linalg.solve(root, np.linalg.solve(root, GOLD["mvn/cov1"]).T))
    mu = axes.T @ np.linalg.solve(root, GOLD["mvn/m1"] - GOLD["mvn/m2"])
    assert_close(vae.gaussian_kl(mu[None], np.log(variances)[None])[0], GOLD["mvn/kl"])


def test_gaussian_nll_replays_torch_and_scipy():
    x, mean, std = (GOLD[name].reshape(12, 1) for name in ("logp/x", "kl/m1", "kl/s1"))
    logvar = 2 * np.log(std)
    assert_close(-vae.gaussian_nll(x, mean, logvar), GOLD["logp/normal"].ravel(),
                 scale=1 + np.abs(GOLD["logp/normal"].ravel()))
    # at the mean it is the entropy without its 1/2
    assert_close(vae.gaussian_nll(mean, mean, logvar) + 0.5, GOLD["kl/scipy_entropy_normal"].ravel())


def test_bernoulli_nll_replays_torch():
    """Targets between 0 and 1. The other set holds logits of +-700 and 0."""
    logits, x = GOLD["logp/logits"].reshape(12, 1), GOLD["logp/target"].reshape(12, 1)
    assert_close(-vae.bernoulli_nll(logits, x), GOLD["logp/bernoulli_cont"].ravel())
    logits, x, dnll = (TORCH[f"bce_logits_none/{name}"] for name in ("in/x", "in/t", "gout"))
    assert_close(vae.bernoulli_nll(logits, x), TORCH["bce_logits_none/out"], scale=np.abs(logits) + 1)
    assert_close(vae.bernoulli_nll(logits[None], x[None]), TORCH["bce_logits_sum/out"][None])
    dlogits, _ = vae.bernoulli_nll_backward(dnll, logits, x)
    assert_close(dlogits, TORCH["bce_logits_none/grad/x"], scale=np.abs(dnll))


def diagonal(name):
    """diffusers' layout: the mean in the first half of the channels, logvar in the second, two of them outside the
    clamp."""
    return np.split(GOLD[name], 2, axis=1)


def test_the_diagonal_gaussian_of_diffusers_and_its_clamp():
    mean, raw = diagonal("diag/params")
    logvar = vae.clamp_logvar(raw)
    assert logvar.min() == -30 and logvar.max() == 20 and np.sum(logvar != raw) == 2
    assert_close(vae.gaussian_kl(mean, logvar), GOLD["diag/kl_std"])
    assert_close(vae.gaussian_nll(GOLD["diag/sample"], mean, logvar), GOLD["diag/nll"])
    dmean, dclamped = vae.gaussian_kl_backward(np.ones(2), mean, logvar)
    dmean_theirs, dlogvar_theirs = diagonal("diag/kl_std_grad")
    assert_close(dmean, dmean_theirs)
    assert_close(vae.clamp_logvar_backward(dclamped, raw), dlogvar_theirs)


def test_the_diagonal_gaussian_of_diffusers_against_another():
    (mean1, raw1), (mean2, raw2) = diagonal("diag/params"), diagonal("diag/params2")
    logvar1, logvar2 = vae.clamp_logvar(raw1), vae.clamp_logvar(raw2)
    assert_close(vae.gaussian_kl((mean1 - mean2) * np.exp(-logvar2 / 2), logvar1 - logvar2), GOLD["diag/kl_other"])


def small_vae(beta):
    """The loss -ELBO of the goldens' VAE, its parts, and its gradients, from the functions of `ref`."""
    p = {name: GOLD[f"vae/{name}"] for name in ("We", "be", "Wm", "bm", "Wl", "bl", "Wd", "bd", "Wo", "bo")}
    x, eps = GOLD["vae/x"], GOLD["vae/eps"]
    h = layers.tanh(layers.linear(x, p["We"], p["be"]))
    mu, logvar = layers.linear(h, p["Wm"], p["bm"]), layers.linear(h, p["Wl"], p["bl"])
    z = vae.reparameterize(mu, logvar, eps)
    a = layers.tanh(layers.linear(z, p["Wd"], p["bd"]))
    logits = layers.linear(a, p["Wo"], p["bo"])
    nll, kl = vae.bernoulli_nll(logits, x), vae.gaussian_kl(mu, logvar)
    loss = -vae.elbo(nll, kl, beta)

    g = {}
    dnll, dkl = vae.elbo_backward(-1.0, nll, kl, beta)
    da, g["Wo"], g["bo"] = layers.linear_backward(vae.bernoulli_nll_backward(dnll, logits, x)[0], a, p["Wo"])
    dz, g["Wd"], g["bd"] = layers.linear_backward(layers.tanh_backward(da, a), z, p["Wd"])
    dmu, dlogvar, _ = vae.reparameterize_backward(dz, logvar, eps)
    dmu_kl, dlogvar_kl = vae.gaussian_kl_backward(dkl, mu, logvar)
    dh_mu, g["Wm"], g["bm"] = layers.linear_backward(dmu + dmu_kl, h, p["Wm"])
    dh_logvar, g["Wl"], g["bl"] = layers.linear_backward(dlogvar + dlogvar_kl, h, p["Wl"])
    _, g["We"], g["be"] = layers.linear_backward(layers.tanh_backward(dh_mu + dh_logvar, h), x, p["We"])
    return loss, nll, kl, g


def test_a_small_vae_and_all_its_gradients_replay_torch():
    loss, nll, kl, gradients = small_vae(beta=0.5)
    assert_close(nll, GOLD["vae/rec"])
    assert_close(kl, GOLD["vae/kl"])
    assert_close(loss, GOLD["vae/loss_beta0.5"])
    for name, gradient in gradients.items():
        theirs = GOLD[f"vae/grad/{name}"]
        assert_close(gradient, theirs, scale=np.abs(theirs).max())  # an element is a sum of terms of the others' size


def test_by_hand():
    """Variances 4 and 1/4: logvar = +-2 log 2, deviations 2 and 1/2."""
    mu, logvar, eps = np.array([[1.0, -2.0]]), np.array([[2.0, -2.0]]) * np.log(2), np.array([[3.0, 4.0]])
    assert_close(vae.reparameterize(mu, logvar, eps), np.array([[7.0, 0.0]]), scale=4.0)
    assert_close(vae.gaussian_kl(mu, logvar), np.array([(1 + 4 + 4 + 0.25 - 2) / 2]))
    x = np.array([[3.0, -1.0]])
    assert_close(vae.gaussian_nll(x, mu, logvar), np.array([(2 * np.log(2 * np.pi) + 1 + 4) / 2]))
    logits = np.log([[3.0, 1 / 3]])  # y = 3/4, 1/4
    assert_close(vae.bernoulli_nll(logits, np.array([[1.0, 1.0]])), np.array([np.log(4 / 3) + np.log(4)]))
    assert_close(vae.elbo(np.array([1.0, 3.0]), np.array([4.0, 8.0])), np.float64(-8.0))
    assert_close(vae.elbo(np.array([1.0, 3.0]), np.array([4.0, 8.0]), 0.5), np.float64(-5.0))
    assert_close(vae.importance_weighted_bound(np.log([[1.0, 3.0], [2.0, 6.0]])),
                 np.float64(np.log(2) / 2 + np.log(4) / 2))


def test_one_sample_makes_the_bound_the_elbo():
    nll, kl = np.array([1.0, 3.0, -2.0]), np.array([0.5, 2.0, 4.0])
    assert_close(vae.importance_weighted_bound(-(nll + kl)[:, None]), vae.elbo(nll, kl))


def test_the_clamps_edge_passes_the_gradient_and_outside_none_passes():
    raw = np.array([-31.0, np.nextafter(-30, -31), -30.0, 0.0, 20.0, np.nextafter(20, 21), np.inf])
    assert np.array_equal(vae.clamp_logvar(raw), [-30, -30, -30, 0, 20, 20, 20])
    assert np.array_equal(vae.clamp_logvar_backward(np.full(7, 3.0), raw), [0, 0, 3, 3, 3, 0, 0])
    assert np.array_equal(vae.clamp_logvar(raw, -1, 1)[[0, 3, 6]], [-1, 0, 1])
    assert np.isnan(vae.clamp_logvar(np.array([np.nan]))[0])
    assert vae.clamp_logvar_backward(np.ones(1), np.array([np.nan]))[0] == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bernoulli_nll_at_1e4(dtype):
    logits, x = np.array([[1e4], [-1e4], [1e4], [-1e4], [1e4]], dtype), np.array([[1], [0], [0], [1], [0.5]], dtype)
    assert np.array_equal(vae.bernoulli_nll(logits, x), [0, 0, 1e4, 1e4, 5e3])
    dlogits, dx = vae.bernoulli_nll_backward(np.ones(5), logits, x)
    assert np.array_equal(dlogits[:, 0], [0, 0, 1, -1, 0.5]) and np.array_equal(dx, -logits)


def test_bernoulli_nll_keeps_its_relative_precision_where_it_is_small():
    logits, x = np.array([[40.0], [-40.0], [300.0]]), np.array([[1.0], [0.0], [1.0]])
    assert_close(vae.bernoulli_nll(logits, x), np.exp([-40.0, -40.0, -300.0]))
    assert_close(vae.bernoulli_nll_backward(np.ones(3), logits, x)[0],
                 np.array([[-1], [1], [-1]]) * np.exp([[-40.0], [-40.0], [-300.0]]))


def test_gaussian_kl_keeps_its_precision_near_the_prior():
    small = np.array([[1e-3], [-1e-3], [1e-5]])
    series = small**2 / 4 + small**3 / 12 + small**4 / 48 + small**5 / 240
    assert_close(vae.gaussian_kl(np.zeros_like(small), small), series[:, 0], rel=1e-10)
    assert_close(vae.gaussian_kl_backward(np.ones(3), small, small)[1],
                 small / 2 + small**2 / 4 + small**3 / 12 + small**4 / 48)


def test_the_bound_with_weights_far_apart():
    log_w = np.array([[-1e4, -1e4], [1e4, -1e4], [-np.inf, 2.0]])
    assert_close(vae.importance_weighted_bound(log_w), np.float64((2 - 2 * np.log(2)) / 3), scale=1e4)
    assert np.array_equal(vae.importance_weighted_bound_backward(3.0, log_w), [[0.5, 0.5], [1, 0], [0, 1]])


SUMS = {"gaussian_kl": 2, "bernoulli_nll": 2, "gaussian_nll": 3}


def some(name, shape, seed=0):
    arrays = np.random.default_rng(seed).standard_normal((SUMS[name], *shape))
    if name == "bernoulli_nll":
        arrays[1] = 1 / (1 + np.exp(-arrays[1]))
    return list(arrays)


@pytest.mark.parametrize("shape", [(5,), (1, 1), (3, 4), (2, 3, 1, 5), (0, 3), (4, 0), (0,)])
@pytest.mark.parametrize("name", SUMS)
def test_sums_are_over_all_axes_but_the_first(name, shape):
    arrays = some(name, shape)
    out = getattr(vae, name)(*arrays)
    assert out.shape == shape[:1] and out.dtype == np.float64
    each = getattr(vae, name)(*(a.reshape(-1) for a in arrays))  # elements as examples
    np.testing.assert_allclose(out, each.reshape(shape).sum(axis=tuple(range(1, len(shape)))), rtol=1e-13, atol=1e-13)


def test_one_upstream_number_holds_for_every_example():
    mu, logvar, eps = np.random.default_rng(0).standard_normal((3, 4, 5))
    for one, each in zip(vae.reparameterize_kl_backward(mu, 0.3, mu, logvar, eps),
                         vae.reparameterize_kl_backward(mu, np.full(4, 0.3), mu, logvar, eps)):
        assert np.array_equal(one, each)
    assert np.array_equal(vae.bernoulli_nll_grad(mu, eps > 0, 0.25)[1],
                          vae.bernoulli_nll_grad(mu, eps > 0, np.full(4, 0.25))[1])
