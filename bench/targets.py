"""What each row must reach, as the plan says it. A target stays here when it is missed; the table says so."""

HEADLINE, MATRIX, SMALL, BEYOND_CACHE = (256, 3, 32, 32), (4096, 784), (32, 784), (64, 3, 256, 256)
LOGITS = ("vae", "gan")  # the modules whose operations are timed on a matrix, not on images

# (operation, row, shape): {column: at least}; a peer's column in times faster, copy and triad in percent
TARGETS = {
    ("philox.normal", "", HEADLINE): {"numpy": 6, "torch": 3},
    ("diffusion.q_sample", "", HEADLINE): {"numpy": 4, "triad": 90},
    ("diffusion.q_sample", "", BEYOND_CACHE): {"numpy": 3, "torch": 1.8},
    ("fused.q_sample_noise", "", HEADLINE): {"numpy": 6, "torch": 3.5},
    ("fused.guided_ddim_step", "eta = 0", HEADLINE): {"numpy": 10, "compile": 2},
    ("fused.guided_ddpm_step", "clip", HEADLINE): {"numpy": 7, "torch": 4},
    ("fused.guided_dpmpp_2m_step", "", HEADLINE): {"numpy": 8, "torch": 15},
    ("fused.guided_flow_step", "", HEADLINE): {"numpy": 8, "torch": 15},
    ("fused.heun_step", "", HEADLINE): {"numpy": 8, "torch": 15},
    ("fused.eps_loss_grad", "", HEADLINE): {"numpy": 1.8},
    ("optim.adam_step", "", HEADLINE): {"numpy": 5, "torch": 2},
}
EVERY_MATRIX = {"numpy": 6}  # every row at (4096, 784)
# On one H200, 805 MB an array; 206 MB
GPU_BIG, GPU_MATRIX = (64, 3, 1024, 1024), (65536, 784)
GPU_EVERY_MATRIX = {"copy": 90}
GPU_TARGETS = {
    ("fused.q_sample_noise", ""): {"copy": 95, "compile": 2.8},
    ("diffusion.q_sample", ""): {"copy": 100},
    ("fused.guided_ddpm_step", "clip"): {"copy": 100, "compile": 1.5},
    ("fused.guided_ddim_step", "eta = 0"): {"copy": 100},
    ("fused.guided_ddim_step", "eta = 1"): {"copy": 100},
    ("fused.guided_dpmpp_2m_step", ""): {"copy": 100},
    ("fused.guided_flow_step", ""): {"copy": 100},
    ("fused.heun_step", ""): {"copy": 100},
    ("fused.eps_loss_noise", ""): {"copy": 95},
    ("fused.adam_ema_step", ""): {"copy": 95, "torch": 1},
}
GPU_LAUNCH = 1.3  # at (32, 784): at most so many times Triton's bare launch
EVERY_SMALL = {"numpy": 3}  # every row at (32, 784), the call included


def shapes(op, backend):
    """The shapes in which an operation is timed. op, backend: names."""
    if op.split(".")[0] in LOGITS:
        return (MATRIX, SMALL) if backend == "numba_cpu" else (GPU_MATRIX, SMALL)
    return (HEADLINE, SMALL, BEYOND_CACHE) if backend == "numba_cpu" else (GPU_BIG, SMALL)


def wanted(result):
    """{column: at least (launch: at most)} of one row of `bench.measure`, empty where nothing is asked."""
    op, row, shape = result["op"], result["row"], result["shape"]
    if result["backend"] == "numba_cpu":
        return TARGETS.get((op, row, shape), {SMALL: EVERY_SMALL, MATRIX: EVERY_MATRIX}.get(shape, {}))
    if shape == SMALL:
        return {"launch": GPU_LAUNCH}
    if shape == GPU_MATRIX:
        return GPU_EVERY_MATRIX
    if shape == GPU_BIG and result["dtype"] != "float32":  # within 10 % of the float32 row
        return {"copy": 0.9 * result["float32_copy"]} if result["float32_copy"] else {}
    return GPU_TARGETS.get((op, row), {}) if shape == GPU_BIG else {}


def judge(result):
    """What was asked of a row and whether it got there.

    result: a row of `bench.measure`. Returns (target, met): "" where nothing is asked; met is "yes", or "no" with what
    was missed, or "not measured" where a library that the target names is not installed.
    """
    asked = wanted(result)
    target = ", ".join(f"{c} {'<= ' if c == 'launch' else ''}{least:.3g}{'%' if c in PERCENT else 'x'}" for c, least in asked.items())
    if not asked or result["failure"]:
        return target, "no: FAIL" if asked else ""
    got = {c: result[c] for c in asked if result[c] is not None}
    if missed := _missed(asked, got):
        return target, "no: " + ", ".join(missed)
    absent = [c for c in asked if c not in got]
    return target, "not measured: " + ", ".join(absent) if absent else "yes"


def judge_loop(backend, found):
    """The row with its target in words and whether it was met: "yes", "no" and by what not, or "" where that is not known. backend: name. found: of
    `bench.trajectory`. Returns a dict."""
    asked = LOOPS.get((backend, found["what"], found["precision"]), {}).get(found["batch"], {})
    got = {c: found[c] for c in asked if c in found}
    missed = _missed(asked, got)
    said = ", ".join(f"{least} us" if c == "us" else f"{c} {least}x" for c, least in asked.items())
    return found | dict(target=said, met="" if not asked or len(got) < len(asked) else f"no: {', '.join(missed)}" if missed else "yes")


def _missed(asked, got):
    return [c for c, value in got.items() if not (value <= asked[c] if c in AT_MOST else value >= asked[c])]


PERCENT, AT_MOST = ("copy", "triad"), ("launch", "us")
LOOP_COLUMNS = {"numpy": "NumPy", "numpy_hidden": "NumPy, the hidden way", "torch": "torch", "graph": "a CUDA graph", "compile": "torch.compile"}
LOOPS = {  # (backend, loop, precision): {batch: {column: at least so many times faster}, or us: at most}
    ("numba_cpu", "mlp_sample", "float32"): {batch: {"numpy": 1.4, "compile": 1.2} for batch in (64, 256, 1024)},
    ("numba_cpu", "mlp_train", "float32"): {128: {"numpy": 1.7, "torch": 1.4}},
    ("triton_gpu", "mlp_sample", "bfloat16"): {64: {"us": 150}, 256: {"us": 180}, 1024: {"us": 250}, 8192: {"us": 1000}},
    ("triton_gpu", "mlp_train", "bfloat16"): {128: {"us": 12}},
}
