"""How a command of this project ends, and the files that it writes.

A command ends in words: a line on stderr and a status that says no more than was found out. `begin` comes before the
imports that take a second, `end` after the work. A file is refused before the work where it could not be written after
it, and it is written completely or not at all.
"""
import argparse
import codecs
import contextlib
import os
import stat
import sys
import tempfile
import traceback
from pathlib import Path

IMPOSSIBLE, STOPPED = 2, 130  # exit statuses: what was asked for could not be done; Ctrl-C
ROOM = 1 << 20  # bytes that a folder has to take before the work, where nobody knows how large the file will be


def begin(name):
    """From now on whatever nobody catches ends the command `python -m name` in words. name: of the module."""
    codecs.register_error("shown", _shown)
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="shown")
    sys.excepthook = lambda kind, error, trace: _leave(name, error)


def _shown(error):
    """What stands for a sign that the terminal lacks: the bytes that it came from, as in a file's name, or a number."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)


def end(status):
    """Leave the process with an exit status, once all that was printed has arrived. status: int."""
    if sys.stdout:
        sys.stdout.flush()
    sys.exit(status)


def apart():
    """A stream to stdout that no other code writes to: what is printed from now on, in whatever language, goes to
    stderr."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return stream


def _leave(name, error):
    """Say why, leave at once: threads are not waited for, and no status of Python's own (1) is taken for a verdict."""
    if isinstance(error, KeyboardInterrupt):
        said, status = "stopped", STOPPED
    elif isinstance(error, (ImportError, MemoryError, OSError)):  # of the machine
        said, status = f"{type(error).__name__}: {in_words(error)}".strip(": "), IMPOSSIBLE
    else:  # of this project
        traceback.print_exception(error)
        said, status = f"this is a fault of the command: {type(error).__name__}", IMPOSSIBLE
    with contextlib.suppress(Exception):
        if not isinstance(error, BrokenPipeError):  # into `head`
            print(f"python -m {name}: {said}", file=sys.stderr, flush=True)
        sys.stdout.flush()
    os._exit(status)


def in_words(error):
    """An exception as text; one of the operating system as its file and what is wrong with it, without its number.
    error: exception."""
    known = isinstance(error, OSError) and error.strerror and error.filename
    return f"{error.filename}: {error.strerror.lower()}" if known else str(error)


def named(text):
    """The text of an option that names a file or a folder, for argparse. Raises ArgumentTypeError for an empty one."""
    if not text:
        raise argparse.ArgumentTypeError("expected a name, got ''")
    return text


# --- files ------------------------------------------------------------------------------------------------------------


def write(path, content):
    """Write a file completely or leave it as it was: under another name in its folder, then moved.

    path: file, or a link to one. content: bytes. Raises OSError that names path.
    """
    place = Path(os.path.realpath(path))
    part = place.with_name(f".{place.name[:40]}.{os.getpid()}")
    try:
        with open(part, "wb") as file:
            file.write(content)
        os.replace(part, place)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def why_unwritable(path, size=ROOM):
    """Why `write` would fail at path, or "": it tries with as many bytes in the same folder. path: file. size: int."""
    try:
        place, mode = Path(os.path.realpath(path)), stat.S_IFREG | 0o666
        mode = os.stat(path).st_mode
    except FileNotFoundError:  # a new file
        pass
    except (OSError, ValueError) as reason:  # a name that is too long, a byte 0
        return f"cannot write {path}: {getattr(reason, 'strerror', None) or reason}"
    if not stat.S_ISREG(mode):
        return f"{path} is a {'folder' if stat.S_ISDIR(mode) else 'device or a pipe'}"
    if not mode & 0o222:
        return f"{path} is read-only"
    if not place.parent.is_dir():
        return f"cannot write {path}: there is no folder {place.parent}"
    try:
        with tempfile.TemporaryFile(dir=place.parent) as file:
            file.write(bytes(size))
        return ""
    except OSError as reason:
        return f"cannot write {path}: {reason.strerror}"
