"""Forward noising, the conversions between eps, x0, v and score, the posterior, and the DDPM and DDIM steps.

Everything here is float64. B examples first, then any data axes. `abar` is (T + 1,) from
`ref.schedules.alpha_bar`, abar[0] = 1; [DDIM] calls it alpha. t = 0 is data, t = T is noise. A step goes from t to any
s < t.

Papers
    [DDPM]   Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
    [DDIM]   Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2021
    [PD]     Salimans, Ho, "Progressive Distillation for Fast Sampling of Diffusion Models", 2022
    [SDE]    Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", 2021
"""
import numpy as np

from ref.dpm_solver import dpmpp_2m_step, log_snr_step  # noqa: F401
from ref.shapes import at, float64, nonzero, not_empty, number, same_shape, step


def q_sample(x0, t, eps, abar):
    """[DDPM] eq. 4, drawn:  x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) eps.

    x0, eps: (B, ...). t: (B,) ints in [0, T], or one int. abar: (T + 1,).
    Returns xt (B, ...) float64.
    Raises ValueError where shapes differ or t is out of range, TypeError where t is not an int.
    """
    x0, eps = same_shape(x0=x0, eps=eps)
    abar_t = at(abar, t, x0, "t")
    return np.sqrt(abar_t) * x0 + np.sqrt(1 - abar_t) * eps


def q_sample_backward(dxt, t, abar):
    """Gradients of `q_sample`:  dx0 = sqrt(abar_t) dxt,  deps = sqrt(1 - abar_t) dxt.

    dxt: (B, ...). t, abar: as in `q_sample`.
    Returns dx0, deps, each (B, ...) float64.
    Raises as `q_sample` does.
    """
    dxt = float64(dxt)
    abar_t = at(abar, t, dxt, "t")
    return np.sqrt(abar_t) * dxt, np.sqrt(1 - abar_t) * dxt


def posterior(x0, xt, t, s, abar):
    """q(x_s | x_t, x0), [DDPM] eqs. 6 and 7 with s for t - 1. With alpha = abar_t / abar_s and beta = 1 - alpha:

        mean     = sqrt(abar_s) beta / (1 - abar_t) x0 + sqrt(alpha) (1 - abar_s) / (1 - abar_t) x_t
        variance = (1 - abar_s) / (1 - abar_t) beta                                      "beta tilde"

    x0, xt: (B, ...). t, s: ints or (B,) ints, 0 <= s < t <= T. abar: (T + 1,).
    Returns mean (B, ...) and variance (not a deviation), a float or (B,) as t and s are.
    Raises ValueError where shapes differ, not 0 <= s < t <= T, or abar[t] = 1.
    """
    x0, xt = same_shape(x0=x0, xt=xt)
    abar_t, abar_s = step(abar, t, s, xt)
    alpha = abar_t / abar_s
    beta = (abar_s - abar_t) / abar_s  # 1 - alpha would cancel between near times
    mean = np.sqrt(abar_s) * beta / (1 - abar_t) * x0 + np.sqrt(alpha) * (1 - abar_s) / (1 - abar_t) * xt
    variance = (1 - abar_s) / (1 - abar_t) * beta
    return mean, variance.reshape(np.broadcast_shapes(np.shape(t), np.shape(s)))[()]


def x0_from_eps(xt, eps, t, abar):
    """[DDPM] eq. 15:  x0 = (x_t - sqrt(1 - abar_t) eps) / sqrt(abar_t).

    xt, eps: (B, ...). t: int or (B,) ints in [0, T]. abar: (T + 1,).
    Returns x0 (B, ...) float64.
    Raises ValueError where shapes differ, t is out of range, or abar[t] = 0 (zero terminal SNR: eps does not hold x0).
    """
    xt, eps = same_shape(xt=xt, eps=eps)
    abar_t = at(abar, t, xt, "t")
    nonzero(abar_t, "abar[t]", "x0 cannot be recovered from eps; predict v or x0")
    return (xt - np.sqrt(1 - abar_t) * eps) / np.sqrt(abar_t)


def eps_from_x0(xt, x0, t, abar):
    """[DDIM] eq. 9 solved for eps:  eps = (x_t - sqrt(abar_t) x0) / sqrt(1 - abar_t).

    xt, x0: (B, ...). t: int or (B,) ints in [1, T]. abar: (T + 1,).
    Returns eps (B, ...) float64.
    Raises ValueError where shapes differ, t is out of range, or abar[t] = 1 (t = 0: there is no noise to find).
    """
    xt, x0 = same_shape(xt=xt, x0=x0)
    abar_t = at(abar, t, xt, "t")
    nonzero(1 - abar_t, "1 - abar[t]", "at t = 0 there is no noise to find")
    return (xt - np.sqrt(abar_t) * x0) / np.sqrt(1 - abar_t)


def v_target(x0, eps, t, abar):
    """[PD] section 4:  v = sqrt(abar_t) eps - sqrt(1 - abar_t) x0.

    x0, eps: (B, ...). t: int or (B,) ints in [0, T]. abar: (T + 1,).
    Returns v (B, ...) float64.
    Raises ValueError where shapes differ or t is out of range.
    """
    x0, eps = same_shape(x0=x0, eps=eps)
    abar_t = at(abar, t, x0, "t")
    return np.sqrt(abar_t) * eps - np.sqrt(1 - abar_t) * x0


def x0_from_v(xt, v, t, abar):
    """[PD] appendix D:  x0 = sqrt(abar_t) x_t - sqrt(1 - abar_t) v.

    xt, v: (B, ...). t: int or (B,) ints in [0, T]. abar: (T + 1,).
    Returns x0 (B, ...) float64.
    Raises ValueError where shapes differ or t is out of range.
    """
    xt, v = same_shape(xt=xt, v=v)
    abar_t = at(abar, t, xt, "t")
    return np.sqrt(abar_t) * xt - np.sqrt(1 - abar_t) * v


def eps_from_v(xt, v, t, abar):
    """[PD] appendix D:  eps = sqrt(1 - abar_t) x_t + sqrt(abar_t) v.

    xt, v: (B, ...). t: int or (B,) ints in [0, T]. abar: (T + 1,).
    Returns eps (B, ...) float64.
    Raises ValueError where shapes differ or t is out of range.
    """
    xt, v = same_shape(xt=xt, v=v)
    abar_t = at(abar, t, xt, "t")
    return np.sqrt(1 - abar_t) * xt + np.sqrt(abar_t) * v


def score_from_eps(eps, t, abar):
    """grad log q(x_t) as the noise predicts it, [SDE] eq. 7 with [DDPM] eq. 4:  score = -eps / sqrt(1 - abar_t).

    eps: (B, ...). t: int or (B,) ints in [1, T]. abar: (T + 1,).
    Returns the score (B, ...) float64.
    Raises ValueError where t is out of range or abar[t] = 1 (t = 0: the score of a point mass).
    """
    eps = float64(eps)
    abar_t = at(abar, t, eps, "t")
    nonzero(1 - abar_t, "1 - abar[t]", "at t = 0 the score does not exist")
    return -eps / np.sqrt(1 - abar_t)


def eps_from_score(score, t, abar):
    """The inverse of `score_from_eps`:  eps = -sqrt(1 - abar_t) score.

    score: (B, ...). t: int or (B,) ints in [0, T]. abar: (T + 1,).
    Returns eps (B, ...) float64.
    Raises ValueError where t is out of range.
    """
    score = float64(score)
    return -np.sqrt(1 - at(abar, t, score, "t")) * score


def ddpm_step(xt, eps_hat, t, s, z, abar, variance="small", clip=None):
    """One ancestral step, [DDPM] algorithm 2 from t to any s < t: `ddpm_step_x0` of x0_from_eps(x_t, eps_hat).

    xt, eps_hat, z: (B, ...). t, s: ints or (B,) ints, 0 <= s < t <= T. abar: (T + 1,). variance, clip: as there.
    Returns x_s (B, ...) float64.
    Raises ValueError where shapes differ, not 0 <= s < t <= T, abar[t] is 0 or 1, clip <= 0, or for another variance.
    """
    xt, eps_hat, z = same_shape(xt=xt, eps_hat=eps_hat, z=z)
    step(abar, t, s, xt)
    return ddpm_step_x0(xt, x0_from_eps(xt, eps_hat, t, abar), t, s, z, abar, variance, clip)


def ddpm_step_x0(xt, x0_hat, t, s, z, abar, variance="small", clip=None):
    """The ancestral step of a model that predicts x0, [DDPM] eqs. 6 and 7:  x_s = mean(x0_hat, x_t) + sigma z,

        x0_hat clipped to [-clip, clip],   mean as in `posterior`
        sigma^2 = beta tilde ("small", exact for a point mass) or beta = 1 - abar_t / abar_s ("large", for N(0, I))

    abar[t] may be 0. No noise is added where s = 0, whatever the variance; z is ignored there. Of a model of v it takes
    x0_from_v(x_t, v).

    xt, x0_hat, z: (B, ...). t, s: ints or (B,) ints, 0 <= s < t <= T. abar: (T + 1,). clip: > 0, or None.
    Returns x_s (B, ...) float64.
    Raises ValueError where shapes differ, not 0 <= s < t <= T, abar[t] = 1, clip <= 0, or for another variance.
    """
    xt, x0_hat, z = same_shape(xt=xt, x0_hat=x0_hat, z=z)
    abar_t, abar_s = step(abar, t, s, xt)
    mean, beta_tilde = posterior(_clip(x0_hat, clip), xt, t, s, abar)
    if variance == "small":
        sigma2 = np.reshape(beta_tilde, np.broadcast_shapes(abar_t.shape, abar_s.shape))
    elif variance == "large":
        sigma2 = (abar_s - abar_t) / abar_s
    else:
        raise ValueError(f'variance: expected "small" (beta tilde) or "large" (beta), got {variance!r}')
    return mean + _noise(np.where(abar_s < 1, np.sqrt(sigma2), 0.0), z)


def ddim_step(xt, eps_hat, t, s, z, eta, abar, clip=None):
    """[DDIM] eq. 12 from t to any s < t, with sigma of eq. 16:

        x0_hat = (x_t - sqrt(1 - abar_t) eps_hat) / sqrt(abar_t)
        sigma  = eta sqrt((1 - abar_s) / (1 - abar_t)) sqrt(1 - abar_t / abar_s)
        x_s    = sqrt(abar_s) x0_hat + sqrt(1 - abar_s - sigma^2) eps_hat + sigma z

    With clip, x0_hat is clipped to [-clip, clip] and eps_hat derived again from it. eta = 0 is deterministic and
    ignores z, which may then be None; eta = 1 is `ddpm_step` with the small variance.

    xt, eps_hat, z: (B, ...). t, s: ints or (B,), 0 <= s < t <= T. eta: in [0, 1]. abar: (T + 1,). clip: > 0, or None.
    Returns x_s (B, ...) float64.
    Raises ValueError where shapes differ, not 0 <= s < t <= T, abar[t] is 0 or 1, clip <= 0, or eta is outside [0, 1].
    """
    eta, z = _eta(eta), _z(z, eta, xt)
    xt, eps_hat, z = same_shape(xt=xt, eps_hat=eps_hat, z=z)
    abar_t, abar_s = step(abar, t, s, xt)
    x0_hat = x0_from_eps(xt, eps_hat, t, abar)
    if clip is not None:
        return ddim_step_x0(xt, x0_hat, t, s, z, eta, abar, clip)
    direction, sigma = _directions(abar_t, abar_s, eta)
    return np.sqrt(abar_s) * x0_hat + direction * eps_hat + _noise(sigma, z)


def ddim_step_x0(xt, x0_hat, t, s, z, eta, abar, clip=None):
    """`ddim_step` of a model that predicts x0, with eps_hat = eps_from_x0(x_t, x0_hat); abar[t] may be 0. Of a model of
    v it takes x0_from_v(x_t, v).

    xt, x0_hat, z: (B, ...). t, s, eta, abar, clip: as in `ddim_step`.
    Returns x_s (B, ...) float64.
    Raises ValueError where shapes differ, not 0 <= s < t <= T, abar[t] = 1, clip <= 0, or eta is outside [0, 1].
    """
    eta, z = _eta(eta), _z(z, eta, xt)
    xt, x0_hat, z = same_shape(xt=xt, x0_hat=x0_hat, z=z)
    abar_t, abar_s = step(abar, t, s, xt)
    x0_hat, (direction, sigma) = _clip(x0_hat, clip), _directions(abar_t, abar_s, eta)
    return np.sqrt(abar_s) * x0_hat + direction * eps_from_x0(xt, x0_hat, t, abar) + _noise(sigma, z)


def ddim_inverse_step(xt, eps_hat, t, s, abar):
    """[DDIM] eq. 12 with eta = 0 the other way, from t to a later s > t: the ODE of its eq. 14, forwards in time.

        x_s = sqrt(abar_s) x0_from_eps(x_t, eps_hat, t) + sqrt(1 - abar_s) eps_hat

    With the eps_hat that `ddim_step` from s to t takes, it undoes that step.

    xt, eps_hat: (B, ...). t, s: ints or (B,) ints, 0 <= t < s <= T. abar: (T + 1,).
    Returns x_s (B, ...) float64.
    Raises ValueError where shapes differ, not 0 <= t < s <= T, or abar[t] = 0.
    """
    xt, eps_hat = same_shape(xt=xt, eps_hat=eps_hat)
    abar_s = at(abar, s, xt, "s")
    x0_hat = x0_from_eps(xt, eps_hat, t, abar)
    if not np.all(np.asarray(t) < np.asarray(s)):
        raise ValueError(f"an inverse step goes from t to s > t, got t = {t} and s = {s}")
    return np.sqrt(abar_s) * x0_hat + np.sqrt(1 - abar_s) * eps_hat


def eps_loss(eps_hat, eps):
    """[DDPM] eq. 14, the simple loss:  L = mean((eps_hat - eps)^2) over all elements.

    The paper's norm adds up the elements of an example, where this takes their mean.
    eps_hat, eps: one shape, at least one element. With x0 or v in both places it is the x0 or the v loss.
    Returns L, a float.
    Raises ValueError where shapes differ or there is nothing to average.
    """
    eps_hat, eps = same_shape(eps_hat=eps_hat, eps=eps)
    not_empty(eps_hat=eps_hat, eps=eps)
    return np.mean((eps_hat - eps) ** 2)


def eps_loss_backward(dloss, eps_hat, eps):
    """Gradients of `eps_loss`:  deps_hat = 2 (eps_hat - eps) / N dloss,  deps = -deps_hat.

    dloss: float. eps_hat, eps: as in `eps_loss`; N is the number of elements.
    Returns deps_hat, deps, each of their shape, float64.
    Raises as `eps_loss` does.
    """
    eps_hat, eps = same_shape(eps_hat=eps_hat, eps=eps)
    not_empty(eps_hat=eps_hat, eps=eps)
    deps_hat = 2 * (eps_hat - eps) / eps.size * number(dloss, "dloss")
    return deps_hat, -deps_hat


def _clip(x0, clip):
    if clip is None:
        return x0
    clip = number(clip, "clip")
    if not clip > 0:
        raise ValueError(f"clip: expected a positive number or None, got {clip}")
    return np.clip(x0, -clip, clip)


def _eta(eta):
    eta = number(eta, "eta")
    if not 0 <= eta <= 1:
        raise ValueError(f"eta: expected 0 <= eta <= 1, got {eta}")
    return eta


def _z(z, eta, xt):
    """z, or zeros where there is none and eta = 0."""
    return np.zeros(np.shape(xt)) if z is None and eta == 0 else z


def _directions(abar_t, abar_s, eta):
    """What multiplies eps_hat and z in [DDIM] eq. 12: sqrt(1 - abar_s - sigma^2) and sigma, of its eq. 16."""
    ratio, beta = (1 - abar_s) / (1 - abar_t), (abar_s - abar_t) / abar_s
    # 1 - abar_s - sigma^2 as a sum, by 1 - abar_t = beta + (1 - abar_s) abar_t / abar_s
    left = ratio * ((1 - eta) * (1 + eta) * beta + (1 - abar_s) * abar_t / abar_s)
    return np.sqrt(left), eta * np.sqrt(ratio * beta)


def _noise(sigma, z):
    """sigma z, and exactly 0 where sigma = 0, even if z is not finite there."""
    return sigma * np.where(sigma > 0, z, 0.0)
