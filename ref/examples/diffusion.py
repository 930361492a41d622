"""Worked examples of `ref.diffusion`."""


FUNCTIONS = {
    "log_snr_step": dict(abar_t=0.2, abar_s=0.8),
}
