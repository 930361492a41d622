"""Laws of the VAE's bounds and of the GAN's game, exact: expectations are sums, over the nodes of a quadrature that is
exact for them or over densities of finitely many points. Nothing is sampled, and what is trained is trained to the
bottom.

A gradient check cannot see a wrong forward whose gradient is right; these can. A law is a function of the functions it
is asked about and returns by how much they break it (0 is kept). Every law is also shown wrong ones, which must break
it visibly.

Papers
    [VAE]   Kingma, Welling, "Auto-Encoding Variational Bayes", 2014
    [IWAE]  Burda, Grosse, Salakhutdinov, "Importance Weighted Autoencoders", 2016
    [GAN]   Goodfellow et al., "Generative Adversarial Nets", 2014
"""
import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from ref import gan, layers, vae
from tests import assert_close

KEPT, BROKEN = 1e-12, 1e-3

MU = np.array([-3.0, -0.5, 0.0, 1e-8, 0.2, 4.0])
LOGVAR = np.array([-8.0, -1.0, -1e-8, 0.0, 1e-6, 0.3, 3.0])
ALL_MU, ALL_LOGVAR = (a.reshape(-1, 1) for a in np.meshgrid(MU, LOGVAR))


def kit(**wrong):
    """The functions of `ref.vae` and `ref.gan`, some of them replaced."""
    return SimpleNamespace(**{**vars(vae), **vars(gan), **wrong})


def normal_nodes(points, axes):
    """eps (points^axes, axes) and probabilities: sums over them are expectations over N(0, I), exact for polynomials of
    degree < 2 points in each axis (Gauss and Hermite)."""
    eps, w = np.polynomial.hermite_e.hermegauss(points)
    grid = np.array(list(itertools.product(eps, repeat=axes)))
    return grid, np.array(list(itertools.product(w / w.sum(), repeat=axes))).prod(axis=1)


# Wrong functions, each a mistake that people make; the gradient of each of them could be right.
WRONG = {
    "std = exp(logvar)": dict(reparameterize=lambda mu, logvar, eps: mu + np.exp(logvar) * eps),
    "std = exp(-logvar / 2)": dict(reparameterize=lambda mu, logvar, eps: mu + np.exp(-logvar / 2) * eps),
    "KL without its half": dict(gaussian_kl=lambda mu, logvar: 2 * vae.gaussian_kl(mu, logvar)),
    "KL without its 1": dict(gaussian_kl=lambda mu, logvar: vae.gaussian_kl(mu, logvar) + 0.5 * mu[0].size),
    "KL of a deviation": dict(gaussian_kl=lambda mu, logvar: vae.gaussian_kl(mu, 2 * logvar)),
    "KL averaged over its axes": dict(gaussian_kl=lambda mu, logvar: vae.gaussian_kl(mu, logvar) / 2),
    "nll without log 2 pi": dict(
        gaussian_nll=lambda x, mean, logvar: vae.gaussian_nll(x, mean, logvar) - np.log(2 * np.pi) / 2 * x[0].size),
    "nll without its half": dict(gaussian_nll=lambda x, mean, logvar: 2 * vae.gaussian_nll(x, mean, logvar)),
    "nll of a deviation": dict(gaussian_nll=lambda x, mean, logvar: vae.gaussian_nll(x, mean, 2 * logvar)),
    "the squared error for nll": dict(gaussian_nll=lambda x, mean, logvar: ((x - mean) ** 2).sum(axis=1)),
    "the KL's sign": dict(elbo=lambda nll, kl: np.mean(-nll + kl)),
    "a sum for the mean over the batch": dict(elbo=lambda nll, kl: np.sum(-nll - kl)),
}


def law_of_kl_sign(f):
    """KL >= 0, and 0 at (0, 0) only: by how much it is below 0 or off 0 there; inf where it is 0 elsewhere."""
    kl, at_prior = f.gaussian_kl(ALL_MU, ALL_LOGVAR), ((ALL_MU == 0) & (ALL_LOGVAR == 0))[:, 0]
    if np.any(kl[~at_prior] == 0):
        return np.inf
    return max(np.abs(kl[at_prior]).max(), -kl.min())


def test_the_kl_is_0_at_the_prior_and_above_0_elsewhere():
    assert law_of_kl_sign(kit()) == 0
    assert law_of_kl_sign(kit(**WRONG["KL without its 1"])) > BROKEN
    assert law_of_kl_sign(kit(gaussian_kl=lambda mu, logvar: -vae.gaussian_kl(mu, logvar))) > BROKEN
    # blind to the variance
    assert law_of_kl_sign(kit(gaussian_kl=lambda mu, logvar: vae.gaussian_kl(mu, 0 * logvar))) == np.inf
    assert law_of_kl_sign(kit(gaussian_kl=lambda mu, logvar: vae.gaussian_kl(0 * mu, logvar))) == np.inf


def law_of_kl_by_quadrature(f):
    """KL = E[log q(z) - log p(z)] over z = reparameterize(mu, logvar, eps): the three functions know the same Gaussian.
    log q and log p are of second degree in eps, so two nodes are exact."""
    kl = np.zeros(len(ALL_MU))
    for eps, probability in zip(*normal_nodes(2, 1)):
        z = f.reparameterize(ALL_MU, ALL_LOGVAR, np.full_like(ALL_MU, eps))
        kl += probability * (f.gaussian_nll(z, 0 * z, 0 * z) - f.gaussian_nll(z, ALL_MU, ALL_LOGVAR))
    return np.abs((f.gaussian_kl(ALL_MU, ALL_LOGVAR) - kl) / (1 + np.abs(kl))).max()


BREAKS_QUADRATURE = ["std = exp(logvar)", "std = exp(-logvar / 2)", "KL without its half", "KL without its 1",
                     "KL of a deviation",
                     "KL averaged over its axes", "nll without its half", "nll of a deviation",
                     "the squared error for nll"]


def test_the_kl_by_quadrature():
    assert law_of_kl_by_quadrature(kit()) < KEPT


@pytest.mark.parametrize("name", BREAKS_QUADRATURE)
def test_a_wrong_vae_breaks_the_quadrature(name):
    assert law_of_kl_by_quadrature(kit(**WRONG[name])) > BROKEN


def law_of_the_gaussian(f):
    """exp(-nll) integrates to 1, with the mean and the variance exp(logvar). The trapezium rule on a Gaussian is exact
    to rounding from steps of half a deviation on."""
    worst = 0.0
    for mean, logvar in itertools.product([-1.0, 2.0], [-2.0, 0.0, 1.5]):
        std = np.exp(logvar / 2)
        x = mean + std * np.linspace(-12, 12, 97)
        density = np.exp(-f.gaussian_nll(x[:, None], np.full((97, 1), mean), np.full((97, 1), logvar))) * (x[1] - x[0])
        moments = [density.sum() - 1, density @ x - mean, density @ (x - mean) ** 2 / std**2 - 1]
        worst = max(worst, np.abs(moments).max())
    return worst


def test_the_gaussian_is_a_density_with_its_mean_and_variance():
    assert law_of_the_gaussian(kit()) < KEPT
    for name in ("nll without log 2 pi", "nll without its half", "nll of a deviation", "the squared error for nll"):
        assert law_of_the_gaussian(kit(**WRONG[name])) > BROKEN, name


def law_of_the_bernoulli(f):
    """exp(-nll) sums to 1 over all eight x of three pixels, and E[x] = sigmoid(logits)."""
    x = np.array(list(itertools.product([0.0, 1.0], repeat=3)))
    worst = 0.0
    for logits in np.array([[-2.0, 0.0, 0.5], [3.0, -0.1, 9.0]]):
        p = np.exp(-f.bernoulli_nll(np.tile(logits, (8, 1)), x))
        worst = max(worst, abs(p.sum() - 1), np.abs(p @ x - 1 / (1 + np.exp(-logits))).max())
    return worst


def test_the_bernoulli_sums_to_1_with_its_mean():
    true = vae.bernoulli_nll
    assert law_of_the_bernoulli(kit()) < KEPT
    assert law_of_the_bernoulli(kit(bernoulli_nll=lambda logits, x: true(-logits, x))) > BROKEN  # x the other way round
    # the mean over pixels
    assert law_of_the_bernoulli(kit(bernoulli_nll=lambda logits, x: true(logits, x) / 3)) > BROKEN
    # half of it
    half = kit(bernoulli_nll=lambda logits, x: (x * layers.softplus(-logits)).sum(axis=1))
    assert law_of_the_bernoulli(half) > BROKEN


# z ~ N(0, I), x ~ N(W z + b, S2 I). The columns of W are orthogonal, so the posterior's covariance is diagonal.
W, b, S2 = np.array([[1.0, 0.5], [-1.0, 0.5], [0.5, 2.0]]) * [1.0, 0.7], np.array([0.3, -0.2, 1.0]), 0.4
W[:, 1] -= W[:, 0] * (W[:, 0] @ W[:, 1]) / (W[:, 0] @ W[:, 0])
DATA = np.array([[0.5, -1.0, 2.0], [3.0, 0.0, 0.0], [-1.0, 1.0, 0.4], [0.3, -0.2, 1.0]])


def log_evidence():
    """log p(x) for each of DATA: x ~ N(b, W W^T + S2 I)."""
    covariance = W @ W.T + S2 * np.eye(3)
    centred = DATA - b
    quadratic = np.einsum("bi,ij,bj->b", centred, np.linalg.inv(covariance), centred)
    return -(quadratic + np.linalg.slogdet(covariance)[1] + 3 * np.log(2 * np.pi)) / 2


def posterior():
    """mu and logvar of p(z | x) = N(V W^T (x - b) / S2, V), V = (I + W^T W / S2)^-1."""
    variance = 1 / (1 + np.sum(W**2, axis=0) / S2)
    return (DATA - b) @ W / S2 * variance, np.tile(np.log(variance), (4, 1))


def elbo_of(f, mu, logvar):
    """The ELBO with E over q exact: nll is of second degree in eps, so two nodes an axis are."""
    nll = np.zeros(4)
    for eps, probability in zip(*normal_nodes(2, 2)):
        z = f.reparameterize(mu, logvar, np.tile(eps, (4, 1)))
        nll += probability * f.gaussian_nll(DATA, z @ W.T + b, np.full(DATA.shape, np.log(S2)))
    return f.elbo(nll, f.gaussian_kl(mu, logvar))


ENCODERS = {"the prior": (np.zeros((4, 2)), np.zeros((4, 2))),
            "means off": (posterior()[0] + [0.3, -0.1], posterior()[1]),
            "too wide": (posterior()[0], posterior()[1] + 1.0),
            "too narrow": (posterior()[0], posterior()[1] - [0.5, 3.0]),
            "one for all": (np.tile([1.0, -1.0], (4, 1)), np.tile([-1.0, 0.4], (4, 1)))}


def test_the_posterior_of_the_worked_model_is_right():
    """p(x) p(z | x) = p(z) p(x | z) at any z, or the laws below would be of nothing."""
    assert abs(W[:, 0] @ W[:, 1]) < 1e-15
    z, (mu, logvar) = np.array([[0.7, -1.3]] * 4), posterior()
    joint = vae.gaussian_nll(z, 0 * z, 0 * z) + vae.gaussian_nll(DATA, z @ W.T + b, np.full(DATA.shape, np.log(S2)))
    assert_close(log_evidence() - vae.gaussian_nll(z, mu, logvar), -joint)


def law_of_the_elbo_at_the_posterior(f):
    """Equality with log p(x)."""
    return abs(elbo_of(f, *posterior()) - np.mean(log_evidence()))


def law_of_the_elbo_below(f):
    """What is missing is KL(q || p(z | x)), [VAE] eq. 1, so above 0: a `gaussian_kl` in the posterior's own units."""
    worst = 0.0
    for mu, logvar in ENCODERS.values():
        gap, (centre, spread) = np.mean(log_evidence()) - elbo_of(f, mu, logvar), posterior()
        wanted = np.mean(vae.gaussian_kl((mu - centre) * np.exp(-spread / 2), logvar - spread))
        worst = max(worst, -gap, abs(gap - wanted) / wanted)
    return worst


def test_the_elbo_is_log_p_at_the_exact_posterior_and_below_it_elsewhere():
    assert law_of_the_elbo_at_the_posterior(kit()) < KEPT
    assert law_of_the_elbo_below(kit()) < KEPT
    for mu, logvar in ENCODERS.values():
        assert elbo_of(kit(), mu, logvar) < np.mean(log_evidence()) - 1e-3


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_vae_breaks_the_elbo(name):
    assert law_of_the_elbo_at_the_posterior(kit(**WRONG[name])) > BROKEN
    assert law_of_the_elbo_below(kit(**WRONG[name])) > BROKEN


def test_an_elbo_above_log_p_would_be_seen():
    """exp(logvar) for a deviation draws too little: the bound seems to beat the evidence."""
    wrong = kit(**WRONG["std = exp(logvar)"])
    assert elbo_of(wrong, *posterior()) > np.mean(log_evidence()) + 0.1


def log_weights(mu, logvar, points):
    """log w = log p(x, z) - log q(z) for the first of DATA at the nodes of q, (nodes,), and the nodes'
    probabilities."""
    eps, probabilities = normal_nodes(points, 2)
    z, x = vae.reparameterize(np.tile(mu, (len(eps), 1)), np.tile(logvar, (len(eps), 1)), eps), np.tile(DATA[0],
                                                                                                        (len(eps), 1))
    log_joint = -vae.gaussian_nll(z, 0 * z, 0 * z) - vae.gaussian_nll(x, z @ W.T + b, np.full(x.shape, np.log(S2)))
    return log_joint + vae.gaussian_nll(z, np.tile(mu, (len(z), 1)), np.tile(logvar, (len(z), 1))), probabilities


def bounds(f, log_w, probabilities):
    """E[L_K] for K = 1, 2, 3 over all tuples of K independent nodes. q on these nodes is a distribution like any other:
    the theorem holds for it with no error of quadrature."""
    expected = []
    for K in (1, 2, 3):
        tuples = np.array(list(itertools.product(range(len(log_w)), repeat=K)))
        chance = probabilities[tuples].prod(axis=1)
        expected.append(sum(p * f.importance_weighted_bound(row[None]) for p, row in zip(chance, log_w[tuples])))
    return np.array(expected)


WIDE = posterior()[0][0] + [0.2, -0.1], posterior()[1][0] + [0.4, 0.3]  # wider than the posterior: E[w^2] is finite


def law_of_rising_bounds(f):
    """[IWAE] theorem 1: the ELBO = L_1 < L_2 < L_3 < log E[w], by how much not, where a millionth of a nat would be no
    rise."""
    log_w, probabilities = log_weights(*WIDE, 4)
    steps = np.diff(np.append(bounds(f, log_w, probabilities), np.log(probabilities @ np.exp(log_w))))
    return max(abs(bounds(f, log_w, probabilities)[0] - probabilities @ log_w), *(1e-6 - steps), 0.0)


WRONG_BOUNDS = {
    "the mean of log w": lambda log_w: np.mean(log_w),
    "without log K": lambda log_w: vae.importance_weighted_bound(log_w) + np.log(log_w.shape[1]),
    "log K twice": lambda log_w: vae.importance_weighted_bound(log_w) - np.log(log_w.shape[1]),
    "the largest weight": lambda log_w: np.mean(log_w.max(axis=1)),
    "log w's sign": lambda log_w: vae.importance_weighted_bound(-log_w),
}


def test_the_importance_weighted_bound_rises_with_the_samples():
    assert law_of_rising_bounds(kit()) < KEPT
    for name, wrong in WRONG_BOUNDS.items():
        assert law_of_rising_bounds(kit(importance_weighted_bound=wrong)) > 1e-7, name


def test_the_weights_average_to_the_evidence():
    """E[w] = p(x): what the bound rises to is log p(x) itself, by a finer quadrature."""
    log_w, probabilities = log_weights(*WIDE, 40)
    assert abs(np.log(probabilities @ np.exp(log_w)) - log_evidence()[0]) < 1e-9


def test_at_the_exact_posterior_one_sample_is_enough():
    log_w, _ = log_weights(posterior()[0][0], posterior()[1][0], 4)
    assert_close(log_w, np.full(16, log_evidence()[0]))
    assert_close(vae.importance_weighted_bound(log_w[None, :5]), log_evidence()[0])


def law_of_subsets(f):
    """For any weights, the mean of the bound over all k of them rises with k, and all of them give log(mean w): the
    argument of [IWAE] theorem 1 itself. A batch is all the subsets of one size."""
    log_w = np.array([-3.0, 0.5, 2.0, -0.2, 1.0, -7.0])
    means = [f.importance_weighted_bound(np.array(list(itertools.combinations(log_w, k)))) for k in range(1, 7)]
    return max(abs(means[0] - log_w.mean()), abs(means[-1] - np.log(np.exp(log_w).mean())), *(1e-6 - np.diff(means)),
               0.0)


def test_the_bound_over_subsets_of_any_weights_rises():
    assert law_of_subsets(kit()) < KEPT
    for name, wrong in WRONG_BOUNDS.items():
        assert law_of_subsets(kit(importance_weighted_bound=wrong)) > 1e-7, name
