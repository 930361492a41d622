"""How a study runs and what it leaves behind: NAME.png, NAME.csv and NAME.txt. The text is a function of the CSV.

A study is a module: its docstring, SETTINGS, COLUMNS, `rows(this)`, which returns its rows and what `draw(rows, ...)`
draws, and perhaps `shown(rows)`, the rows of its text, and `findings(rows)`, its sentences. `this` has the settings,
out, and tick; rows sets this.total.
Every CSV ends with `settings`, what the study was run with, and `run_seconds` (empty where nobody recorded it).
"""
import csv
import importlib
import io
import itertools
import math
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

from bench import files
from bench.studies import pictures

ENDINGS = ("png", "csv", "txt")
PARTS = ("seconds", "train_seconds", "sample_seconds", "cpu_seconds")  # columns of what was timed by itself
REPEATED = {"calls", "steps", "step", "sampler_steps", "seed", "what", "from_t"}  # columns that say what a row is about
LARGE = 1 << 25  # bytes that a study may write
WIDTH = 80  # characters of a line of text


def run(name, out, progress, **change):
    """Run a study and write its three files. progress: called with (done, total). change: of its SETTINGS."""
    study, done, began = importlib.import_module(f"bench.studies.{name}"), itertools.count(1), time.perf_counter()
    writable(out, [f"{name}.{ending}" for ending in ENDINGS])
    if unknown := ", ".join(change.keys() - study.SETTINGS.keys()):
        raise ValueError(f"{name}: expected changes of its settings {', '.join(study.SETTINGS)}, got {unknown}")
    settings = study.SETTINGS | change
    this = SimpleNamespace(out=Path(out), **settings)
    this.tick = lambda: progress(next(done), this.total)
    rows, *drawn = study.rows(this)
    write(name, out, rows, study.draw(rows, *drawn), settings, time.perf_counter() - began)


def write(name, out, rows, figure, settings, taken):
    """The three files, each atomically, the text last. rows: dicts, at least one; floats get six digits."""
    words = (f"{key} {' '.join(map(str, v)) if isinstance(v, tuple) else v}" for key, v in settings.items())
    keys, own = dict.fromkeys(key for row in rows for key in row), {"settings": ", ".join(words), "run_seconds": taken}
    table, picture = written([{key: row.get(key, "") for key in keys} | own for row in rows]), png(figure)
    contents = picture, table.encode(), text(name, parsed(table)).encode()
    files.deliver(out, {f"{name}.{ending}": content for ending, content in zip(ENDINGS, contents)})


def read(path):
    """The rows of the CSV of a study, numbers as int or float. Raises as `table` does."""
    return [{k: _number(v) for k, v in row.items()} for row in table(path, {"settings"})]


def table(path, columns):
    """The rows of a CSV as text, at least one. columns: that it must have. Raises ValueError, which names the file,
    where it has not, OSError where it cannot be read."""
    try:
        rows = list(csv.DictReader(io.StringIO(Path(path).read_text("utf-8"), newline=""), strict=True))
    except (ValueError, csv.Error) as reason:  # no UTF-8, a quote without its partner
        raise ValueError(f"{path}: expected a CSV, got {reason}") from None
    lacking = ", ".join(sorted(set(columns) - set(rows[0] if rows else ())))
    if lacking:
        raise ValueError(f"{path}: expected a CSV with {lacking}, got {len(rows)} rows without")
    if uneven := [n for n, row in enumerate(rows, 1) if None in row or None in row.values()]:
        raise ValueError(f"{path}: expected rows of {len(rows[0])} columns, got another number in row {uneven[0]}")
    return rows


def writable(out, names, size=LARGE):
    """Raise OSError, before the work, where the files could not be written after it. names: of the files. size: bytes
    that must be free."""
    Path(out).mkdir(parents=True, exist_ok=True)
    for name in names or ["results"]:
        if reason := files.why_unwritable(Path(out) / name, size):
            raise OSError(f"--out: {reason}")


def hint(reason):
    """What to install, to end a message with. reason: an exception. Returns text, empty where nothing is missing."""
    return ': pip install -e ".[study]"' if isinstance(reason, ModuleNotFoundError) and "pip" not in str(reason) else ""


def text(name, rows):
    """The text of a study: its settings, seconds and sentences, its table, what the columns mean. Returns text."""
    study = importlib.import_module(f"bench.studies.{name}")
    took = seconds(rows)
    lines = [*_wrapped(f"Settings: {rows[0]['settings']}."), *[f"Run time: {took}."] * bool(took), ""]
    said = study.findings(rows) if hasattr(study, "findings") else []
    lines += [line for sentence in said for line in _wrapped(sentence)] + [""] * bool(said)
    lines += columns(study.shown(rows) if hasattr(study, "shown") else rows, study.COLUMNS)
    meanings = [line for key, said in study.COLUMNS.items() if said for line in _wrapped(f"{key}: {said}")]
    return "\n".join(lines + [""] * bool(meanings) + meanings) + "\n"


def seconds(rows):
    """What a run took, in words: its seconds, or the sum of the parts that were timed; "" where nobody recorded it."""
    whole, keys = rows[0].get("run_seconds", ""), [key for key in PARTS if key in rows[0]]
    parts = sum(sum({row[key] for row in rows if row[key] != "" and row[key] == row[key]}) for key in keys)
    return f"{whole:.0f} s" if whole != "" else f"at least {parts:.0f} s" if parts else ""


def columns(rows, names):
    """Rows as lines of aligned columns; those that do not fit side by side follow below, next to the first ones
    again."""
    names = list(names)
    first = [i for i, name in enumerate(names) if i == 0 or name in REPEATED]
    cells = [[name, *(_cell(row.get(name, "")) for row in rows)] for name in names]
    widths, lines, blocks = [max(map(len, column)) for column in cells], [], []
    for i in [i for i in range(len(names)) if i not in first]:
        if not blocks or sum(widths[j] + 2 for j in blocks[-1]) + widths[i] > WIDTH:
            blocks.append(list(first))
        blocks[-1].append(i)
    for block in blocks:
        lines += [""] * bool(lines)
        lines += ["  ".join(f"{row[i]:{'>' if i else '<'}{widths[i]}}" for i in block).rstrip() for row in zip(*cells)]
    return lines


def written(rows):
    """Rows as CSV text. rows: dicts with the same keys."""
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    return table.getvalue()


def parsed(table):
    """The rows of CSV text, numbers as int or float."""
    return [{k: _number(v) for k, v in row.items()} for row in csv.DictReader(io.StringIO(table, newline=""))]


def png(figure):
    """The bytes of a picture. figure: matplotlib's, closed afterwards."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=130)
    pictures.pyplot().close(figure)
    return picture.getvalue()


def _number(text):
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _cell(value):
    return ("" if math.isnan(value) else f"{value:.4g}") if isinstance(value, float) else str(value)


def _wrapped(line):
    return textwrap.wrap(line, WIDTH, subsequent_indent="  ", break_long_words=False)
