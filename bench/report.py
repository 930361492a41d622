"""Rows of the benchmark as CSV, as tables on the terminal and as Markdown, so that no figure is typed by hand.

`python -m bench.report` writes every table into bench/results/README.md, from bench/results/*.csv and from the studies
`training` and `conformance`, and eight rows into README.md, between the markers of each page. With `--plot FILE` it
draws the sweep of sizes in a CSV (`python -m bench --plot ... --csv ...`).
"""
from ref import command

if __name__ == "__main__":
    command.begin("bench.report")  # before the imports that take a second
import argparse
import csv
import io
import sys
import textwrap
from pathlib import Path

from bench import files, plot
from bench.measure import NUMBERS
from bench.peers import COLUMNS
from bench.studies import conformance as study
from bench.studies import results

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"
MACHINE = ("machine", "caches", "threads", "date", "versions")
TEXT = ("op", "row", "kind", "backend", "shape", "dtype", "failure", "target", "met")
FIELDS = (*MACHINE, *TEXT[:7], *NUMBERS, *(f"{c}_how" for c in COLUMNS), *TEXT[7:])
EIGHT = (  # the rows of README.md
    ("diffusion.q_sample", ""), ("fused.guided_ddim_step", "eta = 0"), ("fused.heun_step", ""),
    ("fused.eps_loss_grad", ""), ("fused.adam_ema_step", ""), ("philox.normal", ""), ("vae.reparameterize_kl", ""),
    ("gan.discriminator_loss_grad", ""),
)  # fmt: skip
LARGE = {  # their shapes
    "numba_cpu": ((256, 3, 32, 32), (4096, 784)), "triton_gpu": ((64, 3, 1024, 1024), (65536, 784)),
}  # fmt: skip


# --- CSV --------------------------------------------------------------------------------------------------------------


def write_csv(path, rows, machine):
    """All rows or none. path: file. rows: of `bench.measure`, with "kind". machine: from `machine.describe`."""
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, FIELDS, extrasaction="raise")
    writer.writeheader()
    for row in rows:
        numbers = {n: "" if row[n] is None else row[n] if isinstance(row[n], int) else f"{row[n]:.6g}" for n in NUMBERS}
        writer.writerow(machine | row | {"shape": "x".join(map(str, row["shape"]))} | numbers)
    files.deliver(Path(path).parent, {Path(path).name: table.getvalue().encode()})


def read_csv(path):
    """The rows of a CSV that `write_csv` wrote, now or with fewer columns. path: file. Returns rows, machine. Raises
    ValueError, which names the file, for another one."""
    rows = results.table(path, {*MACHINE, *TEXT, "median_us"})
    if more := set(rows[0]) - set(FIELDS):
        raise ValueError(f"{path}: expected the columns of `python -m bench --csv`, got {', '.join(sorted(more))} too")
    machine = {name: rows[0][name] for name in MACHINE}
    for n, row in enumerate(rows, 1):
        row |= dict.fromkeys(set(FIELDS) - set(row), "")
        try:
            row |= {name: float(row[name]) if row[name] else None for name in NUMBERS}
            row["shape"] = tuple(map(int, row["shape"].split("x")))
            _, _ = row["op"].split(".")
        except ValueError as reason:
            raise ValueError(f"{path}: expected an operation, its shape and numbers in row {n}, got {reason}") from None
        for name in MACHINE:
            del row[name]
    return rows, machine


# --- tables -----------------------------------------------------------------------------------------------------------


def _time(us):
    return f"{us:.1f} us" if us < 1000 else f"{us / 1000:.2f} ms"


def _short(value):
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


# title: the field, how it is written, what it means
SHOWN = {
    "dtype": ("dtype", str, ""),
    "median": ("median_us", _time, "median: of interleaved rounds; of training, of one step"),
    "spread %": ("spread", "{:.0f}".format, "spread %: interquartile range of the rounds over their median"),
    **{f"x {title}": (column, _short, "") for column, title in COLUMNS.items()},
    "GB/s": ("gbs", _short, "GB/s: every input read once and every output written once"),
    "% copy": ("copy", "{:.0f}".format, "% copy: of the speed of a copy of as many bytes, NumPy's or the driver's"),
    "% triad": ("triad", "{:.0f}".format, "% triad: of the speed of the STREAM triad of as many bytes"),
    "x launch": ("launch", _short, "x launch: host time of a call over that of its bare Triton launches"),
    "GFLOP/s": ("gflops", _short, "GFLOP/s: of sampling, the operations of hidden-space sampling"),
    "% peak": ("peak", "{:.0f}".format, "% peak: of one core's multiply-adds on registers"),
    "error": ("error", "{:.2f}".format, "error: the worst of the row, in units of the allowed one"),
    "target": ("target", str, "target: copy 85% for numpy 4x says that copy is the bound: at its speed a row would be "
               "less than 4 times as fast as NumPy, and percent of copy is asked"),
    "met": ("met", str, ""),
}
LEFT = ("op", "dtype", "target", "met")
PEERS = (
    "x NumPy and others: times faster than the fastest of the library's variants, all timed in the same rounds. "
    "NumPy: the NumPy backend with out=, or its temporaries kept; noise by SFC64. torch: eager, or with out= "
    "and in place; Adam is its fused AdamW"
)


def groups(rows):
    """[(title, rows)] of the rows that stand in one table: those of a backend and shape, and the loops."""
    found = {}
    for row in (row for row in rows if row["kind"] != plot.SWEEP):
        found.setdefault((row["backend"], "networks" if row["gflops"] else str(row["shape"])), []).append(row)
    several = len({backend for backend, _ in found}) > 1
    return [(f"{title} on {backend}" if several else title, mine) for (backend, title), mine in found.items()]


def table(rows):
    """The rows of one table as text: (header, lines). A column that is blank in every row is left out."""
    fields = {title: field for title, (field, *_) in SHOWN.items()}
    titles = [t for t, field in fields.items() if t == "median" or any(row[field] not in (None, "") for row in rows)]
    if len({row["dtype"] for row in rows}) == 1:
        titles.remove("dtype")
    lines = []
    for row in rows:
        name = row["op"].split(".")[1] + (f", {row['row']}" if row["row"] else "")
        cells = {t: "" if row[SHOWN[t][0]] in (None, "") else SHOWN[t][1](row[SHOWN[t][0]]) for t in titles}
        lines.append([name, *(cells | ({"median": "FAIL"} if row["failure"] else {})).values()])
    return ["op", *titles], lines


def folded(header, lines, width):
    """The columns of a table in parts that are no wider than width, each with the first column."""
    widths = [max(map(len, column)) + 3 for column in zip(header, *lines)]
    part = [0]
    for i in range(1, len(header)):
        if len(part) > 1 and sum(widths[k] for k in part) + widths[i] > width:
            yield part
            part = [0]
        part.append(i)
    yield part


def memory_lines(rows):
    """What copy and triad reached, a line a shape, so that the percentages can be read. rows: as in `groups`."""
    lines = []
    for title, group in groups(rows):
        timed = [row for row in group if row["copy_gbs"] is not None]
        if timed:
            mb = sorted(row["bytes"] / 1e6 for row in timed)
            speeds = {k: sorted(row[k] for row in timed) for k in ("copy_gbs", "triad_gbs") if timed[0][k] is not None}
            said = [f"{k[:-4]} {v[len(v) // 2]:.1f} GB/s ({v[0]:.1f} to {v[-1]:.1f})" for k, v in speeds.items()]
            lines.append(f"{title}: {', '.join(said)}, moving {mb[0]:.3g} to {mb[-1]:.3g} MB")
    return lines


def legend(rows):
    """What the columns that the tables of rows have mean, a line each."""
    titles = {title for _, group in groups(rows) for title in table(group)[0][1:]}
    peers = [PEERS] if titles & {f"x {title}" for title in COLUMNS.values()} else []
    return peers + [said for title, (_, _, said) in SHOWN.items() if said and title in titles]


def title(machine):
    """The machine, threads and date in one line. machine: from `read_csv` or `machine.describe`."""
    threads = f", {machine['threads']} thread{'' if machine['threads'] == '1' else 's'}" if machine["threads"] else ""
    return f"{machine['machine']}{threads}, {machine['date']}"


def print_tables(rows, machine, width):
    """The tables on stdout, by rich; the columns of a wide one are folded, never cut. rows, machine: as above."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console(width=10**4, highlight=False, soft_wrap=True)
    console.print(title(machine), style="bold", markup=False)
    for name, group in groups(rows):
        header, lines = table(group)
        console.print(name, style="bold", markup=False)
        for part in folded(header, lines, width):
            sheet = Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
            for i in part:
                sheet.add_column(header[i], justify="left" if header[i] in LEFT else "right", no_wrap=True)
            for line in lines:
                sheet.add_row(*(line[i] for i in part), style="red" if "FAIL" in line else None)
            console.print(sheet, "")
    for line in (*memory_lines(rows), *legend(rows), machine["versions"]):
        console.print(textwrap.fill(line, width, subsequent_indent="  "), markup=False)
    for row in (row for row in rows if row["failure"]):
        said = f"FAIL {row['op']} {row['row']} {row['shape']} on {row['backend']}, not timed: {row['failure']}"
        console.print(said, style="red", markup=False)


# --- Markdown ---------------------------------------------------------------------------------------------------------


def _markdown(header, lines, left=LEFT):
    rule = [":--" if name in left else "--:" for name in header]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *lines))


def markdown(rows, machine):
    """The tables of one CSV as Markdown. rows, machine: of `read_csv`."""
    parts = [f"## {title(machine)}", f"{machine['versions']}."]
    for name, group in groups(rows):
        parts += [f"### {name}", _markdown(*table(group))]
    return "\n\n".join([*parts, "\n".join(f"- {line}" for line in (*memory_lines(rows), *legend(rows)))])


def eight_rows(found):
    """The table of README.md. found: [(rows, machine)], of `read_csv`."""
    lines, rows = [], [row for mine, _ in found for row in mine if row["kind"] == "row" and row["dtype"] == "float32"]
    for op, label in EIGHT:
        mine = [row for row in rows if (row["op"], row["row"]) == (op, label)]
        cpu, gpu = (next((r for r in mine if r["backend"] == b and r["shape"] in LARGE[b]), {}) for b in LARGE)
        error = max((row["error"] for row in mine if row["error"] is not None), default=None)
        cells = zip((cpu.get("numpy"), cpu.get("copy"), gpu.get("copy"), error), (".1f", ".0f", ".0f", ".2f"))
        name = f"`{op.split('.')[1]}`" + (f", {label}" if label else "")
        lines.append([name, *("" if value is None else format(value, form) for value, form in cells)])
    header = ["operation", "CPU, times NumPy", "CPU, % of copy", "GPU, % of copy", "worst error / bound"]
    return _markdown(header, lines, left=header[:1])


def training(path):
    """The table of the study `training`: the distance of the weights from the reference's and, in brackets, the worst
    weight in units of the rule."""
    rows = results.table(path, {"who", "steps", "apart", "units"})
    for row in rows:
        row["who"] = "NumPy, the worst of four orders" if row["who"].startswith("NumPy") else row["who"]
    names, steps = (list(dict.fromkeys(row[c] for row in rows)) for c in ("who", "steps"))
    lines = []
    for step in steps:
        lines.append([f"{int(step):,}"])
        for name in names:
            mine = [row for row in rows if (row["who"], row["steps"]) == (name, step)]
            apart, units = (max((float(row[c]) for row in mine if row[c]), default=None) for c in ("apart", "units"))
            lines[-1].append(f"{apart:.1e}" + ("" if units is None else f" ({units:.3f})"))
    return _markdown(["after steps", *names], lines)


def conformance(path):
    """The counts of the study `conformance`, and its table. path: its CSV."""
    rows = results.table(path, study.CELLS)
    differ = sum(row["verdict"] == "differs" for row in rows)
    count = f"of {len(rows)} comparisons {len(rows) - differ} agree and {differ} differ."
    return f"{rows[0]['versions']}: {count}\n\n{study.markdown(rows).rstrip()}"


def _path(text):
    return Path(command.named(text))


def main(argv=None):
    """`python -m bench.report`. argv: the command line's words. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__.split("\n\n")[1])
    page, readme = RESULTS / "README.md", ROOT / "README.md"
    parser.add_argument("csv", nargs="*", help="files of `python -m bench --csv` (default: bench/results/*.csv)")
    parser.add_argument("--page", default=page, type=_path, help="for all tables (default: bench/results/README.md)")
    parser.add_argument("--readme", default=readme, type=_path, help="for eight rows (default: README.md)")
    parser.add_argument("--plot", type=command.named, metavar="FILE",
                        help="draw the sweep of the CSV instead; the pages stay")
    words = parser.parse_args(argv)
    try:
        paths = words.csv or sorted(RESULTS.glob("*.csv"))
        if not paths:
            raise ValueError("no CSV in bench/results; make one with `python -m bench --csv bench/results/NAME.csv`")
        found = [read_csv(path) for path in paths]
        if words.plot:
            if reason := plot.why_not(words.plot):
                raise ValueError(f"--plot: {reason}")
            plot.draw([row for rows, _ in found for row in rows], found[0][1], words.plot)
            return 0
        parts = {part.__name__: part(RESULTS / "studies" / f"{part.__name__}.csv") for part in (training, conformance)}
        parts["tables"] = "\n\n".join(markdown(*each) for each in found)
        pages = [(words.page, parts), (words.readme, {"bench": eight_rows(found)})]
        for path, text in [(path, _filled(path, parts)) for path, parts in pages]:
            files.write_atomic(path, text.encode())
            print(f"{path}: tables of {', '.join(map(str, paths))}")
    except (OSError, ValueError, ModuleNotFoundError) as reason:
        print(f"python -m bench.report: {command.in_words(reason)}", file=sys.stderr)
        return 2
    return 0


def _filled(path, parts):
    """The text of a page with its parts filled in. path: file. parts: {name: text}."""
    try:
        text = path.read_text("utf-8")
        for name, content in parts.items():
            text = files.fill(text, name, content)
    except ValueError as reason:  # no UTF-8, no markers
        raise ValueError(f"{path}: {reason}") from None
    return text


if __name__ == "__main__":
    command.end(main())
