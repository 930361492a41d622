"""Where compiled code is kept from one process to the next. Where it cannot be kept nothing fails: each process
compiles its own, and a line says so."""
import hashlib
import logging
import os
from pathlib import Path

import numba
from numba.core.caching import FunctionCache

_told = []


def njit(cache=False, **options):
    """`numba.njit` as a decorator, whose cache never fails. cache: whether compiled code is kept. options: Numba's."""

    def decorate(function):
        compiled = numba.njit(**options)(function)
        if cache and KEPT:
            compiled._cache = _Cache(function)
        return compiled

    return decorate


class _Cache(FunctionCache):
    """Numba's, of one function. A folder that is full or read-only, or a damaged file, is as good as none."""

    def load_overload(self, sig, target_context):
        try:
            return super().load_overload(sig, target_context)
        except Exception as reason:  # a damaged file can raise anything
            _tell(reason)
        try:
            self.flush()  # so that it is written anew
        except OSError as reason:
            _tell(reason)
        return None

    def save_overload(self, sig, data):
        try:
            super().save_overload(sig, data)
        except Exception as reason:
            _tell(reason)


def _tell(reason):
    if not _told:
        said = "compiled code is not kept, so each process compiles its own: %s. NUMBA_CACHE_DIR names another folder"
        logging.getLogger(__name__).warning(said, reason)
    _told.append(reason)


def sources():
    """The files whose code or numbers are compiled into kernels: this backend's, and `kernels.coefficients`."""
    here = Path(__file__).parent
    return [*sorted(here.glob("*.py")), here.parent / "coefficients.py"]


def forget_stale_code(folder, files=None):
    """Empty a cache of compiled code when any source of it has changed since it was filled.

    Numba compares a kernel's own file only, so what was inlined from another file would stay as it was.
    folder: where Numba keeps this backend's compiled code. files: the sources, None for `sources()`. Raises OSError
    where the folder cannot be written.
    """
    files = sources() if files is None else files
    now = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    mark = folder / "sources.sha256"
    if not mark.exists() or mark.read_text("ascii") != now:
        for index in folder.glob("*.nbi"):
            index.unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        written = mark.with_suffix(f".{os.getpid()}")
        try:
            written.write_text(now, "ascii")
            written.replace(mark)
        finally:
            written.unlink(missing_ok=True)


def _nothing():
    pass


def _kept():
    """Whether there is a folder for compiled code, and what is in it is of today's sources."""
    if numba.config.DISABLE_JIT:
        return False
    try:
        forget_stale_code(Path(FunctionCache(_nothing).cache_path))
        return True
    except RuntimeError:  # Numba's
        _tell("neither this package nor the home folder can be written")
    except (OSError, ValueError) as reason:
        _tell(reason)
    return False


KEPT = _kept()
