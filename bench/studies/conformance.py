"""The schedulers and losses of diffusers and torch against the reference.

Single steps go through the checker of `kernels.check`, with alpha-bar given in float64, so that it is the equation that
is compared. Whole samplers run their own loop on a model that is known exactly, data of N(0, 1/4), against
`ref.samplers`; where the two differ, the convention that is said to explain it is computed too, by the functions of
`ref`, and has to reproduce their result.

`python -m bench.studies.conformance` prints the differences as a table in Markdown, from the results that are there.
"""
import importlib
import importlib.metadata
import warnings
from pathlib import Path

import numpy as np

from bench.studies import pictures, results
from ref import command, schedules

SETTINGS = dict(examples=200)  # of the checker, for each operation and dtype
T, SHAPE, DATA_STD = 1000, (4, 3, 8, 8), 0.5
ABAR = schedules.alpha_bar(schedules.linear_betas())
SPACINGS = ("leading", "linspace", "trailing")
STEPS = (50, 30)  # one divides T, one does not
AGREES = 4  # ulps a step
CELLS = (  # of a row of the table, but for its settings
    "theirs", "ours", "dtype", "verdict", "ulps", "example", "convention", "ulps_explained", "documented", "versions",
)  # fmt: skip
COLUMNS = {
    "compared": "", "agree": "", "differ": "", "reproduced": "by the reference with one convention changed",
    "caused": "differences whose cause the checker names", "documented": "differences that theirs documents",
    "worst_ulps": "of those that agree",
}  # fmt: skip


def rows(this):
    """Compare all. Raises ModuleNotFoundError where torch or diffusers is not installed."""
    try:
        import diffusers
        import torch
    except ModuleNotFoundError as reason:
        need = f'{reason.name} is not installed: pip install -e ".[peers]"'
        raise ModuleNotFoundError(need, name=reason.name) from None
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    diffusers.utils.logging.set_verbosity_error()
    names = (f"bench.studies.conformance_{part}" for part in ("steps", "functions", "samplers"))
    jobs, found = [job for name in names for job in importlib.import_module(name).jobs(this.examples)], []
    this.total = len(jobs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for job in jobs:
            found += job()
            this.tick()
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "diffusers", "numpy"))
    return ([row | {"versions": versions} for row in found],)


def row(theirs, ours, dtype, ulps, steps=1, example="", why="", explained=None, documented=""):
    """One line of the table: their name and ours, the worst difference, the smallest example that shows it, the
    convention, the ulps that are left when ours does as why says, and where theirs says so."""
    return {
        "theirs": theirs, "ours": ours, "dtype": dtype, "verdict": "agrees" if ulps <= AGREES * steps else "differs",
        "ulps": ulps, "example": example, "convention": why,
        "ulps_explained": "" if explained is None else explained, "documented": documented,
    }  # fmt: skip


def ulps(theirs, ours, dtype):
    """The largest difference in units of the last place of the largest element. theirs, ours: arrays."""
    theirs, ours = np.asarray(theirs, np.float64), np.asarray(ours, np.float64)
    return float(np.max(np.abs(theirs - ours)) / (np.finfo(dtype).eps * np.max(np.abs(ours))))


def in_float32(betas):
    """Alpha-bar from 1 - beta in float32, multiplied up in float64 and stored in float32, as torch.cumprod does."""
    return np.cumprod((1 - betas.astype(np.float32)).astype(np.float64)).astype(np.float32)


def eps_model(x, t):
    """What the noise is, on average, in x at time t, where the data are N(0, DATA_STD^2). x: NumPy or torch."""
    return x * float(np.sqrt(1 - ABAR[t]) / (ABAR[t] * DATA_STD**2 + 1 - ABAR[t]))


def denoise(x, sigma):
    """What the data are, on average, in x = x0 + sigma eps."""
    return x * (DATA_STD**2 / (DATA_STD**2 + float(sigma) ** 2))


def velocity(x, t):
    """The velocity of the flow, on average."""
    t = float(t)
    return x * ((t - (1 - t) * DATA_STD**2) / ((1 - t) ** 2 * DATA_STD**2 + t**2))


def shown(rows):
    """The counts that the text shows, by what is compared with."""
    found, operation = [], lambda row: row["ours"].partition(" at its ")[0]
    for kind in ("all", *dict.fromkeys(map(operation, rows))):
        mine = [row for row in rows if kind in ("all", operation(row))]
        agree, apart = ([row for row in mine if row["verdict"] == verdict] for verdict in ("agrees", "differs"))
        explained = [row["ulps_explained"] for row in apart]
        found.append({
            "compared": kind, "agree": len(agree), "differ": len(apart),
            "reproduced": sum(left != "" and left <= 64 * AGREES for left in explained),
            "caused": sum(left == "" and row["convention"] != "" for left, row in zip(explained, apart)),
            "documented": sum(row["documented"][:3] == "yes" for row in apart),
            "worst_ulps": max((float(row["ulps"]) for row in agree), default=""),
        })  # fmt: skip
    return found


def markdown(rows):
    """The differences as a table in Markdown, then what agrees. rows: as text."""
    lines = ["| theirs | ours | smallest example | convention that explains it | documented |", "| :-- " * 5 + "|"]
    for r in (r for r in rows if r["verdict"] == "differs"):
        left = f" ({float(r['ulps_explained']):.2g} ulps left)" if r["ulps_explained"] else ""
        cells = (f"{r['theirs']} ({r['dtype']})", r["ours"], r["example"], r["convention"] + left)
        lines.append(f"| {' | '.join(cells)} | {r['documented'].partition(':')[0] or 'no'} |")
    agree = [f"{r['theirs']} ({r['dtype']}, {float(r['ulps']):.2g})" for r in rows if r["verdict"] == "agrees"]
    return "\n".join(lines) + f"\n\nAgree, with the worst difference in ulps: {'; '.join(agree)}.\n"


def draw(rows):
    """A mark for each comparison, how far apart the two are."""
    figure, axis = pictures.pyplot().subplots(figsize=(8.6, 0.14 * len(rows) + 1), layout="constrained")
    for verdict, colour in (("agrees", "#0072B2"), ("differs", "#D55E00")):
        mine = {i: np.clip(row["ulps"], 1e-2, 1e16) for i, row in enumerate(rows) if row["verdict"] == verdict}
        axis.plot(list(mine.values()), list(mine), "o", color=colour, label=verdict)
    axis.set_yticks(range(len(rows)), [f"{r['theirs']} ({r['dtype']})" for r in rows], fontsize=5)
    axis.set(xscale="log", ylim=(len(rows) - 0.4, -0.6))
    axis.set_xlabel("worst difference from the reference (ulps of the dtype)")
    axis.grid(axis="x", color="0.92", lw=0.6)
    axis.legend(loc="lower right")
    return figure


if __name__ == "__main__":
    command.begin("bench.studies.conformance")
    path = Path(__file__).parents[1] / "results" / "studies" / "conformance.csv"
    print(markdown(results.table(path, CELLS)), end="")
