"""The tests, tested: seeded faults, each a small patch of the source, and which of them the suite catches.

    python -m tests.mutants                 all of them (minutes); exit status 1 if any survives
    python -m tests.mutants --only ddim     those with "ddim" in the name, or in the path of the file
    python -m tests.mutants --list          their names

Each is tried in a copy of the tree, with the test files that are about its file. First those have to pass in the copy
without any fault, or a red suite would seem to catch everything. A fault that survives because it changes no result is
to be explained beside its patch; none of these is such.
"""
import argparse
import collections
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent

Mutant = collections.namedtuple("Mutant", "name file old new")

TESTS = {  # the tests about a file, the first ones to fail first; a folder stands for what is inside it
    "ref/philox.py": ["test_ref_philox.py"],
    "ref/schedules.py": ["test_ref_schedules.py"],
    "ref/diffusion.py": ["test_ref_diffusion.py", "test_laws.py", "test_gradients.py"],
    "ref/guidance.py": ["test_ref_guidance.py"],
    "ref/samplers.py": ["test_ref_samplers.py", "test_laws_samplers.py"],
    "ref/edm.py": ["test_ref_edm.py"],
    "ref/flow.py": ["test_ref_flow.py", "test_gradients.py"],
    "ref/objectives.py": ["test_ref_objectives.py", "test_laws_likelihood.py", "test_gradients.py"],
    "ref/sde.py": ["test_ref_sde.py", "test_laws_likelihood.py"],
    "ref/consistency.py": ["test_ref_consistency.py", "test_gradients.py"],
    "ref/optim.py": ["test_ref_optim.py"],
    "ref/fused.py": ["test_ref_fused.py"],
    "ref/layers.py": ["test_ref_layers.py", "test_gradients.py"],
    "ref/vae.py": ["test_ref_vae.py", "test_laws_vae_gan.py", "test_gradients.py"],
    "ref/gan.py": ["test_ref_gan.py", "test_laws_vae_gan.py", "test_gradients.py"],
    "ref/nets/gan.py": ["test_ref_gan.py", "test_ref_nets.py", "test_gradients.py"],
    "ref/nets/": ["test_ref_nets.py", "test_gradients.py"],
    "kernels/triton_gpu/": ["test_triton.py"],
    "kernels/": ["test_compare.py", "test_kernels.py"],
    "bench/": ["test_bench.py"],
}

MUTANTS = [
    # --- noise
    Mutant("philox: a wrong multiplier", "ref/philox.py", "M0, M1 = 0xD2511F53,", "M0, M1 = 0xD2511F55,"),
    Mutant("philox: multipliers swapped", "ref/philox.py", "M0, M1 = 0xD2511F53, 0xCD9E8D57", "M0, M1 = 0xCD9E8D57, 0xD2511F53"),
    Mutant("philox: a wrong key increment", "ref/philox.py", "0xBB67AE85  #", "0xBB67AE86  #"),
    Mutant("philox: nine rounds", "ref/philox.py", "def philox4x32(counter, key, rounds=10)", "def philox4x32(counter, key, rounds=9)"),
    Mutant("philox: key bumped before the first round too", "ref/philox.py", "        if r > 0:\n", "        if r >= 0:\n"),
    Mutant("philox: key does not wrap", "ref/philox.py", "k0 + np.uint64(W0) & low,", "k0 + np.uint64(W0),"),
    Mutant("philox: high and low word swapped", "ref/philox.py", "p1 >> np.uint64(32) ^ c1 ^ k0, p1 & low,", "p1 & low ^ c1 ^ k0, p1 >> np.uint64(32),"),
    Mutant("philox: block number without its carry", "ref/philox.py", "counter[:, 1] = block >> np.uint64(32)", "counter[:, 1] = 0"),
    Mutant("philox: stream's high word dropped", "ref/philox.py", "stream & 0xFFFFFFFF, stream >> 32", "stream & 0xFFFFFFFF, 0"),
    Mutant("philox: stream not used", "ref/philox.py", "counter[:, 2:] = stream & 0xFFFFFFFF, stream >> 32", "counter[:, 2:] = 0, 0"),
    Mutant("philox: seed's high word dropped", "ref/philox.py", "[seed & 0xFFFFFFFF, seed >> 32]", "[seed & 0xFFFFFFFF, 0]"),
    Mutant("philox: words come lane by lane", "ref/philox.py", "philox4x32(counter, key).reshape(-1)[:size]", "philox4x32(counter, key).T.reshape(-1)[:size]"),
    Mutant("philox: uniform half open, so u = 0 at the word 0", "ref/philox.py", "np.float32(2.0**-32) + np.float32(2.0**-33)).astype", "np.float32(2.0**-32)).astype"),
    Mutant("philox: uniform in float64", "ref/philox.py", "(word.astype(np.float32) * np.float32(2.0**-32) + np.float32(2.0**-33)).astype(np.float64)", "word * 2.0**-32 + 2.0**-33"),
    Mutant("philox: angle without its half step", "ref/philox.py", "np.float32(2.0**-31) + np.float32(2.0**-32)", "np.float32(2.0**-31)"),
    Mutant("philox: angle from the unsigned word", "ref/philox.py", "word.view(np.int32).astype", "word.astype"),
    Mutant("philox: radius and angle from each other's word", "ref/philox.py", "_u01(words[1::2]), _uneg11(words[0::2])", "_u01(words[0::2]), _uneg11(words[1::2])"),
    Mutant("philox: sine and cosine swapped", "ref/philox.py", "[r * sin, r * cos]", "[r * cos, r * sin]"),
    Mutant("philox: -ln u instead of -2 ln u", "ref/philox.py", "-2.0 * np.log(u)", "-1.0 * np.log(u)"),
    Mutant("philox: sin(pi a) without taking off the quarter turns", "ref/philox.py", "quarter = np.rint(2.0 * a)", "quarter = np.zeros_like(a)"),
    Mutant("philox: the last pair of an odd size dropped", "ref/philox.py", "(size + 1) // 2 * 2", "size // 2 * 2"),
    Mutant("philox: a negative seed wraps", "ref/philox.py", "if not 0 <= value < 2**64:", "if not value < 2**64:"),
    # --- schedules
    Mutant("schedules: alpha-bar off by one", "ref/schedules.py", "np.concatenate([[1.0], np.cumprod(1 - betas)])", "np.concatenate([[1.0, 1.0], np.cumprod(1 - betas)[:-1]])"),
    Mutant("schedules: alpha-bar without its first one", "ref/schedules.py", "return np.concatenate([[1.0], np.cumprod(1 - betas)])", "return np.cumprod(1 - betas)"),
    Mutant("schedules: alpha-bar from the sum of betas", "ref/schedules.py", "np.cumprod(1 - betas)", "np.exp(-np.cumsum(betas))"),
    Mutant("schedules: linear without its end", "ref/schedules.py", "np.linspace(start, end, T)", "np.linspace(start, end, T, endpoint=False)"),
    Mutant("schedules: scaled linear without the square", "ref/schedules.py", "np.linspace(start**0.5, end**0.5, T) ** 2", "np.linspace(start**0.5, end**0.5, T)"),
    Mutant("schedules: scaled linear is linear", "ref/schedules.py", "np.linspace(start**0.5, end**0.5, T) ** 2", "np.linspace(start * 1, end, T)"),
    Mutant("schedules: cosine without the square", "ref/schedules.py", "* np.pi / 2) ** 2\n    return", "* np.pi / 2)\n    return"),
    Mutant("schedules: cosine without its offset", "ref/schedules.py", "(np.arange(T + 1) / T + offset) / (1 + offset)", "(np.arange(T + 1) / T)"),
    Mutant("schedules: cosine without its cap", "ref/schedules.py", "np.minimum(1 - f[1:] / f[:-1], max_beta)", "np.minimum(1 - f[1:] / f[:-1], 1.0)"),
    Mutant("schedules: signal-to-noise upside down", "ref/schedules.py", "return abar / (1 - abar)", "return (1 - abar) / abar"),
    Mutant("schedules: zero terminal SNR shifts but does not scale", "ref/schedules.py", "(root - root[-1]) * (root[0] / (root[0] - root[-1]))", "(root - root[-1])"),
    Mutant("schedules: zero terminal SNR shifts abar, not its root", "ref/schedules.py", "root = np.sqrt(abar[1:])", "root = abar[1:]"),
    Mutant("schedules: leading counted from 0", "ref/schedules.py", "np.arange(1, T + 1, T // steps)", "np.arange(0, T, T // steps)"),
    Mutant("schedules: leading keeps the latest times", "ref/schedules.py", "T // steps)[:steps][::-1]", "T // steps)[::-1][:steps]"),
    Mutant("schedules: trailing by whole strides", "ref/schedules.py", "np.arange(T, 0, -T / steps)[:steps]", "np.arange(T, 0, -(T // steps))[:steps]"),
    Mutant("schedules: linspace halves go to even counted from 1", "ref/schedules.py", "np.round(np.linspace(0, T - 1, steps))[::-1] + 1", "np.round(np.linspace(1, T, steps))[::-1]"),
    Mutant("schedules: linspace ascends", "ref/schedules.py", "np.round(np.linspace(0, T - 1, steps))[::-1] + 1", "np.round(np.linspace(0, T - 1, steps)) + 1"),
    Mutant("schedules: times without the last 0", "ref/schedules.py", "return np.append(times, 0).astype(np.int64)", "return np.append(times, 1).astype(np.int64)"),
    # --- forward noising and conversions
    Mutant("q_sample: a variance used as a deviation", "ref/diffusion.py", "return np.sqrt(abar_t) * x0 + np.sqrt(1 - abar_t) * eps", "return np.sqrt(abar_t) * x0 + (1 - abar_t) * eps"),
    Mutant("q_sample: signal and noise swapped", "ref/diffusion.py", "return np.sqrt(abar_t) * x0 + np.sqrt(1 - abar_t) * eps", "return np.sqrt(1 - abar_t) * x0 + np.sqrt(abar_t) * eps"),
    Mutant("q_sample_backward: gradients swapped", "ref/diffusion.py", "return np.sqrt(abar_t) * dxt, np.sqrt(1 - abar_t) * dxt", "return np.sqrt(1 - abar_t) * dxt, np.sqrt(abar_t) * dxt"),
    Mutant("q_sample_backward: noise taken for a constant", "ref/diffusion.py", "return np.sqrt(abar_t) * dxt, np.sqrt(1 - abar_t) * dxt", "return np.sqrt(abar_t) * dxt, 0 * dxt"),
    Mutant("t along the wrong axis, silent where B == W", "ref/diffusion.py", "return abar[t].astype(np.float64).reshape(t.shape + (1,) * (x.ndim - 1 if t.ndim else 0))", "return abar[t]"),
    Mutant("t off by one in every equation", "ref/diffusion.py", "return abar[t].astype(np.float64)", "return abar[np.maximum(t - 1, 0)].astype(np.float64)"),
    Mutant("t below 0 wraps", "ref/diffusion.py", "not (0 <= t.min() and t.max() < abar.size)", "not (t.max() < abar.size)"),
    Mutant("t above T clips", "ref/diffusion.py", "not (0 <= t.min() and t.max() < abar.size)", "not (0 <= t.min())"),
    Mutant("t may be a float", "ref/diffusion.py", "    if not np.issubdtype(t.dtype, np.integer):", "    t = t.astype(int)\n    if False:"),
    Mutant("t of one example fits any batch", "ref/diffusion.py", "if t.ndim != 0 and t.shape != x.shape[:1]:", "if t.ndim > 1:"),
    Mutant("shapes broadcast silently", "ref/diffusion.py", "if len(set(shapes.values())) != 1:", "if False:"),
    Mutant("process math in float32", "ref/diffusion.py", "np.result_type(np.float64, np.asarray(a).dtype)", "np.result_type(np.float32, np.asarray(a).dtype)"),
    Mutant("x0_from_eps: sign", "ref/diffusion.py", "return (xt - np.sqrt(1 - abar_t) * eps) / np.sqrt(abar_t)", "return (xt + np.sqrt(1 - abar_t) * eps) / np.sqrt(abar_t)"),
    Mutant("x0_from_eps: no root below", "ref/diffusion.py", "return (xt - np.sqrt(1 - abar_t) * eps) / np.sqrt(abar_t)", "return (xt - np.sqrt(1 - abar_t) * eps) / abar_t"),
    Mutant("x0_from_eps: abar = 0 divides", "ref/diffusion.py", '    _nonzero(abar_t, "abar[t]", "x0 cannot be had from eps; predict v or x0")\n', ""),
    Mutant("eps_from_x0: divides by the variance", "ref/diffusion.py", "return (xt - np.sqrt(abar_t) * x0) / np.sqrt(1 - abar_t)", "return (xt - np.sqrt(abar_t) * x0) / (1 - abar_t)"),
    Mutant("v: its sign", "ref/diffusion.py", "return np.sqrt(abar_t) * eps - np.sqrt(1 - abar_t) * x0", "return np.sqrt(1 - abar_t) * x0 - np.sqrt(abar_t) * eps"),
    Mutant("v: the signs of all three conversions, consistent among themselves", "ref/diffusion.py", "return np.sqrt(abar_t) * eps - np.sqrt(1 - abar_t) * x0", "return np.sqrt(abar_t) * eps + np.sqrt(1 - abar_t) * x0"),
    Mutant("x0_from_v: sign", "ref/diffusion.py", "return np.sqrt(abar_t) * xt - np.sqrt(1 - abar_t) * v", "return np.sqrt(abar_t) * xt + np.sqrt(1 - abar_t) * v"),
    Mutant("eps_from_v: roots swapped", "ref/diffusion.py", "return np.sqrt(1 - abar_t) * xt + np.sqrt(abar_t) * v", "return np.sqrt(abar_t) * xt + np.sqrt(1 - abar_t) * v"),
    Mutant("score: its sign", "ref/diffusion.py", "return -eps / np.sqrt(1 - abar_t)", "return eps / np.sqrt(1 - abar_t)"),
    Mutant("score: over the variance", "ref/diffusion.py", "return -eps / np.sqrt(1 - abar_t)", "return -eps / (1 - abar_t)"),
    # --- posterior and steps
    Mutant("posterior: beta for beta tilde", "ref/diffusion.py", "    variance = (1 - abar_s) / (1 - abar_t) * beta\n", "    variance = beta\n"),
    Mutant("posterior: a deviation for the variance", "ref/diffusion.py", "    variance = (1 - abar_s) / (1 - abar_t) * beta\n", "    variance = np.sqrt((1 - abar_s) / (1 - abar_t) * beta)\n"),
    Mutant("posterior: alpha-bar for alpha", "ref/diffusion.py", "    alpha = abar_t / abar_s\n", "    alpha = abar_t\n"),
    Mutant("posterior: alpha without its root", "ref/diffusion.py", "np.sqrt(alpha) * (1 - abar_s)", "alpha * (1 - abar_s)"),
    Mutant("posterior: abar_t for abar_s before x0", "ref/diffusion.py", "np.sqrt(abar_s) * beta / (1 - abar_t) * x0", "np.sqrt(abar_t) * beta / (1 - abar_t) * x0"),
    Mutant("ddpm_step: noise on the last step", "ref/diffusion.py", "np.where(abar_s < 1, np.sqrt(sigma2), 0.0)", "np.sqrt(sigma2)"),
    Mutant("ddpm_step: a variance used as a deviation", "ref/diffusion.py", "np.where(abar_s < 1, np.sqrt(sigma2), 0.0)", "np.where(abar_s < 1, sigma2, 0.0)"),
    Mutant("ddpm_step: beta for beta tilde", "ref/diffusion.py", "        sigma2 = np.reshape(beta_tilde, np.broadcast_shapes(abar_t.shape, abar_s.shape))\n", "        sigma2 = 1 - abar_t / abar_s\n"),
    Mutant("ddpm_step: beta tilde for beta", "ref/diffusion.py", "        sigma2 = 1 - abar_t / abar_s\n", "        sigma2 = (1 - abar_s) / (1 - abar_t) * (1 - abar_t / abar_s)\n"),
    Mutant("ddpm_step: x0 not clipped", "ref/diffusion.py", "x0_hat = _clip(x0_from_eps(xt, eps_hat, t, abar), clip)", "x0_hat = x0_from_eps(xt, eps_hat, t, abar)"),
    Mutant("ddpm_step: the mean clipped, not x0", "ref/diffusion.py", "    x0_hat = _clip(x0_from_eps(xt, eps_hat, t, abar), clip)\n    mean, beta_tilde = posterior(x0_hat, xt, t, s, abar)\n", "    mean, beta_tilde = posterior(x0_from_eps(xt, eps_hat, t, abar), xt, t, s, abar)\n    mean = _clip(mean, clip)\n"),
    Mutant("ddim_step: eps kept when x0 is clipped", "ref/diffusion.py", "        eps_hat = eps_from_x0(xt, x0_hat, t, abar)\n", ""),
    Mutant("ddim_step: eta squared", "ref/diffusion.py", "sigma = eta * np.sqrt(", "sigma = eta**2 * np.sqrt("),
    Mutant("ddim_step: sigma of the large variance", "ref/diffusion.py", "sigma = eta * np.sqrt((1 - abar_s) / (1 - abar_t)) * np.sqrt(1 - abar_t / abar_s)", "sigma = eta * np.sqrt(1 - abar_t / abar_s) * (abar_s < 1)"),
    Mutant("ddim_step: sigma a variance", "ref/diffusion.py", "sigma = eta * np.sqrt((1 - abar_s) / (1 - abar_t)) * np.sqrt(1 - abar_t / abar_s)", "sigma = eta * ((1 - abar_s) / (1 - abar_t)) * (1 - abar_t / abar_s)"),
    Mutant("ddim_step: no room left for the noise", "ref/diffusion.py", "np.maximum(1 - abar_s - sigma**2, 0)", "np.maximum(1 - abar_s, 0)"),
    Mutant("ddim_step: sigma for its square", "ref/diffusion.py", "np.maximum(1 - abar_s - sigma**2, 0)", "np.maximum(1 - abar_s - sigma, 0)"),
    Mutant("ddim_step: x0 not scaled to s", "ref/diffusion.py", "return np.sqrt(abar_s) * x0_hat + direction", "return np.sqrt(abar_t) * x0_hat + direction"),
    Mutant("a step may stand still", "ref/diffusion.py", "np.asarray(s) < np.asarray(t)", "np.asarray(s) <= np.asarray(t)"),
    Mutant("noise that is not added still spoils", "ref/diffusion.py", "return sigma * np.where(sigma > 0, z, 0.0)", "return sigma * z"),
    Mutant("clip is one-sided", "ref/diffusion.py", "np.clip(x0, -clip, clip)", "np.minimum(x0, clip)"),
    # --- loss
    Mutant("eps_loss: a missing 1/N", "ref/diffusion.py", "return np.mean((eps_hat - eps) ** 2)", "return np.sum((eps_hat - eps) ** 2)"),
    Mutant("eps_loss: mean over the batch only", "ref/diffusion.py", "return np.mean((eps_hat - eps) ** 2)", "return np.sum((eps_hat - eps) ** 2) / len(eps)"),
    Mutant("eps_loss: a half", "ref/diffusion.py", "return np.mean((eps_hat - eps) ** 2)", "return np.mean((eps_hat - eps) ** 2) / 2"),
    Mutant("eps_loss_backward: a missing 1/N", "ref/diffusion.py", "2 * (eps_hat - eps) / eps.size * dloss", "2 * (eps_hat - eps) * dloss"),
    Mutant("eps_loss_backward: a missing 2", "ref/diffusion.py", "2 * (eps_hat - eps) / eps.size * dloss", "(eps_hat - eps) / eps.size * dloss"),
    Mutant("eps_loss_backward: dloss not used", "ref/diffusion.py", "2 * (eps_hat - eps) / eps.size * dloss", "2 * (eps_hat - eps) / eps.size"),
    Mutant("eps_loss_backward: both gradients alike", "ref/diffusion.py", "return deps_hat, -deps_hat", "return deps_hat, deps_hat"),
    # --- guidance
    Mutant("guide: from the wrong base", "ref/guidance.py", "return uncond + w * (cond - uncond)", "return cond + w * (cond - uncond)"),
    Mutant("guide: the other way round", "ref/guidance.py", "return uncond + w * (cond - uncond)", "return cond + w * (uncond - cond)"),
    Mutant("w_from_paper: nothing changed", "ref/guidance.py", "return 1 + w_paper", "return w_paper"),
    Mutant("guide_rescaled: one deviation for the batch", "ref/guidance.py", "axes = tuple(range(1, g.ndim))", "axes = tuple(range(g.ndim))"),
    Mutant("guide_rescaled: the unconditional deviation", "ref/guidance.py", "np.std(cond, axis=axes", "np.std(uncond, axis=axes"),
    Mutant("guide_rescaled: phi the other way round", "ref/guidance.py", "return phi * r + (1 - phi) * g", "return (1 - phi) * r + phi * g"),
    Mutant("dynamic_threshold: not scaled back", "ref/guidance.py", "return np.clip(x0, -s, s) / s", "return np.clip(x0, -s, s)"),
    Mutant("dynamic_threshold: scales small images up", "ref/guidance.py", "s = np.clip(s, 1, max_value)", "s = np.clip(s, 1e-9, max_value)"),
    Mutant("dynamic_threshold: no upper limit", "ref/guidance.py", "s = np.clip(s, 1, max_value)", "s = np.maximum(s, 1)"),
    Mutant("dynamic_threshold: quantile over the batch", "ref/guidance.py", "axis=tuple(range(1, x0.ndim))", "axis=tuple(range(x0.ndim))"),
    Mutant("dynamic_threshold: quantile of x0, not of its size", "ref/guidance.py", "np.quantile(np.abs(x0), ratio,", "np.quantile(x0, ratio,"),
    # --- samplers, flow matching, EDM's preconditioning, converters
    Mutant("samplers: multistep history kept at the last step", "ref/samplers.py", "            u, x0_last = None, None\n        x = dpmpp", "            pass\n        x = dpmpp"),
    Mutant("samplers: r upside down", "ref/samplers.py", "h / (2 * _climb(*_step(abar, u, t, xt)))", "_climb(*_step(abar, u, t, xt)) / (2 * h)"),
    Mutant("samplers: e^h for e^-h", "ref/samplers.py", "np.expm1(-h) * D", "-np.expm1(h) * D"),
    Mutant("samplers: a variance for a deviation on the way to s", "ref/samplers.py", "return np.sqrt((1 - abar_s) / (1 - abar_t)) * xt", "return (1 - abar_s) / (1 - abar_t) * xt"),
    Mutant("samplers: the history with the wrong sign", "ref/samplers.py", "(1 + half) * x0_hat - half *", "(1 - half) * x0_hat + half *"),
    Mutant("samplers: lambda the log of the SNR, without its half", "ref/samplers.py", "return 0.5 * (np.log(abar_t)", "return (np.log(abar_t)"),
    Mutant("samplers: a float32 abar folded in float32", "ref/samplers.py", "abar_t, abar_s = np.float64(abar[t]), np.float64(abar[s])", "abar_t, abar_s = abar[t], abar[s]"),
    Mutant("unipc: the corrector dropped", "ref/samplers.py", "        if seen:  # UniC", "        if False:  # UniC"),
    Mutant("unipc: the corrector begins where it ended", "ref/samplers.py", "_unified_step(before, times[i - 1], t,", "_unified_step(x, times[i - 1], t,"),
    Mutant("unipc: order not lowered at the end", "ref/samplers.py", "used = min(order, i + 1, len(times) - 1 - i)", "used = min(order, i + 1)"),
    Mutant("unipc: a missing factorial", "ref/samplers.py", "b.append(math.factorial(j) * phi", "b.append(phi"),
    Mutant("unipc: the differences not divided by r", "ref/samplers.py", "sum(a_k / r_k * (x0_hat", "sum(a_k * (x0_hat"),
    Mutant("unipc: a matrix not transposed", "ref/samplers.py", "np.vander(r, increasing=True).T", "np.vander(r, increasing=True)"),
    Mutant("euler: noise level of the end", "ref/samplers.py", "(x - _said(denoise(x, sigma), x)) / sigma\n        x = x + (following - sigma) * d\n    return x\n\n\ndef heun", "(x - _said(denoise(x, sigma), x)) / max(following, sigma / 9)\n        x = x + (following - sigma) * d\n    return x\n\n\ndef heun"),
    Mutant("heun: the second slope at sigma", "ref/samplers.py", "(guess - _said(denoise(guess, following), x)) / following", "(guess - _said(denoise(guess, sigma), x)) / sigma"),
    Mutant("heun: the second slope from x", "ref/samplers.py", "(guess - _said(denoise(guess, following), x)) / following", "(x - _said(denoise(x, following), x)) / following"),
    Mutant("heun: slopes added, not averaged", "ref/samplers.py", "d = (d + (guess - _said(denoise(guess, following), x)) / following) / 2", "d = d + (guess - _said(denoise(guess, following), x)) / following"),
    Mutant("heun: churn without the square root", "ref/samplers.py", "math.sqrt(raised**2 - sigma**2) * s_noise", "(raised**2 - sigma**2) * s_noise"),
    Mutant("heun: churn, and sigma not raised", "ref/samplers.py", "            sigma = raised\n", ""),
    Mutant("heun: s_noise not used", "ref/samplers.py", "math.sqrt(raised**2 - sigma**2) * s_noise *", "math.sqrt(raised**2 - sigma**2) *"),
    Mutant("heun: gamma without its cap", "ref/samplers.py", "gamma = min(s_churn / (len(sigmas) - 1), math.sqrt(2) - 1)", "gamma = s_churn / (len(sigmas) - 1)"),
    Mutant("heun: churn by the number of levels, not of steps", "ref/samplers.py", "s_churn / (len(sigmas) - 1)", "s_churn / len(sigmas)"),
    Mutant("flow_euler: away from the data", "ref/samplers.py", "x = x + (s - t) * _said(velocity(x, t), x)", "x = x - (s - t) * _said(velocity(x, t), x)"),
    Mutant("flow_heun: the second velocity at t", "ref/samplers.py", "velocity(x + (s - t) * v, s)", "velocity(x + (s - t) * v, t)"),
    Mutant("flow_heun: asked at 0", "ref/samplers.py", "        if s > 0:\n            v = (v", "        if s >= 0:\n            v = (v"),
    Mutant("consistency: the whole noise of the level", "ref/samplers.py", "math.sqrt(sigmas[i + 1] ** 2 - sigma_min**2)", "sigmas[i + 1]"),
    Mutant("consistency: noised to the level it came from", "ref/samplers.py", "math.sqrt(sigmas[i + 1] ** 2", "math.sqrt(sigmas[i] ** 2"),
    Mutant("inpaint: known noised at t, not s", "ref/samplers.py", "q_sample(known, s, z, abar)", "q_sample(known, t, z, abar)"),
    Mutant("inpaint: the mask the other way round", "ref/samplers.py", "    mask = mask == 1\n", "    mask = mask == 0\n"),
    Mutant("ddpm: the first noise for all", "ref/samplers.py", "t, s, _noise(noise, i, s, x), abar, variance", "t, s, _noise(noise, 0, s, x), abar, variance"),
    Mutant("ddpm: the variance not handed on", "ref/samplers.py", "abar, variance, clip)", 'abar, "small", clip)'),
    Mutant("ddim: the model asked where the step ends", "ref/samplers.py", "x = ddim_step(x, model(x, t), t", "x = ddim_step(x, model(x, s), t"),
    Mutant("samplers: an answer of another shape broadcasts", "ref/samplers.py", "    if np.shape(out) != x.shape:\n", "    if False:\n"),
    Mutant("interpolate: the other direction of time", "ref/flow.py", "return (1 - t) * x0 + t * eps", "return t * x0 + (1 - t) * eps"),
    Mutant("velocity: its sign", "ref/flow.py", "    return eps - x0\n", "    return x0 - eps\n"),
    Mutant("flow_loss: the velocity's sign", "ref/flow.py", "np.mean((v - (eps - x0)) ** 2)", "np.mean((v - (x0 - eps)) ** 2)"),
    Mutant("flow_loss_backward: a missing 1/N", "ref/flow.py", "2 * (v - (eps - x0)) / v.size * dloss", "2 * (v - (eps - x0)) * dloss"),
    Mutant("flow_loss_backward: the noise's sign", "ref/flow.py", "return dv, dv.copy(), -dv", "return dv, dv.copy(), dv"),
    Mutant("shift_times: the other way", "ref/flow.py", "return shift * t / ((1 - t) + shift * t)", "return t / (shift * (1 - t) + t)"),
    Mutant("shift_times: 1 moves past 1", "ref/flow.py", "((1 - t) + shift * t)", "(1 + (shift - 1) * t)"),
    Mutant("logit_normal_times: a variance for the deviation", "ref/flow.py", "u = mean + std * np", "u = mean + std**2 * np"),
    Mutant("straightness: steps not scaled to the whole", "ref/flow.py", "- n * np.diff(xs, axis=0)", "- np.diff(xs, axis=0)"),
    Mutant("straightness: mean over the elements too", "ref/flow.py", "np.sum(bend**2) / (n * xs.shape[1])", "np.mean(bend**2)"),
    Mutant("x0_from_velocity: sign", "ref/flow.py", "return xt - _at(t, xt) * v", "return xt + _at(t, xt) * v"),
    Mutant("eps_from_velocity: t for 1 - t", "ref/flow.py", "return xt + (1 - _at(t, xt)) * v", "return xt + _at(t, xt) * v"),
    Mutant("velocity_from_eps: sign", "ref/flow.py", "return (eps - xt) / (1 - t)", "return (xt - eps) / (1 - t)"),
    Mutant("abar_from_flow_time: without the squares", "ref/flow.py", "return (1 - t) ** 2 / ((1 - t) ** 2 + t**2)", "return 1 - t"),
    Mutant("flow_time_from_abar: without the roots", "ref/flow.py", "return np.sqrt(1 - abar) / (np.sqrt(abar) + np.sqrt(1 - abar))", "return 1 - abar"),
    Mutant("vp_from_flow: the inverse", "ref/flow.py", "return xt / np.sqrt((1 - t) ** 2 + t**2)", "return xt * np.sqrt((1 - t) ** 2 + t**2)"),
    Mutant("scalings: c_skip and c_out swapped", "ref/edm.py", "return sigma_data**2 / total, sigma * sigma_data / np.sqrt(total),", "return sigma * sigma_data / np.sqrt(total), sigma_data**2 / total,"),
    Mutant("scalings: c_skip of the noise", "ref/edm.py", "return sigma_data**2 / total", "return sigma**2 / total"),
    Mutant("scalings: c_in a variance", "ref/edm.py", "1 / np.sqrt(total), np.log", "1 / total, np.log"),
    Mutant("scalings: c_noise without its quarter", "ref/edm.py", "np.log(sigma) / 4", "np.log(sigma)"),
    Mutant("loss_weight: upside down", "ref/edm.py", "(sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2", "(sigma * sigma_data) ** 2 / (sigma**2 + sigma_data**2)"),
    Mutant("sigma_from_abar: a variance", "ref/edm.py", "return np.sqrt((1 - abar) / abar)", "return (1 - abar) / abar"),
    Mutant("abar_from_sigma: without the square", "ref/edm.py", "return 1 / (1 + _level(sigma) ** 2)", "return 1 / (1 + _level(sigma))"),
    Mutant("time_at: the nearest whole time", "ref/edm.py", "return np.interp(sigma, sigmas, np.arange(sigmas.size))", "return np.rint(np.interp(sigma, sigmas, np.arange(sigmas.size)))"),
    Mutant("vp_from_ve: the inverse", "ref/edm.py", "return x / np.sqrt(1 + _column", "return x * np.sqrt(1 + _column"),
    Mutant("schedules: Karras without rho", "ref/schedules.py", "np.linspace(*ends, steps) ** rho", "np.linspace(sigma_max, sigma_min, steps)"),
    Mutant("schedules: Karras without its 0", "ref/schedules.py", "np.append(np.linspace(*ends, steps) ** rho, 0.0)", "np.append(np.linspace(*ends, steps) ** rho, sigma_min / 2)"),
    Mutant("schedules: flow times shifted twice", "ref/schedules.py", "return shift_times(np.linspace(1.0, 0.0, steps + 1), shift)", "return shift_times(shift_times(np.linspace(1.0, 0.0, steps + 1), shift), shift)"),
    Mutant("schedules: flow times from data to noise", "ref/schedules.py", "np.linspace(1.0, 0.0, steps + 1)", "np.linspace(0.0, 1.0, steps + 1)"),
    Mutant("schedules: an index is a time", "ref/schedules.py", "    return index + 1\n", "    return index\n"),
    Mutant("schedules: the data have an index", "ref/schedules.py", "if np.any(np.asarray(t) < 1):", "if np.any(np.asarray(t) < 0):"),
    Mutant("eps_from_score: over the deviation", "ref/diffusion.py", 'return -np.sqrt(1 - _at(abar, t, score, "t")) * score', 'return -score / np.sqrt(1 - _at(abar, t, score, "t"))'),
    Mutant("w_to_paper: nothing changed", "ref/guidance.py", "    return w - 1\n", "    return w\n"),
    # --- objectives
    Mutant("min_snr_weight: the larger of the two", "ref/objectives.py", "return np.minimum(snr, gamma)\n", "return np.maximum(snr, gamma)\n"),
    Mutant("min_snr_weight: eps weighted as x0", "ref/objectives.py", "return np.minimum(1, gamma / snr)", "return np.minimum(snr, gamma)"),
    Mutant("min_snr_weight: v over SNR", "ref/objectives.py", "np.minimum(snr, gamma) / (snr + 1)", "np.minimum(snr, gamma) / snr"),
    Mutant("normal_kl: no half", "ref/objectives.py", "return 0.5 * (np.expm1(d) - d", "return (np.expm1(d) - d"),
    Mutant("normal_kl: the other way round", "ref/objectives.py", "d = logvar1 - logvar2\n    return", "d = logvar2 - logvar1\n    return"),
    Mutant("normal_kl: distance over the first variance", "ref/objectives.py", "(mean1 - mean2) ** 2 * np.exp(-logvar2))", "(mean1 - mean2) ** 2 * np.exp(-logvar1))"),
    Mutant("normal_kl: a log-deviation for a log-variance", "ref/objectives.py", "(mean1 - mean2) ** 2 * np.exp(-logvar2))", "(mean1 - mean2) ** 2 * np.exp(-2 * logvar2))"),
    Mutant("normal_kl_backward: the second variance feels no distance", "ref/objectives.py", "-dlogvar1 - dkl * d**2 * precision / 2", "-dlogvar1"),
    Mutant("normal_kl_backward: a number's gradient not summed", "ref/objectives.py", "g if np.ndim(a) else np.sum(g)", "g if np.ndim(a) else np.mean(g)"),
    Mutant("discretized likelihood: the density at the middle", "ref/objectives.py", "return peak + np.log(mass)", "return -(m**2) / 2 + np.log(2 * h) - 0.5 * np.log(2 * np.pi)"),
    Mutant("discretized likelihood: 256 steps", "ref/objectives.py", "precision / 255, end", "precision / 256, end"),
    Mutant("discretized likelihood: closed ends", "ref/objectives.py", "end = np.abs(x) > 0.999", "end = np.abs(x) > 1"),
    Mutant("discretized likelihood: one open end only", "ref/objectives.py", "end = np.abs(x) > 0.999", "end = x > 0.999"),
    Mutant("discretized likelihood: exact ends only", "ref/objectives.py", "end = np.abs(x) > 0.999", "end = np.abs(x) == 1"),
    Mutant("discretized likelihood: open to the mean's side", "ref/objectives.py", "np.where(end, x, np.real(m)) < 0", "np.real(m) < 0"),
    Mutant("discretized likelihood: a log-variance for log_scale", "ref/objectives.py", "precision = np.exp(-log_scales)\n    m =", "precision = np.exp(-log_scales / 2)\n    m ="),
    Mutant("discretized likelihood: wide bins by too few nodes", "ref/objectives.py", "(np.real(m * h) <= 4)", "(np.real(m * h) <= 400)"),
    Mutant("discretized likelihood: the far tail not taken off", "ref/objectives.py", "outside = tail_a - np.exp", "outside = tail_a - 0 * np.exp"),
    Mutant("discretized likelihood: one tail left on", "ref/objectives.py", " - np.exp(-(b**2) / 2) * tail_b\n", "\n"),
    Mutant("discretized likelihood: erfc without its pole", "ref/objectives.py", "    return pole + z * sum", "    return z * sum"),
    Mutant("discretized likelihood backward: the side forgotten", "ref/objectives.py", "return -side * dm *", "return -dm *"),
    Mutant("discretized likelihood backward: only the near end moves the width", "ref/objectives.py", "1 + np.exp(step))", "1.0)"),
    Mutant("learned_logvar: v the other way round", "ref/objectives.py", "return v * large + (1 - v) * small", "return (1 - v) * large + v * small"),
    Mutant("learned_logvar: variances interpolated, not their logarithms", "ref/objectives.py", "return v * large + (1 - v) * small", "return np.log(v * np.exp(large) + (1 - v) * np.exp(small))"),
    Mutant("learned_logvar: another stand-in at s = 0", "ref/objectives.py", "np.maximum(t, 2), t)", "np.maximum(t + 1, 2), t)"),
    Mutant("learned_logvar_backward: only log beta", "ref/objectives.py", "return dlogvar * (large - small)", "return dlogvar * large"),
    Mutant("vlb_terms: a variance for a log-variance", "ref/objectives.py", "np.broadcast_to(np.log(variance)", "np.broadcast_to((variance)"),
    Mutant("vlb_terms: the decoder's deviation is its variance", "ref/objectives.py", "nats[last] = -discretized_gaussian_log_likelihood(x0[last], mean_hat[last], logvar_hat[last] / 2)", "nats[last] = -discretized_gaussian_log_likelihood(x0[last], mean_hat[last], logvar_hat[last])"),
    Mutant("vlb_terms: KL the other way round", "ref/objectives.py", "normal_kl(mean[~last], logvar[~last], mean_hat[~last], logvar_hat[~last])\n    return", "normal_kl(mean_hat[~last], logvar_hat[~last], mean[~last], logvar[~last])\n    return"),
    Mutant("vlb_terms: nats", "ref/objectives.py", "/ (_dims(nats.shape) * np.log(2.0))", "/ _dims(nats.shape)"),
    Mutant("vlb_terms: not by dimension", "ref/objectives.py", "/ (_dims(nats.shape) * np.log(2.0))", "/ np.log(2.0)"),
    Mutant("vlb_terms_backward: log_scale's gradient for logvar's", "ref/objectives.py", "dlogvar_hat[last] = dlog_scale / 2", "dlogvar_hat[last] = dlog_scale"),
    Mutant("vlb_prior: a deviation's logarithm", "ref/objectives.py", "np.log(1 - abar_T), 0.0, 0.0", "np.log(1 - abar_T) / 2, 0.0, 0.0"),
    # --- continuous time
    Mutant("vp_drift: no half", "ref/sde.py", "return -0.5 * _column(_beta", "return -_column(_beta"),
    Mutant("vp_drift: towards the noise", "ref/sde.py", "return -0.5 * _column(_beta", "return 0.5 * _column(_beta"),
    Mutant("vp_diffusion: the variance's rate", "ref/sde.py", "return np.sqrt(_beta(t, beta_min, beta_max))", "return _beta(t, beta_min, beta_max)"),
    Mutant("vp_marginal: beta, not its integral", "ref/sde.py", "t**2 * (beta_max - beta_min) / 2", "t**2 * (beta_max - beta_min)"),
    Mutant("vp_marginal: a variance for std", "ref/sde.py", "np.sqrt(-np.expm1(-total))", "-np.expm1(-total)"),
    Mutant("ve_diffusion: no 2", "ref/sde.py", "np.sqrt(2 * np.log(sigma_max / sigma_min))\n", "np.sqrt(np.log(sigma_max / sigma_min))\n"),
    Mutant("ve_marginal: noise in the data", "ref/sde.py", "np.expm1(2 * t * np.log", "np.exp(2 * t * np.log"),
    Mutant("reverse_drift: half the score", "ref/sde.py", '_column(g, f, "g") ** 2 * score\n', '_column(g, f, "g") ** 2 * score / 2\n'),
    Mutant("reverse_drift: g for its square", "ref/sde.py", '_column(g, f, "g") ** 2 * score\n', '_column(g, f, "g") * score\n'),
    Mutant("probability_flow_drift: the whole score", "ref/sde.py", "** 2 * score / 2", "** 2 * score"),
    Mutant("probability_flow_drift: down the score", "ref/sde.py", 'return f - _column(g, f, "g") ** 2 * score / 2', 'return f + _column(g, f, "g") ** 2 * score / 2'),
    Mutant("drift_and_jvp: a missing 2", "ref/sde.py", "/ (2 * h)\n\n", "/ h\n\n"),
    Mutant("log_likelihood: the divergence's sign", "ref/sde.py", "axis=axes) + divergence", "axis=axes) - divergence"),
    Mutant("log_likelihood: Euler's divergence", "ref/sde.py", "divergence + h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)", "divergence + h * d1"),
    Mutant("log_likelihood: the second slope at the start", "ref/sde.py", "f2, d2 = slopes(x + h / 2 * f1, middle)", "f2, d2 = slopes(x + h / 2 * f1, t)"),
    Mutant("log_likelihood: prior's deviation unscaled", "ref/sde.py", " - np.log(prior_std) - 0.5", " - 0.5"),
    Mutant("log_likelihood: prior without 2 pi", "ref/sde.py", " - 0.5 * np.log(2 * np.pi)\n", "\n"),
    Mutant("log_likelihood: the probe not used twice", "ref/sde.py", "np.sum(probe * jp, axis=axes)", "np.sum(jp, axis=axes)"),
    Mutant("bits_per_dimension: the bin's width the other way", "ref/sde.py", "- np.log2(bin_width)", "+ np.log2(bin_width)"),
    Mutant("bits_per_dimension: not by dimension", "ref/sde.py", "/ (dims * np.log(2.0))", "/ np.log(2.0)"),
    # --- consistency
    Mutant("boundary_scalings: sigma_min not taken off", "ref/consistency.py", "((sigma - sigma_min) ** 2 + sigma_data**2)", "(sigma**2 + sigma_data**2)"),
    Mutant("boundary_scalings: c_out not 0 at the boundary", "ref/consistency.py", "sigma_data * (sigma - sigma_min) /", "sigma_data * sigma /"),
    Mutant("boundary_scalings: sigma_min in c_out's root", "ref/consistency.py", "np.sqrt(sigma_data**2 + sigma**2)", "np.sqrt(sigma_data**2 + (sigma - sigma_min) ** 2)"),
    Mutant("pseudo_huber: the mean of the squares", "ref/consistency.py", "squared = np.sum((a - b) ** 2, axis=tuple(range(1, a.ndim)))", "squared = np.mean((a - b) ** 2, axis=tuple(range(1, a.ndim)))"),
    Mutant("pseudo_huber: cancels", "ref/consistency.py", "return squared / (np.sqrt(squared + c**2) + c)", "return np.sqrt(squared + c**2) - c"),
    Mutant("pseudo_huber: c for its square", "ref/consistency.py", "np.sqrt(squared + c**2) + c", "np.sqrt(squared + c) + c"),
    Mutant("pseudo_huber_backward: a missing 1/B", "ref/consistency.py", "dloss / len(a) *", "dloss *"),
    Mutant("pseudo_huber_backward: divided by the loss", "ref/consistency.py", "_column(_pseudo_huber(a, b, c) + c, a", "_column(_pseudo_huber(a, b, c), a"),
    Mutant("consistency_loss: heavier for wide pairs", "ref/consistency.py", "c) / np.ravel(sigma_t - sigma_s))", "c) * np.ravel(sigma_t - sigma_s))"),
    Mutant("consistency_loss_backward: no weight", "ref/consistency.py", "target, c)[0] / (sigma_t - sigma_s)", "target, c)[0]"),
    Mutant("training_pair: the teacher at the student's level", "ref/consistency.py", "x0 + sigma_t * eps, x0 + sigma_s * eps", "x0 + sigma_t * eps, x0 + sigma_t * eps"),
    Mutant("distillation_pair: Euler", "ref/consistency.py", "return xt, xt + (s - t) * (d + (xs - x0_hat) / s) / 2", "return xt, xs"),
    Mutant("distillation_pair: away from the data", "ref/consistency.py", "xs = xt + (s - t) * d\n", "xs = xt + (t - s) * d\n"),
    Mutant("distillation_pair: the second slope over the first level", "ref/consistency.py", "(xs - x0_hat) / s) / 2", "(xs - x0_hat) / t) / 2"),
    Mutant("lognormal_sigma_weights: without the root of 2", "ref/consistency.py", "/ (math.sqrt(2) * std)", "/ std"),
    Mutant("lognormal_sigma_weights: not scaled", "ref/consistency.py", "return p / p.sum()", "return p"),
    Mutant("discretization_steps: the doublings one short", "ref/consistency.py", "interval = math.floor(K / (math.log2(s1 // s0) + 1))", "interval = math.floor(K / math.log2(s1 // s0))"),
    Mutant("discretization_steps: pairs, not levels", "ref/consistency.py", "s0 * 2 ** (k // interval), s1) + 1", "s0 * 2 ** (k // interval), s1)"),
    # --- optimisers
    Mutant("adam_step: eps inside the root", "ref/optim.py", "np.sqrt(vhat) + eps", "np.sqrt(vhat + eps)"),
    Mutant("adam_step: m not corrected", "ref/optim.py", "mhat = m / (1 - beta1**step)", "mhat = m"),
    Mutant("adam_step: v not corrected", "ref/optim.py", "vhat = v / (1 - beta2**step)", "vhat = v"),
    Mutant("adam_step: corrections off by one", "ref/optim.py", "vhat = v / (1 - beta2**step)", "vhat = v / (1 - beta2 ** (step + 1))"),
    Mutant("adam_step: the corrections' betas swapped", "ref/optim.py", "mhat = m / (1 - beta1**step)", "mhat = m / (1 - beta2**step)"),
    Mutant("adam_step: v from the size of g", "ref/optim.py", "(1 - beta2) * (g * g)", "(1 - beta2) * np.abs(g)"),
    Mutant("adam_step: beta1 on both sides", "ref/optim.py", "m = beta1 * m + (1 - beta1) * g", "m = beta1 * m + beta1 * g"),
    Mutant("adam_step: no weight decay", "ref/optim.py", " + weight_decay * p), m, v", "), m, v"),
    Mutant("adam_step: weight decay coupled to the gradient", "ref/optim.py", "    m = beta1 * m", "    g = g + weight_decay * p\n    m = beta1 * m"),
    Mutant("adam_step: weight decay without lr", "ref/optim.py", "p - lr * (mhat / (np.sqrt(vhat) + eps) + weight_decay * p), m, v", "p - lr * mhat / (np.sqrt(vhat) + eps) - weight_decay * p, m, v"),
    Mutant("adam_step: uphill", "ref/optim.py", "return p - lr * (", "return p + lr * ("),
    Mutant("adam_step: overwrites m", "ref/optim.py", "    m = beta1 * m + (1 - beta1) * g", "    m *= beta1\n    m = m + (1 - beta1) * g"),
    Mutant("ema_step: decay the other way round", "ref/optim.py", "return decay * avg + (1 - decay) * p", "return (1 - decay) * avg + decay * p"),
    Mutant("clip_by_global_norm: each array by itself", "ref/optim.py", "clipped = [g * scale for g in arrays]", "clipped = [g * min(1.0, max_norm / max(math.sqrt(float(np.sum(np.square(g, dtype=np.float64)))), 1e-300)) for g in arrays]"),
    Mutant("clip_by_global_norm: the squared norm", "ref/optim.py", "norm = math.sqrt(sum(", "norm = (sum("),
    Mutant("clip_by_global_norm: lengthens short ones", "ref/optim.py", "max_norm / norm if norm > max_norm else 1.0", "max_norm / norm if norm > 0 else 1.0"),
    Mutant("clip_by_global_norm: squares in float32", "ref/optim.py", "np.square(g, dtype=np.float64)", "np.square(g)"),
    # --- fused truths
    Mutant("q_sample_noise: stream not used", "ref/fused.py", "q_sample(x0, t, normal(seed, np.shape(x0), stream), abar)", "q_sample(x0, t, normal(seed, np.shape(x0)), abar)"),
    Mutant("eps_loss_noise: stream not used", "ref/fused.py", "normal(seed, np.shape(eps_hat), stream)", "normal(seed, np.shape(eps_hat))"),
    Mutant("eps_loss_grad: the gradient of the other argument", "ref/fused.py", "eps_loss_backward(1.0, eps_hat, eps)[0]", "eps_loss_backward(1.0, eps_hat, eps)[1]"),
    Mutant("guided_ddpm_step: clip not passed on", "ref/fused.py", "t, s, z, abar, variance, clip)", "t, s, z, abar, variance)"),
    Mutant("guided_ddpm_step: variance not passed on", "ref/fused.py", "t, s, z, abar, variance, clip)", "t, s, z, abar, clip=clip)"),
    Mutant("guided_dpmpp_2m_step: the raw prediction handed on", "ref/fused.py", "x0_last, u, t, s, abar), x0_hat", "x0_last, u, t, s, abar), guide(uncond, cond, w)"),
    Mutant("guided_flow_step: the wrong direction", "ref/fused.py", "return xt + (s - t) * v", "return xt + (t - s) * v"),
    Mutant("heun_step: the second slope at the first level", "ref/fused.py", "(sigma_next - sigma) * d - denoised_next) / sigma_next", "(sigma_next - sigma) * d - denoised_next) / sigma"),
    Mutant("kernels: history at a step to abar = 1", "kernels/coefficients.py", "np.where(far, abar_s, abar_t)", "np.where(far, abar_s, 0.999)"),
    Mutant("kernels: r the other way round", "kernels/coefficients.py", "half = h / (2 * h_last)", "half = h_last / (2 * h)"),
    Mutant("kernels: flow in the wrong direction", "kernels/coefficients.py", "return _table(s - t)", "return _table(t - s)"),
    Mutant("kernels: Heun's slopes not halved", "kernels/coefficients.py", "half = (sigma - sigma_next) / 2", "half = sigma - sigma_next"),
    Mutant("numba: history forgotten", "kernels/numba_cpu/fused.py", "r[j] = c2 * a + c3 * b + c4 * last[j]", "r[j] = c2 * a + c3 * b"),
    Mutant("triton: history looked at where there is none", "kernels/triton_gpu/fused.py", "mask=where_noisy(inside, c4, BLOCK), other=0).to(tl.float32)\n    x0 =", "mask=inside).to(tl.float32)\n    x0 ="),
    Mutant("guided_ddim_step: conditions swapped", "ref/fused.py", "return ddim_step(xt, guide(uncond, cond, w)", "return ddim_step(xt, guide(cond, uncond, w)"),
    Mutant("guided_ddim_step: eta not passed on", "ref/fused.py", "t, s, z, eta, abar, clip)", "t, s, z, 0.0, abar, clip)"),
    Mutant("adam_ema_step: averages the old weights", "ref/fused.py", "    p, m, v = adam_step(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay)\n    return p, m, v, ema_step(avg, p, decay)\n", "    avg = ema_step(avg, p, decay)\n    return *adam_step(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay), avg\n"),
    # --- layers: test_gradients.py sees a forward and a backward that disagree; a fault in the forward alone, such as an
    # overflow or the order of sines, only tests/test_ref_layers.py and tests/test_ref_nets.py can see
    Mutant("linear: no bias", "ref/layers.py", "return x @ w.T + b", "return x @ w.T"),
    Mutant("linear_backward: bias gradient averaged", "ref/layers.py", "rows.sum(axis=0)", "rows.mean(axis=0)"),
    Mutant("linear_backward: weight gradient of the first rows only", "ref/layers.py", "rows.T @ x.reshape(-1, w.shape[1])", "rows[:1].T @ x.reshape(-1, w.shape[1])[:1]"),
    Mutant("relu_backward: 1 at the kink", "ref/layers.py", "np.where(x > 0, dy, 0)", "np.where(x >= 0, dy, 0)"),
    Mutant("relu_backward: passes everything", "ref/layers.py", "np.where(x > 0, dy, 0)", "np.where(x > -9e9, dy, 0)"),
    Mutant("leaky_relu: no leak", "ref/layers.py", "np.where(np.real(x) > 0, x, slope * x)", "np.where(np.real(x) > 0, x, 0 * x)"),
    Mutant("leaky_relu_backward: no leak", "ref/layers.py", "np.where(x > 0, dy, slope * dy)", "np.where(x > 0, dy, 0)"),
    Mutant("leaky_relu_backward: 1 at the kink", "ref/layers.py", "np.where(x > 0, dy, slope * dy)", "np.where(x >= 0, dy, slope * dy)"),
    Mutant("tanh_backward: without the square", "ref/layers.py", "dy * (1 - y) * (1 + y)", "dy * (1 - y)"),
    Mutant("sigmoid: overflows far below 0", "ref/layers.py", "    e = np.exp(np.where(np.real(x) >= 0, -x, x))\n    return np.where(np.real(x) >= 0, 1, e) / (1 + e)\n", "    return 1 / (1 + np.exp(-x))\n"),
    Mutant("sigmoid_backward: sign", "ref/layers.py", "return dy * y * (1 - y)", "return dy * y * (1 + y)"),
    Mutant("silu_backward: without x", "ref/layers.py", "(s * (1 + x * (1 - s)))", "(s * (1 + (1 - s)))"),
    Mutant("softplus: overflows far above 0", "ref/layers.py", "np.where(positive, x, 0) + np.log1p(np.exp(np.where(positive, -x, x)))", "np.log1p(np.exp(x))"),
    Mutant("softplus_backward: the other side", "ref/layers.py", "return dy * sigmoid(x)", "return dy * sigmoid(-x)"),
    Mutant("embedding_backward: the last use of a class wins", "ref/layers.py", "np.add.at(dw, index.reshape(-1), dy.reshape(-1, w.shape[1]))", "dw[index.reshape(-1)] = dy.reshape(-1, w.shape[1])"),
    Mutant("embedding: an index below 0 wraps", "ref/layers.py", "not (0 <= index.min() and", "not (True and"),
    Mutant("time_embedding: cosines first", "ref/layers.py", "[np.sin(angle), np.cos(angle)]", "[np.cos(angle), np.sin(angle)]"),
    Mutant("time_embedding: frequencies reach max_period", "ref/layers.py", "(-np.arange(width // 2) / (width // 2))", "(-np.arange(width // 2) / max(width // 2 - 1, 1))"),
    Mutant("cross_entropy: a missing 1/B", "ref/layers.py", "return np.mean(np.log(", "return np.sum(np.log("),
    Mutant("cross_entropy: the largest logit not taken off", "ref/layers.py", "shifted = logits - logits.max(axis=1, keepdims=True)", "shifted = logits"),
    Mutant("cross_entropy_backward: a missing 1/B", "ref/layers.py", "(dloss / labels.size)", "dloss"),
    Mutant("cross_entropy: a label below 0 wraps", "ref/layers.py", "if not (0 <= labels.min() and", "if not (True and"),
    # --- networks
    Mutant("chapter: t not fed", "ref/nets/mlp.py", "t[:, None].astype(x.dtype)", "0 * t[:, None].astype(x.dtype)"),
    Mutant("chapter_backward: through relu unchanged", "ref/nets/mlp.py", 'linear_backward(relu_backward(da, cache["h"]), cache["xt"]', 'linear_backward(da, cache["xt"]'),
    Mutant("residual: a block without its bypass", "ref/nets/mlp.py", "        h = h + linear(a, ", "        h = linear(a, "),
    Mutant("residual: the condition in no block", "ref/nets/mlp.py", 'params[f"block{i}.b1"]) + c\n', 'params[f"block{i}.b1"]) + 0 * c\n'),
    Mutant("residual_backward: no gradient along the bypass", "ref/nets/mlp.py", "        dh = dh + through\n", "        dh = through\n"),
    Mutant("residual_backward: the condition's gradient from one block only", "ref/nets/mlp.py", "        dc = dc + du\n", "        dc = du\n"),
    Mutant("residual_backward: time through no silu", "ref/nets/mlp.py", 'linear_backward(silu_backward(dc, cache["time"]), cache["emb"]', 'linear_backward(dc, cache["emb"]'),
    Mutant("residual_init: a block is not the identity at first", "ref/nets/mlp.py", 'scale = 0.0 if name.endswith("w2") else inputs**-0.5', "scale = inputs**-0.5"),
    Mutant("residual_init: variance 1 / inputs^2", "ref/nets/mlp.py", 'scale = 0.0 if name.endswith("w2") else inputs**-0.5', 'scale = 0.0 if name.endswith("w2") else inputs**-1.0'),
    Mutant("init: every array of one stream", "ref/nets/mlp.py", "(scale * normal(seed, shape, INIT_STREAM + i))", "(scale * normal(seed, shape, INIT_STREAM))"),
    # --- variational autoencoders
    Mutant("reparameterize: std = exp(logvar)", "ref/vae.py", "    return mu + np.exp(logvar / 2) * eps\n", "    return mu + np.exp(logvar) * eps\n"),
    Mutant("reparameterize_backward: dlogvar without its half", "ref/vae.py", "dz * eps * std / 2, std * dz", "dz * eps * std, std * dz"),
    Mutant("reparameterize_backward: dz itself returned for dmu", "ref/vae.py", "return dz.copy(), ", "return dz, "),
    Mutant("gaussian_kl: without its half", "ref/vae.py", "(np.expm1(logvar) - logvar)) / 2  #", "(np.expm1(logvar) - logvar))  #"),
    Mutant("gaussian_kl: without its 1", "ref/vae.py", "(np.expm1(logvar) - logvar)) / 2  #", "(np.exp(logvar) - logvar)) / 2  #"),
    Mutant("gaussian_kl: logvar's sign", "ref/vae.py", "(np.expm1(logvar) - logvar)) / 2  #", "(np.expm1(-logvar) + logvar)) / 2  #"),
    Mutant("gaussian_kl: exp - 1 rounded near the prior", "ref/vae.py", "(np.expm1(logvar) - logvar)) / 2  #", "(np.exp(logvar) - 1 - logvar)) / 2  #"),
    Mutant("gaussian_kl_backward: dlogvar without its 1", "ref/vae.py", "dkl * np.expm1(logvar) / 2", "dkl * np.exp(logvar) / 2"),
    Mutant("nll and KL: a mean over the axes", "ref/vae.py", "return terms.sum(axis=tuple(range(1, terms.ndim)))", "return terms.mean(axis=tuple(range(1, terms.ndim)))"),
    Mutant("nll and KL: over the last axis only", "ref/vae.py", "return terms.sum(axis=tuple(range(1, terms.ndim)))", "return terms.sum(axis=-1) if terms.ndim > 1 else terms"),
    Mutant("bernoulli_nll: a sigmoid, then a log", "ref/vae.py", "x * softplus(-logits) + (1 - x) * softplus(logits)", "-x * np.log(sigmoid(logits)) - (1 - x) * np.log(1 - sigmoid(logits))"),
    Mutant("bernoulli_nll: cancels where it is small", "ref/vae.py", "x * softplus(-logits) + (1 - x) * softplus(logits)", "softplus(logits) - x * logits"),
    Mutant("bernoulli_nll: the other way round", "ref/vae.py", "x * softplus(-logits) + (1 - x) * softplus(logits)", "x * softplus(logits) + (1 - x) * softplus(-logits)"),
    Mutant("bernoulli_nll_backward: x's sign", "ref/vae.py", "((1 - x) * sigmoid(logits) - x * sigmoid(-logits))", "((1 - x) * sigmoid(logits) + x * sigmoid(-logits))"),
    Mutant("bernoulli_nll_backward: cancels near x = 1", "ref/vae.py", "((1 - x) * sigmoid(logits) - x * sigmoid(-logits))", "(sigmoid(logits) - x)"),
    Mutant("bernoulli_nll: x in [0, 255] taken", "ref/vae.py", "(np.real(x) < 0) | (np.real(x) > 1)", "(np.real(x) < 0)"),
    Mutant("gaussian_nll: without log 2 pi", "ref/vae.py", "_per_example(LOG_2PI + logvar", "_per_example(logvar"),
    Mutant("gaussian_nll: logvar twice", "ref/vae.py", "_per_example(LOG_2PI + logvar +", "_per_example(LOG_2PI + 2 * logvar +"),
    Mutant("gaussian_nll: a deviation for a variance", "ref/vae.py", "(x - mean) ** 2 * np.exp(-logvar)) / 2\n\n\ndef gaussian_nll_backward", "(x - mean) ** 2 * np.exp(-logvar / 2)) / 2\n\n\ndef gaussian_nll_backward"),
    Mutant("gaussian_nll_backward: dmean's sign", "ref/vae.py", "    return dx, -dx, dnll", "    return dx, dx, dnll"),
    Mutant("elbo: the KL's sign", "ref/vae.py", "np.mean(-nll - beta * kl)", "np.mean(-nll + beta * kl)"),
    Mutant("elbo: a missing 1/B", "ref/vae.py", "np.mean(-nll - beta * kl)", "np.sum(-nll - beta * kl)"),
    Mutant("elbo: beta on the likelihood", "ref/vae.py", "np.mean(-nll - beta * kl)", "np.mean(-beta * nll - kl)"),
    Mutant("elbo_backward: without beta", "ref/vae.py", "-beta * delbo / kl.size", "-delbo / kl.size"),
    Mutant("clamp_logvar_backward: passes everything", "ref/vae.py", "np.where((logvar < low) | (logvar > high), 0.0, dclamped)", "dclamped * 1.0"),
    Mutant("clamp_logvar_backward: stops at the edge", "ref/vae.py", "(logvar < low) | (logvar > high), 0.0", "(logvar <= low) | (logvar >= high), 0.0"),
    Mutant("importance_weighted_bound: without log K", "ref/vae.py", "np.log(np.mean(np.exp(log_w - largest), axis=1, keepdims=True))", "np.log(np.sum(np.exp(log_w - largest), axis=1, keepdims=True))"),
    Mutant("importance_weighted_bound: the mean outside of the log", "ref/vae.py", "np.log(np.mean(np.exp(log_w - largest), axis=1, keepdims=True))", "np.mean(log_w - largest, axis=1, keepdims=True)"),
    Mutant("importance_weighted_bound: the largest not taken off", "ref/vae.py", "largest = np.max(np.real(log_w), axis=1, keepdims=True)", "largest = 0 * np.max(np.real(log_w), axis=1, keepdims=True)"),
    Mutant("importance_weighted_bound_backward: a missing 1/B", "ref/vae.py", "(dbound / len(w))", "dbound"),
    # --- adversarial networks
    Mutant("discriminator_loss: real and fake swapped", "ref/gan.py", "np.mean(softplus(-real_logits)) + np.mean(softplus(fake_logits))\n", "np.mean(softplus(real_logits)) + np.mean(softplus(-fake_logits))\n"),
    Mutant("discriminator_loss: a missing 1/N", "ref/gan.py", "return np.mean(softplus(-real_logits)) +", "return np.sum(softplus(-real_logits)) +"),
    Mutant("discriminator_loss: a sigmoid, then a log", "ref/gan.py", "return np.mean(softplus(-real_logits)) +", "return -np.mean(np.log(sigmoid(real_logits))) +"),
    Mutant("discriminator_loss_backward: a missing 1/M", "ref/gan.py", "dloss * sigmoid(fake_logits) / fake_logits.size\n\n\ndef generator_loss(", "dloss * sigmoid(fake_logits)\n\n\ndef generator_loss("),
    Mutant("generator_loss: saturating for non-saturating", "ref/gan.py", "    return np.mean(softplus(-fake_logits))\n", "    return -np.mean(softplus(fake_logits))\n"),
    Mutant("generator_loss_backward: saturating for non-saturating", "ref/gan.py", "return -dloss * sigmoid(-fake_logits) / fake_logits.size", "return -dloss * sigmoid(fake_logits) / fake_logits.size"),
    Mutant("generator_loss_saturating: its sign", "ref/gan.py", "    return -np.mean(softplus(fake_logits))\n", "    return np.mean(softplus(fake_logits))\n"),
    Mutant("generator_loss_saturating_backward: non-saturating for saturating", "ref/gan.py", "    return -dloss * sigmoid(fake_logits) / fake_logits.size\n", "    return -dloss * sigmoid(-fake_logits) / fake_logits.size\n"),
    Mutant("hinge: the margin on the other side", "ref/gan.py", "np.mean(relu(1 - real_logits)) + np.mean(relu(1 + fake_logits))", "np.mean(relu(1 + real_logits)) + np.mean(relu(1 - fake_logits))"),
    Mutant("hinge_backward: no hinge for the real", "ref/gan.py", "-relu_backward(dloss / real_logits.size, 1 - real_logits)", "np.full(real_logits.shape, -dloss / real_logits.size)"),
    Mutant("least squares: without its half", "ref/gan.py", "np.mean(fake_logits**2) / 2", "np.mean(fake_logits**2)"),
    Mutant("least squares: real is 0", "ref/gan.py", "return np.mean((real_logits - 1) ** 2) / 2", "return np.mean(real_logits**2) / 2"),
    Mutant("wasserstein: its sign", "ref/gan.py", "np.mean(fake_logits) - np.mean(real_logits)\n", "np.mean(real_logits) - np.mean(fake_logits)\n"),
    Mutant("interpolate: the fake's share for the real's", "ref/gan.py", "return alpha * real + (1 - alpha) * fake", "return alpha * fake + (1 - alpha) * real"),
    Mutant("gradient_penalty: the norm without its square root", "ref/gan.py", "return np.sqrt(np.sum(_float64(dx) ** 2, axis=tuple(range(1, dx.ndim)), keepdims=True))", "return np.sum(_float64(dx) ** 2, axis=tuple(range(1, dx.ndim)), keepdims=True)"),
    Mutant("gradient_penalty: the norm over the last axis only", "ref/gan.py", "axis=tuple(range(1, dx.ndim)), keepdims=True))", "axis=-1, keepdims=True))"),
    Mutant("gradient_penalty: one norm for the batch", "ref/gan.py", "axis=tuple(range(1, dx.ndim)), keepdims=True))", "keepdims=True))"),
    Mutant("gradient_penalty: to 0, not to 1", "ref/gan.py", "np.mean((_norm(dx) - 1) ** 2)", "np.mean(_norm(dx) ** 2)"),
    Mutant("gradient_penalty: one-sided", "ref/gan.py", "np.mean((_norm(dx) - 1) ** 2)", "np.mean(relu(_norm(dx) - 1) ** 2)"),
    Mutant("gradient_penalty_backward: a missing 1/B", "ref/gan.py", "ddx = 2 * dloss / len(dx) * (norm - 1)", "ddx = 2 * dloss * (norm - 1)"),
    Mutant("gradient_penalty_backward: along dx, not its unit vector", "ref/gan.py", "(norm - 1) * unit", "(norm - 1) * dx"),
    Mutant("gradient_penalty_backward: NaN where D is flat", "ref/gan.py", "np.divide(dx, norm, out=np.zeros_like(dx), where=norm > 0)", "dx / norm"),
    Mutant("r1_penalty: without its half", "ref/gan.py", "/ (2 * len(dx))", "/ len(dx)"),
    Mutant("r1_penalty: the norm, not its square", "ref/gan.py", "np.sum(_float64(dx) ** 2) / (2 * len(dx))", "np.sum(_norm(dx)) / (2 * len(dx))"),
    Mutant("r1_penalty_backward: a missing 1/B", "ref/gan.py", "(dloss / len(dx) * dx.astype(np.float64))", "(dloss * dx.astype(np.float64))"),
    Mutant("optimal_discriminator: p_g on top", "ref/gan.py", "np.divide(p_data, p_data + p_g", "np.divide(p_g, p_data + p_g"),
    Mutant("jensen_shannon: without its half", "ref/gan.py", "return np.sum(terms, axis=-1) / 2", "return np.sum(terms, axis=-1)"),
    Mutant("jensen_shannon: the KL of one side", "ref/gan.py", "_p_log_p_over_m(p, q) + _p_log_p_over_m(q, p)", "2 * _p_log_p_over_m(p, q)"),
    Mutant("jensen_shannon: -inf for a probability far below the other", "ref/gan.py", "p > q / 2\n", "p > 0\n"),
    Mutant("discriminator_backward: through the first activation unchanged", "ref/nets/gan.py", 'linear_backward(da1 * cache["s1"], cache["x"]', 'linear_backward(da1, cache["x"]'),
    Mutant("discriminator: a slope of softplus for tanh's", "ref/nets/gan.py", '"tanh": (tanh, lambda h: tanh_backward(1, tanh(h)),', '"tanh": (tanh, lambda h: softplus(h),'),
    Mutant("input_gradient: the activation's value for its slope", "ref/nets/gan.py", "    s1, s2 = slope(h1), slope(h2)\n", "    s1, s2 = slope(a1), slope(h2)\n"),
    Mutant("input_gradient_backward: first order only", "ref/nets/gan.py", '    da1, dw2_h2, db2 = linear_backward(ds2 * cache["c2"]', '    da1, dw2_h2, db2 = linear_backward(0 * ds2'),
    Mutant("input_gradient_backward: h1 by way of s1 only", "ref/nets/gan.py", 'ds1 * cache["c1"] + da1 * s1', 'ds1 * cache["c1"]'),
    Mutant("input_gradient_backward: h1 by way of a1 only", "ref/nets/gan.py", 'ds1 * cache["c1"] + da1 * s1', "da1 * s1"),
    Mutant("input_gradient_backward: w1 by way of h1 only", "ref/nets/gan.py", '"w1": dw1 + dw1_h1', '"w1": dw1_h1'),
    Mutant("curvature: tanh's without its 2", "ref/nets/gan.py", "lambda h: -2 * tanh(h)", "lambda h: -tanh(h)"),
    Mutant("curvature: softplus has none", "ref/nets/gan.py", "lambda h: sigmoid_backward(1, sigmoid(h))", "np.zeros_like"),
    Mutant("generator: no tanh", "ref/nets/gan.py", 'x = tanh(linear(a2,', 'x = (linear(a2,'),
    Mutant("generator_backward: through tanh unchanged", "ref/nets/gan.py", 'linear_backward(tanh_backward(dx, cache["x"])', "linear_backward(dx"),
    Mutant("generator_init: a last layer as loud as the others", "ref/nets/gan.py", "(2, 2, 0.01), INIT_STREAM", "(2, 2, 2), INIT_STREAM"),
    Mutant("encoder: mean and log-variance changed over", "ref/nets/vae.py", "return *np.split(out, 2, axis=1), cache", "return *np.split(out, 2, axis=1)[::-1], cache"),
    Mutant("encoder, decoder: the second layer without its activation", "ref/nets/vae.py", "    a2 = silu(h2)\n", "    a2 = h2\n"),
    Mutant("encoder, decoder: back through the second activation unchanged", "ref/nets/vae.py", 'linear_backward(silu_backward(da2, cache["h2"])', "linear_backward(da2"),
    Mutant("decoder_init: the encoder's numbers", "ref/nets/vae.py", "INIT_STREAM + 3", "INIT_STREAM"),
    # --- the shared coefficients and the Numba kernels
    Mutant("coefficients: sqrt(1 - abar) without the root", "kernels/coefficients.py", "return _table(_sqrt(abar_t), _sqrt(1 - abar_t))", "return _table(_sqrt(abar_t), 1 - abar_t)"),
    Mutant("coefficients: v's sign", "kernels/coefficients.py", "return _table(-_sqrt(1 - abar_t), _sqrt(abar_t))", "return _table(_sqrt(1 - abar_t), _sqrt(abar_t))"),
    Mutant("coefficients: large variance on the last step", "kernels/coefficients.py", "sigma2 = beta * (abar_s < 1)", "sigma2 = beta * (abar_s < 2)"),
    Mutant("coefficients: a variance used as a deviation", "kernels/coefficients.py", "_sqrt(alpha) * scale, _sqrt(sigma2)", "_sqrt(alpha) * scale, sigma2"),
    Mutant("coefficients: DDIM without its eta", "kernels/coefficients.py", "sigma = eta * _sqrt(", "sigma = _sqrt("),
    Mutant("coefficients: t below 0 wraps", "kernels/coefficients.py", "if not (0 <= low and high < abar.size)", "if not (high < abar.size)"),
    Mutant("coefficients: t = T + 1 allowed up to an IndexError", "kernels/coefficients.py", "high < abar.size):", "high <= abar.size):"),
    Mutant("coefficients: Adam's eps inside the root", "kernels/numba_cpu/optim.py", "(c[5] * np.sqrt(v) + c[6])", "(c[5] * np.sqrt(v + c[6]))"),
    Mutant("kernels: weight decay in the gradient", "kernels/numba_cpu/optim.py", "m = c[0] * m + c[1] * g\n", "m = c[0] * m + c[1] * (g + c[7] * p)\n"),
    Mutant("kernels: the tail of a noise chunk", "kernels/numba_cpu/philox.py", "for j in range((hi - lo + 3) // 4):\n        w0", "for j in range((hi - lo) // 4):\n        w0"),
    Mutant("kernels: the tail of normal", "kernels/numba_cpu/philox.py", "        out[whole:hi] = z[: hi - whole]", "        out[whole : hi - 1] = z[: hi - whole - 1]"),
    Mutant("kernels: nine rounds", "kernels/numba_cpu/philox.py", "    c0, c1, c2, c3 = _round(c0, c1, c2, c3, uint32(k0 + uint32(0x8FF34781)), uint32(k1 + uint32(0x96A522AD)))\n", ""),
    Mutant("kernels: no carry into the second counter word", "kernels/numba_cpu/philox.py", "uint32(block), uint32(block >> uint64(32)), s0, s1", "uint32(block), uint32(0), s0, s1"),
    Mutant("kernels: Box-Muller at u = 0", "kernels/numba_cpu/philox.py", "float32(float32(word) * TO_U + HALF_U)", "float32(float32(word) * TO_U)"),
    Mutant("kernels: a logarithm with a coefficient off by 1e-4", "kernels/numba_cpu/philox.py", "-0.1664128112,", "-0.1665128112,"),
    Mutant("kernels: a sine with a coefficient off by 1e-4", "kernels/numba_cpu/philox.py", "-5.167707821,", "-5.167807821,"),
    Mutant("kernels: quarter turns rounded down", "kernels/numba_cpu/philox.py", "np.float32(0.5), np.float32(2.5), np.float32(-2)", "np.float32(0.5), np.float32(2.0), np.float32(-2)"),
    Mutant("kernels: guidance from the wrong base", "kernels/numba_cpu/fused.py", "r[j] = ddim_mean(x[j], u[j] + w * (v[j] - u[j]), c, clipped, limit) + c[6]", "r[j] = ddim_mean(x[j], v[j] + w * (v[j] - u[j]), c, clipped, limit) + c[6]"),
    Mutant("kernels: noise of the chunk's start for a later row", "kernels/numba_cpu/fused.py", "x0[i:end], z[i - lo :]", "x0[i:end], z"),
    Mutant("kernels: noise on the last step is looked at", "kernels/numba_cpu/diffusion.py", "        if c[4] == 0:  # z", "        if c[4] < 0:  # z"),
    Mutant("kernels: a clamp that turns NaN into a number", "kernels/numba_cpu/diffusion.py", "x = limit if x > limit else x\n    return -limit if x < -limit else x", "x = x if x < limit else limit\n    return x if x > -limit else -limit"),
    Mutant("kernels: x0 clipped but eps not derived again", "kernels/numba_cpu/diffusion.py", "        eps = c[2] * xt + c[3] * x0\n", ""),
    Mutant("kernels: coefficients of the first row for all", "kernels/numba_cpu/diffusion.py", "        c0, c1 = o.dtype.type(table[0, row]), o.dtype.type(table[1, row])", "        c0, c1 = o.dtype.type(table[0, 0]), o.dtype.type(table[1, 0])"),
    Mutant("kernels: a missing 1/N", "kernels/numba_cpu/diffusion.py", "return float(partial.sum() / eps.size)", "return float(partial.sum())"),
    Mutant("kernels: streamed stores miss the tail of a line", "kernels/numba_cpu/stream.py", "for j in range(tail, o.size):", "for j in range(tail + 1, o.size):"),
    Mutant("kernels: out that overlaps an input is written in place", "kernels/numba_cpu/launch.py", "if not (memory.size == x.size and np.may_share_memory(memory[:1], x[:1])):", "if False:"),
    Mutant("kernels: threads skip the end", "kernels/numba_cpu/launch.py", "edges = [min(chunks * i // _threads * CHUNK, size)", "edges = [min(chunks * i // _threads * CHUNK, size - 1)"),
    Mutant("kernels: a strided array read as if it were contiguous", "kernels/numba_cpu/launch.py", "return array.reshape(-1) if array.flags.carray else", "return array.T.reshape(-1) if not array.flags.carray else"),
    Mutant("kernels: a sum in an order of the threads", "kernels/numba_cpu/launch.py", "chunks * i // _threads * CHUNK", "(chunks * CHUNK * i // _threads) // 4 * 4"),
    Mutant("compare: NaN passes", "kernels/compare.py", "return np.where(np.isnan(units), np.inf, units)", "return np.where(np.isnan(units), 0.0, units)"),
    Mutant("compare: the worst element is averaged away", "kernels/compare.py", "float(np.max(_units(out, expected), initial=0.0))", "float(np.mean(_units(out, expected)))"),
    Mutant("compare: vacuous tolerances pass", "kernels/compare.py", "if not same and error(wrong, expected) <= 1:", "if not same and error(wrong, expected) < 0:"),
    Mutant("registry: the truth of a float32 kernel made in float32", "kernels/registry.py", "exact = {name: _exact(value) for name, value in arguments.items()}", "exact = dict(arguments)"),
    # --- the Triton kernels, and the benchmark
    Mutant("triton: nine rounds", "kernels/triton_gpu/philox.py", "tl.static_range(10)", "tl.static_range(9)"),
    Mutant("triton: no carry into the second counter word", "kernels/triton_gpu/philox.py", "(block >> 32).to(tl.uint32)", "zero"),
    Mutant("triton: Box-Muller at u = 0", "kernels/triton_gpu/philox.py", "tl.fma(word.to(tl.float32), 2.3283064365386963e-10, 1.1641532182693481e-10)", "word.to(tl.float32) * 2.3283064365386963e-10"),
    Mutant("triton: words joined lane by lane", "kernels/triton_gpu/philox.py", "tl.join(tl.join(a, c), tl.join(b, d))", "tl.join(tl.join(a, b), tl.join(c, d))"),
    Mutant("triton: halves cut instead of rounded", "kernels/triton_gpu/philox.py", "bits + 0x7FFF + ((bits >> 16) & 1)", "bits"),
    Mutant("triton: the tail is written too", "kernels/triton_gpu/diffusion.py", "tl.store(out + base + i, stored(tl.fma(c0, x, c1 * y), out), mask=inside)", "tl.store(out + base + i, stored(tl.fma(c0, x, c1 * y), out))"),
    Mutant("triton: the row of the program's start for all", "kernels/triton_gpu/diffusion.py", "left + i >= n", "left + i * 0 >= n"),
    Mutant("triton: rows past the first of a program", "kernels/triton_gpu/diffusion.py", "(left.to(tl.int32) + i) // n", "i // n"),
    Mutant("triton: the two rows of a program changed over", "kernels/triton_gpu/diffusion.py", "tl.where(past, tl.load(column + after), tl.load(column + row))", "tl.where(past, tl.load(column + row), tl.load(column + after))"),
    Mutant("triton: a program's row from another tile", "kernels/triton_gpu/diffusion.py", "(n // BLOCK).to(tl.int32)", "((n + BLOCK) // BLOCK).to(tl.int32)"),
    Mutant("triton: halves' odd Philox blocks first", "kernels/triton_gpu/philox.py", "tl.join(tl.join(z0, z4)", "tl.join(tl.join(z4, z0)"),
    Mutant("triton: a clamp that turns NaN into a number", "kernels/triton_gpu/diffusion.py", "x = tl.where(x > limit, limit, x)", "x = tl.where(x < limit, x, limit)"),
    Mutant("triton: noise on the last step is looked at", "kernels/triton_gpu/diffusion.py", "inside & (sigma * tl.full((BLOCK,), 1.0, tl.float32) != 0)", "inside"),
    Mutant("triton: guidance from the wrong base", "kernels/triton_gpu/fused.py", "xs = ddpm_mean(x, tl.fma(w, v - u, u), c0", "xs = ddpm_mean(x, tl.fma(w, v - u, v), c0"),
    Mutant("triton: noise past the end counts in the loss", "kernels/triton_gpu/fused.py", "        d = tl.where(inside, d, 0.0)\n", ""),
    Mutant("triton: every tile of a program the first", "kernels/triton_gpu/fused.py", "        block = tl.program_id(0).to(tl.int64) * TILES + tile\n", "        block = tl.program_id(0).to(tl.int64) * TILES\n"),
    Mutant("triton: Adam's eps inside the root", "kernels/triton_gpu/optim.py", "tl.fma(c5, tl.sqrt(v), c6)", "c5 * tl.sqrt(v + c6)"),
    Mutant("triton: the average of the old weights", "kernels/triton_gpu/fused.py", "tl.fma(keep, a, take * x)", "tl.fma(keep, a, take * tl.load(p + base + i, mask=inside))"),
    Mutant("triton: the norm of the last array only", "kernels/triton_gpu/optim.py", "            first += count\n", "            first = count\n"),
    Mutant("triton: strides taken for contiguous", "kernels/triton_gpu/launch.py", "    if not contiguous:\n", "    if False:\n"),
    Mutant("triton: an overlapping out is written", "kernels/triton_gpu/launch.py", "if x.address != address and x.address < address", "if False and x.address < address"),
    Mutant("bench: a wrong kernel is timed", "bench/measure.py", '        return result | {"failure": f"{type(reason).__name__}: {reason}"}\n    contestants = {("kernel", ""): run, ("copy", ""): limits.copy', '        pass\n    contestants = {("kernel", ""): run, ("copy", ""): limits.copy'),
    Mutant("bench: the noise of a peer is taken on trust", "bench/peers.py", "if not abs(value - wanted) <= 6", "if False and not abs(value - wanted) <= 6"),
    Mutant("bench: a missed target passes", "bench/targets.py", "else value >= asked[c])]", "else True)]"),
    Mutant("bench: the ratio of the medians upside down", "bench/timing.py", "np.asarray(theirs) / np.asarray(ours)", "np.asarray(ours) / np.asarray(theirs)"),
]



def patched(mutant, source):
    """The source with the fault in it. Raises ValueError where the text to replace is not there exactly once, or where
    nothing changes, and SyntaxError where the result is no Python."""
    if source.count(mutant.old) != 1 or mutant.old == mutant.new:
        raise ValueError(f"{mutant.name}: {mutant.file} has {source.count(mutant.old)} times, not once:\n{mutant.old}")
    source = source.replace(mutant.old, mutant.new)
    compile(source, mutant.file, "exec")
    return source


def tests_of(mutant):
    """The paths of the test files about the mutant's file, those that exist."""
    place = next((place for place in TESTS if mutant.file.startswith(place)), None)  # the first that fits
    named = ["tests/" + name for name in TESTS.get(place, [])]
    return [path for path in named if (ROOT / path).exists()]


def run_tests(tree, tests):
    """pytest's exit status and the last lines that it wrote: 0 passed, 1 a test failed, 2 the files could not be read."""
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "NUMBA_CACHE_DIR": str(tree / ".numba"), "PYTHONPATH": str(tree)}
    done = subprocess.run([sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests], cwd=tree, env=environment,
                          capture_output=True, text=True)
    return done.returncode, (done.stdout + done.stderr).strip().splitlines()[-12:]


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", metavar="NAME", help="only those with NAME in their name or file")
    parser.add_argument("--list", action="store_true", help="list them and stop")
    args = parser.parse_args(argv)
    chosen = [m for m in MUTANTS if args.only in m.name or args.only in m.file]
    if args.list:
        print(*(f"{m.file:20} {m.name}" for m in chosen), sep="\n")
        return 0
    if not chosen:
        print(f"no mutant has {args.only!r} in its name or file")
        return 2
    faulty = {m: patched(m, (ROOT / m.file).read_text()) for m in chosen}  # every patch is tried before any test runs
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        tree = pathlib.Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".git", "__pycache__", ".hypothesis", ".pytest_cache", "*.egg-info", "out"))
        status, last = run_tests(tree, sorted({test for m in chosen for test in tests_of(m)}))
        if status != 0:
            print("the tests do not pass without any fault, so they cannot be tested:", *last, sep="\n    ")
            return 2
        survivors = []
        for mutant, source in faulty.items():
            began, path = time.perf_counter(), tree / mutant.file
            sound = path.read_text()
            shutil.rmtree(tree / ".numba", ignore_errors=True)  # no fault may be hidden by code compiled before it
            path.write_text(source)
            status, last = run_tests(tree, tests_of(mutant))
            path.write_text(sound)
            if status == 0:
                survivors.append(mutant)
            elif status > 2:
                print(f"pytest itself failed on {mutant.name}:", *last, sep="\n    ")
                return 2
            print(f"{'SURVIVED' if status == 0 else 'caught':9} {time.perf_counter() - began:4.1f} s  {mutant.file:20} {mutant.name}", flush=True)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
