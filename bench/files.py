"""Files that commands write, as `ref.command` has it: refused before the work where they cannot be written, and never
half written; and the pages that have parts to fill."""
import contextlib
import tempfile
from pathlib import Path

import numpy as np

from ref.command import ROOM, why_unwritable  # noqa: F401
from ref.command import write as write_atomic


def deliver(folder, contents):
    """Write results, each completely. Where that fails they are written into a temporary folder, which the OSError
    names, so that no work is lost. folder: path. contents: {name of a file: bytes}."""
    try:
        for name, content in contents.items():
            write_atomic(Path(folder) / name, content)
    except OSError as reason:
        other = Path(tempfile.mkdtemp(prefix="results-"))
        for name, content in contents.items():
            write_atomic(other / name, content)
        raise OSError(f"{reason}; the results are in {other} instead") from None


@contextlib.contextmanager
def arrays(path, what):
    """The arrays of an .npz, {name: array}, to be taken apart in the `with`. path: of the file. what: it is, in words.
    Raises ValueError, which names the file, where there is none, or where it cannot be read or taken apart."""
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            yield dict(file)
    except FileNotFoundError:
        raise ValueError(f"{path}: expected {what}, got no file") from None
    except Exception as reason:  # a damaged file can raise anything
        got = f"{type(reason).__name__}: {reason}"
        raise ValueError(f"{path}: expected {what} (.npz), got another file: {got}") from None


def fill(text, name, content):
    """text with the lines between `<!-- name:begin -->` and `<!-- name:end -->` replaced by content. All are str."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"expected one {begin} followed by one {end}")
    before, rest = text.split(begin)
    return f"{before}{begin}\n{content}\n{end}{rest.split(end)[1]}"
