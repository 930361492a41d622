"""The losses of generative adversarial networks, and the penalties on the discriminator's gradient. All in float64.

A loss takes logits, the discriminator's output before any sigmoid, of any shape, and is a mean over them: N real and M
fake ones. D = sigmoid(logit), so log D = -softplus(-logit) and log(1 - D) = -softplus(logit): finite, and so is the
gradient, at any finite logit. All losses are minimised. `_backward` is the gradient, `_grad` loss and gradient.

Papers
    [GAN]      Goodfellow et al., "Generative Adversarial Nets", 2014
    [LSGAN]    Mao et al., "Least Squares Generative Adversarial Networks", 2017
    [WGAN]     Arjovsky, Chintala, Bottou, "Wasserstein Generative Adversarial Networks", 2017
    [WGAN-GP]  Gulrajani et al., "Improved Training of Wasserstein GANs", 2017
    [SN]       Miyato et al., "Spectral Normalization for Generative Adversarial Networks", 2018
    [R1]       Mescheder, Geiger, Nowozin, "Which Training Methods for GANs do actually Converge?", 2018
"""
import numpy as np

from ref.divergence import jensen_shannon, optimal_discriminator  # noqa: F401
from ref.layers import relu, relu_backward, sigmoid, softplus
from ref.numerics import norm
from ref.shapes import float64, not_empty, number, per_example, same_shape, unit_interval


def discriminator_loss(real_logits, fake_logits):
    """[GAN] eq. 1, which D maximises, with its sign changed:  L = -mean(log D(real)) - mean(log(1 - D(fake))).

    real_logits, fake_logits: any shapes, not empty. Returns L, a float. Raises ValueError where one is empty.
    """
    real_logits, fake_logits = not_empty(real_logits=real_logits, fake_logits=fake_logits)
    return np.mean(softplus(-real_logits)) + np.mean(softplus(fake_logits))


def discriminator_loss_backward(dloss, real_logits, fake_logits):
    """Gradients of `discriminator_loss`:  -dloss sigmoid(-real_logits) / N,  dloss sigmoid(fake_logits) / M.

    dloss: float. real_logits (N), fake_logits (M): as there. Returns dreal_logits, dfake_logits. Raises as there.
    """
    dloss, real_logits, fake_logits = _upstream(dloss, real_logits=real_logits, fake_logits=fake_logits)
    return -dloss * sigmoid(-real_logits) / real_logits.size, dloss * sigmoid(fake_logits) / fake_logits.size


def discriminator_loss_grad(real_logits, fake_logits):
    """The loss and its gradients. real_logits, fake_logits: as there. Returns L, dreal_logits, dfake_logits."""
    return discriminator_loss(real_logits, fake_logits), *discriminator_loss_backward(1.0, real_logits, fake_logits)


def generator_loss(fake_logits):
    """The non-saturating loss, [GAN] section 3:  L = -mean(log D(fake)) = mean(softplus(-fake_logits)).

    Where D is sure of a fake its gradient is -1 / N, where that of `generator_loss_saturating` is 0.
    fake_logits: any shape, not empty. Returns L, a float. Raises ValueError where it is empty.
    """
    (fake_logits,) = not_empty(fake_logits=fake_logits)
    return np.mean(softplus(-fake_logits))


def generator_loss_backward(dloss, fake_logits):
    """Gradient of `generator_loss`:  dfake_logits = -dloss sigmoid(-fake_logits) / N.

    dloss: float. fake_logits (N): of the forward. Returns dfake_logits, float64. Raises as the forward.
    """
    dloss, fake_logits = _upstream(dloss, fake_logits=fake_logits)
    return -dloss * sigmoid(-fake_logits) / fake_logits.size


def generator_loss_grad(fake_logits):
    """The loss and its gradient in one pass. fake_logits: of the loss. Returns L (a float), dfake_logits."""
    return generator_loss(fake_logits), generator_loss_backward(1.0, fake_logits)


def generator_loss_saturating(fake_logits):
    """The minimax loss, [GAN] eq. 1 as G sees it:  L = mean(log(1 - D(fake))) = -mean(softplus(fake_logits)).

    fake_logits: any shape, not empty. Returns L, a float. Raises ValueError where it is empty.
    """
    (fake_logits,) = not_empty(fake_logits=fake_logits)
    return -np.mean(softplus(fake_logits))


def generator_loss_saturating_backward(dloss, fake_logits):
    """Gradient of `generator_loss_saturating`:  dfake_logits = -dloss sigmoid(fake_logits) / N.

    dloss: float. fake_logits (N): of the forward. Returns dfake_logits, float64. Raises as the forward.
    """
    dloss, fake_logits = _upstream(dloss, fake_logits=fake_logits)
    return -dloss * sigmoid(fake_logits) / fake_logits.size


def generator_loss_saturating_grad(fake_logits):
    """The loss and its gradient in one pass. fake_logits: of the loss. Returns L (a float), dfake_logits."""
    return generator_loss_saturating(fake_logits), generator_loss_saturating_backward(1.0, fake_logits)


def hinge_discriminator_loss(real_logits, fake_logits):
    """[SN] eq. 16, its sign changed:  L = mean(max(0, 1 - real_logits)) + mean(max(0, 1 + fake_logits)).

    real_logits, fake_logits: any shapes, not empty. Returns L, a float. Raises ValueError where one is empty.
    """
    real_logits, fake_logits = not_empty(real_logits=real_logits, fake_logits=fake_logits)
    return np.mean(relu(1 - real_logits)) + np.mean(relu(1 + fake_logits))


def hinge_discriminator_loss_backward(dloss, real_logits, fake_logits):
    """Gradients of `hinge_discriminator_loss`:  -dloss / N where real_logits < 1,  dloss / M where fake_logits > -1.

    dloss: float. real_logits (N), fake_logits (M): as there. Returns dreal_logits, dfake_logits. Raises as there.
    """
    dloss, real_logits, fake_logits = _upstream(dloss, real_logits=real_logits, fake_logits=fake_logits)
    dreal_logits = -relu_backward(dloss / real_logits.size, 1 - real_logits)
    return dreal_logits, relu_backward(dloss / fake_logits.size, 1 + fake_logits)


def hinge_discriminator_loss_grad(real_logits, fake_logits):
    """The loss and its gradients. real_logits, fake_logits: as there. Returns L, dreal_logits, dfake_logits."""
    gradients = hinge_discriminator_loss_backward(1.0, real_logits, fake_logits)
    return hinge_discriminator_loss(real_logits, fake_logits), *gradients


def hinge_generator_loss(fake_logits):
    """[SN] eq. 17, which G minimises:  L = -mean(fake_logits).

    fake_logits: any shape, not empty. Returns L, a float. Raises ValueError where it is empty.
    """
    return -np.mean(not_empty(fake_logits=fake_logits)[0])


def hinge_generator_loss_backward(dloss, fake_logits):
    """Gradient of `hinge_generator_loss`:  dfake_logits = -dloss / N.

    dloss: float. fake_logits (N): of the forward. Returns dfake_logits, float64. Raises as the forward.
    """
    dloss, fake_logits = _upstream(dloss, fake_logits=fake_logits)
    return np.full(fake_logits.shape, -dloss / fake_logits.size)


def hinge_generator_loss_grad(fake_logits):
    """The loss and its gradient in one pass. fake_logits: of the loss. Returns L (a float), dfake_logits."""
    return hinge_generator_loss(fake_logits), hinge_generator_loss_backward(1.0, fake_logits)


def least_squares_discriminator_loss(real_logits, fake_logits):
    """[LSGAN] eq. 2, a = 0 for fake, b = 1 for real:  L = mean((real_logits - 1)^2) / 2 + mean(fake_logits^2) / 2.

    real_logits, fake_logits: any shapes, not empty. Returns L, a float. Raises ValueError where one is empty.
    """
    real_logits, fake_logits = not_empty(real_logits=real_logits, fake_logits=fake_logits)
    return np.mean((real_logits - 1) ** 2) / 2 + np.mean(fake_logits**2) / 2


def least_squares_discriminator_loss_backward(dloss, real_logits, fake_logits):
    """Gradients of `least_squares_discriminator_loss`:  dloss (real_logits - 1) / N,  dloss fake_logits / M.

    dloss: float. real_logits (N), fake_logits (M): as there. Returns dreal_logits, dfake_logits. Raises as there.
    """
    dloss, real_logits, fake_logits = _upstream(dloss, real_logits=real_logits, fake_logits=fake_logits)
    return dloss * (real_logits - 1) / real_logits.size, dloss * fake_logits / fake_logits.size


def least_squares_discriminator_loss_grad(real_logits, fake_logits):
    """The loss and its gradients. real_logits, fake_logits: as there. Returns L, dreal_logits, dfake_logits."""
    gradients = least_squares_discriminator_loss_backward(1.0, real_logits, fake_logits)
    return least_squares_discriminator_loss(real_logits, fake_logits), *gradients


def least_squares_generator_loss(fake_logits):
    """[LSGAN] eq. 2 with c = 1, to be taken for real:  L = 1/2 mean((fake_logits - 1)^2).

    fake_logits: any shape, not empty. Returns L, a float. Raises ValueError where it is empty.
    """
    return np.mean((not_empty(fake_logits=fake_logits)[0] - 1) ** 2) / 2


def least_squares_generator_loss_backward(dloss, fake_logits):
    """Gradient of `least_squares_generator_loss`:  dfake_logits = dloss (fake_logits - 1) / N.

    dloss: float. fake_logits (N): of the forward. Returns dfake_logits, float64. Raises as the forward.
    """
    dloss, fake_logits = _upstream(dloss, fake_logits=fake_logits)
    return dloss * (fake_logits - 1) / fake_logits.size


def least_squares_generator_loss_grad(fake_logits):
    """The loss and its gradient in one pass. fake_logits: of the loss. Returns L (a float), dfake_logits."""
    return least_squares_generator_loss(fake_logits), least_squares_generator_loss_backward(1.0, fake_logits)


def wasserstein_discriminator_loss(real_logits, fake_logits):
    """[WGAN] eq. 3, which the critic maximises, with its sign changed:  L = mean(fake_logits) - mean(real_logits).

    -L is at most the distance while the critic is 1-Lipschitz, as `gradient_penalty` makes it; K times for K-Lipschitz.
    real_logits, fake_logits: any shapes, not empty. Returns L, a float. Raises ValueError where one is empty.
    """
    real_logits, fake_logits = not_empty(real_logits=real_logits, fake_logits=fake_logits)
    return np.mean(fake_logits) - np.mean(real_logits)


def wasserstein_discriminator_loss_backward(dloss, real_logits, fake_logits):
    """Gradients of `wasserstein_discriminator_loss`:  dreal_logits = -dloss / N,  dfake_logits = dloss / M.

    dloss: float. real_logits (N), fake_logits (M): as there. Returns dreal_logits, dfake_logits. Raises as there.
    """
    dloss, real_logits, fake_logits = _upstream(dloss, real_logits=real_logits, fake_logits=fake_logits)
    return np.full(real_logits.shape, -dloss / real_logits.size), np.full(fake_logits.shape, dloss / fake_logits.size)


def wasserstein_discriminator_loss_grad(real_logits, fake_logits):
    """The loss and its gradients. real_logits, fake_logits: as there. Returns L, dreal_logits, dfake_logits."""
    gradients = wasserstein_discriminator_loss_backward(1.0, real_logits, fake_logits)
    return wasserstein_discriminator_loss(real_logits, fake_logits), *gradients


def wasserstein_generator_loss(fake_logits):
    """[WGAN] eq. 3 as G sees it:  L = -mean(fake_logits).

    fake_logits: any shape, not empty. Returns L, a float. Raises ValueError where it is empty.
    """
    return -np.mean(not_empty(fake_logits=fake_logits)[0])


def wasserstein_generator_loss_backward(dloss, fake_logits):
    """Gradient of `wasserstein_generator_loss`:  dfake_logits = -dloss / N.

    dloss: float. fake_logits (N): of the forward. Returns dfake_logits, float64. Raises as the forward.
    """
    dloss, fake_logits = _upstream(dloss, fake_logits=fake_logits)
    return np.full(fake_logits.shape, -dloss / fake_logits.size)


def wasserstein_generator_loss_grad(fake_logits):
    """The loss and its gradient in one pass. fake_logits: of the loss. Returns L (a float), dfake_logits."""
    return wasserstein_generator_loss(fake_logits), wasserstein_generator_loss_backward(1.0, fake_logits)


def interpolate(real, fake, alpha):
    """[WGAN-GP] algorithm 1, line 6, the points where `gradient_penalty` is taken:  x = alpha real + (1 - alpha) fake.

    real, fake: (B, ...). alpha: (B,) in [0, 1], one an example, uniform. Returns x (B, ...) float64.
    Raises ValueError where shapes differ, alpha is not (B,), or alpha is outside [0, 1].
    """
    real, fake = same_shape(real=real, fake=fake)
    if real.ndim == 0 or np.shape(alpha) != real.shape[:1]:
        raise ValueError(f"alpha: expected shape (B,) for real and fake (B, ...), got {np.shape(alpha)}")
    alpha = per_example(unit_interval(alpha, "alpha"), real, "alpha")
    return alpha * real + (1 - alpha) * fake


def gradient_penalty(network, params, x):
    """[WGAN-GP] eq. 3 without its weight lambda, which is 10 there:  L = mean_b((|grad D(x_b)| - 1)^2).

    network: two functions, the gradient of D in its input and that gradient's backward, as `ref.nets.gan` has them:
        input_gradient(params, x) returns dx (B, ...), row b of it the gradient of D(x_b), and a cache;
        input_gradient_backward(ddx, params, cache) returns the gradients of sum(ddx dx) in x and in the parameters.
    D(x_b) must depend on x_b alone, so it has no batch norm. params: its dict. x: (B, ...), B >= 1, from `interpolate`.
    Returns L, a float, and a cache. Raises ValueError where dx has not the shape of x, or there is nothing to average.
    """
    dx, inner = _input_gradient(network, params, x)
    return np.mean((norm(dx) - 1) ** 2), {"dx": dx, "network": inner}


def gradient_penalty_backward(dloss, network, params, cache):
    """Gradients of `gradient_penalty` in params: through  ddx_b = 2 dloss / B (1 - 1 / |dx_b|) dx_b;  0 at dx_b = 0.

    dloss: float. network, params: as in `gradient_penalty`. cache: of the forward. Returns dparams.
    """
    dx = cache["dx"].astype(np.float64)
    size = per_example(norm(dx), dx, "dx")
    excess = np.divide(size - 1, size, out=np.zeros_like(size), where=size > 0)  # 1 - 1 / |dx_b|
    ddx = 2 * number(dloss, "dloss") / len(dx) * excess * dx
    return network[1](ddx.astype(cache["dx"].dtype), params, cache["network"])[1]


def r1_penalty(network, params, x):
    """[R1] eq. 9 without its weight gamma:  L = 1/2 mean_b(|grad D(x_b)|^2), |.| over all axes but the first.

    network, params: as in `gradient_penalty`. x: (B, ...), B >= 1, real examples. Returns L, a cache. Raises as there.
    """
    dx, inner = _input_gradient(network, params, x)
    return np.sum(float64(dx) ** 2) / (2 * len(dx)), {"dx": dx, "network": inner}


def r1_penalty_backward(dloss, network, params, cache):
    """Gradients of `r1_penalty` in the parameters: through  ddx_b = dloss / B dx_b.

    dloss: float. network, params: as in `gradient_penalty`. cache: of the forward. Returns dparams.
    """
    ddx = number(dloss, "dloss") / len(cache["dx"]) * cache["dx"].astype(np.float64)
    return network[1](ddx.astype(cache["dx"].dtype), params, cache["network"])[1]


def _input_gradient(network, params, x):
    """dx and the cache of the network's input gradient, dx after a check of its shape."""
    if np.ndim(x) == 0 or len(x) == 0:
        raise ValueError(f"x: expected shape (B, ...) with B >= 1, got {np.shape(x)}")
    dx, cache = network[0](params, x)
    if dx.shape != np.shape(x):
        raise ValueError(f"input gradient: expected the shape of x, {np.shape(x)}, got {dx.shape}")
    return dx, cache


def _upstream(dloss, **logits):
    return number(dloss, "dloss"), *not_empty(**logits)
