"""The schedule of a model's folder: what its scheduler's config says, in this project's time, which counts from 1
where the folder's counts from 0.

Which solver the config names does not matter, for the caller picks the sampler; the names decide what a key that is not
there stands for.

Papers
    [LCM]   Luo et al., "Latent Consistency Models", 2023
    [ZSNR]  Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", 2024
"""
import numpy as np

from ref import schedules
from ref.shapes import integer

ALMOST = 2.0**-24  # abar[T] for what divides by it, where the folder has no signal at T: as in diffusers
BETAS = {"linear": schedules.linear_betas, "scaled_linear": schedules.scaled_linear_betas,
         "squaredcos_cap_v2": schedules.cosine_betas}
PREDICTS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}


def alphas(config, sampler):
    """abar of a folder. Where its last entry is 0 ([ZSNR] algorithm 1), `ddim` and `lcm` take it so, and the others,
    which divide by it, as 2^-24.

    config: of the scheduler. sampler: str, as in `times`. Returns (T + 1,) float64, abar[0] = 1.
    """
    T, kind = config["num_train_timesteps"], config["beta_schedule"]
    ends = () if kind == "squaredcos_cap_v2" else (config["beta_start"], config["beta_end"])
    abar = schedules.alpha_bar(BETAS[kind](T, *ends))
    if config["rescale_betas_zero_snr"]:
        abar = schedules.zero_terminal_snr(abar)
        abar[-1] = 0.0 if sampler in ("ddim", "lcm") else ALMOST
    return abar


def times(config, steps, spacing=None, sampler="ddim"):
    """The times of a sampler, descending: `ref.schedules.spaced_times` plus the folder's offset.

    The last is 0, the data; for `ddim` with set_alpha_to_one false it is 1, the folder's first entry, and a step that
    would go from there to itself is left out.

    config: of the scheduler. steps: int >= 1. spacing: "leading", "linspace", "trailing", all without an offset; or
    None for the folder's with its offset, and for "lcm" the times of its distillation, as even as there are, [LCM]
    section 4.3. sampler: "ddim", "dpmpp_2m", "euler" or "lcm".
    Returns (n + 1,) int64 in [0, T].
    Raises ValueError for steps out of range, another spacing, an offset that leads past T.
    """
    T, steps = config["num_train_timesteps"], integer(steps, "steps")
    if sampler == "lcm" and spacing is None:
        count = config["original_inference_steps"]
        if not 1 <= steps <= count:
            raise ValueError(f"steps: expected 1 <= steps <= {count} for lcm, got {steps}")
        learned = T // count * np.arange(count, 0, -1)
        return np.append(learned[np.floor(np.linspace(0, count, steps, endpoint=False)).astype(int)], 0)
    shifted = spacing is None and config["timestep_spacing"] == "leading"
    offset = config["steps_offset"] if shifted else 0
    visited = schedules.spaced_times(T, steps, config["timestep_spacing"] if spacing is None else spacing)[:-1] + offset
    if visited[0] > T:
        raise ValueError(f"steps: expected times of at most {T}, got {visited[0]} for {steps} steps, {offset} later")
    last = int(sampler == "ddim" and not config["set_alpha_to_one"])
    return np.append(visited[visited > last], last)
