"""Right orders of operations in which people write losses, optimisers, latents and random numbers, in the data's dtype.

A formulation takes the operation's arguments as k; numbers of it are cast to the data's dtype where c is called.
"""
import numpy as np

from kernels.check.adapter import find
from kernels.numpy_cpu.philox import bits
from tests.check.formulations_noise import NORMALS, normals
from tests.check.formulations_steps import column, function

half, two = (lambda x: x.dtype.type(0.5)), (lambda x: x.dtype.type(2))
axes = lambda x: tuple(range(1, x.ndim))  # noqa: E731


# --- mean squares ----------------------------------------------------------------------------------------------------

MSE = {
    "mean of squares": lambda d, a, b: np.mean(d**2), "sum over the number": lambda d, a, b: np.sum(d * d) / d.size,
    "dot product": lambda d, a, b: np.dot(d.ravel(), d.ravel()) / d.dtype.type(d.size),
    "mean of means": lambda d, a, b: np.mean(np.mean(d.reshape(len(d), -1) ** 2, axis=1)),
    "norm squared": lambda d, a, b: np.linalg.norm(d.ravel()) ** 2 / d.size,
    "in float64": lambda d, a, b: np.mean(d.astype(np.float64) ** 2),
    "square of a root": lambda d, a, b: np.sqrt(np.mean(np.square(d))) ** 2,
    "expanded": lambda d, a, b: np.mean(a * a) - two(a) * np.mean(a * b) + np.mean(b * b),
    "a running sum": lambda d, a, b: np.cumsum(d.ravel() ** 2)[-1] / d.dtype.type(d.size),
}
DMSE = {
    "as printed": lambda d: two(d) * d / d.dtype.type(d.size), "scaled first": lambda d: d * d.dtype.type(2 / d.size),
    "added to itself": lambda d: (d + d) / d.size, "halves": lambda d: d / (half(d) * d.size),
}


def squares(a, b, value, slope):
    d = a - b
    return value(d, a, b), slope(d)


def paired(one, two):
    n = max(len(one), len(two))
    pairs = [(list(one.items())[i % len(one)], list(two.items())[i % len(two)]) for i in range(n)]
    return {f"{a}; {b}": (f, g) for (a, f), (b, g) in pairs}


# --- GAN losses: F(u), F'(u) and the mean of them --------------------------------------------------------------------


def logistic(u):
    return 1 / (1 + np.exp(-u))


ONE = lambda u: u.dtype.type(1)  # noqa: E731
SOFTPLUS = {
    "log1p": lambda u: (np.maximum(u, 0) + np.log1p(np.exp(-np.abs(u))), logistic(u)),
    "logaddexp": lambda u: (np.logaddexp(0, u), 1 - logistic(-u)),
    "log of 1 + e^-|u|": lambda u: (np.maximum(u, 0) + np.log(1 + np.exp(-np.abs(u))), np.exp(-np.logaddexp(0, -u))),
    "tanh": lambda u: (np.where(u > 0, u, 0) + np.log1p(np.exp(-np.abs(u))), half(u) * (1 + np.tanh(half(u) * u))),
    "minus log sigmoid": lambda u: (np.where(u > 0, u - np.log(logistic(np.abs(u))), -np.log(logistic(np.abs(u)))),
                                    np.where(u > 0, logistic(np.abs(u)), 1 - logistic(np.abs(u)))),
}  # fmt: skip
HINGE = {
    "maximum": lambda u: (np.maximum(u, 0), (u > 0).astype(u.dtype)),
    "where": lambda u: (np.where(u <= 0, 0 * u, u), np.where(u > 0, ONE(u), 0 * ONE(u))),
    "half of u + |u|": lambda u: (half(u) * (u + np.abs(u)), np.heaviside(u, 0 * ONE(u))),
    "minus the minimum": lambda u: (-np.minimum(-u, 0), half(u) * (1 + np.sign(u))),
}
SQUARE = {
    "half the square": lambda u: (half(u) * u * u, u), "a square over 2": lambda u: (u**2 / 2, u),
    "the square of u / sqrt 2": lambda u: ((u / np.sqrt(two(u))) ** 2, two(u) * u / 2),
}
LINE = {"as printed": lambda u: (u, np.ones_like(u)), "by parts": lambda u: (half(u) * u + half(u) * u, u * 0 + 1)}
MEANS = {"mean": np.mean, "sum": lambda x: np.sum(x) / x.size, "float64": lambda x: np.mean(x, dtype=np.float64)}
GAN = {  # F, the real logits' slope and shift, the fake logits', the sign of the loss
    "discriminator_loss": (SOFTPLUS, (-1, 0), (1, 0), 1), "generator_loss": (SOFTPLUS, None, (-1, 0), 1),
    "generator_loss_saturating": (SOFTPLUS, None, (1, 0), -1),
    "hinge_discriminator_loss": (HINGE, (-1, 1), (1, 1), 1), "hinge_generator_loss": (LINE, None, (-1, 0), 1),
    "least_squares_discriminator_loss": (SQUARE, (1, -1), (1, 0), 1),
    "least_squares_generator_loss": (SQUARE, None, (1, -1), 1),
    "wasserstein_discriminator_loss": (LINE, (-1, 0), (1, 0), 1),
    "wasserstein_generator_loss": (LINE, None, (-1, 0), 1),
}  # fmt: skip


def gan(real, fake, sign, F, mean):
    def how(c, k):
        loss, gradients = 0.0, []
        for name, place in (("real_logits", real), ("fake_logits", fake)):
            if place:
                x = getattr(k, name)
                slope, shift = map(x.dtype.type, place)
                value, derivative = F(slope * x + shift)
                loss = loss + mean(value)
                gradients.append(x.dtype.type(sign) * slope * derivative / x.dtype.type(x.size))
        return sign * loss, *gradients

    return how


# --- Adam, moving averages, clipping ----------------------------------------------------------------------------------


def moments(c, k, form):
    b1, b2, one = c(k.beta1), c(k.beta2), k.g.dtype.type(1)
    if form == "lerp":
        return k.m + c(1 - k.beta1) * (k.g - k.m), k.v + c(1 - k.beta2) * (k.g * k.g - k.v)
    if form == "1 - beta in the dtype":
        return b1 * k.m + (one - b1) * k.g, b2 * k.v + (one - b2) * k.g**2
    if form == "squares of roots":
        return b1 * k.m + c(1 - k.beta1) * k.g, b2 * k.v + (c(np.sqrt(1 - k.beta2)) * k.g) ** 2
    return b1 * k.m + c(1 - k.beta1) * k.g, b2 * k.v + c(1 - k.beta2) * k.g * k.g


def adam(c, k, form):
    m, v = moments(c, k, form)
    one, two_ = 1 - k.beta1**k.step, 1 - k.beta2**k.step
    if form == "lerp":  # torch.optim.AdamW
        p = k.p * c(1 - k.lr * k.weight_decay)
        return p - c(k.lr / one) * (m / (np.sqrt(v) / c(np.sqrt(two_)) + c(k.eps))), m, v
    if form == "squares of roots":  # one rate, eps moved with it
        rate, eps = k.lr * np.sqrt(two_) / one, k.eps * np.sqrt(two_)
        return k.p - c(rate) * m / (np.sqrt(v) + c(eps)) - c(k.lr * k.weight_decay) * k.p, m, v
    update = (m / c(one)) / (np.sqrt(v / c(two_)) + c(k.eps))
    return k.p - c(k.lr) * (update + c(k.weight_decay) * k.p), m, v


ADAM = ("as printed", "lerp", "1 - beta in the dtype", "squares of roots")
EMA = {
    "as printed": lambda c, k, p: c(k.decay) * k.avg + c(1 - k.decay) * p,
    "lerp": lambda c, k, p: k.avg + c(1 - k.decay) * (p - k.avg),
    "the difference taken off": lambda c, k, p: k.avg - c(1 - k.decay) * (k.avg - p),
    "lerp from the weights": lambda c, k, p: p + c(k.decay) * (k.avg - p),
    "1 - decay in the dtype": lambda c, k, p: c(k.decay) * k.avg + (p.dtype.type(1) - c(k.decay)) * p,
}


def adam_ema(c, k, form, average):
    p, m, v = adam(c, k, form)
    return p, m, v, average(c, k, p)


NORMS = {
    "root of sums": lambda grads: np.sqrt(sum(np.sum(g * g) for g in grads)),
    "norm of norms": lambda grads: np.linalg.norm([np.linalg.norm(g.ravel()) for g in grads]),
    "one long array": lambda grads: np.linalg.norm(np.concatenate([g.ravel() for g in grads])),
    "in float64": lambda grads: np.sqrt(sum(np.sum(g.astype(np.float64) ** 2) for g in grads)),
    "by the largest":
        lambda grads: (largest := np.max([np.max(np.abs(g), initial=0) for g in grads])) and largest * np.sqrt(
        sum(np.sum((g / largest) ** 2) for g in grads)),
}  # fmt: skip
SCALES = {
    "where it is larger": lambda norm, most: most / norm if norm > most else 1.0,
    "over the larger": lambda norm, most: most / max(norm, most),
    "at most 1": lambda norm, most: min(most / norm, 1.0) if norm > 0 else 1.0,
    "PyTorch": lambda norm, most: min(most / (norm + 1e-6), 1.0),
}
CLIP = {name: lambda c, k, n=n, s=s: [g * g.dtype.type(s(float(n(k.grads)), k.max_norm)) for g in k.grads]
        for name, (n, s) in paired(NORMS, SCALES).items()}  # fmt: skip
CLIP |= {f"{name}, and the norm": lambda c, k, n=n, f=f: (f(c, k), float(n(k.grads)))
         for (name, f), n in zip([*CLIP.items()], [n for n, _ in paired(NORMS, SCALES).values()])}  # fmt: skip


# --- latents and pixels -----------------------------------------------------------------------------------------------

KL = {
    "textbook": lambda m, lv: half(m) * np.sum(m**2 + np.exp(lv) - 1 - lv, axis=axes(m)),
    "minus a half": lambda m, lv: -half(m) * np.sum(1 + lv - m**2 - np.exp(lv), axis=axes(m)),
    "torch.distributions": lambda m, lv: np.sum(
        half(m) * ((r := np.exp(half(m) * lv) ** 2) + m**2 - 1 - np.log(r)), axis=axes(m)),
    "expm1": lambda m, lv: half(m) * np.sum(m**2 + np.expm1(lv) - lv, axis=axes(m)),
    "float64 sums": lambda m, lv: 0.5 * np.sum(m.astype(np.float64) ** 2 + np.exp(lv.astype(np.float64)) - 1 - lv,
                                               axis=axes(m)),
    "four sums": lambda m, lv: half(m) * (np.sum(m * m, axis=axes(m)) + np.sum(np.exp(lv), axis=axes(m)) - np.sum(
        lv, axis=axes(m)) - m.dtype.type(m[0].size if len(m) else 0)),
}  # fmt: skip
STD = {"exp of a half": lambda lv: np.exp(half(lv) * lv), "root of exp": lambda lv: np.sqrt(np.exp(lv)),
       "a power": lambda lv: np.exp(lv) ** half(lv)}  # fmt: skip


def latent_backward(c, k, std, form):
    s, dk, h = std(k.logvar), c(column(k.dkl, k.mu)), half(k.mu)
    dmu = k.dz + dk * k.mu
    if form == "chain":
        return dmu, (k.dz * k.eps + dk * (s - 1 / s)) * s * h, k.dz * s
    if form == "expm1":
        return dmu, s * (k.dz * k.eps * h) + dk * h * np.expm1(k.logvar), s * k.dz
    return dmu, h * (k.dz * k.eps * s + dk * (np.exp(k.logvar) - 1)), k.dz * s


NLL = {
    "PyTorch": lambda l, x: (np.maximum(l, 0) - l * x + np.log1p(np.exp(-np.abs(l))), logistic(l) - x),
    "logaddexp": lambda l, x: (np.logaddexp(0, l) - x * l, (1 - x) * logistic(l) - x * logistic(-l)),
    "two softplus": lambda l, x: (x * np.logaddexp(0, -l) + (1 - x) * np.logaddexp(0, l), 1 - logistic(-l) - x),
    "tanh": lambda l, x: (np.maximum(l, 0) - l * x + np.log(1 + np.exp(-np.abs(l))),
                          half(l) * (1 + np.tanh(half(l) * l)) - x),
}  # fmt: skip


def pixels(c, k, form):
    value, derivative = form(k.logits, k.x)
    return np.sum(value, axis=axes(value)), c(column(k.dnll, k.x)) * derivative


def uniform(seed, shape, stream=0):
    return ((bits(seed, shape, stream).astype(np.float64) + 0.5) * 2.0**-32).astype(np.float32)


def normal(form):
    return lambda seed, shape, stream=0, dtype="float32": normals(seed, shape, stream, np.dtype(dtype), form)


TABLES = {
    "eps_loss": {name: lambda c, k, f=f: f(k.eps_hat - k.eps, k.eps_hat, k.eps) for name, f in MSE.items()},
    "eps_loss_backward": {name: lambda c, k, f=f: ((d := f(k.eps_hat - k.eps) * c(k.dloss)), -d)
                          for name, f in DMSE.items()},
    "eps_loss_grad": {name: lambda c, k, p=p: squares(k.eps_hat, k.eps, *p) for name, p in paired(MSE, DMSE).items()},
    "eps_loss_noise": {f"{name}; {form}": lambda c, k, p=p, form=form: squares(
        k.eps_hat, normals(k.seed, k.eps_hat.shape, k.stream, k.eps_hat.dtype, form), *p)
        for (name, p), form in zip(paired(MSE, DMSE).items(), NORMALS)},
    **{f"{name}_grad": {f"{form}; {m}": gan(real, fake, sign, *p) for (form, p), m in zip(
        paired(F, MEANS).items(), MEANS.keys() | F.keys())} for name, (F, real, fake, sign) in GAN.items()},
    "adam_step": {form: lambda c, k, form=form: adam(c, k, form) for form in ADAM},
    "adam_ema_step": {f"{form}; {name}": lambda c, k, form=form, e=e: adam_ema(c, k, form, e)
                      for form, (name, e) in zip((*ADAM, ADAM[0]), EMA.items())},
    "ema_step": {name: lambda c, k, f=f: f(c, k, k.p) for name, f in EMA.items()},
    "clip_by_global_norm": CLIP,
    "reparameterize_kl": {name: lambda c, k, f=f, s=s: (k.mu + s(k.logvar) * k.eps, f(k.mu, k.logvar))
                          for name, (f, s) in paired(KL, STD).items()},
    "reparameterize_kl_backward": {form: lambda c, k, s=s, form=form: latent_backward(c, k, s, form)
                                   for s, form in zip(STD.values(), ("textbook", "expm1", "chain"))},
    "bernoulli_nll_grad": {name: lambda c, k, f=f: pixels(c, k, f) for name, f in NLL.items()},
}  # fmt: skip
PLAIN = [("philox.bits", "as printed", lambda seed, shape, stream=0: bits(seed, shape, stream), {}),
         ("uniform", "in float64", uniform, {}), *(("normal", form, normal(form), {}) for form in NORMALS)]  # fmt: skip
FORMULATIONS = [(op, name, function(find(op), how, False), {}) for op, table in TABLES.items()
                for name, how in table.items()] + PLAIN  # fmt: skip
