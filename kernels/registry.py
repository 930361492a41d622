"""Every accelerated operation, once: its truth, its inputs, its scale of rounding, its bytes. Tests, checker and bench read it.

To add a kernel: its truth in `ref`, its record here, its function under the same name in a backend. Nothing else.
"""
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from kernels import coefficients, plain, tolerance
from ref import diffusion, fused, gan, layers, optim, philox, schedules, shapes, vae

BACKENDS = {"numba_cpu": "numba", "triton_gpu": "triton"}  # folder: the library it needs
FLOATS = ("float32", "float64")
HALVES = ("float16", "bfloat16")
HALF_ULPS = 0.51  # of a result that is float32 until it is stored: half a step, and the float32 rounding before it
PER_EXAMPLE = ("u", "t", "s", "sigma", "sigma_next", "dkl", "dnll")  # arguments that may be one for each example, and are no data
VALUES = ("normal", "large", "tiny", "zeros", "not finite")  # what data arrays hold


@dataclass(frozen=True)
class Op:
    """One operation. `name` is module.function in `ref` and in each backend.

    make(rng, shape, dtype, values, **options) -> the arguments by name. scale(**arguments) -> as the truth returns, see
    `kernels.compare`. ulps: the bound, 0 for equality. options: name -> the choices tests draw from. writes: arrays
    written. dtypes: of `ref`'s function that a CPU computes in. half: whether a GPU stores float16 and bfloat16 too. bench:
    rows of the benchmark, name -> options. empty: whether zero elements are allowed.
    """

    name: str
    truth: Callable
    plain: Callable
    make: Callable
    scale: Callable
    ulps: float
    options: dict = field(default_factory=dict)
    writes: int = 1
    dtypes: tuple = FLOATS
    bench: dict = field(default_factory=dict)
    half: bool = False
    empty: bool = True


def dtypes(op, backend):
    """The dtypes, by name, in which the backend has op; bfloat16 only where NumPy knows it, by ml_dtypes. op: `Op`. backend: name."""
    if backend == "numba_cpu":
        return op.dtypes
    known = [d for d in HALVES if d != "bfloat16" or importlib.util.find_spec("ml_dtypes")]
    return tuple(d for d in op.dtypes if d != "float64") + tuple(known if op.half else ())


def like(dtype):
    """The NumPy dtype of that name; bfloat16 is ml_dtypes'. dtype: name."""
    return np.dtype(importlib.import_module("ml_dtypes").bfloat16 if dtype == "bfloat16" else dtype)


def carriers(backend):
    """How arrays get to a backend and back: two functions of one array. backend: name."""
    if backend != "triton_gpu":
        return np.asarray, np.asarray
    launch = importlib.import_module("kernels.triton_gpu.launch")
    return launch.send, launch.receive


def sent(arguments, send):
    """The arguments with their data arrays where the backend wants them. arguments: dict. send: from `carriers`."""
    data = arrays(arguments)
    moved = {name: send(value) if name in data else value for name, value in arguments.items()}
    return moved | {name: [send(v) for v in value] for name, value in arguments.items() if isinstance(value, list)}


def kernel(op, backend):
    """The backend's function for op, or None where the backend does not have it. op: `Op`. backend: a key of BACKENDS."""
    module, function = op.name.split(".")
    if importlib.util.find_spec(f"kernels.{backend}.{module}") is None:
        return None
    return getattr(importlib.import_module(f"kernels.{backend}.{module}"), function, None)


def outputs(result):
    """What a function returned, as a flat list of arrays and floats. result: array, float, tuple or list."""
    return [r for part in result for r in outputs(part)] if isinstance(result, (tuple, list)) else [result]


def arrays(arguments):
    """The data arrays among the arguments (not times, not abar), by name; a list's as name[i]. arguments: dict."""
    found = {}
    for name, value in arguments.items():
        if isinstance(value, list):
            found |= {f"{name}[{i}]": a for i, a in enumerate(value)}
        elif isinstance(value, np.ndarray) and name not in (*PER_EXAMPLE, "abar"):
            found[name] = value
    return found


def expected(op, arguments, dtype):
    """The `tolerance.Rule` of each output. op: `Op`. arguments: from op.make. dtype: name."""
    exact = {name: _exact(value) for name, value in arguments.items()}
    half = dtype in HALVES
    with np.errstate(all="ignore"):
        truth, scale = outputs(op.truth(**exact)), outputs(op.scale(**exact))
        extra = {"dtype": dtype} if op.name == "philox.normal" else {}
        # in float64 plain NumPy is the truth's own arithmetic and measures nothing; in halves nobody computes
        rough = outputs(op.plain(**arguments, **extra)) if op.ulps and dtype != "float64" and not half else [None] * len(truth)
    return [tolerance.rule(t, s, HALF_ULPS if half else op.ulps, dtype, p) for t, s, p in zip(truth, scale, rough)]


def _exact(value):
    """Data in float64, where the truth is made; the rest as it is."""
    if isinstance(value, list):
        return [_exact(v) for v in value]
    return value.astype(np.float64) if isinstance(value, np.ndarray) and value.dtype.kind in "fV" else value  # V: bfloat16


def call(op, function, arguments, dtype, **extra):
    """function(**arguments, **extra), its outputs as a list. Only philox.normal, of all op, has no data to take its dtype from."""
    return outputs(function(**arguments, **extra, **({"dtype": dtype} if op.name == "philox.normal" else {})))


def bytes_moved(op, arguments, dtype):
    """The fewest bytes that memory must carry for op in dtype: every input of arguments read once, every output written once."""
    read = arrays(arguments).values()
    size = max((a.nbytes for a in read), default=0) or int(np.prod(arguments["shape"])) * np.dtype(dtype).itemsize
    return sum(a.nbytes for a in read) + op.writes * size


def _data(rng, shape, dtype, values):
    x = rng.standard_normal(shape)
    if values == "zeros":
        x[...] = 0
    elif values != "normal":
        x *= {"large": 1e2, "tiny": 1e-2}.get(values, 1) if dtype in HALVES else {"large": 1e4, "tiny": 1e-4}.get(values, 1)
    if values == "not finite" and x.size:
        x.flat[rng.integers(x.size, size=3)] = np.nan, np.inf, -np.inf
    return x.astype(like(dtype))


def _abar(schedule):
    if schedule == "short":
        return schedules.alpha_bar(schedules.linear_betas(4, 0.1, 0.5))
    return schedules.alpha_bar({"linear": schedules.linear_betas, "cosine": schedules.cosine_betas}[schedule]())


def _times(rng, abar, shape, times, low):
    """A time in [low, T] for the batch or for each example; each end turns up in one of four draws."""
    draw = rng.integers(low, abar.size, size=shape[0])
    end = rng.integers(8, size=shape[0])
    draw = np.where(end == 0, low, np.where(end == 1, abar.size - 1, draw))
    return draw if times == "rows" else int(draw[0]) if draw.size else abar.size - 1


def _earlier(rng, t, low=0):
    """A time in [low, t), 0 in one of four draws."""
    s = rng.integers(low, t)
    return np.where(rng.integers(4, size=np.shape(t)) == 0, low, s) if np.ndim(t) else int(s) if rng.integers(4) else low


TIMES = {"schedule": ("linear", "cosine", "short"), "times": ("int", "rows")}


def _key(rng):
    return dict(seed=int(rng.integers(2**63)), stream=int(rng.integers(2**63)))


def _noise(rng, shape, dtype, values):
    return dict(shape=shape) | _key(rng)


def _linear_op(names, low=0, seeded=False):
    """Input maker of an operation on two arrays (or one) and a time; t's place in the order does not matter, all go by name."""

    def make(rng, shape, dtype, values, schedule="linear", times="rows"):
        abar = _abar(schedule)
        data = {name: _data(rng, shape, dtype, values) for name in names}
        return data | dict(t=_times(rng, abar, shape, times, low), abar=abar) | (_key(rng) if seeded else {})

    return make


def _step_op(names, seeded=False):
    """Input maker of a step from t to s."""

    def make(rng, shape, dtype, values, schedule="linear", times="int", **options):
        abar = _abar(schedule)
        t = _times(rng, abar, shape, times, 1)
        data = {name: _data(rng, shape, dtype, values) for name in names}
        return data | dict(t=t, s=_earlier(rng, t), abar=abar) | (_key(rng) if seeded else {}) | options

    return make


def _dpmpp_2m(rng, shape, dtype, values, schedule="linear", times="int", history=True, **options):
    """Input maker of a multistep step, without history as at the first one."""
    abar = _abar(schedule)
    t = np.minimum(_times(rng, abar, shape, times, 1), abar.size - 2)
    t = t if times == "rows" else int(t)
    data = {name: _data(rng, shape, dtype, values) for name in ("xt", "uncond", "cond", "x0_last")}
    u = t + rng.integers(1, abar.size - t)
    data |= dict(u=u if times == "rows" else int(u)) if history else dict(x0_last=None, u=None)
    return data | dict(t=t, s=_earlier(rng, t), abar=abar) | options


def _flow(rng, shape, dtype, values, times="int", **options):
    s, t = np.sort(rng.integers(0, 1001, (2, shape[0])) + np.array([[0], [1]]), axis=0) / 1001
    t = np.where(s == t, 1.0, t)
    data = {name: _data(rng, shape, dtype, values) for name in ("xt", "uncond", "cond")}
    return data | (dict(t=t, s=s) if times == "rows" else dict(t=float(t[0]), s=float(s[0])) if t.size else dict(t=1.0, s=0.5)) | options


def _heun(rng, shape, dtype, values, times="int"):
    sigma = np.exp(rng.uniform(-6, 4.4, shape[0]))
    following = sigma * rng.uniform(0.3, 0.999, shape[0])
    data = {name: _data(rng, shape, dtype, values) for name in ("x", "denoised", "denoised_next")}
    for x in data.values():  # of inf the truth's two slopes make inf - inf, the kernels' one sum need not: only NaN is asked about
        x[np.isinf(x)] = np.nan
    if times == "rows":
        return data | dict(sigma=sigma, sigma_next=following)
    return data | (dict(sigma=float(sigma[0]), sigma_next=float(following[0])) if sigma.size else dict(sigma=1.0, sigma_next=0.5))


def _loss_op(names, seeded=False, **fixed):
    def make(rng, shape, dtype, values):
        return {name: _data(rng, shape, dtype, values) for name in names} | (_key(rng) if seeded else {}) | fixed

    return make


def _adam_op(names, **fixed):
    def make(rng, shape, dtype, values, step=1, weight_decay=0.01):
        data = {name: _data(rng, shape, dtype, values) for name in names}
        data["v"] = np.square(data["v"])  # a second moment; inf stays, -inf would be no input
        return data | dict(step=step, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=weight_decay) | fixed

    return make


def _ema(rng, shape, dtype, values, decay=0.999):
    return dict(avg=_data(rng, shape, dtype, values), p=_data(rng, shape, dtype, values), decay=decay)


def _grads(rng, shape, dtype, values, max_norm=1.0):
    return dict(grads=[_data(rng, shape, dtype, values), _data(rng, (3,), dtype, values)], max_norm=max_norm)


def _upstream(rng, shape, each):
    return rng.standard_normal(shape[0]) if each else 1.5


def _latent(names, upstream=None):
    """Input maker of an operation on mu and logvar. A finite log-variance stays where its exponential is a float32."""

    def make(rng, shape, dtype, values, each=False):
        data = {name: _data(rng, shape, dtype, values) for name in names}
        if values == "tiny":  # else one example's KL, all cancellation, could not be told from another's
            data["mu"] = _data(rng, shape, dtype, "normal")
        np.clip(data["logvar"], -80, 80, out=data["logvar"], where=np.isfinite(data["logvar"]))
        return data | ({upstream: _upstream(rng, shape, each)} if upstream else {})

    return make


def _off_the_tail(logits):
    """Beside where e^-|logit| is a number in float64 but has not all its digits in float32, where a multiple of it rounds twice and a GPU makes it 0."""
    return np.where((np.abs(logits) > 85) & (np.abs(logits) < 750), logits.dtype.type(85), logits)


def _logits(names):
    def make(rng, shape, dtype, values):
        return {name: _off_the_tail(_data(rng, shape, dtype, values)) for name in names}

    return make


def _pixels(rng, shape, dtype, values, each=False):
    x = rng.uniform(size=shape)
    x = np.where(rng.integers(2, size=shape), x, np.round(x))  # half of them are 0 or 1
    logits = _data(rng, shape, dtype, "normal" if values == "zeros" else values)
    if values == "zeros":  # of half the examples: were they all, one example could not be told from another
        logits[: len(logits) // 2] = 0
    return dict(logits=_off_the_tail(logits), x=x.astype(dtype), dnll=_upstream(rng, shape, each))


def _sizes(table, *terms):
    """sum_k |c_k| |term_k|, one coefficient a row."""
    terms = [np.abs(np.asarray(x, np.float64)) for x in terms]
    return sum(np.abs(c) * x for c, x in zip(plain.columns(table, terms[0]), terms))


def _step_sizes(c, xt, e, e_size, z, clip, ddim):
    """The sizes of the terms of a step whose noise prediction e has terms of size e_size. A clipped x0 has size clip."""
    xt, z = np.asarray(xt, np.float64), np.abs(np.asarray(z, np.float64))
    c = plain.columns(c, xt)
    x0, x0_size = c[0] * xt + c[1] * e, np.abs(c[0] * xt) + np.abs(c[1]) * e_size
    if clip is not None:
        x0_size = np.where((np.abs(x0) - 1e-5 * x0_size > clip) | np.isinf(x0), clip, x0_size)
    if not ddim:
        return c[2] * x0_size + np.abs(c[3] * xt) + np.where(c[4] > 0, c[4] * z, 0)
    if clip is not None:
        e_size = np.abs(c[2] * xt) + np.abs(c[3]) * x0_size
    return c[4] * x0_size + c[5] * e_size + np.where(c[6] > 0, c[6] * z, 0)


def _guided(uncond, cond, w):
    uncond, cond = np.asarray(uncond, np.float64), np.asarray(cond, np.float64)
    return uncond + w * (cond - uncond), np.abs(uncond) + abs(w) * (np.abs(cond) + np.abs(uncond))


def _ddpm_sizes(xt, eps_hat, t, s, z, abar, variance="small", clip=None):
    e = np.asarray(eps_hat, np.float64)
    return _step_sizes(coefficients.ddpm_step(t, s, abar, variance, xt.shape), xt, e, np.abs(e), z, clip, ddim=False)


def _ddim_sizes(xt, eps_hat, t, s, z, eta, abar, clip=None):
    e = np.asarray(eps_hat, np.float64)
    return _step_sizes(coefficients.ddim_step(t, s, eta, abar, xt.shape), xt, e, np.abs(e), z, clip, ddim=True)


def _guided_ddpm_sizes(xt, uncond, cond, w, t, s, seed, abar, variance="small", clip=None, stream=0):
    table, z = coefficients.ddpm_step(t, s, abar, variance, xt.shape), philox.normal(seed, xt.shape, stream)
    return _step_sizes(table, xt, *_guided(uncond, cond, w), z, clip, ddim=False)


def _guided_ddim_sizes(xt, uncond, cond, w, t, s, seed, eta, abar, clip=None, stream=0):
    table, z = coefficients.ddim_step(t, s, eta, abar, xt.shape), philox.normal(seed, xt.shape, stream)
    return _step_sizes(table, xt, *_guided(uncond, cond, w), z, clip, ddim=True)


def _dpmpp_2m_sizes(xt, uncond, cond, w, x0_last, u, t, s, abar):
    c = plain.columns(coefficients.dpmpp_2m_step(u, t, s, abar, xt.shape), np.asarray(xt, np.float64))
    size = np.abs(c[0] * xt) + np.abs(c[1]) * _guided(uncond, cond, w)[1]
    last = 0 if x0_last is None else np.where(c[4] == 0, 0, np.abs(c[4] * x0_last))
    return np.abs(c[2] * xt) + np.abs(c[3]) * size + last, size


def _flow_sizes(xt, uncond, cond, w, t, s):
    (c,) = plain.columns(coefficients.flow_step(t, s, xt.shape), np.asarray(xt, np.float64))
    return np.abs(xt) + np.abs(c) * _guided(uncond, cond, w)[1]


def _kl_sizes(mu, logvar):
    return plain.per_example(mu**2 + np.abs(np.expm1(logvar)) + np.abs(logvar)) / 2


def _latent_backward_sizes(dz, dkl, mu, logvar, eps):
    dkl, dz = np.abs(shapes.per_example(dkl, mu, "dkl")), np.abs(dz)
    std = np.exp(logvar / 2)
    return dz + dkl * np.abs(mu), (dz * std * np.abs(eps) + dkl * (np.exp(logvar) + 1)) / 2, std * dz


def _pixel_sizes(logits, x, dnll):
    gradient = (1 - x) * layers.sigmoid(logits) + x * layers.sigmoid(-logits)
    return plain.per_example(x * layers.softplus(-logits) + (1 - x) * layers.softplus(logits)), np.abs(shapes.per_example(dnll, x, "dnll")) * gradient


def _gan_sizes(curve, places, **logits):
    """Of F(slope logits + shift) and its derivative: what softplus adds is never below 0; u itself has two terms."""
    loss, gradients = 0.0, []
    for x, (slope, shift) in zip(logits.values(), places):
        u, terms = slope * x + shift, np.abs(x) + abs(shift)
        value, derivative = {
            "softplus": lambda: (layers.softplus(u), layers.sigmoid(u)), "hinge": lambda: (np.where(u > 0, terms, 0), u > 0),
            "square": lambda: (u**2 / 2 + np.abs(u) * terms, terms), "line": lambda: (terms, np.ones_like(u)),
        }[curve]()  # fmt: skip
        loss += np.mean(value)
        gradients.append(derivative / x.size)
    return loss, *gradients


def _gan_op(name, bench):
    curve, places, _ = plain.GAN[name]
    names = ["real_logits", "fake_logits"][2 - len(places):]
    return Op(
        f"gan.{name}_grad", getattr(gan, f"{name}_grad"), lambda **logits: plain.gan_loss_grad(name, *logits.values()), _logits(names),
        lambda **logits: _gan_sizes(curve, places, **logits), ulps=4, writes=len(places), empty=False, bench=bench,
    )  # fmt: skip


def _heun_sizes(x, denoised, denoised_next, sigma, sigma_next):
    """Of the two slopes as the equation adds them; what the kernels fold is less, but the truth is rounded on the way too."""
    x, denoised, denoised_next = (np.abs(np.asarray(a, np.float64)) for a in (x, denoised, denoised_next))
    sigma, sigma_next = shapes.per_example(sigma, x, "sigma"), shapes.per_example(sigma_next, x, "sigma_next")
    d = (x + denoised) / sigma
    d_next = (x + (sigma - sigma_next) * d + denoised_next) / sigma_next
    return x + (sigma - sigma_next) * (d + d_next) / 2


def _loss_sizes(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    terms, d = np.abs(a) + np.abs(b), np.abs(a - b)
    return np.mean(d * d + 2 * d * terms), 2 * terms / a.size


def _adam_sizes(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay):
    p, g, m, v = (np.abs(np.asarray(a, np.float64)) for a in (p, g, m, v))
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
    return p + lr * (m / (1 - beta1**step) / (np.sqrt(v / (1 - beta2**step)) + eps) + weight_decay * p), m, v


def _adam_ema_sizes(p, g, m, v, avg, step, lr, beta1, beta2, eps, weight_decay, decay):
    p, m, v = _adam_sizes(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay)
    return p, m, v, decay * np.abs(np.asarray(avg, np.float64)) + (1 - decay) * p


STEP = TIMES | {"clip": (None, 0.7)}
GUIDED = STEP | {"w": (0.0, 1.0, 2.0, 7.5)}
ADAM = {"step": (1, 2, 1000), "weight_decay": (0.0, 0.01)}

OPS = [
    Op("philox.bits", philox.bits, philox.bits, _noise, philox.bits, ulps=0, dtypes=("uint32",)),
    Op("philox.uniform", philox.uniform, philox.uniform, _noise, philox.uniform, ulps=0, dtypes=("float32",)),
    Op("philox.normal", philox.normal, plain.normal, _noise, lambda **a: np.abs(philox.normal(**a)), ulps=3, bench={"": {}}),
    Op(
        "diffusion.q_sample", diffusion.q_sample, plain.q_sample, _linear_op(["x0", "eps"]),
        lambda x0, t, eps, abar: _sizes(coefficients.q_sample(t, abar, x0.shape), x0, eps),
        ulps=3, options=TIMES, half=True, bench={"": {}},
    ),
    Op(
        "diffusion.q_sample_backward", diffusion.q_sample_backward, plain.q_sample_backward, _linear_op(["dxt"]),
        lambda dxt, t, abar: [np.abs(d) for d in diffusion.q_sample_backward(dxt, t, abar)],
        ulps=2, options=TIMES, writes=2,
    ),
    Op(
        "diffusion.posterior", diffusion.posterior, plain.posterior, _step_op(["x0", "xt"]),
        lambda x0, xt, t, s, abar: (
            _sizes(coefficients.posterior(t, s, abar, x0.shape)[:2], x0, xt), np.abs(diffusion.posterior(x0, xt, t, s, abar)[1]),
        ),
        ulps=3, options=TIMES,
    ),
    Op(
        "diffusion.x0_from_eps", diffusion.x0_from_eps, plain.x0_from_eps, _linear_op(["xt", "eps"]),
        lambda xt, eps, t, abar: _sizes(coefficients.x0_from_eps(t, abar, xt.shape), xt, eps),
        ulps=3, options=TIMES,
    ),
    Op(
        "diffusion.eps_from_x0", diffusion.eps_from_x0, plain.eps_from_x0, _linear_op(["xt", "x0"], low=1),
        lambda xt, x0, t, abar: _sizes(coefficients.eps_from_x0(t, abar, xt.shape), xt, x0),
        ulps=3, options=TIMES,
    ),
    Op(
        "diffusion.v_target", diffusion.v_target, plain.v_target, _linear_op(["x0", "eps"]),
        lambda x0, eps, t, abar: _sizes(coefficients.v_target(t, abar, x0.shape), x0, eps),
        ulps=3, options=TIMES,
    ),
    Op(
        "diffusion.x0_from_v", diffusion.x0_from_v, plain.x0_from_v, _linear_op(["xt", "v"]),
        lambda xt, v, t, abar: _sizes(coefficients.x0_from_v(t, abar, xt.shape), xt, v),
        ulps=3, options=TIMES,
    ),
    Op(
        "diffusion.eps_from_v", diffusion.eps_from_v, plain.eps_from_v, _linear_op(["xt", "v"]),
        lambda xt, v, t, abar: _sizes(coefficients.eps_from_v(t, abar, xt.shape), xt, v),
        ulps=3, options=TIMES,
    ),
    Op(
        "diffusion.score_from_eps", diffusion.score_from_eps, plain.score_from_eps, _linear_op(["eps"], low=1),
        lambda eps, t, abar: np.abs(diffusion.score_from_eps(eps, t, abar)),
        ulps=2, options=TIMES,
    ),
    Op(
        "diffusion.ddpm_step", diffusion.ddpm_step, plain.ddpm_step, _step_op(["xt", "eps_hat", "z"]), _ddpm_sizes,
        ulps=4, options=STEP | {"variance": ("small", "large")}, half=True, bench={"": {"clip": 1.0}},
    ),
    Op(
        "diffusion.ddim_step", diffusion.ddim_step, plain.ddim_step, _step_op(["xt", "eps_hat", "z"]), _ddim_sizes,
        ulps=4, options=STEP | {"eta": (0.0, 0.3, 1.0)}, half=True, bench={"eta = 1": {"eta": 1.0}},
    ),
    Op(
        "diffusion.eps_loss", diffusion.eps_loss, plain.eps_loss, _loss_op(["eps_hat", "eps"]),
        lambda eps_hat, eps: _loss_sizes(eps_hat, eps)[0],
        ulps=2, writes=0, empty=False,
    ),
    Op(
        "diffusion.eps_loss_backward", diffusion.eps_loss_backward, plain.eps_loss_backward,
        _loss_op(["eps_hat", "eps"], dloss=1.5),
        lambda dloss, eps_hat, eps: [abs(dloss) * _loss_sizes(eps_hat, eps)[1]] * 2,
        ulps=2, writes=2, empty=False,
    ),
    Op(
        "fused.q_sample_noise", fused.q_sample_noise, plain.q_sample_noise,
        _linear_op(["x0"], seeded=True),
        lambda x0, t, seed, abar, stream: _sizes(coefficients.q_sample(t, abar, x0.shape), x0, philox.normal(seed, x0.shape, stream)),
        ulps=4, options=TIMES, half=True, bench={"": {}},
    ),
    Op(
        "fused.eps_loss_grad", fused.eps_loss_grad, plain.eps_loss_grad, _loss_op(["eps_hat", "eps"]),
        lambda eps_hat, eps: _loss_sizes(eps_hat, eps),
        ulps=2, empty=False, bench={"": {}},
    ),
    Op(
        "fused.eps_loss_noise", fused.eps_loss_noise, plain.eps_loss_noise, _loss_op(["eps_hat"], seeded=True),
        lambda eps_hat, seed, stream: _loss_sizes(eps_hat, philox.normal(seed, eps_hat.shape, stream)),
        ulps=3, empty=False, bench={"": {}},
    ),
    Op(
        "fused.guided_ddpm_step", fused.guided_ddpm_step, plain.guided_ddpm_step, _step_op(["xt", "uncond", "cond"], seeded=True), _guided_ddpm_sizes,
        ulps=5, options=GUIDED | {"variance": ("small", "large")}, half=True, bench={"clip": {"w": 2.0, "clip": 1.0}},
    ),
    Op(
        "fused.guided_ddim_step", fused.guided_ddim_step, plain.guided_ddim_step, _step_op(["xt", "uncond", "cond"], seeded=True), _guided_ddim_sizes,
        ulps=5, options=GUIDED | {"eta": (0.0, 0.3, 1.0)},
        half=True, bench={"eta = 0": {"w": 2.0, "eta": 0.0}, "eta = 1": {"w": 2.0, "eta": 1.0}},
    ),
    Op(
        "fused.guided_dpmpp_2m_step", fused.guided_dpmpp_2m_step, plain.guided_dpmpp_2m_step, _dpmpp_2m, _dpmpp_2m_sizes,
        ulps=5, options=TIMES | {"w": (0.0, 1.0, 2.0, 7.5), "history": (False, True)}, writes=2, half=True, bench={"": {"w": 2.0}},
    ),
    Op(
        "fused.guided_flow_step", fused.guided_flow_step, plain.guided_flow_step, _flow, _flow_sizes,
        ulps=4, options={"times": ("int", "rows"), "w": (0.0, 1.0, 2.0, 7.5)}, half=True, bench={"": {"w": 2.0}},
    ),
    Op(
        "fused.heun_step", fused.heun_step, plain.heun_step, _heun, _heun_sizes,
        ulps=4, options={"times": ("int", "rows")}, half=True, bench={"": {}},
    ),
    Op(
        "optim.adam_step", optim.adam_step, plain.adam_step, _adam_op(["p", "g", "m", "v"]), _adam_sizes,
        ulps=4, options=ADAM, writes=3, bench={"": {"step": 10}},
    ),
    Op(
        "fused.adam_ema_step", fused.adam_ema_step, plain.adam_ema_step, _adam_op(["p", "g", "m", "v", "avg"], decay=0.999), _adam_ema_sizes,
        ulps=4, options=ADAM, writes=4, bench={"": {"step": 10}},
    ),
    Op(
        "optim.ema_step", optim.ema_step, plain.ema_step, _ema,
        lambda avg, p, decay: _sizes(coefficients.ema_step(decay), avg, p),
        ulps=3, options={"decay": (0.0, 0.5, 0.9999)}, bench={"": {}},
    ),
    Op(
        "optim.clip_by_global_norm", optim.clip_by_global_norm, plain.clip_by_global_norm, _grads,
        lambda grads, max_norm: [np.abs(g) for g in optim.clip_by_global_norm(grads, max_norm)],
        ulps=3, options={"max_norm": (1e9, 0.1)},
    ),
    Op(
        "vae.reparameterize_kl", vae.reparameterize_kl, plain.reparameterize_kl, _latent(["mu", "logvar", "eps"]),
        lambda mu, logvar, eps: (np.abs(mu) + np.abs(np.exp(logvar / 2) * eps), _kl_sizes(mu, logvar)),
        ulps=4, bench={"": {}},
    ),
    Op(
        "vae.reparameterize_kl_backward", vae.reparameterize_kl_backward, plain.reparameterize_kl_backward, _latent(["dz", "mu", "logvar", "eps"], "dkl"),
        _latent_backward_sizes, ulps=4, options={"each": (False, True)}, writes=3, bench={"": {}},
    ),
    Op(
        "vae.bernoulli_nll_grad", vae.bernoulli_nll_grad, plain.bernoulli_nll_grad, _pixels, _pixel_sizes,
        ulps=4, options={"each": (False, True)}, bench={"": {}},
    ),
    *[_gan_op(name, {"": {}} if name == "generator_loss" or "discriminator" in name else {}) for name in plain.GAN],
]  # fmt: skip
