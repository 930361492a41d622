"""The checker on strangers' functions: right ones pass, wrong ones are caught and their mistake is named, and what else can go wrong is told apart.

The wrong ones are the readable source of `ref` with a word of it changed, so they share nothing with `kernels.variants` but the mistake.
"""
import functools
import inspect
import json
import os
import re
import subprocess
import sys
import types

import numpy as np
import pytest

import ref.diffusion
import ref.fused
import ref.gan
import ref.guidance
import ref.optim
import ref.philox
import ref.samplers
import ref.vae
from kernels import __main__ as command
from kernels import registry, tolerance
from kernels.check import laws, search, selftest
from kernels.check.adapter import CONVENTIONS, Usage, caller, find
from kernels.numba_cpu import diffusion, fused, optim, vae
from ref import guidance, schedules
from tests import ROOT

FEW = dict(examples=100)


def stranger(function):
    """function in the dtype of its data, as anybody would write it: the truth is float64 whatever comes in."""

    @functools.wraps(function)
    def same_dtype(**arguments):
        dtype = next(iter(registry.arrays(arguments).values())).dtype
        result = function(**arguments)
        cast = [x.astype(dtype) if isinstance(x, np.ndarray) else x for x in (result if isinstance(result, (tuple, list)) else [result])]
        return cast if isinstance(result, (tuple, list)) else cast[0]

    return same_dtype


def changed(name, *changes):
    """The function of ref's source with each (old, new) in it. name: module.function."""
    module, function = name.split(".")
    module = sys.modules[f"ref.{module}"]
    source = inspect.getsource(module)
    for old, new in changes:
        assert source.count(old) >= 1 and old != new, old
        source = source.replace(old, new)
    copy = types.ModuleType("changed")
    exec(compile(source, "changed", "exec"), copy.__dict__)
    return stranger(getattr(copy, function))


SIGMA = "eta * np.sqrt((1 - abar_s) / (1 - abar_t)) * np.sqrt(1 - abar_t / abar_s)"
WRONG = [  # operation, what is changed in the source of ref, what the checker has to say
    ("diffusion.q_sample", ("abar[t].astype", "abar[np.maximum(t - 1, 0)].astype"), "alpha-bar off by one step: abar[t - 1] read at t"),
    ("diffusion.q_sample", ("abar[t].astype", "abar[t - 1].astype"), "alpha-bar off by one step: abar[t - 1] read at t, and so the last entry at t = 0"),
    ("diffusion.q_sample", ("abar[t].astype", "abar[np.minimum(t + 1, abar.size - 1)].astype"), "alpha-bar off by one step: abar[t + 1] read at t"),
    ("diffusion.q_sample", ("np.sqrt(abar_t) * x0 + np.sqrt(1 - abar_t) * eps", "abar_t * x0 + (1 - abar_t) * eps"), "alpha-bar without its root"),
    ("diffusion.q_sample", ("return np.sqrt(abar_t) * x0 + ", "abar_t = abar_t.astype(np.float32)\n    return np.sqrt(abar_t) * x0 + "), "float32 cancellation near t = 0"),
    ("diffusion.q_sample", ("abar_t = _at(abar, t, x0, \"t\")\n    return np.sqrt(abar_t) * x0", "abar_t = abar[t] if np.ndim(t) == 0 or len(t) == x0.shape[-1] else _at(abar, t, x0[:0], 't')\n    return np.sqrt(abar_t) * x0"), "t along the last axis"),
    ("diffusion.q_sample", ("    abar, t = np.asarray(abar), np.asarray(t)\n", "    abar, t = np.asarray(abar), np.ravel(t)[0] if np.size(t) else 0\n    t = np.asarray(t)\n"), "the first example's time used for all"),
    ("diffusion.v_target", ("np.sqrt(abar_t) * eps - np.sqrt(1 - abar_t) * x0", "np.sqrt(1 - abar_t) * x0 - np.sqrt(abar_t) * eps"), "sign of the result"),
    ("diffusion.x0_from_eps", ("xt - np.sqrt(1 - abar_t) * eps) / np.sqrt(abar_t)", "xt + np.sqrt(1 - abar_t) * eps) / np.sqrt(abar_t)"), "sign of eps"),
    ("diffusion.x0_from_v", ("np.sqrt(abar_t) * xt - np.sqrt(1 - abar_t) * v", "np.sqrt(abar_t) * xt + np.sqrt(1 - abar_t) * v"), "sign of v"),
    ("diffusion.score_from_eps", ("-eps / np.sqrt(1 - abar_t)", "-eps / (1 - abar_t)"), "a variance used as a deviation"),
    ("diffusion.posterior", ("variance = (1 - abar_s) / (1 - abar_t) * beta", "variance = beta"), "beta in place of beta-tilde"),
    ("diffusion.ddpm_step", ("np.where(abar_s < 1, np.sqrt(sigma2), 0.0)", "np.sqrt(sigma2)"), "noise added on the last step"),
    ("diffusion.ddpm_step", ("np.where(abar_s < 1, np.sqrt(sigma2), 0.0)", "np.where(abar_s < 1, sigma2, 0.0)"), "a variance used as a deviation"),
    ("diffusion.ddpm_step", ("sigma2 = np.reshape(beta_tilde, np.broadcast_shapes(abar_t.shape, abar_s.shape))", "sigma2 = 1 - abar_t / abar_s"), "beta in place of beta-tilde"),
    ("diffusion.ddpm_step", ("x0_hat = _clip(x0_from_eps(xt, eps_hat, t, abar), clip)", "x0_hat = x0_from_eps(xt, eps_hat, t, abar)"), "clip left out"),
    ("diffusion.ddpm_step", ("np.asarray(t)\n    if abar.ndim", "np.asarray(t)\n    t = t - (name == 's') * (t > 0)\n    if abar.ndim"), ""),  # caught; it has no name
    ("diffusion.ddim_step", ("        eps_hat = eps_from_x0(xt, x0_hat, t, abar)\n", ""), "x0 clipped but eps not re-derived"),
    ("diffusion.ddim_step", ("1 - abar_s - sigma**2", "1 - abar_s"), "sigma^2 not taken out of the direction's variance"),
    ("diffusion.ddim_step", (SIGMA, SIGMA.replace("eta", "1.0")), "eta left out: always 1"),
    ("diffusion.ddim_step", ("np.sqrt(abar_s) * x0_hat + direction * eps_hat", "np.sqrt(abar_s) * x0_hat - direction * eps_hat"), ""),
    ("diffusion.ddim_step", ("sigma * np.where(sigma > 0, z, 0.0)", "sigma**2 * np.where(sigma > 0, z, 0.0)"), "a variance used as a deviation"),
    ("diffusion.eps_loss", ("return np.mean((eps_hat - eps) ** 2)", "return np.sum((eps_hat - eps) ** 2)"), "1/N left out: a sum in place of a mean"),
    ("diffusion.eps_loss", ("return np.mean((eps_hat - eps) ** 2)", "return np.mean((eps_hat - eps) ** 2) / 2"), "half the square"),
    ("diffusion.eps_loss_backward", ("deps_hat = 2 * (eps_hat - eps)", "deps_hat = (eps_hat - eps)"), "the 2 of the square's gradient left out"),
    ("fused.guided_ddim_step", ("ddim_step(xt, guide(uncond, cond, w)", "ddim_step(xt, (1 + w) * cond - w * uncond"), "guidance weight in the other convention"),
    ("fused.guided_ddpm_step", ("ddpm_step(xt, guide(uncond, cond, w)", "ddpm_step(xt, guide(cond, uncond, w)"), "uncond and cond changed over"),
    ("fused.guided_ddpm_step", ("z = normal(seed, np.shape(xt), stream)", "z = normal(seed, np.shape(xt))"), "stream left out"),
    ("fused.guided_flow_step", ("return xt + (s - t) * v", "return xt + (t - s) * v"), "sign of the step: t - s"),
    ("fused.heun_step", ("(d + d_next) / 2", "d"), "the correction left out: Euler's step"),
    ("samplers.dpmpp_2m_step", ("(1 + half) * x0_hat - half *", "(1 - half) * x0_hat + half *"), "sign of the history's term"),
    ("optim.adam_step", ("np.sqrt(vhat) + eps", "np.sqrt(vhat + eps)"), "eps inside the root"),
    ("optim.adam_step", ("m = beta1 * m", "g = g + weight_decay * p\n    weight_decay = 0\n    m = beta1 * m"), "weight decay added to the gradient"),
    ("optim.adam_step", ("mhat = m / (1 - beta1**step)\n    vhat = v / (1 - beta2**step)", "mhat, vhat = m, v"), "bias correction left out"),
    ("optim.ema_step", ("decay * avg + (1 - decay) * p", "(1 - decay) * avg + decay * p"), "the decay and its complement changed over"),
    ("optim.clip_by_global_norm", ("max_norm / norm if norm > max_norm else 1.0", "max_norm / norm"), "scaled also where the norm is small"),
    ("diffusion.q_sample", ("np.sqrt(abar_t) * x0 + np", "abar_t * x0 + np"), "alpha-bar without its root, 1 - alpha-bar with it"),
    ("diffusion.q_sample", ("np.sqrt(1 - abar_t) * eps\n", "(1 - abar_t) * eps\n"), "1 - alpha-bar without its root"),
    ("diffusion.q_sample_backward", ("np.sqrt(abar_t) * dxt, np.sqrt(1 - abar_t) * dxt", "abar_t * dxt, (1 - abar_t) * dxt"), "alpha-bar without its root"),
    ("diffusion.x0_from_eps", ("(xt - np.sqrt(1 - abar_t) * eps) / np.sqrt(abar_t)", "(xt - np.sqrt(1 - abar_t) * eps) / abar_t"), "alpha-bar without its root, 1 - alpha-bar with it"),
    ("diffusion.eps_from_x0", ("(xt - np.sqrt(abar_t) * x0) / np.sqrt(1 - abar_t)", "(xt - np.sqrt(abar_t) * x0) / (1 - abar_t)"), "1 - alpha-bar without its root"),
    ("diffusion.x0_from_v", ("np.sqrt(abar_t) * xt - np.sqrt(1 - abar_t) * v", "abar_t * xt - (1 - abar_t) * v"), "alpha-bar without its root"),
    ("diffusion.eps_from_v", ("np.sqrt(1 - abar_t) * xt + np.sqrt(abar_t) * v", "(1 - abar_t) * xt + abar_t * v"), "alpha-bar without its root"),
    ("fused.q_sample_noise", ("return q_sample(x0, t, normal(seed, np.shape(x0), stream), abar)", "a = abar[t].reshape(np.shape(t) + (1,) * (x0.ndim - np.ndim(t)))\n    return a * x0 + (1 - a) * normal(seed, x0.shape, stream)"), "alpha-bar without its root"),
    ("diffusion.ddim_step", ("np.sqrt(np.maximum(1 - abar_s - sigma**2, 0))", "np.maximum(1 - abar_s - sigma**2, 0)"), "the direction's variance used as its deviation"),
    ("diffusion.ddim_step", ("return np.sqrt(abar_s) * x0_hat", "return abar_s * x0_hat"), "alpha-bar of the next time without its root"),
    ("diffusion.q_sample_backward", ("abar_t) * dxt", "abar_t) * np.ones_like(dxt)"), "dxt left out: always 1"),
    ("diffusion.eps_loss_backward", ("/ eps.size * dloss", "/ eps.size"), "dloss left out: always 1"),
    ("fused.eps_loss_grad", ("eps_loss_backward(1.0, eps_hat, eps)", "eps_loss_backward(-1.0, eps_hat, eps)"), "sign of the gradient"),
    ("fused.eps_loss_grad", ("eps_loss_backward(1.0, eps_hat, eps)", "eps_loss_backward(np.size(eps), eps_hat, eps)"), "1/N left out of the gradient"),
    ("vae.reparameterize_kl", ("(np.expm1(logvar) - logvar)) / 2", "(np.expm1(logvar) - logvar))"), "the half of the KL left out"),
    ("vae.reparameterize_kl", ("terms.sum(", "terms.mean("), "a mean in place of a sum over each example"),
    ("vae.reparameterize_kl", ("return mu + np.exp(logvar / 2) * eps", "return mu + np.exp(logvar) * eps"), "a variance used as a deviation"),
    ("vae.reparameterize_kl", ("return reparameterize(mu, logvar, eps)", "logvar = 2 * logvar\n    return reparameterize(mu, logvar, eps)"), "logvar used as the log of a deviation"),
    ("vae.reparameterize_kl_backward", ("dkl * mu, dkl * np.expm1(logvar) / 2", "2 * dkl * mu, dkl * np.expm1(logvar)"), "the half of the KL left out"),
    ("vae.reparameterize_kl_backward", ("dkl = _upstream(\"dkl\", dkl, mu)", "dkl = _upstream(\"dkl\", dkl, mu) / mu[0].size"), "a mean in place of a sum over each example"),
    ("vae.reparameterize_kl_backward", ("dkl = _upstream(\"dkl\", dkl, mu)", "dkl = 1"), "dkl left out: always 1"),
    ("vae.reparameterize_kl_backward", ("std = np.exp(logvar / 2)\n    return dz.copy(), dz * eps * std / 2, std * dz", "std = np.exp(logvar / 2)\n    return 1 + 0 * dz, eps * std / 2, std"), "dz left out: always 1"),
    ("vae.reparameterize_kl_backward", ("return dmu + dmu_kl, dlogvar + dlogvar_kl, deps", "return dmu, dlogvar, deps"), "the KL's part of the gradient left out"),
    ("vae.reparameterize_kl_backward", ("return dz.copy(), dz * eps * std / 2, std * dz", "return 0 * dz, 0 * dz, 0 * dz"), "the sample's part of the gradient left out"),
    ("vae.reparameterize_kl_backward", ("std = np.exp(logvar / 2)\n    return dz", "std = np.exp(logvar)\n    return dz"), "a variance used as a deviation"),
    ("vae.reparameterize_kl_backward", ("return dmu + dmu_kl, dlogvar + dlogvar_kl, deps", "return dmu + dmu_kl, 2 * (dlogvar + dlogvar_kl), deps"), ""),
    ("vae.reparameterize_kl_backward", ("    (dmu, dlogvar, deps), (dmu_kl, dlogvar_kl) = ", "    logvar = 2 * logvar\n    (dmu, dlogvar, deps), (dmu_kl, dlogvar_kl) = "), ""),
    ("vae.reparameterize_kl_backward", ("    (dmu, dlogvar, deps), (dmu_kl, dlogvar_kl) = reparameterize_backward(dz, logvar, eps), gaussian_kl_backward(dkl, mu, logvar)\n    return dmu + dmu_kl, dlogvar + dlogvar_kl, deps", "    std, dkl = np.exp(logvar), _upstream('dkl', dkl, mu)\n    return dz + dkl * mu, dz * eps * std + dkl * (std**2 - 1), std * dz"), "logvar used as the log of a deviation"),
    ("vae.bernoulli_nll_grad", ("terms.sum(", "terms.mean("), "a mean in place of a sum over each example, but not in the gradient"),
    ("vae.bernoulli_nll_grad", ("return bernoulli_nll(logits, x), bernoulli_nll_backward(dnll, logits, x)[0]", "n = max(x[0].size if len(x) else 1, 1)\n    return bernoulli_nll(logits, x) / n, bernoulli_nll_backward(dnll, logits, x)[0] / n"), "a mean in place of a sum over each example"),
    ("vae.bernoulli_nll_grad", ("bernoulli_nll(logits, x), bernoulli_nll_backward(dnll, logits", "bernoulli_nll(logits, x), bernoulli_nll_backward(1.0, logits"), "dnll left out: always 1"),
    ("vae.bernoulli_nll_grad", ("dnll * ((1 - x) * sigmoid(logits) - x * sigmoid(-logits))", "-dnll * ((1 - x) * sigmoid(logits) - x * sigmoid(-logits))"), "sign of the gradient"),
    ("gan.generator_loss_grad", ("return generator_loss(fake_logits), generator_loss_backward(", "return generator_loss_saturating(fake_logits), generator_loss_saturating_backward("), "the saturating loss in place of the non-saturating one"),
    ("gan.generator_loss_saturating_grad", ("generator_loss_saturating(fake_logits), generator_loss_saturating_backward(", "generator_loss(fake_logits), generator_loss_backward("), "the non-saturating loss in place of the saturating one"),
    ("gan.discriminator_loss_grad", ("return np.mean(softplus(-real_logits)) + np.mean(softplus(fake_logits))", "return np.sum(softplus(-real_logits)) + np.sum(softplus(fake_logits))"), "1/N left out of the loss, but not of the gradient"),
    ("gan.discriminator_loss_grad", ("return -dloss * sigmoid(-real_logits) / real_logits.size, dloss * sigmoid(fake_logits) / fake_logits.size", "return -dloss * sigmoid(-real_logits), dloss * sigmoid(fake_logits)"), "1/N left out of the gradient"),
    ("gan.hinge_discriminator_loss_grad", ("return hinge_discriminator_loss(real_logits, fake_logits), *hinge_discriminator_loss_backward(1.0,", "n = np.size(fake_logits)\n    return n * hinge_discriminator_loss(real_logits, fake_logits), *hinge_discriminator_loss_backward(n,"), "1/N left out: a sum in place of a mean"),
    ("gan.wasserstein_generator_loss_grad", ("return wasserstein_generator_loss(fake_logits), wasserstein_generator_loss_backward(1.0", "return wasserstein_generator_loss(fake_logits), wasserstein_generator_loss_backward(-1.0"), "sign of the gradient"),
    ("gan.wasserstein_discriminator_loss_grad", ("return np.mean(fake_logits) - np.mean(real_logits)", "return np.mean(real_logits) - np.mean(fake_logits)"), "sign of the loss, but not of the gradient"),
    ("gan.least_squares_generator_loss_grad", ("least_squares_generator_loss(fake_logits), least_squares_generator_loss_backward(1.0,", "2 * least_squares_generator_loss(fake_logits), least_squares_generator_loss_backward(2.0,"), "the half of the square left out"),
    ("gan.least_squares_discriminator_loss_grad", ("least_squares_discriminator_loss(real_logits, fake_logits), *least_squares_discriminator_loss_backward(1.0,", "2 * least_squares_discriminator_loss(real_logits, fake_logits), *least_squares_discriminator_loss_backward(2.0,"), "the half of the square left out"),
]  # fmt: skip


@pytest.mark.parametrize("name, change, cause", WRONG, ids=[f"{op}-{cause or i}" for i, (op, _, cause) in enumerate(WRONG)])
def test_a_wrong_variant_is_caught_and_named(name, change, cause):
    if name.startswith("samplers."):
        step = changed(name, change)
        name = "fused.guided_dpmpp_2m_step"

        def wrong(xt, uncond, cond, w, x0_last, u, t, s, abar):
            x0_hat = ref.diffusion.x0_from_eps(xt, guidance.guide(uncond, cond, w), t, abar)
            last = None if x0_last is None else np.asarray(x0_last, np.float64)
            return step(xt=np.asarray(xt, np.float64), x0_hat=x0_hat, x0_last=last, u=u, t=t, s=s, abar=abar).astype(xt.dtype), x0_hat.astype(xt.dtype)
    else:
        wrong = changed(name, change)
    verdict = search.check(wrong, name, dtype="float32", **FEW)
    assert not verdict and verdict.kind in ("wrong values", "raises", "breaks a law", "NaN")
    assert verdict.cause.startswith(cause) and (cause or not verdict.cause), str(verdict)


def test_the_tail_of_a_block_and_strides_taken_for_contiguous_are_named():
    def tail(x0, t, eps, abar):
        out, right = np.full(x0.size, 7, x0.dtype), diffusion.q_sample(x0, t, eps, abar).reshape(-1)
        out[: right.size // 256 * 256] = right[: right.size // 256 * 256]
        return out.reshape(x0.shape)

    def strides(x0, t, eps, abar):
        flat = np.lib.stride_tricks.as_strided(eps, eps.shape, np.zeros(eps.shape, eps.dtype).strides)
        return diffusion.q_sample(x0, t, np.array(flat), abar)

    verdict = search.check(tail, "q_sample", **FEW)
    assert verdict.cause.startswith("tail elements not written: of 4099 elements at shape (4099,) those from 4096 on"), str(verdict)
    verdict = search.check(strides, "q_sample", **FEW)
    assert "strides: right for contiguous arrays, wrong for eps" in verdict.cause and 'memory.put(arguments["eps"]' in verdict.code, str(verdict)


@pytest.mark.parametrize("op", [op for op in registry.OPS if op.name.startswith(("vae.", "gan.")) or "loss" in op.name], ids=lambda op: op.name)
def test_a_mistake_that_was_not_made_is_not_named(op):
    """Right but for a little more than is allowed: nothing is said rather than the first thing that comes."""
    for factor in (1 + 2e-6, 1 - 1e-5):
        def near(**arguments):
            dtype = next(iter(registry.arrays(arguments).values())).dtype
            made = [np.asarray(x * factor).astype(dtype if np.ndim(x) else np.float64) for x in registry.outputs(op.truth(**arguments))]
            return made if len(made) > 1 else made[0]

        wrong = search.check(near, op.name, dtype="float32", examples=20)
        assert wrong.kind == "wrong values" and wrong.cause == "", str(wrong)


def test_float32_arithmetic_that_loses_digits_is_named():
    def rounded(xt, eps_hat, t, s, z, eta, abar, clip=None):
        mine = abar.astype(xt.dtype)
        a_t, a_s = (np.reshape(mine[i], np.shape(i) + (1,) * (xt.ndim - 1 if np.ndim(i) else 0)) for i in (t, s))
        sigma = xt.dtype.type(eta) * np.sqrt((1 - a_s) / (1 - a_t)) * np.sqrt(1 - a_t / a_s)
        x0 = (xt - np.sqrt(1 - a_t) * eps_hat) / np.sqrt(a_t)
        if clip is not None:
            x0 = np.clip(x0, -xt.dtype.type(clip), xt.dtype.type(clip))
            eps_hat = (xt - np.sqrt(a_t) * x0) / np.sqrt(1 - a_t)
        return np.sqrt(a_s) * x0 + np.sqrt(np.maximum(1 - a_s - sigma * sigma, 0)) * eps_hat + sigma * z

    verdict = search.check(rounded, "ddim_step", **FEW)
    assert verdict.kind == "wrong values" and "float32 cancellation" in verdict.cause, str(verdict)
    assert search.check(rounded, "ddim_step", dtype="float64", **FEW)


@pytest.mark.parametrize("op", [op for op in registry.OPS if op.half or op.name in ("philox.bits", "philox.normal", "optim.adam_step", "optim.clip_by_global_norm", "vae.bernoulli_nll_grad", "vae.reparameterize_kl", "gan.discriminator_loss_grad")], ids=lambda op: op.name)
def test_our_own_kernels_pass(op):
    verdict = search.check(registry.kernel(op, "numba_cpu"), op.name, examples=60)
    assert verdict and 0 <= verdict.error <= 1 and verdict.dtypes == op.dtypes, str(verdict)
    assert "the same call twice gives the same bits" in verdict.laws


def test_right_and_slow_passes_and_so_does_one_that_refuses_strides():
    def slow(xt, eps_hat, t, s, z, eta, abar, clip=None):
        rows = [ref.diffusion.ddim_step(xt[i : i + 1], eps_hat[i : i + 1], int(np.ravel(t)[i % np.size(t)]), int(np.ravel(s)[i % np.size(s)]),
                                        z[i : i + 1], eta, abar, clip) for i in range(len(xt))]  # fmt: skip
        return np.concatenate(rows).astype(xt.dtype) if rows else xt.copy()

    def refuses(**arguments):
        if not all(x.flags.c_contiguous and x.flags.aligned and x.flags.writeable for x in arguments.values() if isinstance(x, np.ndarray)):
            raise ValueError("contiguous arrays, please")
        return diffusion.ddim_step(**arguments)

    verdict = search.check(slow, "diffusion.ddim_step", seconds=0.01, **FEW)
    assert verdict and verdict.speed["ratio"] > 1 and "yours takes" in str(verdict)
    assert len(verdict.laws) == len(laws.LAWS)
    verdict = search.check(refuses, "ddim_step", **FEW)
    assert verdict and "takes contiguous arrays only: ValueError: contiguous arrays, please" in str(verdict)
    search.assert_right(slow, "ddim_step", examples=5)


Q = diffusion.q_sample
ODD = {
    "NaN": (lambda x0, t, eps, abar: np.where(np.equal(Q(x0, t, eps, abar), 0), 0, np.nan).astype(x0.dtype), "expected"),
    "wrong shape": (lambda x0, t, eps, abar: Q(x0, t, eps, abar).reshape(-1)[:, None], "expected (1,), got (1, 1)"),
    "wrong dtype": (lambda x0, t, eps, abar: ref.diffusion.q_sample(x0, t, eps, abar), "expected float32, got float64; the values are right"),
    "writes its inputs": (lambda x0, t, eps, abar: Q(x0, t, eps, abar, out=x0) if x0.flags.writeable else Q(x0, t, eps, abar), "the call changed x0: make a new array"),
    "raises": (lambda x0, t, eps, abar: 1 // 0, "ZeroDivisionError: "),
    "wrong number of results": (lambda x0, t, eps, abar: (Q(x0, t, eps, abar), 1.0), "expected 1, got 2"),
    "breaks a law": (lambda x0, t, eps, abar: np.nextafter(Q(x0, t, eps, abar), np.inf, dtype=x0.dtype) if len(x0) == 1 else Q(x0, t, eps, abar), "broken: the last example alone"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_what_is_not_a_wrong_value_is_told_apart(kind):
    function, message = ODD[kind]
    verdict = search.check(function, "q_sample", dtype="float32", **FEW)
    assert verdict.kind == kind and message in verdict.message and kind.upper() in str(verdict) and not verdict.cause, str(verdict)
    with pytest.raises(AssertionError, match=kind.upper()):
        search.assert_right(function, "q_sample", dtype="float32", **FEW)


def test_a_function_that_exits_raises_and_one_that_is_interrupted_stops():
    def leaves(x0, t, eps, abar):
        sys.exit(3)

    def interrupted(x0, t, eps, abar):
        raise KeyboardInterrupt

    verdict = search.check(leaves, "q_sample", **FEW)
    assert verdict.kind == "raises" and verdict.message == "SystemExit: 3" and not verdict.cause
    with pytest.raises(KeyboardInterrupt):
        search.check(interrupted, "q_sample", **FEW)


def test_in_place_without_a_result_and_now_this_now_that():
    def in_place(x0, t, eps, abar):
        x0[...] = Q(x0.copy(), t, eps, abar)

    assert "the call changed x0 and returns nothing: return the result as a new array instead" in search.check(in_place, "q_sample", **FEW).message
    calls = iter(range(10**9))
    verdict = search.check(lambda x0, t, eps, abar: Q(x0, t, eps, abar) + (next(calls) % 7 == 6), "q_sample", dtype="float64", **FEW)
    assert not verdict and ("not every time" in verdict.message or verdict.kind == "breaks a law"), str(verdict)


def my_step(xt, eps_hat, t, s, z, eta, abar, clip=None):
    """Wrong: the direction keeps sigma^2."""
    return changed("diffusion.ddim_step", ("1 - abar_s - sigma**2", "1 - abar_s"))(xt=xt, eps_hat=eps_hat, t=t, s=s, z=z, eta=eta, abar=abar, clip=clip)


def q_torch(x0, t, eps, abar):
    """In the other dtype and with strides: what runs in test_the_code_that_is_printed_runs must show both numbers."""
    return 2 * Q(x0, t, np.ascontiguousarray(eps), abar)


@pytest.mark.parametrize("function, op", [(my_step, "ddim_step"), (q_torch, "q_sample"), (diffusion.v_target, "x0_from_eps"), (ODD["breaks a law"][0], "q_sample")])
def test_the_code_that_is_printed_runs_and_shows_it(function, op):
    mapping = {"x0": "xt"} if op == "x0_from_eps" else None
    verdict = search.check(function, op, mapping=mapping, **FEW)
    code = verdict.code.replace("# theirs: the function that was checked, <lambda>", "from tests.check.test_check import ODD; theirs = ODD['breaks a law'][0]")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr + code
    said = done.stdout.strip().split("\n")
    assert len(said) >= 2 and said[0] != said[-1]
    if verdict.kind == "wrong values":
        assert "times that" in verdict.message and verdict.error > 1


def printed(capsys, verdict, function):
    """The lines that the code of a verdict prints, run here."""
    name = verdict.code.split("# ")[1].split(":")[0]
    exec(verdict.code, {name: function, "__name__": "pasted"})
    return capsys.readouterr().out.strip().split("\n")


SHOWN = {
    "NaN": ["[1.]", "[nan]"], "wrong shape": ["[(1,)]", "[(1, 1)]"], "wrong dtype": ["['float64']"], "writes its inputs": ["[0.]", "[0.9999798]"],
    "wrong number of results": ["[0.]", "(array([0.], dtype=float32), 1.0)"], "breaks a law": ["[[[[0. 0.]]]\n\n\n [[[0. 0.]]]]", "[[[[1.e-45 1.e-45]]]]"],
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_the_code_of_each_kind_shows_its_own_failure(capsys, kind):
    verdict = search.check(ODD[kind][0], "q_sample", dtype="float32", **FEW)
    if kind == "raises":
        with pytest.raises(ZeroDivisionError):
            printed(capsys, verdict, ODD[kind][0])
    else:
        assert "\n".join(printed(capsys, verdict, ODD[kind][0])) == "\n".join(SHOWN[kind]), verdict.code


def test_the_code_of_a_write_outside_of_an_array_shows_it(capsys):
    def outside(x0, t, eps, abar):
        if x0.flags.c_contiguous and x0.flags.writeable and x0.size:
            np.lib.stride_tricks.as_strided(x0.reshape(-1), (x0.size + 1,))[-1] = 5
        return Q(x0, t, eps, abar)

    verdict = search.check(outside, "q_sample", dtype="float32", **FEW)
    assert printed(capsys, verdict, outside) == ["writes its inputs: the call wrote outside of x0, into memory that is not its own"]


def test_large_arrays_are_not_printed_but_counted_and_shown_at_the_worst_element(capsys):
    """7 in place of every element from 768 on; the smallest shape that shows it has 1023 elements."""
    def tail(x0, t, eps, abar):
        out = np.array(Q(x0, t, eps, abar))
        out.reshape(-1)[768:] = 7
        return out

    def law(x0, t, eps, abar):
        return Q(x0, t, eps, abar) * x0.dtype.type(1 if x0.size > 1000 else 1 - 1e-7)

    verdict = search.check(tail, "q_sample", dtype="float32", fixed={"t": "each"}, **FEW)
    told = printed(capsys, verdict, tail)
    assert told == [f"wrong values: {verdict.message}"] and "255 of 1023 elements are wrong; there x0 = " in told[0]
    call = caller(tail, "q_sample", fixed={"t": "each"})
    arguments = eval(next(line for line in verdict.code.split("\n") if line.startswith("arguments")).removeprefix("arguments = "), {"search": search, "call": call})
    at = int(told[0].split("(")[1].split(",")[0])
    truth = ref.diffusion.q_sample(arguments["x0"], arguments["t"], arguments["eps"], arguments["abar"])[at]
    assert f"({at},): expected {truth}, got 7.0" in told[0] and f"there x0 = {arguments['x0'][at]!s}, eps = {arguments['eps'][at]!s}, t = {arguments['t'][at]}" in told[0]
    assert search.again(caller(Q, "q_sample"), "float32", arguments) == "right, this time"
    verdict = search.check(law, "q_sample", dtype="float32", **FEW)
    assert verdict.kind == "breaks a law" and printed(capsys, verdict, law) == [f"breaks a law: {verdict.message}"] and "wrong" not in verdict.message


def test_a_broken_law_says_by_how_much():
    """An example alone is the next number of float32, unless it is near 0."""
    def law(xt, uncond, cond, w, t, s):
        out = fused.guided_flow_step(xt, uncond, cond, w, t, s)
        return np.where(np.abs(out) > 0.01, np.nextafter(out, out.dtype.type(np.inf)), out) if len(out) == 1 else out

    verdict = search.check(law, "guided_flow_step", dtype="float32", **FEW)
    first, then, allowed, units = re.search(r"; worst at \(.*\): first (\S+), then (\S+), allowed error (\S+), (\S+) times that$", verdict.message).groups()
    assert verdict.kind == "breaks a law" and np.float32(then) == np.nextafter(np.float32(first), np.float32(np.inf))
    assert float(units) == pytest.approx((np.float32(then) - np.float32(first)) / float(allowed), rel=0.02)


def test_a_broken_law_is_measured_by_the_allowed_error_of_its_own_examples():
    rule = tolerance.Rule(np.array([1.0, 2.0, 4.0]), np.array([0.5, 1.0, 0.25]))
    for law, first, then, said in ((1, [4.0], [5.0], "(0,): first 4.0, then 5.0, allowed error 0.25, 4 times that"), (2, [1.0], [2.0], "(0,): first 1.0, then 2.0, allowed error 0.5, 2 times that"),
                                   (3, [2.0, 4.0], [2.0, 4.5], "(1,): first 4.0, then 4.5, allowed error 0.25, 2 times that")):  # fmt: skip
        assert search._apart(laws.LAWS[law], [(np.array(first), np.array(then))], [rule]) == f"worst at {said}"


RENAMED = {"sample": "x0", "timestep": "t", "noise": "eps", "alphas": "abar"}


def test_the_code_shows_what_the_function_gets(capsys):
    """Its own names, time counted from 0, alpha-bar without its 1, and sigma in place of it; the same with arguments that go by position."""
    got = []

    def theirs(sample, timestep, noise, alphas):
        got.append((sample, timestep, noise, alphas))
        return Q(sample, timestep + 1, -noise, 1 / (1 + np.append(0, alphas) ** 2))

    def by_position(sample, /, timestep, noise, alphas):
        return theirs(sample, timestep, noise, alphas)

    for function in (theirs, by_position):
        verdict = search.check(function, "q_sample", dtype="float32", mapping=RENAMED, conventions=["zero_based", "sigmas"], fixed={"schedule": "linear"}, **FEW)
        given = verdict.code.split("given = dict(")[1]
        assert "    timestep=0,\n    alphas=edm.sigma_from_abar(schedules.alpha_bar(schedules.linear_betas())[1:]),\n" in given and "    t=1,\n" in verdict.code
        got.clear()
        truth, came = printed(capsys, verdict, function)
        sample, timestep, noise, alphas = got[0]
        assert (timestep, alphas.size) == (0, 1000) and truth == str(ref.diffusion.q_sample(sample, 1, noise, LINEAR)) and came != truth
        assert verdict.cause == "sign of eps"


class Box:
    """An array of a library that NumPy knows nothing of."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __repr__(self):
        return f"Box({self.array})"


@pytest.mark.parametrize("kind, said", [("wrong values", ["[0.01]", "Box([-0.01])"]), ("writes its inputs", ["Box([0.])", "Box([5.])"]), ("wrong dtype", ["['float64']"])])
def test_the_code_gives_other_kinds_of_arrays(capsys, monkeypatch, kind, said):
    def boxed(sample, t, eps, abar):
        if kind == "writes its inputs":
            sample.array[...] = 5
        sign = -1 if kind == "wrong values" else 1
        return Box(sign * Q(sample.array, int(t), eps.array, np.append(1, abar.array)).astype(np.float64 if kind == "wrong dtype" else sample.dtype))

    def theirs(sample, t, eps, abar):
        return boxed(sample, t + 1, eps, abar)

    monkeypatch.setattr("kernels.check.adapter._carriers", lambda *_: (Box, lambda x: x.array, lambda r: None, True))
    verdict = search.check(theirs, "q_sample", dtype="float32", arrays="torch", mapping={"sample": "x0"}, conventions=["zero_based"], fixed={"t": "scalar"}, **FEW)
    assert verdict.kind == kind and printed(capsys, verdict, theirs) == said, str(verdict)


def test_names_and_signatures():
    assert find("ddim_step") is find("diffusion.ddim_step")
    for name, message in (("dim_step", "close to it: ddim_step"), ("xyzzy", "check --list` says what there is"),
                          ("gaussian_kl", "gaussian_kl is in ref.vae, but has no kernel"), ("nets.mlp.residual", "is in ref.nets.mlp, but"),
                          ("mlp_train", "mlp_train is a whole loop"), ("fused.mlp_sample", "is a whole loop"), ("_same_shape", "no operation is called")):
        with pytest.raises(Usage, match=message):
            find(name)
    with pytest.raises(Usage, match=r"it does not take eps; it needs noise.* Expected q_sample\(x0, t, eps, abar\); other names by --map"):
        caller(lambda x0, t, noise, abar: 0, "q_sample")
    with pytest.raises(Usage, match="has no argument epsilon; it has x0, t, eps, abar"):
        caller(lambda x0, t, noise, abar: 0, "q_sample", {"noise": "epsilon"})
    with pytest.raises(Usage, match="the function has no argument nose; it has x0, t, noise, abar"):
        caller(lambda x0, t, noise, abar: 0, "q_sample", {"nose": "eps"})
    with pytest.raises(Usage, match="cannot be read"):
        caller(type("Opaque", (), {"__call__": lambda self: 0, "__signature__": 3})(), "q_sample")
    with pytest.raises(Usage, match="has no w, so paper_weight means nothing here"):
        caller(Q, "q_sample", conventions=["paper_weight"])
    for options, message in ((dict(dtype="float8"), "has float32, float64, float16, bfloat16, got float8"), (dict(examples=0), "expected at least 1"), (dict(seconds=-3), "--seconds: expected at least 0, got -3"),
                             (dict(fixed={"noise": 0}), "q_sample has no noise that could be held; it has t, schedule"), (dict(fixed={"eps": None}), "has no eps that could be held"),
                             (dict(fixed={"t": 3}), r"--fix t=3: expected scalar \(one for all examples\) or each"), (dict(fixed={"schedule": "sine"}), "expected linear or cosine or short"),
                             (dict(device="tpu"), "expected cpu or cuda, got tpu"), (dict(arrays="numpy", device="cuda"), "numpy on the CPU only")):  # fmt: skip
        with pytest.raises(Usage, match=message):
            search.check(Q, "q_sample", **options)

    with pytest.raises(Usage, match="--fix: diffusion.ddim_step refuses eta=7: eta: expected 0 <= eta <= 1, got 7"):
        search.check(diffusion.ddim_step, "ddim_step", fixed={"eta": 7})
    with pytest.raises(Usage, match="--fix s=each: t, s are scalar or each all together"):
        search.check(diffusion.ddim_step, "ddim_step", fixed={"t": "scalar", "s": "each"})
    with pytest.raises(Usage, match="--fix clip=tight: expected None or a number"):
        search.check(diffusion.ddim_step, "ddim_step", fixed={"clip": "tight"})

    def renamed(sample, /, timestep, *, noise, alphas):
        return Q(sample, timestep, noise, alphas)

    assert search.check(renamed, "q_sample", mapping={"sample": "x0", "timestep": "t", "noise": "eps", "alphas": "abar"}, examples=20)
    without = search.check(lambda xt, eps_hat, t, s, z, eta, abar: diffusion.ddim_step(xt, eps_hat, t, s, z, eta, abar), "ddim_step", examples=40)
    assert without, str(without)  # no clip, so none is asked for


def _one_time(x0, t, eps, abar):
    return Q(x0, int(t), eps, abar)


def _as_drawn(eta):
    """DDIM with eta wired in, which takes neither that nor noise."""
    return lambda xt, eps_hat, t, s, abar, clip: diffusion.ddim_step(xt, eps_hat, t, s, np.zeros_like(xt), eta, abar, clip)


def _first_order(xt, uncond, cond, w, t, s, abar):
    return fused.guided_dpmpp_2m_step(xt, uncond, cond, w, None, None, t, s, abar)


def _adam(beta1):
    return lambda p, g, m, v, step, lr, beta2, eps, weight_decay: optim.adam_step(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay)


def _small_only(xt, eps_hat, t, s, z, abar, variance="small", clip=None):
    if variance != "small" or clip not in (None, 2.5):
        raise NotImplementedError(variance)
    return diffusion.ddpm_step(xt, eps_hat, t, s, z, abar, variance, clip)


FIXED = [  # operation, what supports a part of it, that part, what the report says, what is wrong of that part
    ("q_sample", _one_time, {"t": "scalar"}, "t = scalar (fixed)", lambda x0, t, eps, abar: Q(x0, t + 0 * int(t) - (t > 0), eps, abar)),
    ("ddim_step", _as_drawn(0.0), {"eta": 0}, "eta = 0 (fixed)", _as_drawn(1.0)),
    ("ddpm_step", _small_only, {"variance": "small", "clip": 2.5}, "variance = small (fixed), clip = 2.5 (fixed)",
     lambda xt, eps_hat, t, s, z, abar: diffusion.ddpm_step(xt, eps_hat, t, s, z, abar, "small", 2.0)),
    ("guided_dpmpp_2m_step", _first_order, {"history": False}, "history = False (fixed)", lambda **a: _first_order(**{n: a[n] for n in ("xt", "cond", "uncond", "w", "t", "s", "abar")} | {"w": 1.0})),
    ("adam_step", _adam(0.8), {"beta1": 0.8}, "beta1 = 0.8 (fixed)", _adam(0.81)),
    ("q_sample", lambda x0, t, eps: Q(x0, t, eps, LINEAR), {"schedule": "linear"}, "schedule = linear (fixed)", lambda x0, t, eps: Q(x0, t, eps, np.append(LINEAR[1:], 0.0))),
    ("reparameterize_kl_backward", lambda dz, mu, logvar, eps: vae.reparameterize_kl_backward(dz, 0.5, mu, logvar, eps), {"dkl": 0.5}, "dkl = 0.5 (fixed)",
     lambda dz, mu, logvar, eps: vae.reparameterize_kl_backward(dz, 1.0, mu, logvar, eps)),
]  # fmt: skip
LINEAR = schedules.alpha_bar(schedules.linear_betas())


@pytest.mark.parametrize("op, function, fixed, said, wrong", FIXED, ids=[next(iter(fixed)) for _, _, fixed, _, _ in FIXED])
def test_what_is_fixed_is_held_and_said(op, function, fixed, said, wrong):
    """Right where it is held, not without; and what is wrong there is still caught."""
    verdict = search.check(function, op, dtype="float32", fixed=fixed, seconds=0.01, **FEW)
    assert verdict and f"not tested, for held at one value: {said}" in str(verdict) and verdict.speed, str(verdict)
    try:
        assert not search.check(function, op, dtype="float32", **FEW)
    except Usage as reason:
        assert "what it holds at one value by --fix name=value" in str(reason)
    wrong = search.check(wrong, op, dtype="float32", fixed=fixed, **FEW)
    assert wrong.kind == "wrong values" and said in str(wrong)


def test_what_a_function_does_not_take_is_said():
    verdict = search.check(lambda xt, eps_hat, t, s, z, abar, clip: diffusion.ddpm_step(xt, eps_hat, t, s, z, abar, "small", clip), "ddpm_step", dtype="float32", examples=40)
    assert verdict and verdict.untested == ("variance = small (not an argument of the function)",)
    assert "not tested" not in str(search.check(diffusion.ddpm_step, "ddpm_step", dtype="float32", examples=5))


def _zero_based_ddim(xt, eps_hat, t, s, z, eta, abar):
    if abar[0] == 1:
        raise ValueError("an alpha-bar of 1 is no noise level")
    return diffusion.ddim_step(xt, eps_hat, t + 1, s + 1, z, eta, np.append(1.0, abar))  # the index -1 is the data


OTHERS = {
    "zero_based": ("ddim_step", _zero_based_ddim),
    "paper_weight": ("guided_flow_step", lambda xt, uncond, cond, w, t, s: fused.guided_flow_step(xt, uncond, cond, 1 + w, t, s)),
    "reversed_flow": ("guided_flow_step", lambda xt, uncond, cond, w, t, s: fused.guided_flow_step(xt, -uncond, -cond, w, 1 - t, 1 - s)),
    "sigmas": ("q_sample", lambda x0, t, eps, abar: Q(x0, t, eps, 1 / (1 + abar**2))),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_conventions_are_one_flag_each(name):
    op, function = OTHERS[name]
    assert set(OTHERS) == set(CONVENTIONS)
    assert search.check(function, op, dtype="float32", conventions=[name], **FEW)
    assert not search.check(function, op, dtype="float32", **FEW)


def test_half_precision_is_float32_until_it_is_stored():
    def halves(x0, t, eps, abar):
        return Q(x0.astype(np.float32), t, eps.astype(np.float32), abar).astype(x0.dtype)

    for dtype in registry.HALVES:
        assert search.check(halves, "q_sample", dtype=dtype, **FEW), dtype
        assert not search.check(lambda x0, t, eps, abar: (x0 * np.sqrt(abar[np.ravel(t)[0]]).astype(x0.dtype)), "q_sample", dtype=dtype, **FEW)


# --- the command -----------------------------------------------------------------------------------------------------

MINE = '''
import numpy as np
from kernels.numba_cpu import diffusion
def right(x0, t, eps, abar):
    return diffusion.q_sample(x0, t, eps, abar)
def wrong(x0, t, eps, abar):
    return diffusion.q_sample(x0, t, -np.array(eps), abar)
def one_time(x0, t, eps, abar):
    assert isinstance(t, int) and len(abar) == 5
    return diffusion.q_sample(x0, t, eps, abar)
number = 3
'''


def run(folder, *words):
    done = subprocess.run([sys.executable, "-m", "kernels", "check", *words, "--examples", "20", "--seconds", "0.01"], cwd=ROOT, capture_output=True, text=True, timeout=120,
                          env=os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"})  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_the_command_right_and_wrong(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    status, said, error = run(tmp_path, "q_sample", "--against", "mine:right", "--json")
    told = json.loads(said)
    assert status == 0 and not error and told["right"] and told["op"] == "diffusion.q_sample" and told["speed"]["theirs_us"] > 0 and told["error"] <= 1
    status, said, error = run(tmp_path, "q_sample", "--against", "mine:one_time", "--fix", "t=scalar", "--fix", "schedule=short")
    assert status == 0 and not error and "t = scalar (fixed), schedule = short (fixed)" in said
    status, said, error = run(tmp_path, "diffusion.q_sample", "--against", "mine:wrong")
    assert status == 1 and not error and "likely cause: sign of eps" in said and "from mine import wrong" in said


def test_the_command_lists_what_can_be_checked(capsys):
    assert command.main(["check", "--list"]) == 0
    lines = capsys.readouterr().out.split("\n")
    assert [line.split("(")[0] for line in lines[::2] if line] == [op.name for op in registry.OPS]
    at = lines.index("diffusion.q_sample(x0, t, eps, abar)")
    assert lines[at + 1] == "    [DDPM] eq. 4, drawn:  x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) eps."


@pytest.mark.parametrize("words, message", [
    (["q_sample"], "expected an operation and --against MODULE:FUNCTION, or --list"),
    (["q_sampel", "--against", "mine:right"], "no operation is called q_sampel; close to it: q_sample"),
    (["q_sample", "--against", "mine"], "expected module:function"),
    (["q_sample", "--against", "nosuch:f"], "nosuch cannot be imported: ModuleNotFoundError"),
    (["q_sample", "--against", "mine:rihgt"], "mine has no rihgt; it has one_time, right, wrong"),
    (["q_sample", "--against", "mine:number"], "is no function, it is of type int"),
    (["ddim_step", "--against", "mine:right"], "it does not take xt, eps_hat, s, z, eta"),
    (["q_sample", "--against", "mine:right", "--map", "x0=nosuch"], "q_sample has no argument nosuch"),
    (["q_sample", "--against", "mine:right", "--paper-weight"], "means nothing here"),
    (["q_sample", "--against", "mine:right", "--fix", "t"], "argument --fix: expected name=value, such as eta=0 or t=scalar, got 't'"),
    (["q_sample", "--against", "mine:right", "--fix", "eta=0"], "q_sample has no eta that could be held; it has t, schedule"),
    (["q_sample", "--against", "mine:right", "--seconds", "-3"], "--seconds: expected at least 0, got -3"),
    (["q_sample", "--against", "mine:right", "--seed", "x"], "argument --seed: invalid int value: 'x'"),
    (["q_sample", "--against", "leaves:right"], "leaves cannot be imported: SystemExit: 4"),
])  # fmt: skip
def test_the_command_says_what_cannot_be_done(tmp_path, monkeypatch, capsys, words, message):
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "leaves.py").write_text("raise SystemExit(4)")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    assert command.main(["check", *words]) == 2
    said = capsys.readouterr()
    assert message in said.err and not said.out
    assert command.main(["check", *words, "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert told["right"] is None and message in told["reason"]


def test_the_command_without_words_is_about_ours(monkeypatch, capsys):
    monkeypatch.setattr(registry, "OPS", [op for op in registry.OPS if op.name == "diffusion.v_target"])
    monkeypatch.setattr(selftest, "SHAPES", [(1,), (5, 5)])
    monkeypatch.setattr(selftest, "available", lambda: (["numba_cpu"], {"triton_gpu": "not asked"}))
    assert command.main([]) == 0
    assert "triton_gpu: not checked, not asked" in capsys.readouterr().out
