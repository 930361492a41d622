"""Worked examples of `ref.dpm_solver`."""

FUNCTIONS = {
    "log_snr_step": dict(abar_t=0.2, abar_s=0.8),
    "unipc_step": dict(
        predictions=lambda x0_hat, x0_last: [x0_hat, x0_last], times=lambda t, u: [t, u], end=lambda x0: x0,
    ),
}
