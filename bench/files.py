"""Files that commands write, as `ref.command` has it: refused before the work where they cannot be written, and never
half written; and the pages that have parts to fill."""
import tempfile
from pathlib import Path

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


def fill(text, name, content):
    """text with the lines between `<!-- name:begin -->` and `<!-- name:end -->` replaced by content. All are str."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"expected one {begin} followed by one {end}")
    before, rest = text.split(begin)
    return f"{before}{begin}\n{content}\n{end}{rest.split(end)[1]}"
