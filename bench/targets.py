"""What each row must reach, as the plan says it. A target stays here when it is missed; the table says so."""

HEADLINE, SMALL, BEYOND_CACHE = (256, 3, 32, 32), (32, 784), (64, 3, 256, 256)
SHAPES = (HEADLINE, SMALL, BEYOND_CACHE)

# (operation, row, shape): {column: at least}; a peer's column in times faster, copy and triad in percent
TARGETS = {
    ("philox.normal", "", HEADLINE): {"numpy": 6, "torch": 3},
    ("diffusion.q_sample", "", HEADLINE): {"numpy": 4, "triad": 90},
    ("diffusion.q_sample", "", BEYOND_CACHE): {"numpy": 3, "torch": 1.8},
    ("fused.q_sample_noise", "", HEADLINE): {"numpy": 6, "torch": 3.5},
    ("fused.guided_ddim_step", "eta = 0", HEADLINE): {"numpy": 10, "compile": 2},
    ("fused.guided_ddpm_step", "clip", HEADLINE): {"numpy": 7, "torch": 4},
    ("fused.eps_loss_grad", "", HEADLINE): {"numpy": 1.8},
    ("optim.adam_step", "", HEADLINE): {"numpy": 5, "torch": 2},
}
EVERY_SMALL = {"numpy": 3}  # every row at (32, 784), the call included


def wanted(op, row, shape, backend="numba_cpu"):
    """{column: at least} of one row, empty where nothing is asked. op, row: names. shape: tuple. backend: name."""
    if backend != "numba_cpu":
        return {}
    return TARGETS.get((op, row, shape), EVERY_SMALL if shape == SMALL else {})


def judge(result):
    """What was asked of a row and whether it got there.

    result: a row of `bench.measure`. Returns (target, met): "" where nothing is asked; met is "yes", or "no" with what
    was missed, or "not measured" where a library that the target names is not installed.
    """
    asked = wanted(result["op"], result["row"], result["shape"], result["backend"])
    target = ", ".join(f"{c} {least:g}{'%' if c in PERCENT else 'x'}" for c, least in asked.items())
    if not asked or result["failure"]:
        return target, "no: FAIL" if asked else ""
    missed = [c for c, least in asked.items() if result[c] is not None and not result[c] >= least]
    if missed:
        return target, "no: " + ", ".join(missed)
    absent = [c for c in asked if result[c] is None]
    return target, "not measured: " + ", ".join(absent) if absent else "yes"


PERCENT = ("copy", "triad")
