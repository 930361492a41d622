"""`ref.fused` in tuned NumPy; `out` takes the results."""
import numpy as np

from kernels import coefficients, trajectory
from kernels.arguments import branches
from kernels.numpy_cpu.arrays import columns, guide, linear_of
from kernels.numpy_cpu.diffusion import ddim_step, ddpm_step, q_sample
from kernels.numpy_cpu.mlp import residual, simple_mlp, simple_mlp_backward
from kernels.numpy_cpu.optim import adam_step, ema_step
from kernels.numpy_cpu.philox import below, normal

STREAMS = 4  # of a training step: batch, time, label, noise

def q_sample_noise(x0, t, seed, abar, stream=0, out=None):
    """`ref.fused.q_sample_noise` in x0's dtype. x0: (B, ...). t, seed, abar, stream: as there."""
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
    """`ref.fused.guided_ddpm_step`. xt, uncond, cond, w, t, s, seed, abar, variance, clip, stream: as there."""
    z = normal(seed, xt.shape, stream, xt.dtype)
    return ddpm_step(xt, guide(uncond, cond, w), t, s, z, abar, variance, clip, out)


def guided_ddim_step(xt, uncond, cond, w, t, s, seed, eta, abar, clip=None, stream=0, out=None):
    """`ref.fused.guided_ddim_step`. xt, uncond, cond: (B, ...). w, t, s, seed, eta, abar, clip, stream: as there."""
    z = normal(seed, xt.shape, stream, xt.dtype) if eta else None
    return ddim_step(xt, guide(uncond, cond, w), t, s, z, eta, abar, clip, out)


def guided_dpmpp_2m_step(xt, uncond, cond, w, x0_last, u, t, s, abar, out=None):
    """`ref.fused.guided_dpmpp_2m_step`. xt, uncond, cond, x0_last: (B, ...). w, u, t, s, abar: as there."""
    c = columns(coefficients.dpmpp_2m_step(u, t, s, abar, xt.shape), xt)
    xs, x0_hat = (None, None) if out is None else out
    e = guide(uncond, cond, w)
    np.multiply(c[1], e, out=e)
    x0_hat = np.add(np.multiply(c[0], xt, out=x0_hat), e, out=x0_hat)
    xs = np.add(np.multiply(c[2], xt, out=xs), np.multiply(c[3], x0_hat, out=e), out=xs)
    if np.any(c[4]):
        last = np.where(c[4] == 0, 0, x0_last) if np.size(c[4]) > 1 else x0_last
        np.add(xs, np.multiply(c[4], last, out=e), out=xs)
    return xs, x0_hat


def guided_flow_step(xt, uncond, cond, w, t, s, out=None):
    """`ref.fused.guided_flow_step` in xt's dtype. xt, uncond, cond: (B, ...). w, t, s: as there."""
    (c,) = columns(coefficients.flow_step(t, s, xt.shape), xt)
    v = guide(uncond, cond, w)
    return np.add(xt, np.multiply(c, v, out=v), out=out)


def heun_step(x, denoised, denoised_next, sigma, sigma_next, out=None):
    """`ref.fused.heun_step` in x's dtype. x, denoised, denoised_next: (B, ...). sigma, sigma_next: as there."""
    c = columns(coefficients.heun_step(sigma, sigma_next, x.shape), x)
    out = linear_of(c, x, denoised, out)
    return np.add(out, np.multiply(c[2], denoised_next), out=out)


def adam_ema_step(p, g, m, v, avg, step, lr, beta1, beta2, eps, weight_decay, decay, out=None):
    """`ref.fused.adam_ema_step`. p, g, m, v, avg, step, lr, beta1, beta2, eps, weight_decay, decay: as there."""
    p, m, v = adam_step(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay, None if out is None else out[:3])
    return p, m, v, ema_step(avg, p, decay, None if out is None else out[3])


def mlp_sample(params, xT, times, abar, eta=0.0, seed=0, stream=0, guidance=None, predict="eps", clip=None):
    """`ref.fused.mlp_sample`. params, xT, times, abar, eta, seed, stream, guidance, predict, clip: as there."""
    def net(x, t, labels):
        rows = np.full(len(x), t)
        return residual(params, x, rows, labels) if "class" in params else simple_mlp(params, x, rows)[0]

    x, times = xT, np.asarray(times).tolist()
    limit = clip if clip is not None else None if predict == "eps" else np.inf  # the net's x0_hat gives eps_hat
    no_label = np.full(len(x), len(params["class"]["w"]) - 1) if "class" in params else None
    if guidance is not None:
        labels, weights = branches(guidance, len(x), no_label[0], times)
    for i, c in enumerate(trajectory.ddim_trajectory(times, eta, abar, predict).T.astype(x.dtype)):
        # The net's output, guided
        out = net(x, times[i], no_label)
        if guidance is not None:
            out = guide(out, net(x, times[i], labels[1]), weights[i])
        # x0_hat and eps_hat
        x0_hat, eps_hat = c[0] * x + c[1] * out, out
        if limit is not None:
            x0_hat = np.clip(x0_hat, -limit, limit)
            eps_hat = c[2] * x + c[3] * x0_hat
        # The step
        x = c[4] * x0_hat + c[5] * eps_hat
        if c[6]:
            x += c[6] * normal(seed, x.shape, (stream + i) % 2**64, x.dtype)
    return x


def mlp_train(
    params, data, steps, batch, lr, seed, abar,
    state=None, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, decay=0.0,
):  # fmt: skip
    """`ref.fused.mlp_train`. params, data, steps, batch, lr, seed, abar, state, beta1, beta2, eps, weight_decay, decay:
    as there."""
    zeros = {n: np.zeros_like(p) for n, p in params.items()}
    state = {"step": 0, "m": zeros, "v": zeros, "average": params} if state is None else state
    kept = {"params": params} | {part: state[part] for part in ("m", "v", "average")}
    kept = {part: {n: p.copy() for n, p in tree.items()} for part, tree in kept.items()}
    losses = np.empty(steps)
    for i in range(steps):
        step = state["step"] + 1 + i
        stream = STREAMS * step
        # a noisy batch
        x0 = data[below(seed, batch, len(data), stream)]
        t = 1 + below(seed, batch, len(abar) - 1, stream + 1)
        z = normal(seed, x0.shape, stream + 3, data.dtype)
        # the gradient
        eps_hat, cache = simple_mlp(kept["params"], q_sample(x0, t, z, abar), t)
        losses[i], deps_hat = eps_loss_grad(eps_hat, z)
        # Adam and the moving average
        for n, g in simple_mlp_backward(deps_hat, kept["params"], cache).items():
            p, m, v, average = (kept[part][n] for part in kept)
            out = (p, m, v, average)
            adam_ema_step(p, g, m, v, average, step, lr, beta1, beta2, eps, weight_decay, decay, out=out)
    return kept.pop("params"), {"step": state["step"] + steps} | kept, losses
