from kernels.plain import mlp_train  # noqa: F401
