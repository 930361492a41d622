"""The registered operations in plain, tuned NumPy: in the inputs' dtype, with `out=` and no needless temporaries.

Not a truth and not a kernel: the yardstick of rounding in `kernels.compare` and the NumPy column of the benchmark.
Arguments as in `ref`, plus `out` for the array results; equations there. Coefficients are folded in float64 as for kernels.
"""
from itertools import pairwise

import numpy as np

from kernels import coefficients
from ref import philox
from ref.fused import PER_STEP
from ref.nets.mlp import residual, simple_mlp, simple_mlp_backward


def normal(seed, shape, stream=0, dtype=np.float32, out=None):
    """`ref.philox.normal` with its transform in dtype. seed, shape, stream: as there. Returns `shape` of dtype."""
    size = int(np.prod(shape, dtype=np.int64))
    words = philox.bits(seed, (size + 1) // 2 * 2, stream)
    u = (words[1::2].astype(np.float32) * np.float32(2.0**-32) + np.float32(2.0**-33)).astype(dtype)
    a = (words[0::2].view(np.int32).astype(np.float32) * np.float32(2.0**-31) + np.float32(2.0**-32)).astype(dtype)
    r, angle = np.sqrt(-2 * np.log(u)), np.pi * a
    z = np.stack([r * np.sin(angle), r * np.cos(angle)], axis=-1).reshape(-1)[:size].reshape(shape)
    return z if out is None else _copy(out, z)


def q_sample(x0, t, eps, abar, out=None):
    """`ref.diffusion.q_sample` in x0's dtype. x0, eps: (B, ...). t: (B,) ints or one int. abar: (T + 1,)."""
    return _linear(coefficients.q_sample(t, abar, x0.shape), x0, eps, out)


def q_sample_backward(dxt, t, abar, out=None):
    """`ref.diffusion.q_sample_backward` in dxt's dtype. dxt: (B, ...). t: (B,) ints or one int. abar: (T + 1,)."""
    c0, c1 = columns(coefficients.q_sample(t, abar, dxt.shape), dxt)
    out = (None, None) if out is None else out
    return np.multiply(c0, dxt, out=out[0]), np.multiply(c1, dxt, out=out[1])


def posterior(x0, xt, t, s, abar, out=None):
    """`ref.diffusion.posterior` in x0's dtype. x0, xt: (B, ...). t, s: ints or (B,) ints. abar: (T + 1,)."""
    table = coefficients.posterior(t, s, abar, x0.shape)
    variance = table[2].reshape(np.broadcast_shapes(np.shape(t), np.shape(s)))[()]
    return _linear(table[:2], x0, xt, out), variance


def x0_from_eps(xt, eps, t, abar, out=None):
    """`ref.diffusion.x0_from_eps` in xt's dtype. xt, eps: (B, ...). t: int or (B,) ints. abar: (T + 1,)."""
    return _linear(coefficients.x0_from_eps(t, abar, xt.shape), xt, eps, out)


def eps_from_x0(xt, x0, t, abar, out=None):
    """`ref.diffusion.eps_from_x0` in xt's dtype. xt, x0: (B, ...). t: int or (B,) ints. abar: (T + 1,)."""
    return _linear(coefficients.eps_from_x0(t, abar, xt.shape), xt, x0, out)


def v_target(x0, eps, t, abar, out=None):
    """`ref.diffusion.v_target` in x0's dtype. x0, eps: (B, ...). t: int or (B,) ints. abar: (T + 1,)."""
    return _linear(coefficients.v_target(t, abar, x0.shape), x0, eps, out)


def x0_from_v(xt, v, t, abar, out=None):
    """`ref.diffusion.x0_from_v` in xt's dtype. xt, v: (B, ...). t: int or (B,) ints. abar: (T + 1,)."""
    return _linear(coefficients.x0_from_v(t, abar, xt.shape), xt, v, out)


def eps_from_v(xt, v, t, abar, out=None):
    """`ref.diffusion.eps_from_v` in xt's dtype. xt, v: (B, ...). t: int or (B,) ints. abar: (T + 1,)."""
    return _linear(coefficients.eps_from_v(t, abar, xt.shape), xt, v, out)


def score_from_eps(eps, t, abar, out=None):
    """`ref.diffusion.score_from_eps` in eps's dtype. eps: (B, ...). t: int or (B,) ints. abar: (T + 1,)."""
    (c0,) = columns(coefficients.score_from_eps(t, abar, eps.shape), eps)
    return np.multiply(c0, eps, out=out)


def ddpm_step(xt, eps_hat, t, s, z, abar, variance="small", clip=None, out=None):
    """`ref.diffusion.ddpm_step` in xt's dtype. xt, eps_hat, z: (B, ...). t, s: ints or (B,) ints. abar: (T + 1,). variance, clip: as there."""
    c0, c1, c2, c3, c4 = columns(coefficients.ddpm_step(t, s, abar, variance, xt.shape), xt)
    out, term = np.multiply(c0, xt, out=out), np.multiply(c1, eps_hat)
    np.add(out, term, out=out)
    if clip is not None:
        np.clip(out, -clip, clip, out=out)
    np.multiply(c2, out, out=out)
    np.add(out, np.multiply(c3, xt, out=term), out=out)
    if np.any(c4):
        np.add(out, np.multiply(c4, z, out=term), out=out, where=c4 != 0)
    return out


def ddim_step(xt, eps_hat, t, s, z, eta, abar, clip=None, out=None):
    """`ref.diffusion.ddim_step` in xt's dtype. xt, eps_hat, z: (B, ...). t, s: ints or (B,) ints. eta: in [0, 1]. abar: (T + 1,). clip: as there."""
    c0, c1, c2, c3, c4, c5, c6 = columns(coefficients.ddim_step(t, s, eta, abar, xt.shape), xt)
    out, term = np.multiply(c0, xt, out=out), np.multiply(c1, eps_hat)
    np.add(out, term, out=out)
    if clip is None:
        np.multiply(c5, eps_hat, out=term)
    else:
        np.clip(out, -clip, clip, out=out)
        np.multiply(c3, out, out=term)
        np.add(term, c2 * xt, out=term)
        np.multiply(c5, term, out=term)
    np.multiply(c4, out, out=out)
    np.add(out, term, out=out)
    if np.any(c6):
        np.add(out, np.multiply(c6, z, out=term), out=out, where=c6 != 0)
    return out


def eps_loss(eps_hat, eps):
    """`ref.diffusion.eps_loss`, the difference in their dtype. eps_hat, eps: one shape. Returns a float."""
    d = np.subtract(eps_hat, eps).reshape(-1)
    return float(np.dot(d, d)) / d.size


def eps_loss_backward(dloss, eps_hat, eps, out=None):
    """`ref.diffusion.eps_loss_backward` in their dtype. dloss: float. eps_hat, eps: one shape. Returns deps_hat, deps."""
    out = (None, None) if out is None else out
    deps_hat = np.subtract(eps_hat, eps, out=out[0])
    np.multiply(deps_hat, eps.dtype.type(2 * dloss / eps.size), out=deps_hat)
    return deps_hat, np.negative(deps_hat, out=out[1])


def q_sample_noise(x0, t, seed, abar, stream=0, out=None):
    """`ref.fused.q_sample_noise` in x0's dtype. x0: (B, ...). t: (B,) ints or one int. seed, stream: ints. abar: (T + 1,)."""
    return q_sample(x0, t, normal(seed, x0.shape, stream, x0.dtype), abar, out)


def eps_loss_grad(eps_hat, eps, out=None):
    """`ref.fused.eps_loss_grad` in their dtype. eps_hat, eps: one shape. Returns L, deps_hat."""
    d = np.subtract(eps_hat, eps, out=out)
    loss = float(np.dot(d.reshape(-1), d.reshape(-1))) / d.size
    return loss, np.multiply(d, d.dtype.type(2 / d.size), out=d)


def eps_loss_noise(eps_hat, seed, stream=0, out=None):
    """`ref.fused.eps_loss_noise` in eps_hat's dtype. eps_hat: (B, ...). seed, stream: ints. Returns L, deps_hat."""
    return eps_loss_grad(eps_hat, normal(seed, eps_hat.shape, stream, eps_hat.dtype), out)


def guided_ddpm_step(xt, uncond, cond, w, t, s, seed, abar, variance="small", clip=None, stream=0, out=None):
    """`ref.fused.guided_ddpm_step` in xt's dtype. xt, uncond, cond: (B, ...). w, t, s, seed, abar, variance, clip, stream: as there."""
    return ddpm_step(xt, _guide(uncond, cond, w), t, s, normal(seed, xt.shape, stream, xt.dtype), abar, variance, clip, out)


def guided_ddim_step(xt, uncond, cond, w, t, s, seed, eta, abar, clip=None, stream=0, out=None):
    """`ref.fused.guided_ddim_step` in xt's dtype. xt, uncond, cond: (B, ...). w, t, s, seed, eta, abar, clip, stream: as there."""
    z = normal(seed, xt.shape, stream, xt.dtype) if eta else None
    return ddim_step(xt, _guide(uncond, cond, w), t, s, z, eta, abar, clip, out)


def guided_dpmpp_2m_step(xt, uncond, cond, w, x0_last, u, t, s, abar, out=None):
    """`ref.fused.guided_dpmpp_2m_step` in xt's dtype. xt, uncond, cond, x0_last: (B, ...). w, u, t, s, abar: as there. out: (x_s, x0_hat)."""
    c = columns(coefficients.dpmpp_2m_step(u, t, s, abar, xt.shape), xt)
    xs, x0_hat = (None, None) if out is None else out
    e = _guide(uncond, cond, w)
    np.multiply(c[1], e, out=e)
    x0_hat = np.add(np.multiply(c[0], xt, out=x0_hat), e, out=x0_hat)
    xs = np.add(np.multiply(c[2], xt, out=xs), np.multiply(c[3], x0_hat, out=e), out=xs)
    if np.any(c[4]):
        np.add(xs, np.multiply(c[4], np.where(c[4] == 0, 0, x0_last) if np.size(c[4]) > 1 else x0_last, out=e), out=xs)
    return xs, x0_hat


def guided_flow_step(xt, uncond, cond, w, t, s, out=None):
    """`ref.fused.guided_flow_step` in xt's dtype. xt, uncond, cond: (B, ...). w, t, s: as there."""
    (c,) = columns(coefficients.flow_step(t, s, xt.shape), xt)
    v = _guide(uncond, cond, w)
    return np.add(xt, np.multiply(c, v, out=v), out=out)


def heun_step(x, denoised, denoised_next, sigma, sigma_next, out=None):
    """`ref.fused.heun_step` in x's dtype. x, denoised, denoised_next: (B, ...). sigma, sigma_next: as there."""
    c = columns(coefficients.heun_step(sigma, sigma_next, x.shape), x)
    out = _linear_of(c, x, denoised, out)
    return np.add(out, np.multiply(c[2], denoised_next), out=out)


def adam_step(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay, out=None):
    """`ref.optim.adam_step` in p's dtype. p, g, m, v: one shape. step, lr, beta1, beta2, eps, weight_decay: as there. out: (p, m, v)."""
    b1, a1, b2, a2, rate, unbias, small, decay = coefficients.adam_step(step, lr, beta1, beta2, eps, weight_decay).astype(p.dtype)
    p_out, m_out, v_out = (np.empty_like(p) for _ in range(3)) if out is None else out
    term = np.multiply(a1, g)
    np.multiply(b1, m, out=m_out)
    np.add(m_out, term, out=m_out)
    np.multiply(g, g, out=term)
    np.multiply(a2, term, out=term)
    np.multiply(b2, v, out=v_out)
    np.add(v_out, term, out=v_out)
    np.sqrt(v_out, out=term)
    np.multiply(unbias, term, out=term)
    np.add(term, small, out=term)
    np.divide(m_out, term, out=term)
    np.multiply(rate, term, out=term)
    if weight_decay:
        np.add(term, decay * p, out=term)
    return np.subtract(p, term, out=p_out), m_out, v_out


def ema_step(avg, p, decay, out=None):
    """`ref.optim.ema_step` in avg's dtype. avg, p: one shape. decay: in [0, 1]."""
    return _linear(coefficients.ema_step(decay), avg, p, out)


def clip_by_global_norm(grads, max_norm, out=None):
    """`ref.optim.clip_by_global_norm` for a list, in the arrays' dtype. grads: list of arrays. max_norm: > 0."""
    norm = float(np.sqrt(sum(float(np.dot(g.reshape(-1), g.reshape(-1))) for g in grads)))
    scale = max_norm / norm if norm > max_norm else 1.0
    return [np.multiply(g, g.dtype.type(scale), out=o) for g, o in zip(grads, [None] * len(grads) if out is None else out)]


def adam_ema_step(p, g, m, v, avg, step, lr, beta1, beta2, eps, weight_decay, decay, out=None):
    """`ref.fused.adam_ema_step` in p's dtype. p, g, m, v, avg: one shape. step, lr, beta1, beta2, eps, weight_decay, decay: as there. out: (p, m, v, avg)."""
    p, m, v = adam_step(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay, None if out is None else out[:3])
    return p, m, v, ema_step(avg, p, decay, None if out is None else out[3])


def reparameterize_kl(mu, logvar, eps, out=None, scratch=None):
    """`ref.vae.reparameterize_kl` in mu's dtype. mu, logvar, eps: (B, ...). scratch: two arrays like them to work in, or None."""
    one, two = (None, None) if scratch is None else scratch
    std = np.multiply(logvar, logvar.dtype.type(0.5), out=one)
    np.exp(std, out=std)
    z = np.multiply(std, eps, out=out)
    np.add(z, mu, out=z)
    term = np.multiply(std, std, out=std)
    np.subtract(term, logvar, out=term)
    np.subtract(term, 1, out=term)
    np.add(term, np.multiply(mu, mu, out=two), out=term)
    return z, per_example(term) / 2


def reparameterize_kl_backward(dz, dkl, mu, logvar, eps, out=None, scratch=None):
    """`ref.vae.reparameterize_kl_backward` in dz's dtype. dz, mu, logvar, eps: (B, ...). dkl: (B,) or a float. scratch: one array, in a
    tuple, to work in, or None."""
    dmu, dlogvar, deps = (None,) * 3 if out is None else out
    (dkl,) = columns(np.asarray(dkl, np.float64).reshape(1, -1), dz)
    std = np.multiply(logvar, logvar.dtype.type(0.5), out=None if scratch is None else scratch[0])
    np.exp(std, out=std)
    dmu = np.add(np.multiply(dkl, mu, out=dmu), dz, out=dmu)
    deps = np.multiply(std, dz, out=deps)
    term = np.subtract(np.multiply(std, std, out=std), 1, out=std)
    np.multiply(dkl, term, out=term)
    dlogvar = np.add(np.multiply(deps, eps, out=dlogvar), term, out=dlogvar)
    return dmu, np.multiply(dlogvar, dz.dtype.type(0.5), out=dlogvar), deps


def bernoulli_nll_grad(logits, x, dnll=1.0, out=None, scratch=None):
    """`ref.vae.bernoulli_nll_grad` in logits' dtype. logits, x: (B, ...). dnll: (B,) or a float. scratch: two arrays to work in, or None."""
    value, derivative = softplus(logits, out, scratch)
    np.subtract(value, np.multiply(x, logits, out=None if scratch is None else scratch[0]), out=value)
    np.subtract(derivative, x, out=derivative)
    (dnll,) = columns(np.asarray(dnll, np.float64).reshape(1, -1), logits)
    return per_example(value), np.multiply(derivative, dnll, out=derivative)


def softplus(u, out=None, scratch=None):
    """log(1 + e^u) and its derivative in u's dtype, both from e^-|u|. u: array. out: of the derivative. scratch: two arrays to work in,
    the second of which becomes the value, or None."""
    e, value = (None, None) if scratch is None else scratch
    large = np.exp(np.minimum(u, 0, out=out), out=out)  # e^u where u < 0, else 1
    e = np.abs(u, out=e)
    np.exp(np.negative(e, out=e), out=e)
    value = np.add(np.log1p(e, out=value), np.maximum(u, 0), out=value)
    return value, np.divide(large, np.add(e, 1, out=e), out=large)


CURVES = {  # F and F' of u; out of the second, two arrays to work in
    "softplus": softplus,
    "hinge": lambda u, out, scratch: (np.maximum(u, 0, out=scratch[0]), _copy(out, np.greater(u, 0))),
    "square": lambda u, out, scratch: (np.multiply(np.multiply(u, u, out=scratch[0]), u.dtype.type(0.5), out=scratch[0]), _copy(out, u)),
    "line": lambda u, out, scratch: (u, _copy(out, 1)),
}
GAN = {  # the curve; slope and shift of u = slope logits + shift for real and fake, or for fake; the sign before the mean
    "discriminator_loss": ("softplus", [(-1, 0), (1, 0)], 1),
    "generator_loss": ("softplus", [(-1, 0)], 1),
    "generator_loss_saturating": ("softplus", [(1, 0)], -1),
    "hinge_discriminator_loss": ("hinge", [(-1, 1), (1, 1)], 1),
    "hinge_generator_loss": ("line", [(-1, 0)], 1),
    "least_squares_discriminator_loss": ("square", [(1, -1), (1, 0)], 1),
    "least_squares_generator_loss": ("square", [(1, -1)], 1),
    "wasserstein_discriminator_loss": ("line", [(-1, 0), (1, 0)], 1),
    "wasserstein_generator_loss": ("line", [(-1, 0)], 1),
}


def gan_loss_grad(name, *logits, out=None, scratch=None):
    """`ref.gan`'s name and its gradient in the logits' dtype. name: of GAN. logits: real and fake, or fake. scratch: for each three
    arrays like it to work in, or None."""
    curve, places, sign = GAN[name]
    outs = [np.empty_like(x) for x in logits] if out is None else out if len(logits) > 1 else [out]
    loss = 0.0
    for i, (x, (slope, shift), out) in enumerate(zip(logits, places, outs, strict=True)):
        u, *more = [np.empty_like(x) for _ in range(3)] if scratch is None else scratch[i]
        u = np.add(np.multiply(x, x.dtype.type(slope), out=u), x.dtype.type(shift), out=u) if (slope, shift) != (1, 0) else x
        value, derivative = CURVES[curve](u, out, more)
        loss += sign * float(np.mean(value))
        np.multiply(derivative, x.dtype.type(sign * slope / x.size), out=out)
    return loss, *outs


def columns(table, x):
    """The K rows of a coefficient table, each shaped to multiply x (B, ...), in x's dtype."""
    shape = (-1,) + (1,) * (x.ndim - 1) if table.shape[1] != 1 or x.ndim == 0 else ()
    return [row.reshape(shape) for row in table.astype(x.dtype)]


def per_example(terms):
    """The sum over all axes but the first. terms: (B, ...)."""
    return terms.sum(axis=tuple(range(1, terms.ndim)))


def _linear(table, a, b, out):
    return _linear_of(columns(table, a), a, b, out)


def _linear_of(c, a, b, out):
    term = np.multiply(c[1], b)
    out = np.multiply(c[0], a, out=out)
    return np.add(out, term, out=out)


def _guide(uncond, cond, w):
    guided = np.subtract(cond, uncond)
    np.multiply(guided, guided.dtype.type(w), out=guided)
    return np.add(guided, uncond, out=guided)


def _copy(out, z):
    out[...] = z
    return out


def mlp_sample(params, xT, times, abar, eta=0.0, seed=0, stream=0, guidance=None, predict="eps", clip=None):
    """`ref.fused.mlp_sample` in xT's dtype. params, xT, times, abar, eta, seed, stream, guidance, predict, clip: as there."""
    net = residual if "class" in params else simple_mlp
    convert = {"eps": lambda x, out, t, abar: out, "x0": eps_from_x0, "v": eps_from_v}[predict]
    x = xT
    for i, (t, s) in enumerate(pairwise(np.asarray(times).tolist())):
        rows = np.full(len(x), t)
        nothing = [np.full(len(x), len(params["class"]["w"]) - 1)] if net is residual else []
        e = convert(x, net(params, x, rows, *nothing)[0], t, abar)
        if guidance is not None:
            e = _guide(e, convert(x, net(params, x, rows, guidance[0])[0], t, abar), guidance[1])
        z = normal(seed, x.shape, (stream + i) % 2**64, x.dtype) if eta else None
        x = ddim_step(x, e, t, s, z, eta, abar, clip)
    return x


def mlp_train(params, data, steps, batch, lr, seed, abar, state=None, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, decay=0.0):
    """`ref.fused.mlp_train` in the params' dtype. params, data, steps, batch, lr, seed, abar, state, beta1, beta2, eps, weight_decay, decay: as there."""
    done = 0 if state is None else state["step"]
    kept = {"params": params, "m": None, "v": None, "average": params} | (state or {})
    kept = {part: {n: np.zeros_like(p) if kept[part] is None else kept[part][n].copy() for n, p in params.items()} for part in ("params", "m", "v", "average")}
    losses, shape = np.empty(steps), (batch, data.shape[1])
    for i in range(steps):
        step, stream = done + 1 + i, PER_STEP * (done + 1 + i)
        x0, t = data[philox.below(seed, batch, len(data), stream)], 1 + philox.below(seed, batch, len(abar) - 1, stream + 1)
        z = normal(seed, shape, stream + 3, data.dtype)
        eps_hat, cache = simple_mlp(kept["params"], q_sample(x0, t, z, abar), t)
        losses[i], deps_hat = eps_loss_grad(eps_hat, z)
        for n, g in simple_mlp_backward(deps_hat, kept["params"], cache)[1].items():
            p, m, v, average = (kept[part][n] for part in kept)
            adam_ema_step(p, g, m, v, average, step, lr, beta1, beta2, eps, weight_decay, decay, out=(p, m, v, average))
    return kept.pop("params"), {"step": done + steps} | kept, losses
