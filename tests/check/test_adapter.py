"""The adapter: names, signatures, what is held at one value, conventions."""
import numpy as np
import pytest

from kernels.check import check
from kernels.check.adapter import CONVENTIONS, Usage, find
from kernels.numba_cpu import diffusion, fused, optim, vae
from ref import schedules

FEW = dict(examples=100)
Q, FLOW = diffusion.q_sample, fused.guided_flow_step
LINEAR = schedules.alpha_bar(schedules.linear_betas())


def test_a_name_is_short_or_full():
    assert find("ddim_step") is find("diffusion.ddim_step")


def _other_name(x0, t, noise, abar):
    return 0


OPAQUE = type("Opaque", (), {"__call__": lambda self: 0, "__signature__": 3})()
DDIM = diffusion.ddim_step


@pytest.mark.parametrize("name, function, options, words", [
    ("dim_step", Q, {}, ["ddim_step"]),
    ("xyzzy", Q, {}, ["--list"]),
    ("gaussian_kl", Q, {}, ["ref.vae.gaussian_kl"]),
    ("_same_shape", Q, {}, ["_same_shape"]),
    ("nets.mlp.residual", Q, {}, ["ref.nets.mlp"]),
    ("mlp_sample", Q, {}, ["mlp_sample", "orders"]),
    ("q_sample", _other_name, {}, ["eps", "noise", "q_sample(x0, t, eps, abar)", "--map"]),
    ("q_sample", _other_name, dict(mapping={"noise": "epsilon"}), ["epsilon", "x0, t, eps, abar"]),
    ("q_sample", _other_name, dict(mapping={"nose": "eps"}), ["nose", "x0, t, noise, abar"]),
    ("q_sample", OPAQUE, {}, ["q_sample(x0, t, eps, abar)"]),
    ("q_sample", Q, dict(conventions=["paper_weight"]), ["w", "paper_weight"]),
    ("q_sample", Q, dict(conventions=["other"]), ["other", "zero_based"]),
    ("q_sample", Q, dict(dtype="float8"), ["--dtype", "float32, float64, float16, bfloat16", "float8"]),
    ("q_sample", Q, dict(examples=0), ["--examples", "0"]),
    ("q_sample", Q, dict(seconds=-3), ["--seconds", "-3"]),
    ("q_sample", Q, dict(fixed={"noise": 0}), ["--fix", "noise", "t, schedule"]),
    ("q_sample", Q, dict(fixed={"eps": None}), ["--fix", "eps"]),
    ("q_sample", Q, dict(fixed={"t": 3}), ["--fix t=3", "scalar", "each"]),
    ("q_sample", Q, dict(fixed={"schedule": "sine"}), ["sine", "linear or cosine or short"]),
    ("q_sample", Q, dict(device="tpu"), ["--device", "cpu or cuda", "tpu"]),
    ("q_sample", Q, dict(arrays="numpy", device="cuda"), ["--arrays", "numpy", "cuda"]),
    ("ddim_step", DDIM, dict(fixed={"eta": 7}), ["--fix", "diffusion.ddim_step", "eta=7"]),
    ("ddim_step", DDIM, dict(fixed={"t": "scalar", "s": "each"}), ["--fix", "s=each", "t, s"]),
    ("ddim_step", DDIM, dict(fixed={"clip": "tight"}), ["--fix", "clip=tight", "None"]),
])  # fmt: skip
def test_a_name_function_or_option_that_does_not_fit_is_refused(name, function, options, words):
    with pytest.raises(Usage) as reason:
        check(function, name, **options)
    assert all(word in str(reason.value) for word in words), str(reason.value)


def test_other_names_and_positions_are_mapped():
    def renamed(sample, /, timestep, *, noise, alphas):
        return Q(sample, timestep, noise, alphas)

    mapping = {"sample": "x0", "timestep": "t", "noise": "eps", "alphas": "abar"}
    assert check(renamed, "q_sample", mapping=mapping, examples=20)


def _one_time(x0, t, eps, abar):
    return Q(x0, int(t), eps, abar)


def _as_drawn(eta):
    """DDIM at one eta, which takes neither that nor noise."""
    return lambda xt, eps_hat, t, s, abar, clip: diffusion.ddim_step(xt, eps_hat, t, s, 0 * xt, eta, abar, clip)


def _first_order(xt, uncond, cond, w, t, s, abar):
    return fused.guided_dpmpp_2m_step(xt, uncond, cond, w, None, None, t, s, abar)


def _adam(beta1):
    return lambda p, g, m, v, step, lr, beta2, eps, weight_decay: optim.adam_step(
        p, g, m, v, step, lr, beta1, beta2, eps, weight_decay)


def _small_only(xt, eps_hat, t, s, z, abar, variance="small", clip=None):
    if variance != "small" or clip not in (None, 2.5):
        raise NotImplementedError(variance)
    return diffusion.ddpm_step(xt, eps_hat, t, s, z, abar, variance, clip)


def _kl(dkl):
    return lambda dz, mu, logvar, eps: vae.reparameterize_kl_backward(dz, dkl, mu, logvar, eps)


FIXED = [  # operation, a function that supports a part of it, that part, a wrong function of that part
    ("q_sample", _one_time, {"t": "scalar"}, lambda x0, t, eps, abar: Q(x0, t + 0 * int(t) - (t > 0), eps, abar)),
    ("ddim_step", _as_drawn(0.0), {"eta": 0}, _as_drawn(1.0)),
    ("ddpm_step", _small_only, {"variance": "small", "clip": 2.5},
     lambda xt, eps_hat, t, s, z, abar: diffusion.ddpm_step(xt, eps_hat, t, s, z, abar, "small", 2.0)),
    ("guided_dpmpp_2m_step", _first_order, {"history": False},
     lambda **a: _first_order(**{n: a[n] for n in ("xt", "cond", "uncond", "w", "t", "s", "abar")} | {"w": 1.0})),
    ("adam_step", _adam(0.8), {"beta1": 0.8}, _adam(0.81)),
    ("q_sample", lambda x0, t, eps: Q(x0, t, eps, LINEAR), {"schedule": "linear"},
     lambda x0, t, eps: Q(x0, np.minimum(t + 1, LINEAR.size - 1), eps, LINEAR)),
    ("reparameterize_kl_backward", _kl(0.5), {"dkl": 0.5}, _kl(1.0)),
]  # fmt: skip


@pytest.mark.parametrize("op, function, fixed, wrong", FIXED, ids=[next(iter(fixed)) for _, _, fixed, _ in FIXED])
def test_a_fixed_value_is_held_and_reported(op, function, fixed, wrong):
    """Right where it is held, not without; and a mistake in that part is still caught."""
    held = [f"{name} = {value}" for name, value in fixed.items()]
    verdict = check(function, op, dtype="float32", fixed=fixed, seconds=0.01, **FEW)
    assert verdict and all(words in str(verdict) for words in held) and verdict.speed, str(verdict)
    try:
        assert not check(function, op, dtype="float32", **FEW)
    except Usage as reason:
        assert "--fix" in str(reason)
    verdict = check(wrong, op, dtype="float32", fixed=fixed, **FEW)
    assert verdict.kind == "wrong values" and all(words in str(verdict) for words in held)


def test_an_argument_that_a_function_does_not_take_is_reported():
    def small(xt, eps_hat, t, s, z, abar, clip):
        return diffusion.ddpm_step(xt, eps_hat, t, s, z, abar, "small", clip)

    verdict = check(small, "ddpm_step", dtype="float32", examples=40)
    assert verdict and len(verdict.untested) == 2 and verdict.untested[0].startswith("variance = small")
    left = check(diffusion.ddpm_step, "ddpm_step", dtype="float32", examples=5).untested
    assert left == ("infinities in arrays",)


def _zero_based_ddim(xt, eps_hat, t, s, z, eta, abar):
    if abar[0] == 1:
        raise ValueError("an alpha-bar of 1 is no noise level")
    return diffusion.ddim_step(xt, eps_hat, t + 1, s + 1, z, eta, np.append(1.0, abar))  # the index -1 is the data


OTHERS = {
    "zero_based": ("ddim_step", _zero_based_ddim),
    "paper_weight": ("guided_flow_step", lambda xt, uncond, cond, w, t, s: FLOW(xt, uncond, cond, 1 + w, t, s)),
    "reversed_flow": (
        "guided_flow_step", lambda xt, uncond, cond, w, t, s: FLOW(xt, -uncond, -cond, w, 1 - t, 1 - s)),
    "sigmas": ("q_sample", lambda x0, t, eps, abar: Q(x0, t, eps, 1 / (1 + abar**2))),
}


@pytest.mark.parametrize("name", CONVENTIONS)
def test_each_convention_is_one_option(name):
    op, function = OTHERS[name]
    assert check(function, op, dtype="float32", conventions=[name], **FEW)
    assert not check(function, op, dtype="float32", **FEW)
