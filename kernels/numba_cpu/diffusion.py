"""`ref.diffusion` on the CPU: float32 or float64 in and out, one pass over memory each.

Arguments and errors are those of `ref.diffusion`, arrays of one dtype; `out`, where given, is an array of that shape
and dtype, or a pair for two results, and may be one of the inputs. Bad input raises before anything is written.

Papers
    [DDPM]   Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
    [DDIM]   Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2021
    [PD]     Salimans, Ho, "Progressive Distillation for Fast Sampling of Diffusion Models", 2022
    [SDE]    Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", 2021
"""
import numpy as np

from kernels import arguments, coefficients
from kernels.numba_cpu import engine, reduce
from kernels.numba_cpu.engine import element
from kernels.numba_cpu.intrinsics import fma
from kernels.numba_cpu.rowwise import apply, apply_many, rowwise

# --- equations of one element: c are the coefficients of its row, u the scalars of the call, see `rowwise` ------------


@element
def linear(c, u, a, b):
    """c0 a + c1 b: every conversion between x_t, x0, eps and v. c: 2 numbers. u: none. a, b: numbers."""
    return fma(c[0], a, c[1] * b)


@element
def scale(c, u, a):
    """c0 a. c: 1 number. u: none. a: number."""
    return c[0] * a


@element
def scale_two(c, u, a):
    """c0 a and c1 a. c: 2 numbers. u: none. a: number."""
    return c[0] * a, c[1] * a


@element
def difference_two(c, u, a, b):
    """d = u0 (a - b) and -d. c: none. u: 1 number. a, b: numbers."""
    d = u[0] * (a - b)
    return d, -d


@element
def clamp(x, limit):
    """x in [-limit, limit]; NaN stays NaN. x, limit: numbers."""
    x = limit if x > limit else x
    return -limit if x < -limit else x


@element
def add_noise(mean, sigma, z):
    """mean + sigma z; where sigma = 0, z is ignored and may be NaN. mean, sigma, z: numbers."""
    return mean if sigma == 0 else fma(sigma, z, mean)


@element
def ddpm(c, u, xt, eps_hat, z):
    """[DDPM] algorithm 2. c: of `coefficients.ddpm_step`. u: the limit of x0_hat, inf for none. xt, eps_hat, z:
    numbers."""
    c0, c1, c2, c3, sigma = c
    x0_hat = clamp(fma(c0, xt, c1 * eps_hat), u[0])
    return add_noise(fma(c2, x0_hat, c3 * xt), sigma, z)


@element
def ddim_mean(c, limit, xt, eps_hat):
    """[DDIM] eq. 12 without its noise. c: of `coefficients.ddim_step`. limit: of x0_hat, 0 for none. xt, eps_hat:
    numbers."""
    c0, c1, c2, c3, c4, c5, sigma = c
    x0_hat = fma(c0, xt, c1 * eps_hat)
    if limit > 0:
        x0_hat = clamp(x0_hat, limit)
        eps_hat = fma(c2, xt, c3 * x0_hat)
    return fma(c4, x0_hat, c5 * eps_hat)


@element
def ddim(c, u, xt, eps_hat, z):
    """[DDIM] eq. 12. c: of `coefficients.ddim_step`. u: the limit of x0_hat, 0 for none. xt, eps_hat, z: numbers."""
    return add_noise(ddim_mean(c, u[0], xt, eps_hat), c[6], z)


LINEAR = rowwise(linear, inputs=2, coefficients=2)
SCALE = rowwise(scale, inputs=1, coefficients=1)
SCALE_TWO = rowwise(scale_two, inputs=1, coefficients=2, outputs=2)
DIFFERENCE_TWO = rowwise(difference_two, inputs=2, coefficients=0, outputs=2)
DDPM = rowwise(ddpm, inputs=3, coefficients=5)
DDIM = rowwise(ddim, inputs=3, coefficients=7)


# --- the operations ---------------------------------------------------------------------------------------------------


def q_sample(x0, t, eps, abar, out=None):
    """[DDPM] eq. 4 on the CPU, arguments as in `ref.diffusion.q_sample`."""
    return _convert(coefficients.q_sample, t, abar, out, x0=x0, eps=eps)


def q_sample_backward(dxt, t, abar, out=None):
    """Gradients of `q_sample` on the CPU, arguments as in `ref.diffusion.q_sample_backward`."""
    shape, dtype = engine.same(dxt=dxt)
    return apply_many(SCALE_TWO, 2, out, shape, dtype, coefficients.q_sample(t, abar, shape), dxt)


def posterior(x0, xt, t, s, abar, out=None):
    """[DDPM] eqs. 6, 7 on the CPU, arguments as in `ref.diffusion.posterior`; out takes the mean."""
    shape, dtype = engine.same(x0=x0, xt=xt)
    table = coefficients.posterior(t, s, abar, shape)
    variance = table[2].reshape(np.broadcast_shapes(np.shape(t), np.shape(s)))[()]
    return apply(LINEAR, out, shape, dtype, table, x0, xt), variance


def x0_from_eps(xt, eps, t, abar, out=None):
    """[DDPM] eq. 15 on the CPU, arguments as in `ref.diffusion.x0_from_eps`."""
    return _convert(coefficients.x0_from_eps, t, abar, out, xt=xt, eps=eps)


def eps_from_x0(xt, x0, t, abar, out=None):
    """[DDIM] eq. 9 solved for eps on the CPU, arguments as in `ref.diffusion.eps_from_x0`."""
    return _convert(coefficients.eps_from_x0, t, abar, out, xt=xt, x0=x0)


def v_target(x0, eps, t, abar, out=None):
    """[PD] section 4 on the CPU, arguments as in `ref.diffusion.v_target`."""
    return _convert(coefficients.v_target, t, abar, out, x0=x0, eps=eps)


def x0_from_v(xt, v, t, abar, out=None):
    """[PD] appendix D on the CPU, arguments as in `ref.diffusion.x0_from_v`."""
    return _convert(coefficients.x0_from_v, t, abar, out, xt=xt, v=v)


def eps_from_v(xt, v, t, abar, out=None):
    """[PD] appendix D on the CPU, arguments as in `ref.diffusion.eps_from_v`."""
    return _convert(coefficients.eps_from_v, t, abar, out, xt=xt, v=v)


def score_from_eps(eps, t, abar, out=None):
    """[SDE] eq. 7 with [DDPM] eq. 4 on the CPU, arguments as in `ref.diffusion.score_from_eps`."""
    shape, dtype = engine.same(eps=eps)
    return apply(SCALE, out, shape, dtype, coefficients.score_from_eps(t, abar, shape), eps)


def _convert(fold, t, abar, out, **arrays):
    """c0 a + c1 b of two arrays, where fold(t, abar, shape) is the table of c."""
    shape, dtype = engine.same(**arrays)
    return apply(LINEAR, out, shape, dtype, fold(t, abar, shape), *arrays.values())


def ddpm_step(xt, eps_hat, t, s, z, abar, variance="small", clip=None, out=None):
    """[DDPM] algorithm 2 on the CPU, arguments as in `ref.diffusion.ddpm_step`."""
    shape, dtype = engine.same(xt=xt, eps_hat=eps_hat, z=z)
    table = coefficients.ddpm_step(t, s, abar, variance, shape)
    return apply(DDPM, out, shape, dtype, table, xt, eps_hat, z, u=(arguments.clip_limit(clip),))


def ddim_step(xt, eps_hat, t, s, z, eta, abar, clip=None, out=None):
    """[DDIM] eq. 12 on the CPU, arguments as in `ref.diffusion.ddim_step`; z may be None where eta = 0."""
    shape, dtype = engine.same(xt=xt, eps_hat=eps_hat)
    table = coefficients.ddim_step(t, s, eta, abar, shape)
    limit = 0.0 if clip is None else arguments.clip_limit(clip)
    if z is not None or eta != 0:
        engine.same(xt=xt, z=z)
    return apply(DDIM, out, shape, dtype, table, xt, eps_hat, xt if z is None else z, u=(limit,))


def eps_loss(eps_hat, eps):
    """[DDPM] eq. 14 on the CPU, arguments as in `ref.diffusion.eps_loss`. Returns a float."""
    engine.same(eps_hat=eps_hat, eps=eps)
    engine.some(eps_hat=eps_hat)
    return float(reduce.sums(reduce.sum_square_error, engine.flat(eps_hat), engine.flat(eps)) / eps.size)


def eps_loss_backward(dloss, eps_hat, eps, out=None):
    """Gradients of `eps_loss` on the CPU, arguments as in `ref.diffusion.eps_loss_backward`."""
    shape, dtype = engine.same(eps_hat=eps_hat, eps=eps)
    engine.some(eps_hat=eps_hat)
    u = (float(2.0 * dloss / eps.size),)
    return apply_many(DIFFERENCE_TWO, 2, out, shape, dtype, reduce.NO_TABLE, eps_hat, eps, u=u)
