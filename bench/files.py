"""Files that commands write: refused before the work where they cannot be written, and never half written."""
import os
import tempfile
from pathlib import Path


def write_atomic(path, content):
    """Write a file completely or leave it as it was: under a temporary name in its folder, then moved. path: file."""
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def why_unwritable(path):
    """Why `write_atomic` would fail at path, or "". It tries with a temporary file in the folder."""
    path = Path(path).absolute()
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}"
    if path.is_dir():
        return f"{path} is a folder"
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            return ""
    except OSError as reason:
        return f"cannot write in {path.parent}: {reason.strerror}"


def fill(text, name, content):
    """text with the lines between `<!-- name:begin -->` and `<!-- name:end -->` replaced by content. All are str."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"expected one {begin} followed by one {end}")
    before, rest = text.split(begin)
    return f"{before}{begin}\n{content}\n{end}{rest.split(end)[1]}"
