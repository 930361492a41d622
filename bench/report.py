"""Rows of the benchmark as a table, a CSV, a picture, and as the README's table, so that no figure is typed by hand.

`python -m bench.report` writes the rows of bench/results/*.csv, and of bench/results/studies/trajectory*.csv, between the README's markers. With `--plot FILE` it
draws the picture of a CSV that holds a sweep of sizes (`python -m bench --plot ... --csv ...`).
"""
import argparse
import csv
import io
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

from bench import targets
from bench.peers import COLUMNS

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
LOOPS_BEGIN, LOOPS_END = "<!-- trajectory:begin -->", "<!-- trajectory:end -->"
TRAINING_BEGIN, TRAINING_END = "<!-- training:begin -->", "<!-- training:end -->"
SWEEP = "sweep"  # the row name of a picture's points
TEXT = ("machine", "caches", "threads", "date", "versions", "op", "row", "kind", "backend", "shape", "dtype", "failure")
NUMBERS = ("bytes", "median_us", "gbs", "copy_gbs", "triad_gbs", "copy", "triad", "launch", "float32_copy", *COLUMNS)
FIELDS = (*TEXT, *NUMBERS, *(f"{c}_how" for c in COLUMNS), "target", "met")


def write_csv(path, rows, machine):
    """All rows or none: written beside `path`, then moved there.

    path: file. rows: of `bench.measure`, with "kind". machine: from `machine.describe`. Raises OSError where the folder is not there.
    """
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, FIELDS, extrasaction="raise")
    writer.writeheader()
    for row in rows:
        target, met = targets.judge(row) if row["kind"] != SWEEP else ("", "")
        shape = "x".join(map(str, row["shape"]))
        writer.writerow(machine | row | {"shape": shape, "target": target, "met": met} | {n: _written(row[n]) for n in NUMBERS})
    whole(path, table.getvalue().encode())


def whole(path, content):
    """Write a file so that it is there with all of its content, or as it was: beside its place, then moved. path: file. content: bytes.

    Raises OSError where the folder is not there.
    """
    path = Path(path)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(beside, 0o644)
        os.replace(beside, path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def _written(value):
    return "" if value is None else value if isinstance(value, int) else f"{value:.6g}"


def read_csv(path):
    """The rows of a CSV that `write_csv` wrote. path: file. Returns rows, machine. Raises ValueError where it is another kind of file."""
    with open(path, newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != FIELDS:
            raise ValueError(f"{path}: expected the columns that `python -m bench --csv` writes, got {reader.fieldnames}")
        rows = list(reader)
    machine = {name: rows[0][name] for name in TEXT[:5]} if rows else {}
    for row in rows:
        row["shape"] = tuple(map(int, row["shape"].split("x")))
        row |= {n: float(row[n]) if row[n] else None for n in NUMBERS}
        for name in TEXT[:5]:
            del row[name]
    return rows, machine


def table(rows):
    """The rows as text: (header, lines). A peer's column is there where any row has it. rows: as above, sweeps left out."""
    rows = [row for row in rows if row["kind"] != SWEEP]
    present = [c for c in COLUMNS if any(row[c] is not None for row in rows)]
    several = len({row["backend"] for row in rows}) > 1
    more = {c: title for c, title in {"triad": "% triad", "launch": "x launch"}.items() if any(row[c] is not None for row in rows)}
    header = ["op", "shape", "dtype", "median", *(f"x {COLUMNS[c]}" for c in present), "GB/s", "% copy", *more.values(), "target", "met"]
    lines = []
    for row in rows:
        name = row["op"].split(".")[1] + (f", {row['row']}" if row["row"] else "") + (f" [{row['backend']}]" if several else "")
        target, met = targets.judge(row)
        if row["failure"]:
            lines.append([name, str(row["shape"]), row["dtype"], "FAIL", *[""] * (len(header) - 6), target, met])
            continue
        numbers = [_time(row["median_us"]), *(_ratio(row[c]) for c in present), _ratio(row["gbs"]), _percent(row["copy"])]
        numbers += [_ratio(row[c]) if c == "launch" else _percent(row[c]) for c in more]
        lines.append([name, str(row["shape"]), row["dtype"], *numbers, target, met])
    return header, lines


def _time(us):
    return f"{us:.1f} us" if us < 1000 else f"{us / 1000:.2f} ms"


def _ratio(value):
    return "" if value is None else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _percent(value):
    return "" if value is None else f"{value:.0f}"


def memory_lines(rows):
    """What copy and triad reached, a line a shape, so that the percentages can be read. rows: as above."""
    lines = []
    for shape in dict.fromkeys(row["shape"] for row in rows if row["kind"] != SWEEP):
        timed = [row for row in rows if row["shape"] == shape and row["copy_gbs"] is not None]
        if timed:
            mb = sorted(row["bytes"] / 1e6 for row in timed)
            speeds = {k: sorted(row[k] for row in timed) for k in ("copy_gbs", "triad_gbs") if timed[0][k] is not None}
            said = ", ".join(f"{k[:-4]} {v[len(v) // 2]:.1f} GB/s ({v[0]:.1f} to {v[-1]:.1f})" for k, v in speeds.items())
            lines.append(f"{shape}: {said}, moving {mb[0]:.3g} to {mb[-1]:.3g} MB")
    return lines


GPU_LEGEND = (
    "x torch: times faster than the faster of eager and out=/in place on the same GPU; Adam: fused AdamW. GB/s counts every input read "
    "once and every output written once; copy is the driver's copy from device to device of as many bytes in the same rounds. "
    "(32, 784): host time a call of many in a row; x launch: times the bare Triton launches that the call makes."
)
LEGEND = (
    "x NumPy: times faster than NumPy (the faster of kernels.numpy_cpu with out= and the same with its temporaries kept; noise by "
    "the faster of SFC64 and PCG64). x torch: the faster of eager and out=/in place; Adam: fused AdamW. GB/s counts every input "
    "read once and every output written once; copy and triad move as many bytes in the same rounds of the same run."
)


def _legend(rows):
    return GPU_LEGEND if any(row["backend"] == "triton_gpu" for row in rows) else LEGEND


def _title(machine):
    threads = f", {machine['threads']} thread(s)" if machine["threads"] else ""
    return f"{machine['machine']}{threads}, {machine['date']}"


def print_table(rows, machine):
    """The table on stdout, by rich. rows, machine: as above."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 190, highlight=False)
    header, lines = table(rows)
    sheet = Table(title=_title(machine), title_justify="left", pad_edge=False)
    for name in header:
        sheet.add_column(name, justify="left" if name in ("op", "shape", "dtype", "target", "met") else "right", no_wrap=name in ("op", "shape", "median"))
    for i, line in enumerate(lines):
        last = i + 1 == len(lines) or lines[i + 1][1] != line[1]
        sheet.add_row(*line, style="red" if "FAIL" in line else None, end_section=last)
    console.print(sheet)
    for line in (*memory_lines(rows), _legend(rows), machine["versions"]):
        console.print(line, markup=False)
    for row in rows:
        if row["failure"]:
            console.print(f"FAIL {row['op']} {row['row']} {row['shape']} on {row['backend']}, not timed: {row['failure']}", style="red", markup=False)


def markdown(rows, machine):
    """The same as Markdown, the first shape in sight and the others folded away. rows, machine: as above."""
    header, lines = table(rows)
    left = {"op", "shape", "dtype", "target", "met"}
    out = [f"**{_title(machine)}.** {machine['versions']}.", ""]
    shapes = list(dict.fromkeys(line[1] for line in lines))
    for i, shape in enumerate(shapes):
        if i == 1:
            out += ["", f"<details><summary>The same at {' and '.join(shapes[1:])}</summary>", ""]
        chosen = [line for line in lines if line[1] == shape]
        out += ["", *("| " + " | ".join(cells) + " |" for cells in (header, [":--" if h in left else "--:" for h in header], *chosen))]
    out += ["", "</details>"] if len(shapes) > 1 else []
    return "\n".join([*out, "", *(f"- {line}" for line in memory_lines(rows)), f"- {_legend(rows)}"])


def filled(readme, text, begin=BEGIN, end=END):
    """readme with what stands between the markers replaced. readme, text, begin, end: str.

    Raises ValueError where the markers are not there exactly once, in order.
    """
    if readme.count(begin) != 1 or readme.count(end) != 1 or readme.index(begin) > readme.index(end):
        raise ValueError(f"expected one {begin} and after it one {end}")
    before, rest = readme.split(begin)
    return f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}"


def loops_markdown(path):
    """The table of a CSV that `python -m bench.trajectory --csv` wrote, under what it says of the machine. path: file. Returns text."""
    rows = list(csv.DictReader(Path(path).read_text().splitlines()))
    columns = {"op": "what", "batch": "batch", "precision": "precision", "us": "us", "GFLOP/s": "gflops", "% of a core": "peak_share"}
    columns |= {f"x {said}": c for c, said in targets.LOOP_COLUMNS.items()} | {"target": "target", "met": "met"}
    columns = {said: c for said, c in columns.items() if any(row[c] for row in rows)}
    shown = {"peak_share": "{:.0%}", "us": "{:,.0f}", "gflops": "{:,.0f}"} | dict.fromkeys(targets.LOOP_COLUMNS, "{:.2f}")
    found = [f"**{_title(rows[0])}.** {rows[0]['versions']}.", "", "", f"| {' | '.join(columns)} |"]
    found.append(f"| {' | '.join(':--' if c in ('what', 'precision', 'target', 'met') else '--:' for c in columns.values())} |")
    for row in rows:
        found.append(f"| {' | '.join(shown[c].format(float(row[c])).rstrip('%') if c in shown and row[c] else row[c] for c in columns.values())} |")
    return "\n".join(found)


def training_markdown(path):
    """The table of the study `training`: how far the weights are from the reference's and, in brackets, the worst weight in units of the rule; of NumPy's
    orders the worst. path: its CSV. Returns text."""
    rows = list(csv.DictReader(Path(path).read_text().splitlines()))
    for row in rows:
        row["who"] = "NumPy, the worst of four orders" if row["who"].startswith("NumPy") else row["who"]
    names, steps = (list(dict.fromkeys(row[c] for row in rows)) for c in ("who", "steps"))
    found = [f"| after steps | {' | '.join(names)} |", f"| --: |{' --: |' * len(names)}"]
    for step in steps:
        said = []
        for name in names:
            these = [row for row in rows if (row["who"], row["steps"]) == (name, step)]
            apart, units = (max((float(row[c]) for row in these if row[c]), default=None) for c in ("apart", "units"))
            said.append(f"{apart:.1e}" + ("" if units is None else f" ({units:.3f})"))
        found.append(f"| {int(step):,} | {' | '.join(said)} |")
    return "\n".join(found)


def plot(rows, machine, path):
    """The picture: bandwidth against bytes moved by a call, kernels and NumPy, the copy limit as a line.

    rows: sweeps among them. machine: as above. path: file, its ending says the format. Raises ValueError where there is no sweep.
    """
    rows = sorted((r for r in rows if r["kind"] == SWEEP and r["gbs"] is not None), key=lambda r: r["bytes"])
    if not rows:
        raise ValueError("no sweep of sizes among the rows; `python -m bench --plot FILE --csv FILE` measures one")
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    plt.rcParams.update({"font.size": 8, "font.family": "sans-serif", "axes.linewidth": 0.6, "savefig.dpi": 300})
    figure, axes = plt.subplots(figsize=(6.3, 3.8), layout="constrained")
    colours = ["#0072B2", "#D55E00", "#009E73", "#CC79A7"]
    for name, colour in zip(dict.fromkeys((r["op"], r["row"], r["backend"]) for r in rows), colours * 9):
        mine = [r for r in rows if (r["op"], r["row"], r["backend"]) == name]
        size = [r["bytes"] for r in mine]
        label = name[0].split(".")[1] + (f", {name[1]}" if name[1] else "")
        axes.plot(size, [r["gbs"] for r in mine], "-o", color=colour, lw=1.4, ms=3.2, label=label)
        if any(r["numpy"] is not None for r in mine):
            axes.plot(size, [np.nan if r["numpy"] is None else r["gbs"] / r["numpy"] for r in mine], "--o", color=colour, lw=0.9, ms=2.6, mfc="white")
    size, copy = _binned([r["bytes"] for r in rows], [r["copy_gbs"] for r in rows])
    axes.plot(size, copy, "-", color="black", lw=2.2, zorder=1, label="copy limit")
    if any(r["numpy"] is not None for r in rows):
        axes.plot([], [], "--o", color="0.4", lw=0.9, ms=2.6, mfc="white", label="NumPy (same colour)")
    axes.set(xscale="log", yscale="log", xlabel="bytes moved by one call", ylabel="achieved bandwidth (GB/s)")
    lo, hi = size[0] / 1.4, size[-1] * 1.4
    axes.set_xlim(lo, hi)
    for level, held in _caches(machine["caches"]).items():
        if lo < held < hi:
            axes.axvline(held, color="0.75", lw=0.7, zorder=0)
            axes.annotate(level, (held, 1), xycoords=("data", "axes fraction"), xytext=(-2, -3), textcoords="offset points", ha="right", va="top", color="0.45")
    axes.xaxis.set_major_locator(FixedLocator([1e3 * 10**k for k in range(8)]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v / 1e9:g} GB" if v >= 1e9 else f"{v / 1e6:g} MB" if v >= 1e6 else f"{v / 1e3:g} kB"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.grid(axis="y", color="0.92", lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=1, loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=2.6)
    axes.set_title(f"{_title(machine)}, float32", loc="left", fontsize=8)
    picture = io.BytesIO()
    figure.savefig(picture, format=Path(path).suffix[1:] or "png")
    plt.close(figure)
    whole(path, picture.getvalue())


def _binned(size, value):
    """One point for sizes within 30 % of each other: the median."""
    size, value = np.asarray(size, float), np.asarray(value, float)
    group = np.concatenate([[0], np.cumsum(np.diff(np.log(size)) > 0.3)])
    return [[float(np.median(a[group == g])) for g in np.unique(group)] for a in (size, value)]


def _caches(text):
    words = text.split()
    return {level: int(size.rstrip("K")) << 10 for level, size in zip(words[::2], words[1::2])}


def main(argv=None):
    """`python -m bench.report`. argv: the command line's words. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.report", description="Write the README's table of results from CSV files.")
    parser.add_argument("csv", nargs="*", help="files that `python -m bench --csv` wrote (default: bench/results/*.csv)")
    parser.add_argument("--readme", default=str(ROOT / "README.md"), help="the file with the markers")
    parser.add_argument("--plot", metavar="FILE", help="draw the sweep of the (one) CSV instead; the README stays")
    words = parser.parse_args(argv)
    paths = words.csv or sorted(map(str, (ROOT / "bench" / "results").glob("*.csv")))
    try:
        if not paths:
            raise ValueError("no CSV in bench/results; make one with `python -m bench --csv bench/results/NAME.csv`")
        found = [read_csv(path) for path in paths]
        if words.plot:
            plot([row for rows, _ in found for row in rows], found[0][1], words.plot)
            return 0
        readme = Path(words.readme)
        text = filled(readme.read_text(), "\n\n".join(markdown(*each) for each in found))
        loops = sorted((ROOT / "bench" / "results" / "studies").glob("trajectory*.csv"))
        text = filled(text, "\n\n".join(map(loops_markdown, loops)), LOOPS_BEGIN, LOOPS_END) if LOOPS_BEGIN in text else text
        text = filled(text, training_markdown(ROOT / "bench" / "results" / "studies" / "training.csv"), TRAINING_BEGIN, TRAINING_END) if TRAINING_BEGIN in text else text
    except (OSError, ValueError) as reason:
        print(f"python -m bench.report: {reason}", file=sys.stderr)
        return 2
    whole(readme, text.encode())
    print(f"{readme}: the tables are those of {', '.join(map(str, [*paths, *loops]))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
