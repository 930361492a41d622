"""Files that commands write, as `ref.command` has it: refused before the work where they cannot be written, and never
half written; and the pages that have parts to fill."""
from ref.command import ROOM, why_unwritable  # noqa: F401
from ref.command import write as write_atomic  # noqa: F401


def fill(text, name, content):
    """text with the lines between `<!-- name:begin -->` and `<!-- name:end -->` replaced by content. All are str."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"expected one {begin} followed by one {end}")
    before, rest = text.split(begin)
    return f"{before}{begin}\n{content}\n{end}{rest.split(end)[1]}"
