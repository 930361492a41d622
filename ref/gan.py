"""The losses of generative adversarial networks, the penalties on the discriminator's gradient, and the theory's two sums.

Everything here is float64, whatever comes in. A loss takes logits, the discriminator's output before any sigmoid, of any
shape, and is a mean over them; real and fake may differ in number. D = sigmoid(logit), so log D = -softplus(-logit) and
log(1 - D) = -softplus(logit): finite, and so is the gradient, at any finite logit. All losses are minimised.

Papers
    [GAN]      Goodfellow et al., "Generative Adversarial Nets", 2014
    [LSGAN]    Mao et al., "Least Squares Generative Adversarial Networks", 2017
    [WGAN]     Arjovsky, Chintala, Bottou, "Wasserstein Generative Adversarial Networks", 2017
    [WGAN-GP]  Gulrajani et al., "Improved Training of Wasserstein GANs", 2017
    [SN]       Miyato et al., "Spectral Normalization for Generative Adversarial Networks", 2018
    [R1]       Mescheder, Geiger, Nowozin, "Which Training Methods for GANs do actually Converge?", 2018
    [JSD]      Lin, "Divergence Measures Based on the Shannon Entropy", 1991
"""
import numpy as np

from ref.layers import relu, relu_backward, sigmoid, softplus
from ref.shapes import float64, not_empty, per_example, same_shape, unit_interval


def discriminator_loss(real_logits, fake_logits):
    """[GAN] eq. 1, which D maximises, with its sign changed:  L = -mean(log D(real)) - mean(log(1 - D(fake))).

    real_logits, fake_logits: any shapes, at least one element each.
    Returns L = mean(softplus(-real_logits)) + mean(softplus(fake_logits)), a float.
    Raises ValueError where there is nothing to average.
    """
    real_logits, fake_logits = not_empty(real_logits=real_logits, fake_logits=fake_logits)
    return np.mean(softplus(-real_logits)) + np.mean(softplus(fake_logits))


def discriminator_loss_backward(dloss, real_logits, fake_logits):
    """Gradients of `discriminator_loss`:  dreal_logits = -dloss sigmoid(-real_logits) / N,  dfake_logits = dloss sigmoid(fake_logits) / M.

    dloss: float. real_logits, fake_logits: as in `discriminator_loss`; N and M are their numbers.
    Returns dreal_logits, dfake_logits, each of its shape, float64.
    Raises as `discriminator_loss` does.
    """
    real_logits, fake_logits = not_empty(real_logits=real_logits, fake_logits=fake_logits)
    return -dloss * sigmoid(-real_logits) / real_logits.size, dloss * sigmoid(fake_logits) / fake_logits.size


def generator_loss(fake_logits):
    """The non-saturating loss, [GAN] section 3:  L = -mean(log D(fake)) = mean(softplus(-fake_logits)).

    Where D is sure of a fake its gradient is -1 / N a logit, where that of `generator_loss_saturating` is gone.
    fake_logits: any shape, at least one element.
    Returns L, a float.
    Raises ValueError where there is nothing to average.
    """
    fake_logits = not_empty(fake_logits=fake_logits)[0]
    return np.mean(softplus(-fake_logits))


def generator_loss_backward(dloss, fake_logits):
    """Gradient of `generator_loss`:  dfake_logits = -dloss sigmoid(-fake_logits) / N.

    dloss: float. fake_logits: as in `generator_loss`.
    Returns dfake_logits of its shape, float64.
    Raises as `generator_loss` does.
    """
    fake_logits = not_empty(fake_logits=fake_logits)[0]
    return -dloss * sigmoid(-fake_logits) / fake_logits.size


def generator_loss_saturating(fake_logits):
    """The minimax loss, [GAN] eq. 1 as G sees it:  L = mean(log(1 - D(fake))) = -mean(softplus(fake_logits)).

    fake_logits: any shape, at least one element.
    Returns L, a float.
    Raises ValueError where there is nothing to average.
    """
    fake_logits = not_empty(fake_logits=fake_logits)[0]
    return -np.mean(softplus(fake_logits))


def generator_loss_saturating_backward(dloss, fake_logits):
    """Gradient of `generator_loss_saturating`:  dfake_logits = -dloss sigmoid(fake_logits) / N; it dies as e^fake_logits.

    dloss: float. fake_logits: as in `generator_loss_saturating`.
    Returns dfake_logits of its shape, float64.
    Raises as `generator_loss_saturating` does.
    """
    fake_logits = not_empty(fake_logits=fake_logits)[0]
    return -dloss * sigmoid(fake_logits) / fake_logits.size


def hinge_discriminator_loss(real_logits, fake_logits):
    """[SN] eq. 16, which D maximises, with its sign changed:  L = mean(max(0, 1 - real_logits)) + mean(max(0, 1 + fake_logits)).

    real_logits, fake_logits: any shapes, at least one element each.
    Returns L, a float.
    Raises ValueError where there is nothing to average.
    """
    real_logits, fake_logits = not_empty(real_logits=real_logits, fake_logits=fake_logits)
    return np.mean(relu(1 - real_logits)) + np.mean(relu(1 + fake_logits))


def hinge_discriminator_loss_backward(dloss, real_logits, fake_logits):
    """Gradients of `hinge_discriminator_loss`:  dreal_logits = -dloss / N where real_logits < 1,  dfake_logits = dloss / M
    where fake_logits > -1, else 0; 0 at the kink too.

    dloss: float. real_logits, fake_logits: as in `hinge_discriminator_loss`; N and M are their numbers.
    Returns dreal_logits, dfake_logits, each of its shape, float64.
    Raises as `hinge_discriminator_loss` does.
    """
    real_logits, fake_logits = not_empty(real_logits=real_logits, fake_logits=fake_logits)
    dreal_logits = -relu_backward(dloss / real_logits.size, 1 - real_logits)
    return dreal_logits, relu_backward(dloss / fake_logits.size, 1 + fake_logits)


def hinge_generator_loss(fake_logits):
    """[SN] eq. 17, which G minimises:  L = -mean(fake_logits).

    fake_logits: any shape, at least one element.
    Returns L, a float.
    Raises ValueError where there is nothing to average.
    """
    return -np.mean(not_empty(fake_logits=fake_logits)[0])


def hinge_generator_loss_backward(dloss, fake_logits):
    """Gradient of `hinge_generator_loss`:  dfake_logits = -dloss / N.

    dloss: float. fake_logits: as in `hinge_generator_loss`.
    Returns dfake_logits of its shape, float64.
    Raises as `hinge_generator_loss` does.
    """
    fake_logits = not_empty(fake_logits=fake_logits)[0]
    return np.full(fake_logits.shape, -dloss / fake_logits.size)


def least_squares_discriminator_loss(real_logits, fake_logits):
    """[LSGAN] eq. 2 with a = 0 for fake and b = 1 for real:  L = 1/2 mean((real_logits - 1)^2) + 1/2 mean(fake_logits^2).

    real_logits, fake_logits: any shapes, at least one element each.
    Returns L, a float.
    Raises ValueError where there is nothing to average.
    """
    real_logits, fake_logits = not_empty(real_logits=real_logits, fake_logits=fake_logits)
    return np.mean((real_logits - 1) ** 2) / 2 + np.mean(fake_logits**2) / 2


def least_squares_discriminator_loss_backward(dloss, real_logits, fake_logits):
    """Gradients of `least_squares_discriminator_loss`:  dreal_logits = dloss (real_logits - 1) / N,  dfake_logits = dloss fake_logits / M.

    dloss: float. real_logits, fake_logits: as in `least_squares_discriminator_loss`; N and M are their numbers.
    Returns dreal_logits, dfake_logits, each of its shape, float64.
    Raises as `least_squares_discriminator_loss` does.
    """
    real_logits, fake_logits = not_empty(real_logits=real_logits, fake_logits=fake_logits)
    return dloss * (real_logits - 1) / real_logits.size, dloss * fake_logits / fake_logits.size


def least_squares_generator_loss(fake_logits):
    """[LSGAN] eq. 2 with c = 1, to be taken for real:  L = 1/2 mean((fake_logits - 1)^2).

    fake_logits: any shape, at least one element.
    Returns L, a float.
    Raises ValueError where there is nothing to average.
    """
    return np.mean((not_empty(fake_logits=fake_logits)[0] - 1) ** 2) / 2


def least_squares_generator_loss_backward(dloss, fake_logits):
    """Gradient of `least_squares_generator_loss`:  dfake_logits = dloss (fake_logits - 1) / N.

    dloss: float. fake_logits: as in `least_squares_generator_loss`.
    Returns dfake_logits of its shape, float64.
    Raises as `least_squares_generator_loss` does.
    """
    fake_logits = not_empty(fake_logits=fake_logits)[0]
    return dloss * (fake_logits - 1) / fake_logits.size


def wasserstein_discriminator_loss(real_logits, fake_logits):
    """[WGAN] eq. 3, which the critic maximises, with its sign changed:  L = mean(fake_logits) - mean(real_logits).

    -L is at most the distance while the critic is 1-Lipschitz, which `gradient_penalty` asks of it, and at most K times the
    distance while it is K-Lipschitz, for some K, as clipped weights make it.
    real_logits, fake_logits: any shapes, at least one element each; the critic's output, which has no sigmoid.
    Returns L, a float.
    Raises ValueError where there is nothing to average.
    """
    real_logits, fake_logits = not_empty(real_logits=real_logits, fake_logits=fake_logits)
    return np.mean(fake_logits) - np.mean(real_logits)


def wasserstein_discriminator_loss_backward(dloss, real_logits, fake_logits):
    """Gradients of `wasserstein_discriminator_loss`:  dreal_logits = -dloss / N,  dfake_logits = dloss / M.

    dloss: float. real_logits, fake_logits: as in `wasserstein_discriminator_loss`; N and M are their numbers.
    Returns dreal_logits, dfake_logits, each of its shape, float64.
    Raises as `wasserstein_discriminator_loss` does.
    """
    real_logits, fake_logits = not_empty(real_logits=real_logits, fake_logits=fake_logits)
    return np.full(real_logits.shape, -dloss / real_logits.size), np.full(fake_logits.shape, dloss / fake_logits.size)


def wasserstein_generator_loss(fake_logits):
    """[WGAN] eq. 3 as G sees it:  L = -mean(fake_logits).

    fake_logits: any shape, at least one element.
    Returns L, a float.
    Raises ValueError where there is nothing to average.
    """
    return -np.mean(not_empty(fake_logits=fake_logits)[0])


def wasserstein_generator_loss_backward(dloss, fake_logits):
    """Gradient of `wasserstein_generator_loss`:  dfake_logits = -dloss / N.

    dloss: float. fake_logits: as in `wasserstein_generator_loss`.
    Returns dfake_logits of its shape, float64.
    Raises as `wasserstein_generator_loss` does.
    """
    fake_logits = not_empty(fake_logits=fake_logits)[0]
    return np.full(fake_logits.shape, -dloss / fake_logits.size)


def discriminator_loss_grad(real_logits, fake_logits):
    """`discriminator_loss` and its gradients in one pass. real_logits, fake_logits: as there. Returns L (a float), dreal_logits, dfake_logits; raises as there."""
    return discriminator_loss(real_logits, fake_logits), *discriminator_loss_backward(1.0, real_logits, fake_logits)


def generator_loss_grad(fake_logits):
    """`generator_loss` and its gradient in one pass. fake_logits: as there. Returns L (a float), dfake_logits; raises as there."""
    return generator_loss(fake_logits), generator_loss_backward(1.0, fake_logits)


def generator_loss_saturating_grad(fake_logits):
    """`generator_loss_saturating` and its gradient in one pass. fake_logits: as there. Returns L (a float), dfake_logits; raises as there."""
    return generator_loss_saturating(fake_logits), generator_loss_saturating_backward(1.0, fake_logits)


def hinge_discriminator_loss_grad(real_logits, fake_logits):
    """`hinge_discriminator_loss` and its gradients in one pass. real_logits, fake_logits: as there. Returns L (a float), dreal_logits, dfake_logits; raises as there."""
    return hinge_discriminator_loss(real_logits, fake_logits), *hinge_discriminator_loss_backward(1.0, real_logits, fake_logits)


def hinge_generator_loss_grad(fake_logits):
    """`hinge_generator_loss` and its gradient in one pass. fake_logits: as there. Returns L (a float), dfake_logits; raises as there."""
    return hinge_generator_loss(fake_logits), hinge_generator_loss_backward(1.0, fake_logits)


def least_squares_discriminator_loss_grad(real_logits, fake_logits):
    """`least_squares_discriminator_loss` and its gradients in one pass. real_logits, fake_logits: as there. Returns L (a float), dreal_logits, dfake_logits; raises as there."""
    return least_squares_discriminator_loss(real_logits, fake_logits), *least_squares_discriminator_loss_backward(1.0, real_logits, fake_logits)


def least_squares_generator_loss_grad(fake_logits):
    """`least_squares_generator_loss` and its gradient in one pass. fake_logits: as there. Returns L (a float), dfake_logits; raises as there."""
    return least_squares_generator_loss(fake_logits), least_squares_generator_loss_backward(1.0, fake_logits)


def wasserstein_discriminator_loss_grad(real_logits, fake_logits):
    """`wasserstein_discriminator_loss` and its gradients in one pass. real_logits, fake_logits: as there. Returns L (a float), dreal_logits, dfake_logits; raises as there."""
    return wasserstein_discriminator_loss(real_logits, fake_logits), *wasserstein_discriminator_loss_backward(1.0, real_logits, fake_logits)


def wasserstein_generator_loss_grad(fake_logits):
    """`wasserstein_generator_loss` and its gradient in one pass. fake_logits: as there. Returns L (a float), dfake_logits; raises as there."""
    return wasserstein_generator_loss(fake_logits), wasserstein_generator_loss_backward(1.0, fake_logits)


def interpolate(real, fake, alpha):
    """[WGAN-GP] algorithm 1, line 6, the points where `gradient_penalty` is taken:  x = alpha real + (1 - alpha) fake.

    real, fake: (B, ...). alpha: (B,) in [0, 1], one an example, uniform.
    Returns x (B, ...) float64.
    Raises ValueError where shapes differ, alpha is not (B,), or alpha is outside [0, 1].
    """
    real, fake = same_shape(real=real, fake=fake)
    if real.ndim == 0 or np.shape(alpha) != real.shape[:1]:
        raise ValueError(f"alpha: expected shape (B,) for real and fake (B, ...), got {np.shape(alpha)} for {real.shape}")
    alpha = per_example(unit_interval(alpha, "alpha"), real, "alpha")
    return alpha * real + (1 - alpha) * fake


def gradient_penalty(network, params, x):
    """[WGAN-GP] eq. 3 without its weight lambda, which is 10 there:  L = mean_b((|grad D(x_b)| - 1)^2), |.| over all axes but the first.

    network: two functions, the gradient of D in its input and that gradient's backward, as `ref.nets.gan` has them:
        input_gradient(params, x) returns dx (B, ...), row b of it the gradient of D(x_b), and a cache;
        input_gradient_backward(ddx, params, cache) returns the gradients of sum(ddx dx) in x and in the parameters.
    D(x_b) must depend on x_b alone, so there may be no batch norm in it. params: its dict. x: (B, ...), B >= 1, from `interpolate`.
    Returns L, a float, and a cache.
    Raises ValueError where dx has not the shape of x, or there is nothing to average.
    """
    dx, inner = _input_gradient(network, params, x)
    return np.mean((_norm(dx) - 1) ** 2), {"dx": dx, "network": inner}


def gradient_penalty_backward(dloss, network, params, cache):
    """Gradients of `gradient_penalty` in the parameters: through  ddx_b = 2 dloss / B (1 - 1 / |dx_b|) dx_b,  0 where dx_b = 0.

    dloss: float. network, params: as in `gradient_penalty`. cache: of the forward.
    Returns dparams.
    """
    dx = cache["dx"].astype(np.float64)
    norm = _norm(dx)
    unit = np.divide(dx, norm, out=np.zeros_like(dx), where=norm > 0)
    ddx = 2 * dloss / len(dx) * (norm - 1) * unit
    return network[1](ddx.astype(cache["dx"].dtype), params, cache["network"])[1]


def r1_penalty(network, params, x):
    """[R1] eq. 9 without its weight gamma:  L = 1/2 mean_b(|grad D(x_b)|^2), |.| over all axes but the first.

    network, params: as in `gradient_penalty`. x: (B, ...), B >= 1, real examples.
    Returns L, a float, and a cache.
    Raises as `gradient_penalty` does.
    """
    dx, inner = _input_gradient(network, params, x)
    return np.sum(float64(dx) ** 2) / (2 * len(dx)), {"dx": dx, "network": inner}


def r1_penalty_backward(dloss, network, params, cache):
    """Gradients of `r1_penalty` in the parameters: through  ddx_b = dloss / B dx_b.

    dloss: float. network, params: as in `gradient_penalty`. cache: of the forward.
    Returns dparams.
    """
    dx = cache["dx"]
    return network[1]((dloss / len(dx) * dx.astype(np.float64)).astype(dx.dtype), params, cache["network"])[1]


def optimal_discriminator(p_data, p_g):
    """[GAN] eq. 2:  D*(x) = p_data(x) / (p_data(x) + p_g(x)).

    p_data, p_g: one shape, densities or probabilities at the same points, >= 0.
    Returns D* of their shape, float64; 1/2 where both are 0, where any D is as good ([GAN] proposition 1).
    Raises ValueError where shapes differ or a value is below 0.
    """
    p_data, p_g = same_shape(p_data=p_data, p_g=p_g)
    _not_negative(p_data=p_data, p_g=p_g)
    return np.divide(p_data, p_data + p_g, out=np.full(p_data.shape, 0.5), where=~(p_data + p_g == 0))[()]


def jensen_shannon(p, q):
    """The Jensen-Shannon divergence, [JSD] with equal weights, in nats; the one of [GAN] eq. 6. With m = (p + q) / 2,

        JSD = 1/2 sum(p log(p / m)) + 1/2 sum(q log(q / m)),   0 log 0 = 0

    p, q: (..., n), one shape, probabilities that sum to 1 over the last axis.
    Returns JSD (...), a float for one pair; 0 for p = q, at most log 2, which it is for p and q with nothing in common.
    Raises ValueError where shapes differ, a value is below 0, or a sum is not 1 to within 1e-6.
    """
    p, q = same_shape(p=p, q=q)
    _not_negative(p=p, q=q)
    for name, values in {"p": p, "q": q}.items():
        if values.ndim == 0 or not np.all(np.abs(values.sum(axis=-1) - 1) <= 1e-6):
            raise ValueError(f"{name}: expected shape (..., n) with sums over n of 1, got shape {values.shape} with {values.sum(axis=-1)}")
    terms = _p_log_p_over_m(p, q) + _p_log_p_over_m(q, p)
    return np.sum(terms, axis=-1) / 2


def _input_gradient(network, params, x):
    """dx and the cache of the network's input gradient, dx after a check of its shape."""
    if np.ndim(x) == 0 or len(x) == 0:
        raise ValueError(f"x: expected shape (B, ...) with B >= 1, got {np.shape(x)}")
    dx, cache = network[0](params, x)
    if dx.shape != np.shape(x):
        raise ValueError(f"input gradient: expected the shape of x, {np.shape(x)}, got {dx.shape}")
    return dx, cache


def _norm(dx):
    """|dx_b|, shaped (B, 1, ..., 1)."""
    return np.sqrt(np.sum(float64(dx) ** 2, axis=tuple(range(1, dx.ndim)), keepdims=True))


def _not_negative(**arrays):
    for name, a in arrays.items():
        if not np.all(a >= 0):
            raise ValueError(f"{name}: expected values >= 0, got {a.min()}")


def _p_log_p_over_m(p, q):
    """p log(2 p / (p + q)), and 0 for p = 0. Where p and q are close it is p log(1 + (p - q) / (p + q)), which cancels nothing."""
    total, close = np.where(p > 0, p + q, 1), p > q / 2
    far = np.log(np.where(close | (p == 0), 1, 2 * p / total))
    return p * np.where(close, np.log1p(np.where(close, (p - q) / total, 0)), far)
