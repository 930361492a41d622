"""What each row must reach: the reader of targets.csv, which also says in which shapes operations are timed.

A line of targets.csv holds for one operation, or for all whose data are "images" or a "matrix"; row `*` is every row.
Its value is the least that its column must reach, of AT_MOST the most; without a value the shape is timed and nothing
is demanded. A line with a dtype holds for that dtype only, a line without one for float32. A target stays in the file
when it is missed, and the tables show it.

Where even a kernel at the speed of copy would miss a target in times of a peer, copy is the bound, and the row is
judged by percent of copy.
"""
import csv
import functools
from pathlib import Path

from bench.peers import COLUMNS

FILE = Path(__file__).parent / "targets.csv"
PERCENT, AT_MOST = ("copy", "triad"), ("launch", "median_us")
HALVES = ("float16", "bfloat16")
AT_COPY = 85  # percent of copy that a row must reach where copy is the bound
HALF = "half_copy"  # of float16 and bfloat16: copy, in percent of the float32 row's


@functools.cache
def lines():
    """targets.csv as a list of dicts, shapes as tuples of ints, values as floats or None."""
    with open(FILE, newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    for line in found:
        line["shape"] = tuple(map(int, line["shape"].split("x")))
        line["value"] = float(line["value"]) if line["value"] else None
    return found


def _holding(result, kind):
    mine = [line for line in lines() if line["backend"] == result["backend"] and line["op"] in (result["op"], kind)]
    mine = [line for line in mine if line["row"] in ("*", result["row"])]
    return [line for line in mine if result.get("shape") in (None, line["shape"])]


def shapes(op, row, backend, kind):
    """The shapes in which a row is timed. op: name. row: its label. backend: name. Returns tuples."""
    return list(dict.fromkeys(line["shape"] for line in _holding(dict(op=op, row=row, backend=backend), kind)))


def demands(result, kind, column):
    """Whether a row's shape has a target in the column, whatever its dtype. result: with op, row, backend, shape."""
    return any(line["column"] == column for line in _holding(result, kind))


def wanted(result, kind):
    """{column: least (or most) value} of one row of `bench.measure`, empty where nothing is demanded."""
    mine = [line for line in _holding(result, kind) if line["value"] is not None]
    own = {line["column"]: line["value"] for line in mine if line["dtype"] == result["dtype"]}
    found = {line["column"]: line["value"] for line in mine if not line["dtype"]}
    percent = found.pop(HALF, None)
    if result["dtype"] in HALVES:
        found = {"copy": percent / 100 * result["float32_copy"]} if percent and result["float32_copy"] else {}
    return found | own


def past_copy(result, demanded):
    """The columns of peers that even a kernel at the speed of copy would not beat by the demanded factor, without those
    of peers that are faster than copy. result: a row of `bench.measure`. demanded: from `wanted`."""
    at_copy = {c: 100 * result[c] / result["copy"] for c in demanded if c in COLUMNS and result[c] and result["copy"]}
    return [c for c, times in at_copy.items() if demanded[c] > times >= 1]


def judge(result, kind):
    """The target of a row in words, and whether it was met. result: a row of `bench.measure`. kind: as in `shapes`."""
    demanded = wanted(result, kind)
    past = {c: demanded.pop(c) for c in past_copy(result, demanded)}
    demanded |= {"copy": AT_COPY} if past and "copy" not in demanded else {}
    words = {c: f"{'<= ' if c in AT_MOST else ''}{v:.3g}{'%' if c in PERCENT else 'x'}" for c, v in demanded.items()}
    words |= {c: f"<= {v:g} us" for c, v in demanded.items() if c == "median_us"}
    words |= {c: f"{v / 1000:g} TFLOP/s" for c, v in demanded.items() if c == "gflops"}
    target = ", ".join(f"{c.removesuffix('_us')} {said}" for c, said in words.items())
    target += f" for {', '.join(f'{c} {v:.3g}x' for c, v in past.items())}" if past else ""
    if not demanded or result["failure"]:
        return target, "no: FAIL" if demanded else ""
    got = {c: result[c] for c in demanded if result[c] is not None}
    if missed := [c for c, v in got.items() if not (v <= demanded[c] if c in AT_MOST else v >= demanded[c])]:
        return target, "no: " + ", ".join(c.removesuffix("_us") for c in missed)
    absent = [c for c in demanded if c not in got]
    return target, "not measured: " + ", ".join(absent) if absent else "yes"
