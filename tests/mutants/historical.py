"""Bugs that such code has had, in other projects or in this one: (what goes wrong, where and by which operator)."""
from tests.mutants.sites import Site

NOISE = [
    ("a wrong multiplier", "ref.philox.M0", "constant 0xD2511F53 -> 0xD2511F55"),
    ("nine rounds", "ref.philox.philox4x32", "constant 10 -> 9"),
    ("the key moves before the first round too", "ref.philox.philox4x32", "swap >"),
    ("the block number without its carry", "ref.philox.bits", "swap >>"),
    ("the seed's high word dropped", "ref.philox.bits", "swap >>", 3),
    ("a uniform number below 0", "ref.philox._u01", "swap +"),
    ("-ln u for -2 ln u", "ref.philox.normal", "constant 2.0 -> 1.0"),
    ("sine and cosine swapped", "ref.philox._sincospi", "swap returned"),
    ("the last pair of an odd size dropped", "ref.philox.normal", "constant 1 -> 0"),
]
SCHEDULES = [
    ("alpha-bar from a sum", "ref.schedules.alpha_bar", "call cumprod -> cumsum"),
    ("alpha-bar without the 1 at t = 0", "ref.schedules.alpha_bar", "constant 1.0 -> 0.5"),
    ("scaled linear without the square", "ref.schedules.scaled_linear_betas", "drop **"),
    ("cosine without the square", "ref.schedules.cosine_betas", "drop **"),
    ("cosine without its cap", "ref.schedules.cosine_betas", "drop minimum"),
    ("signal-to-noise upside down", "ref.schedules.snr", "swap /"),
    ("zero terminal SNR shifts abar and not its root", "ref.schedules.zero_terminal_snr", "drop sqrt"),
    ("leading times counted from 0", "ref.schedules.spaced_times", "constant 1 -> 0", 2),
    ("a time off by one from its index", "ref.schedules.time_from_index", "constant 1 -> 2"),
]
PROCESS = [
    ("a variance for a deviation", "ref.diffusion.q_sample", "drop sqrt", 2),
    ("gradients of signal and noise swapped", "ref.diffusion.q_sample_backward", "swap returned"),
    ("x0 from eps with the wrong sign", "ref.diffusion.x0_from_eps", "swap -"),
    ("v with the wrong sign", "ref.diffusion.v_target", "negate returned"),
    ("the score over the variance", "ref.diffusion.score_from_eps", "drop sqrt"),
    ("alpha-bar for alpha", "ref.diffusion.posterior", "drop sqrt", 2),
    ("noise on the last step", "ref.diffusion.ddpm_step_x0", "first of where"),
    ("a variance for a deviation in the step", "ref.diffusion.ddpm_step_x0", "drop sqrt"),
    ("the small variance always", "ref.diffusion.ddpm_step_x0", "always if"),
    ("no clip in DDIM", "ref.diffusion.ddim_step", "never if"),
    ("sigma a variance", "ref.diffusion.ddim_step", "drop sqrt"),
    ("the whole beta in the direction", "ref.diffusion._directions", "swap -"),
    ("a missing 1 / N", "ref.diffusion.eps_loss", "call mean -> sum"),
    ("a missing 2", "ref.diffusion.eps_loss_backward", "constant 2 -> 1"),
    ("guidance at the lower end of its interval too", "ref.guidance.interval_weight", "swap >"),
    ("no guidance at the upper end of its interval", "ref.guidance.interval_weight", "swap <=", 2),
    ("betas for T scaled the other way round", "ref.schedules._ends", "swap /"),
    ("NaN next to infinity is a norm", "ref.optim.clip_by_global_norm", "never if"),
    ("guided from the wrong branch", "ref.guidance.guide", "name uncond -> cond", 2),
    ("the paper's weight not converted", "ref.guidance.w_from_paper", "constant 1 -> 0"),
    ("one deviation for the whole batch", "ref.guidance.guide_rescaled", "constant 1 -> 0", 2),
    ("a quantile of x0 and not of its size", "ref.guidance.dynamic_threshold", "drop abs"),
]
SAMPLERS = [
    ("churn without its root", "ref.samplers.levels.heun", "drop sqrt", 2),
    ("gamma without its cap", "ref.samplers.levels.heun", "drop min"),
    ("churn divided by the number of levels", "ref.samplers.levels.heun", "constant 1 -> 0", 2),
    ("the corrector dropped", "ref.samplers.times.unipc", "never if"),
    ("away from the data", "ref.samplers.levels.flow_euler", "swap -"),
    ("a velocity at time 0", "ref.samplers.levels.flow_heun", "swap >"),
    ("the whole noise of the level", "ref.samplers.levels.consistency", "drop sqrt"),
    ("the mask the other way round", "ref.samplers.times.inpaint", "swap ==", 3),
]
MODELS = [
    ("a sum for the root of the squares", "ref.edm.scalings", "call hypot -> add"),
    ("a variance for a deviation", "ref.vae.reparameterize", "constant 2 -> 1"),
    ("KL without its half", "ref.vae.gaussian_kl", "constant 2 -> 1", 2),
    ("both gradients of the mean alike", "ref.vae.gaussian_nll_backward", "return the first twice"),
    ("a logarithm for the bias correction", "ref.optim._one_less_power", "drop expm1"),
    ("the average and its news swapped", "ref.optim.ema_step", "name avg -> p", 2),
]
NETWORKS = [
    ("a causal mask aligned to the other corner", "ref.layers.attention._seen", "name k -> q"),
    ("a causal mask that hides nothing", "ref.layers.attention._seen", "swap -"),
    ("a row that sees nothing divides by 0", "ref.layers.attention._weights", "second of where", 3),
    ("the softmax's own gradient forgotten", "ref.layers.attention.attention_backward", "delete statement", 2),
    ("scores without their root", "ref.layers.attention._weights", "drop **"),
    ("a variance about 0", "ref.layers.norm._standardised", "swap -"),
    ("a variance for a deviation", "ref.layers.norm._root_mean_square", "drop sqrt"),
    ("a wrong sign in the gradient of a norm", "ref.layers.norm._centred_gradient", "swap -"),
    ("scale without its 1", "ref.layers.norm.adaptive_norm", "constant 1 -> 0"),
    ("tanh for erf", "ref.layers.activations.gelu", "call normal_cdf -> tanh"),
    ("quick GELU without its 1.702", "ref.layers.activations.quick_gelu", "constant 1.702 -> 1.0"),
    ("rope that does not turn", "ref.layers.embed.rope", "swap -"),
    ("row for column", "ref.layers.embed.sincos_2d", "name column -> row"),
    ("symmetric padding in the encoder", "ref.nets.autoencoder.CORNER", "constant 0 -> 1", 5),
    ("one eps for all norms", "ref.nets.unet.EPS", "constant 1e-6 -> 1e-5"),
    ("the class taken off", "ref.nets.unet._condition", "swap +", 2),
    ("the places taken off", "ref.nets.dit.dit", "swap +"),
    ("scale and shift swapped", "ref.nets.mmdit.mmdit", "name shift -> scale"),
    ("the bias taken off", "ref.nets.t5._weights", "swap +"),
    ("a token behind itself", "ref.nets.t5.relative_buckets", "swap >"),
    ("the encoder's moments without the last convolution", "ref.nets.autoencoder.encode", "never if"),
    ("an image in [0, 1]", "ref.nets.autoencoder.tiny_decode", "constant 1 -> 0", 2),
]
KERNELS = [
    ("noise on the last step", "kernels.coefficients.ddpm_step", "swap <"),
    ("the seed's high word dropped", "kernels.coefficients.noise_key", "swap >>"),
    ("the newest prediction counted twice", "kernels.coefficients.dpmpp_2m_step", "constant 1 -> 2", 5),
    ("NaN passes", "kernels.tolerance.in_units", "second of where", 2),
    ("a vacuous tolerance passes", "kernels.tolerance.assert_matches", "drop guard", 2),
    ("a wrong multiplier", "kernels.numba_cpu.philox", "constant 0xD2511F53 -> 0xD2511F55"),
    ("the low part of ln 2 with the wrong sign", "kernels.numba_cpu.math._reduced", "swap -", 2),
    ("a thread too few", "kernels.numba_cpu.engine.run", "constant 1 -> 0", 4),
    ("a wrong multiplier", "kernels.triton_gpu.philox", "constant 0xD2511F53 -> 0xD2511F55"),
    ("a broken law passes", "kernels.check.laws.broken", "always if"),
    ("KL without its half", "kernels.triton_gpu.vae", "constant 0.5 -> 1.0"),
]  # fmt: skip

HISTORICAL = [
    (name, Site(target, operator, *(n or [1])))
    for name, target, operator, *n in NOISE + SCHEDULES + PROCESS + SAMPLERS + MODELS + NETWORKS + KERNELS
]
# mutants that cannot change a result, and why; each must still apply, so that an outdated line is found
SHAPE = "only the shape of the data is read there, and both have the same"
EQUIVALENT = {
    Site("ref.diffusion.x0_from_v", "name xt -> v", 2): SHAPE,
}
