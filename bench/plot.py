"""The picture of a sweep of sizes: bandwidth against the bytes that a call moves."""
import io
from pathlib import Path

import numpy as np

from bench import files

SWEEP = "sweep"  # the kind of a picture's rows
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7"]


def why_not(path):
    """Why a picture cannot be written to path, or "". path: file, whose ending says the format."""
    from matplotlib.backend_bases import FigureCanvasBase

    known, ending = FigureCanvasBase.get_supported_filetypes(), Path(path).suffix[1:] or "png"
    if ending not in known:
        return f"expected a file that ends in one of {', '.join(known)}, got {path}"
    return files.why_unwritable(path)


def draw(rows, machine, path):
    """Kernels and NumPy as lines, the copy limit as another. rows: of `bench.measure`, with "kind". path: file."""
    rows = sorted((r for r in rows if r["kind"] == SWEEP and r["gbs"] is not None), key=lambda r: r["bytes"])
    if not rows:
        none = "expected a sweep of sizes, got no row of one that was timed; `python -m bench --plot FILE` times one"
        raise ValueError(f"{path}: {none}")
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 8, "font.family": "sans-serif", "axes.linewidth": 0.6, "savefig.dpi": 300})
    figure, axes = plt.subplots(figsize=(6.3, 3.8), layout="constrained")
    numpy = dict(lw=0.9, ms=2.6, mfc="white")
    for name, colour in zip(dict.fromkeys((r["op"], r["row"], r["backend"]) for r in rows), COLOURS * 9):
        mine = [r for r in rows if (r["op"], r["row"], r["backend"]) == name]
        size = [r["bytes"] for r in mine]
        label = name[0].split(".")[1] + (f", {name[1]}" if name[1] else "")
        axes.plot(size, [r["gbs"] for r in mine], "-o", color=colour, lw=1.4, ms=3.2, label=label)
        if any(r["numpy"] is not None for r in mine):
            theirs = [np.nan if r["numpy"] is None else r["gbs"] / r["numpy"] for r in mine]
            axes.plot(size, theirs, "--o", color=colour, **numpy)
    size, copy = _binned([r["bytes"] for r in rows], [r["copy_gbs"] for r in rows])
    axes.plot(size, copy, "-", color="black", lw=2.2, zorder=1, label="copy limit")
    if any(r["numpy"] is not None for r in rows):
        axes.plot([], [], "--o", color="0.4", label="NumPy (same colour)", **numpy)
    axes.set_xlim(size[0] / 1.4, size[-1] * 1.4)
    _style(axes, machine)
    picture = io.BytesIO()
    figure.savefig(picture, format=Path(path).suffix[1:] or "png")
    plt.close(figure)
    files.write_atomic(path, picture.getvalue())


def _style(axes, machine):
    """Logarithmic axes in bytes and GB/s, the sizes of the caches, the legend and the machine."""
    from matplotlib.ticker import EngFormatter, FixedLocator, FuncFormatter, NullLocator

    axes.set(xscale="log", yscale="log", xlabel="bytes moved by one call", ylabel="achieved bandwidth (GB/s)")
    words, (low, high) = machine["caches"].split(), axes.get_xlim()
    for level, size in zip(words[::2], words[1::2]):
        held = int(size.rstrip("K")) << 10
        if low < held < high:
            axes.axvline(held, color="0.75", lw=0.7, zorder=0)
            place = dict(xycoords=("data", "axes fraction"), xytext=(-2, -3), textcoords="offset points")
            axes.annotate(level, (held, 1), ha="right", va="top", color="0.45", **place)
    axes.xaxis.set_major_locator(FixedLocator([1e3 * 10**k for k in range(8)]))
    axes.xaxis.set_major_formatter(EngFormatter(unit="B"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.grid(axis="y", color="0.92", lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=1, loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=2.6)
    threads = f", {machine['threads']} thread(s)" if machine["threads"] else ""
    axes.set_title(f"{machine['machine']}{threads}, {machine['date']}, float32", loc="left", fontsize=8)


def _binned(size, value):
    """One point for sizes within 30 % of each other: the median."""
    size, value = np.asarray(size, float), np.asarray(value, float)
    group = np.concatenate([[0], np.cumsum(np.diff(np.log(size)) > 0.3)])
    return [[float(np.median(a[group == g])) for g in np.unique(group)] for a in (size, value)]
