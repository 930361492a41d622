"""What each function refuses: its worked example with wrong values for an argument, and the argument's name in the
message.

A key names the argument, or several that are all replaced; "f as student": the message calls it student. A value that
is a function makes the wrong value from the example's; a dict sets several arguments; `Type` marks what is a TypeError.
"""
import re
from dataclasses import dataclass
from types import FunctionType

import numpy as np
import pytest

from ref import gan, schedules
from tests.ref import worked


@dataclass(frozen=True)
class Type:
    """A value whose type is wrong: the function raises TypeError."""

    value: object


def row(a):
    """One example fewer."""
    return a[:1]


def none(a):
    return a[:0]


def wider(a):
    return np.ones((len(a), a.shape[1] + 1))


def half(f):
    """A callable whose output lacks the first axis."""
    return lambda x, *rest: x[0]


NAN, INF = np.nan, np.inf
B, THREE, SIX = np.ones(2), np.ones(3), np.full((2, 3), 0.5)
LONG, BEYOND = np.array([1, 2, 3]), np.array([1, 1001])  # times: one too many, one past T
ZERO_SNR = dict(t=1000, abar=schedules.zero_terminal_snr(schedules.alpha_bar(schedules.linear_betas())))
UNET = worked("nets.unet.unet")[1]
SHIFTED, RISING = np.array([0.9999, 0.9997, 0.9]), np.array([1.0, 0.2, 0.6, 0.9])
FLAT = np.array([1.0, 0.5, 0.5, 0.2])  # abar that stands still from t = 1 to 2
SEED = dict(seed=[-1, 2**64, Type(1.0), Type(None), Type(True)], stream=[-5, 2**64, Type("1")])
WEIGHTS = [dict(log_w=np.array([[0.0, 1.0], [-np.inf, -np.inf]])), dict(log_w=np.array([[np.inf, 0.0]]))]

REFUSED = {
    "schedules.linear_betas": {"T": [0], "start": [0.0], "meant_for": [0, -1]},
    "schedules.scaled_linear_betas": {"T": [-3], "end": [1.0], "meant_for": [0, 10**6]},
    "schedules.cosine_betas": {"T": [0], "offset": [-0.1, 1e308], "max_beta": [0.0, 1.5]},
    "schedules.alpha_bar": {"betas": [[], np.zeros((2, 2)), [0.1, 1.1], [0.1, NAN]]},
    "schedules.snr": {"abar": [[0.5, -0.1], NAN]},
    "schedules.zero_terminal_snr": {"abar": [[1, 0.5], [1, 0.5, 0.5]]},
    "schedules.spaced_times": {"steps": [0, 1001], "spacing": ["even"]},
    "schedules.karras_sigmas": {"steps": [0], "sigma_min": [0.0, 90.0, NAN], "sigma_max": [0.001, INF],
                                "rho": [0, INF, 1e-308]},
    "schedules.flow_times": {"steps": [0, Type(2.5)], "shift": [0, INF, 1e308]},
    "schedules.time_from_index": {"index": [-1, np.array([3, -2]), Type(0.5), Type(np.array([0.5]))]},
    "schedules.index_from_time": {"t": [0, np.array([3, 0]), Type(True)]},
    "diffusion.q_sample": {
        "eps": [row], "t": [LONG, BEYOND, -1, Type(1.0), Type(np.array([True, False])),
                            dict(x0=SIX.T, eps=SIX.T, t=LONG[:2])],
        "abar": [SHIFTED, [], RISING[1:]],
    },
    "diffusion.q_sample_backward": {"t": [1001]},
    "diffusion.posterior": {
        "xt": [row], "s": [250], "abar": [dict(t=2, s=1, abar=RISING), dict(t=3, s=2, abar=[1, 0.5, 0, 0]), SHIFTED],
    },
    "diffusion.x0_from_eps": {"eps": [row], "abar": [ZERO_SNR]},
    "diffusion.eps_from_x0": {"x0": [row], "abar": [dict(t=np.array([0, 2]))]},
    "diffusion.v_target": {"eps": [row]},
    "diffusion.x0_from_v": {"v": [row]},
    "diffusion.eps_from_v": {"v": [row]},
    "diffusion.score_from_eps": {"abar": [dict(t=0)]},
    "diffusion.eps_from_score": {"t": [1001, Type(1.0)]},
    "diffusion.ddpm_step": {
        "z": [row], "t": [1001], "s": [300, -1, Type(1.5), dict(t=np.array([3, 1]), s=np.array([2, 1]))],
        "abar": [ZERO_SNR, dict(t=2, s=1, abar=RISING)], "variance": ["middle"], "clip": [0, NAN, B, Type("1")],
    },
    "diffusion.ddim_step": {"eps_hat": [row], "z": [None], "s": [250], "eta": [1.5, -0.1, NAN], "clip": [-1]},
    "dpm_solver.dpmpp_2m_step": {
        "u": [None], "x0_last": [None, row], "x0_hat": [row], "u as s": [250], "abar": [
            dict(u=None, x0_last=None, t=2, s=1, abar=[1, 0, 0]),
            dict(u=None, x0_last=None, t=2, s=1, abar=[1, 1, 1])],
    },
    "diffusion.eps_loss": {"eps": [row], "eps_hat eps": [none]},
    "diffusion.eps_loss_backward": {"eps": [row], "eps_hat eps": [none], "dloss": [B, Type(None)]},
    "samplers.ddpm": {"variance": ["middle"], "clip": [0]},
    "samplers.ddim": {"eta": [1.5]},
    "samplers.unipc": {"order": [0, Type(1.5), Type("2")]},
    "samplers.euler": {"sigmas": [[1.0], [0, 1], [INF, 1, 0]]},
    "samplers.heun": {
        "sigmas": [[1, -1], [2, NAN, 0], [[2, 1]], [INF, 1, 0]], "s_churn": [-1, NAN],
        "noise": [lambda z: z[:, 0], None, row],
    },
    "samplers.flow_euler": {"times": [[1.0], [0, 1]]},
    "samplers.flow_heun": {"times": [[1.5, 0], [1, -0.5]]},
    "samplers.consistency": {
        "sigmas": [[], [0], dict(sigmas=[3, 1], sigma_min=2), dict(sigmas=[3, 1], sigma_min=-1)],
        "noise": [lambda z: z[:, 0], none],
    },
    "samplers.inpaint": {"known": [row], "mask": [row, lambda m: m / 2, lambda m: m * NAN]},
    "guidance.guide": {"cond": [row, 1.0], "w": [THREE, np.ones((2, 1))]},
    "guidance.guide_rescaled": {"uncond": [row], "phi": [1.5, NAN]},
    "guidance.dynamic_threshold": {"ratio": [-0.1], "max_value": [0.9, NAN]},
    "objectives.min_snr_weight": {"snr": [-1.0, NAN], "gamma": [0], "prediction": ["score"]},
    "objectives.normal_kl": {"mean2": [row]},
    "objectives.normal_kl_backward": {"dkl": [row]},
    "discretized.discretized_gaussian_log_likelihood": {"log_scales": [row], "x": [lambda x: x + 3]},
    "discretized.discretized_gaussian_log_likelihood_backward": {"dout": [row]},
    "objectives.learned_logvar": {
        "s": [250], "t": [Type(2.0)],
        "abar": [dict(t=2, s=1, abar=FLAT), dict(t=1, s=0, abar=FLAT), dict(t=1, s=0, abar=FLAT[:2])],
    },
    "objectives.learned_logvar_backward": {"t": [1001]},
    "objectives.vlb_terms": {
        "mean_hat": [row], "abar": [dict(t=2, s=1, abar=FLAT)], "x0 as x": [dict(s=0, x0=3 * SIX)],
        "x0 xt mean_hat logvar_hat as at least one element": [lambda a: a[:, :0]],
    },
    "objectives.vlb_terms_backward": {"dbits": [THREE]},
    "objectives.vlb_prior": {"abar": [np.ones(2), np.array([1.0, -0.5])]},
    "objectives.vlb_prior_backward": {"dbits": [1.0]},
    "edm.scalings": {"sigma": [0.0, [1.0, NAN]], "sigma_data": [0, INF]},
    "edm.loss_weight": {"sigma": [-1.0], "sigma_data": [-1]},
    "edm.sigma_from_abar": {"abar": [1.1, NAN]},
    "edm.abar_from_sigma": {"sigma": [-1.0]},
    "edm.sigma_at": {"t": [1001, -0.1], "abar": [dict(t=1, abar=[1, 0.5, 0]), dict(t=1, abar=[1, 0.5, 0.5])]},
    "edm.time_at": {"abar": [[[1, 0.5]], [1]], "sigma": [dict(sigma=1.5, abar=[1, 0.64, 0.36]), -0.1]},
    **dict.fromkeys(("edm.vp_from_ve", "edm.ve_from_vp"), {"sigma": [-1.0, NAN, THREE, np.ones((2, 1)), INF]}),
    "sde.vp_drift": {"t": [1.5, NAN, THREE]},
    "sde.vp_diffusion": {"beta_min": [0.0]},
    "sde.vp_marginal": {"beta_min": [30.0], "beta_max": [INF], "t": [-0.1]},
    "sde.ve_drift": {"t": [-1]},
    "sde.ve_diffusion": {"sigma_min": [dict(sigma_min=1.0, sigma_max=1.0)]},
    "sde.ve_marginal": {"sigma_min": [0.0]},
    "sde.reverse_drift": {"score": [row], "g": [np.ones((2, 2))]},
    "sde.probability_flow_drift": {"score": [row]},
    "sde.drift_and_jvp": {"h": [0]},
    "sde.log_likelihood": {
        "probe": [row], "times": [[1, 0], [0]], "prior_std": [0],
        "drift_jvp as drift": [lambda f: lambda x, t, probe: (x, probe[:, 0])],
    },
    "sde.bits_per_dimension": {"dims": [0], "bin_width": [-1.0]},
    "flow.interpolate": {"eps": [row], "t": [1.5, NAN, THREE]},
    "flow.velocity_target": {"eps": [row]},
    "flow.flow_loss": {"eps": [row], "v x0 eps": [none]},
    "flow.flow_loss_backward": {"v": [row], "v x0 eps": [none]},
    "flow.logit_normal_times": {"std": [0, NAN]},
    "flow.shift_times": {"shift": [0, -3.0, INF], "t": [[0.5, 1.1]]},
    "flow.straightness": {"xs": [row, lambda xs: xs[0, 0], lambda xs: xs[:, :0]]},
    "flow.x0_from_velocity": {"v": [row], "t": [-0.1]},
    "flow.eps_from_velocity": {"v": [row], "t": [np.ones((2, 1))]},
    "flow.velocity_from_x0": {"x0": [row], "t": [[0.5, 0]]},
    "flow.velocity_from_eps": {"eps": [row], "t": [[0.5, 1]]},
    "flow.abar_from_flow_time": {"t": [1.1]},
    "flow.flow_time_from_abar": {"abar": [-0.1, NAN]},
    "flow.vp_from_flow": {"t": [2]},
    "flow.flow_from_vp": {"t": [THREE]},
    "flow.reverse_time": {"t": [[0.2, 1.2]]},
    "consistency.boundary_scalings": {"sigma": [-1.0], "sigma_min": [-1.0], "sigma_data": [0.0]},
    "consistency.pseudo_huber_loss": {"b": [row], "c": [0], "a b": [none]},
    "consistency.pseudo_huber_loss_backward": {"b": [lambda b: b[:, :1]], "a b": [none]},
    "consistency.consistency_loss": {"target": [row], "sigma_s": [3.0], "sigma_t": [THREE]},
    "consistency.consistency_loss_backward": {"sigma_s": [np.ones((2, 1))]},
    "consistency.training_pair": {"eps": [row], "sigma_s": [-1]},
    "consistency.distillation_pair": {"sigma_s": [0], "denoise as denoised": [half]},
    "consistency.training_step": {"f as student": [half]},
    "consistency.distillation_step": {"c": [0]},
    "consistency.lognormal_sigma_weights": {"sigmas": [[1.0, 2.0], [1.0, 0.0]], "std": [0], "mean": [1e308, INF]},
    "consistency.discretization_steps": {"k": [1000], "s0": [dict(s0=10, s1=5)], "K": [dict(k=0, K=7)]},
    "philox.bits": SEED,
    "philox.uniform": SEED,
    "philox.normal": SEED,
    "philox.stream": {"what": ["lunch"], "step": [-1, dict(what="sampling", step=2**58)]},
    "philox.below": {"n": [0, -1, 2**32 + 1]},
    "philox.philox4x32": {
        "counter": [Type(np.zeros(4, np.int32)), np.zeros(3, np.uint32), np.uint32(0)],
        "key": [Type(np.zeros(2, np.uint64)), np.zeros((2, 4), np.uint32)], "rounds": [0],
    },
    "fused.q_sample_noise": {"t": [LONG, 1001], "seed": [-1], "stream": [2**64]},
    "fused.eps_loss_grad": {"eps": [row]},
    "fused.eps_loss_noise": {"eps_hat": [none], "seed": [-1], "stream": [2**64]},
    "fused.guided_ddpm_step": {
        "cond": [row], "uncond cond as eps_hat": [row], "s": [250], "variance": ["other"], "seed": [-1],
        "stream": [2**64],
    },
    "fused.guided_ddim_step": {"eta": [2.0], "clip": [-1.0], "seed": [-1], "stream": [2**64]},
    "fused.guided_dpmpp_2m_step": {"u": [None], "u as s": [250]},
    "fused.guided_flow_step": {"s": [0.8], "t": [1.5, np.ones(7)]},
    "fused.heun_step": {"sigma_next": [0.0, 2.0]},
    "fused.adam_ema_step": {"avg": [row], "step": [0], "beta2": [1.0], "eps": [-1e-8]},
    "fused.mlp_sample": {"guidance": [([0, 1], 2.0)], "predict": ["mu"], "times": [[4, 9]]},
    "fused.mlp_train": {"steps": [0], "batch": [0]},
    "layers.linear": {"w": [wider], "b": [row]},
    "layers.linear_backward": {"dy": [row]},
    "layers.embedding": {"index": [np.array([4]), np.array([-1]), Type(np.array([True])), Type(np.array([0.0]))]},
    "layers.embedding_backward": {"index": [np.array([2, -1, 0]), Type(np.array([True, False, True]))]},
    "layers.time_embedding": {"width": [5, -2, Type(8.0), dict(width=2, freq_shift=1)], "max_period": [0.0, INF]},
    "layers.cross_entropy": {"labels": [np.zeros(3, int), np.array([0, -1]), Type(np.array([True, False]))]},
    "layers.cross_entropy_backward": {"labels": [np.array([4, 0]), Type(np.array([0.0, 1.0]))], "dloss": [B]},
    "numerics.phi": {"k": [-1, Type(1.5)], "z": [0.5, NAN]},
    "layers.sincos_2d": {"width": [6]},
    "layers.rope": {"x": [SIX]},
    "layers.conv1d": {"w": [np.ones((3, 4, 2))], "b": [B], "stride": [0], "padding": [((1, 1),), (-1, 0)],
                      "dilation": [0], "x": [lambda x: x[:, :, :0]]},
    "layers.conv2d": {"w": [np.ones((3, 2, 3)), np.ones((3, 1, 3, 3))], "b": [np.ones((1, 3))], "stride": [(1, 2, 1)],
                      "padding": [1, (1, 1)], "x": [lambda x: x[:, :, :0]]},
    "layers.conv3d": {"w": [np.ones((3, 2, 3, 3))], "padding": [((1, 1), (1, 1))]},
    "layers.conv2d_backward": {"dy": [row]},
    "layers.group_norm": {"groups": [3, 0], "w": [THREE], "b": [np.ones((1, 4))]},
    "layers.layer_norm": {"w": [THREE], "b": [SIX]},
    "layers.rms_norm": {"w": [THREE]},
    "layers.attention": {"q k": [lambda a: a[0]], "k": [lambda k: k[..., :3]], "v": [lambda v: v[:, :1]],
                         "mask": [np.ones((3, 4)), np.ones((3, 3), bool), np.ones((2, 1, 2, 3, 4), bool)]},
    "layers.split_heads": {"heads": [3, 0]},
    "layers.multi_head": {"heads": [3]},
    "layers.feed_forward": {"act": ["relu"]},
    "layers.geglu": {"x": [lambda x: x[:, :5]]},
    "layers.upsample_nearest": {"factor": [0]},
    "layers.patchify": {"patch": [3, 0]},
    "layers.unpatchify": {"size": [(4, 4), (6, 5)]},
    "nets.text.text_encoder": {
        "ids as index": [np.full((2, 3), 9)], "ids": [lambda ids: np.pad(ids, ((0, 0), (0, 1)))],
    },
    "nets.t5.t5_encoder": {"ids as index": [np.full((2, 3), 12)],
                           "config as feed_forward_proj": [lambda c: c | {"feed_forward_proj": "relu"}]},
    "nets.t5.relative_buckets": {"buckets": [3, Type(8.0)], "max_distance": [2], "length": [Type(True)]},
    "nets.dit.dit": {"x": [lambda x: x[:, :, :2]], "labels as index": [np.array([0, 4])]},
    "nets.mlp.residual": {"labels as index": [np.array([0, 3])]},
    "nets.vae.encoder": {"x": [wider]},
    "nets.vae.decoder": {"z as x": [wider]},
    "nets.unet.unet": {
        "labels": [None], "t": [LONG], "context": [None],
        "config": [lambda c: c | {"only_cross_attention": [True, False]},
                   lambda c: c | {"class_embed_type": "timestep"}],
        "config as act_fn": [lambda c: c | {"act_fn": "relu"}, lambda c: c | {"act_fn": "gelu"}],
        "config as x": [dict(config=UNET["config"] | {"downsample_padding": 0}, x=UNET["x"][:, :, :7])],
        "params as labels": [lambda p: {name: part for name, part in p.items() if name != "class_embedding"}],
    },
    "nets.unet.transformer_block": {"context": [None]},
    "nets.init.unet_init": {"config": [lambda c: c | {"mid_block_type": "UNetMidBlock3D"}]},
    "nets.mmdit.mmdit": {"t": [LONG], "config as qk_norm": [lambda c: c | {"qk_norm": "l2"}],
                         "x": [np.ones((2, 1, 4, 12))]},
    "nets.gan.generator": {"z as x": [wider]},
    "nets.gan.discriminator": {"x": [wider], "act": ["relu"]},
    "nets.gan.discriminator_input_gradient": {"x": [wider], "act": ["relu"]},
    "optim.adam_step": {
        "g": [row, Type(lambda g: g.astype(np.float16))], "v": [row], "step": [0, Type(1.5), Type(NAN)],
        "lr": [-1.0, NAN, INF], "beta1": [1.0, -0.1, NAN], "beta2": [1.1, 1.0], "eps": [-1.0, NAN],
        "weight_decay": [-0.1, INF],
    },
    "optim.ema_step": {"p": [row, Type(lambda p: p.astype(np.float16))], "decay": [1.5, NAN, B]},
    "optim.clip_by_global_norm": {"max_norm": [0, NAN]},
    "vae.reparameterize": {"logvar": [row]},
    "vae.reparameterize_backward": {"eps": [row]},
    "vae.gaussian_kl": {"logvar": [row], "mu logvar": [lambda a: 1.0]},
    "vae.gaussian_kl_backward": {"dkl": [THREE]},
    "vae.bernoulli_nll": {"logits": [lambda a: a.T], "x": [lambda x: 2 * x - 1.5, lambda x: 255 * x]},
    "vae.bernoulli_nll_backward": {"x": [lambda x: -x], "dnll": [SIX]},
    "vae.gaussian_nll": {"logvar": [0.0]},
    "vae.gaussian_nll_backward": {"dnll": [np.ones((2, 1))]},
    "vae.elbo": {"kl": [THREE], "nll kl": [lambda a: SIX, none], "beta": [-1.0, NAN]},
    "vae.elbo_backward": {"beta": [-1.0], "kl": [SIX]},
    "vae.clamp_logvar": {"low": [30.0]},
    "vae.clamp_logvar_backward": {"low": [30.0], "logvar": [row]},
    "vae.importance_weighted_bound": {"log_w": [B, SIX[:, :0], *WEIGHTS]},
    "vae.importance_weighted_bound_backward": {"log_w": WEIGHTS},
    "gan.interpolate": {"fake": [row], "alpha": [np.ones((2, 1)), 0.5, np.array([0.5, 1.5])]},
    "gan.gradient_penalty": {
        "x": [none], "network as x": [lambda network: (lambda params, x: (x.sum(axis=1), None), None)],
    },
    "gan.r1_penalty": {"x": [lambda x: 1.0]},
    "divergence.optimal_discriminator": {"p_g": [SIX, lambda p: -p], "p_data": [lambda p: p * NAN]},
    "divergence.jensen_shannon": {"q": [B, np.array([1.5, -0.5, 0])], "p": [lambda p: 2 * p, dict(p=1.0, q=1.0)]},
    **{f"gan.{kind}discriminator_loss{end}": {"real_logits": [none], "fake_logits": [none]}
       for kind in ("", "hinge_", "least_squares_", "wasserstein_") for end in ("", "_backward")},
    **{f"gan.{name}{end}": {"fake_logits": [none]}
       for name in vars(gan) if re.search(r"generator_loss(_saturating)?$", name) for end in ("", "_backward")},
}  # fmt: skip
CASES = [(name, key, wrong) for name, keys in REFUSED.items() for key, values in keys.items() for wrong in values]


@pytest.mark.parametrize("name, key, wrong", CASES, ids=[f"{name}-{key}".replace(" ", ",") for name, key, _ in CASES])
def test_a_wrong_argument_is_refused_by_name(name, key, wrong):
    function, right = worked(name)
    replaced, _, shown = key.partition(" as ")
    replaced = replaced.split()
    error, wrong = (TypeError, wrong.value) if isinstance(wrong, Type) else (ValueError, wrong)
    if not isinstance(wrong, dict):
        made = {argument: wrong(right[argument]) if isinstance(wrong, FunctionType) else wrong for argument in replaced}
    else:
        made = wrong
    with pytest.raises(error, match=rf"\b{shown or '.*'.join(replaced)}\b"):
        function(**right | made)
