"""What a study leaves behind: NAME.png, NAME.csv and NAME.txt, each whole or not there."""
import csv
import io
import itertools
from pathlib import Path

from bench import report


def write(out, name, figure, rows, sentences):
    """The three files of a study into out, each written beside its place and then moved there; the text last.

    out: folder, made where it is not there. name: of the study. figure: matplotlib's, closed afterwards. rows: dicts with the
    same keys, at least one; floats are written with six digits. sentences: list of str, one a line.
    Raises OSError where out cannot be written.
    """
    picture, table = io.BytesIO(), io.StringIO(newline="")
    figure.savefig(picture, format="png", dpi=130)
    pyplot().close(figure)
    writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{s}\n" for s in sentences)
    for ending, content in (("png", picture.getvalue()), ("csv", table.getvalue().encode()), ("txt", text.encode())):
        report.whole(out / f"{name}.{ending}", content)


def ticker(progress, total):
    """A function of nothing that tells progress how many of total calls of it there were. progress: called with (done, total)."""
    done = itertools.count(1)
    return lambda: progress(next(done), total)


def pyplot():
    """matplotlib.pyplot, drawing to memory, in the studies' one style. Raises ModuleNotFoundError where it is not installed."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 8, "axes.titlesize": 8, "axes.linewidth": 0.6, "legend.frameon": False})
    return plt
