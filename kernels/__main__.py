"""Is a kernel right? Compared with the truth, on this machine.

    python -m kernels                 every operation, on every backend here
    python -m kernels --op guide      those with this in their name
    python -m kernels --list          what a function can be checked as
    python -m kernels check --help    how to check a function of your own
Exit status: 0 right, less accurate or not; 1 wrong; 2 could not be checked.
"""
from ref import command

if __name__ == "__main__":
    command.begin("kernels")  # before the imports that take a second
import argparse
import ast
import contextlib
import dataclasses
import functools
import importlib
import importlib.util
import json
import math
import os
import shutil
import sys
import textwrap
from pathlib import Path

from kernels import registry
from kernels.check import interpreter, language, search, selftest
from kernels.check.adapter import ARRAYS, CONVENTIONS, Usage, listing

RAW = argparse.RawDescriptionHelpFormatter
CHECK = """\
Compare a function with the truth of an operation, or with any NumPy function.

    python -m kernels check ddim_step --against my_module:my_step
    python -m kernels check ddim_step --against path/to/file.py:my_step

The function takes the arguments that --list shows, by name, and returns new
arrays in the dtype of its data. Arrays of many sizes, layouts and values are
drawn, and compared with the truth in float64. Three verdicts:

    right                   as exact as tuned NumPy, about
    right, less accurate    the right formula, in an order of operations that
                            loses digits: how many, where, and how to mend it
    wrong                   with the smallest input that was found, the likely
                            cause, and code to paste

Exit status: 0 right, less accurate or not; 1 wrong; 2 could not be checked."""


def main(argv=None, out=None):
    """Check, print. argv: list of words, or None for the command line's. out: where the verdict goes, None for stdout.
    Returns the exit status."""
    argv, out = sys.argv[1:] if argv is None else argv, out or sys.stdout
    parser = argparse.ArgumentParser(prog="python -m kernels", description=__doc__, formatter_class=RAW)
    parser.add_argument("--op", dest="named", default="", metavar="NAME", help="only those with this in their name")
    parser.add_argument("--list", action="store_true", help="every operation that can be checked, with its arguments")
    commands = parser.add_subparsers(dest="command", metavar="check", help="without it: every operation")
    about = _arguments(commands)
    parser.error = functools.partial(_refuse, parser)
    try:
        if argv and argv[0][:1] not in ("", "-") and argv[0] != "check":
            parser.error(f"{argv[0]}: expected `check {argv[0]} --against MODULE:FUNCTION` for a function of yours, or "
                         f"`--op {argv[0]}` for the kernels of this project")  # fmt: skip
        words = parser.parse_args(argv)
        if words.command is None and not words.list:
            if not any(words.named in op.name for op in registry.OPS):
                parser.error(f"--op: no operation has {words.named!r} in its name; --list shows them")
            return every_operation(words.named)
        if words.list:
            print(listing())
            return 0
        if not ((words.op or words.truth) and words.against):
            about.error("expected an operation or --truth MODULE:FUNCTION, and --against MODULE:FUNCTION; or --list")
        if words.arguments and not words.truth:
            about.error("--argument: expected with --truth, whose argument it describes")
        if words.named:
            about.error(f"--op: expected before no `check`, which takes an operation, got {words.named!r}")
        with contextlib.redirect_stdout(sys.stderr if words.json else sys.stdout):  # what the function prints
            verdict = _checked(words)
    except Usage as reason:
        print(_folded(f"python -m kernels: {reason}"), file=sys.stderr)
        if _json(argv):
            print(json.dumps({"right": None, "reason": str(reason)}, indent=1), file=out, flush=True)
        return command.IMPOSSIBLE
    _say(verdict, out, words.json)
    return 0 if verdict else 1


def _say(verdict, out, as_json):
    """Print the verdict. out: where JSON goes."""
    if as_json:
        known = {"right": bool(verdict), "grade": verdict.grade} | dataclasses.asdict(verdict)
        print(json.dumps(_finite(known), indent=1, default=str), file=out, flush=True)
    elif importlib.util.find_spec("rich") and sys.stdout.isatty():
        _coloured(verdict)
    else:
        print(verdict)


def _checked(words):
    """The verdict. words: of the command line."""
    conventions = [name for name in CONVENTIONS if getattr(words, name)]
    for option, pairs in (("--fix", words.fixed), ("--map", words.mapping)):
        if twice := [name for n, (name, _) in enumerate(pairs) if name in dict(pairs[:n])]:
            raise Usage(f"{option} {twice[0]}: expected it once, got it twice")
    fixed = {name: _value(text) for name, text in words.fixed}
    try:
        given = {"truth": function(words.truth, "--truth"), "arguments": dict(words.arguments)} if words.truth else {}
        return search.check(
            function(words.against), words.op, words.dtype, words.arrays, words.device, words.examples, words.seed,
            dict(words.mapping), conventions, words.seconds, fixed, words.strict, words.inplace, words.large, **given,
        )  # fmt: skip
    except SystemExit as reason:  # its status would be taken for a verdict
        raise Usage(f"the function left Python by {reason!r}") from None


def _json(argv):
    """Whether the words ask for JSON, which may be shortened."""
    return any(len(word) > 3 and "--json".startswith(word) for word in argv)


def _finite(value):
    """The same for JSON, which knows no NaN and no infinity: None in their place."""
    if isinstance(value, dict):
        return {name: _finite(x) for name, x in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _arguments(commands):
    """The parser of `check`."""
    about = commands.add_parser("check", help="anybody's function", description=CHECK, epilog=language.PAGE,
                                formatter_class=RAW)  # fmt: skip
    about.error = functools.partial(_refuse, about)
    add = about.add_argument
    add("op", nargs="?", metavar="OP", help="such as ddim_step or diffusion.ddim_step")
    add("--list", action="store_true", help="every operation that can be checked, with its arguments")
    add("--against", metavar="MODULE:FUNCTION",
        help="the function, or path/to/file.py:function; it takes the operation's arguments by name")
    add("--truth", metavar="MODULE:FUNCTION", help="in place of OP: any NumPy function that says what is right")
    add("--argument", dest="arguments", action="append", default=[], type=_described, metavar="'NAME: WORDS'",
        help="what an argument of --truth is, such as 'x: (B, N) float'; repeat it for more")
    add("--dtype", help="such as float16 (default: all of the operation; on a GPU, float32)")
    add("--arrays", choices=ARRAYS, help="what the function takes (default: numpy; on a GPU, numba-cuda or torch)")
    add("--device", default="cpu", help="cpu or cuda (default: cpu)")
    add("--examples", type=int, metavar="N", help="cases of each dtype (default: 200, fewer if the truth is slow)")
    add("--seed", type=int, default=0, metavar="N", help="of the cases (default: 0)")
    add("--map", dest="mapping", action="append", default=[], type=_pair, metavar="THEIRS=OURS",
        help="an argument with another name; repeat it for more")
    add("--fix", dest="fixed", action="append", default=[], type=_pair, metavar="NAME=VALUE",
        help="hold an option or an argument at one value: variance=small, clip=None, eta=0; t=scalar for one time for "
             "all examples; repeat it for more")
    for name, (_, _, words) in CONVENTIONS.items():
        add(f"--{name.replace('_', '-')}", action="store_true", help=words)
    add("--strict", action="store_true", help="less accurate, or a law that rounding breaks, is exit status 1, too")
    add("--inplace", nargs="?", const=True, default=(), type=lambda text: tuple(text.split(",")), metavar="NAMES",
        help="the function writes its results over these arguments, such as p,m,v (default: what a loop overwrites)")
    add("--large", action="store_true", help="also arrays past 2^31 elements, for a GPU")
    add("--seconds", type=_finite_float, default=0.25, help="of timing a right function; 0 for none (default: 0.25)")
    add("--json", action="store_true", help="print the verdict as JSON")
    return about


def every_operation(named=""):
    """Print a line for each operation, backend and dtype. named: part of the name. Returns the exit status."""
    backends, missing = selftest.available()
    for backend, why in missing.items():
        print(f"{backend}: not checked, {why}")
    for backend in filter(selftest.interpreted, backends):
        print(f"{backend}: no GPU here, so in its interpreter, on small arrays")
    print("error: the worst, in units of the allowed one")
    print(f"{'op':<42}{'backend':<11}{'dtype':<9}{'cases':>5}{'error':>7}")
    failed = 0
    pairs = [(op, b) for op in registry.OPS if named in op.name for b in backends if registry.kernel(op, b)]
    for op, backend, dtype in [(op, backend, dtype) for op, backend in pairs for dtype in registry.dtypes(op, backend)]:
        with _progress(f"{op.name} {backend} {dtype}: compiling and checking"):
            row = selftest.check(op, backend, dtype)
        failed |= not row.ok
        line = f"{row.op:<42}{backend:<11}{dtype:<9}{row.cases:>5}{row.error:>7.2f}"
        print(line, " ok" if row.ok else f" FAIL  {row.failure}", flush=True)
    return int(failed)


@contextlib.contextmanager
def _progress(text):
    """A line on a terminal for as long as the work takes, for the first call of a kernel compiles it."""
    shown = sys.stderr.isatty() and text[: shutil.get_terminal_size().columns - 1]
    print(shown or "", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        print(f"\r{' ' * len(shown)}\r" if shown else "", end="", file=sys.stderr, flush=True)


def function(against, option="--against"):
    """The function of "module:function", in the current folder first, or of "path/to/file.py:function". against: text.
    option: where it was said. Raises Usage for none."""
    module, _, name = against.rpartition(":")
    if not module or not name or any(part in name for part in ("/", "\\")):
        raise Usage(f"{option}: expected module:function, such as my_package.my_module:my_step, or "
                    f"path/to/file.py:my_step, got {against}")  # fmt: skip
    path = Path(*module.split(".")).with_suffix(".py")  # a file that another module of this name may hide
    try:
        source = Path(module) if module.endswith(".py") else path
        if source.is_file():
            interpreter.prepare(source.read_text("utf-8", errors="replace"))
        found = _of_file(module) if module.endswith(".py") else importlib.import_module(module)
        hint = f"; for the file {path} say {path}:{name}" if path.is_file() and not _is_of(found, path) else ""
    except (Exception, SystemExit) as reason:  # whatever the module does when it is imported
        hint = f"; for the file {path} say {path}:{name}" if path.is_file() else ""
        raise Usage(f"{option}: {module} cannot be imported: {type(reason).__name__}: {reason}{hint}") from None
    for part in name.split("."):
        if not hasattr(found, part):
            others = ", ".join(n for n in dir(found) if callable(getattr(found, n)) and n[0] != "_")
            raise Usage(f"{option}: {module} has no {name}; it has {others or 'no function'}{hint}")
        found = getattr(found, part)
    if not callable(found):
        raise Usage(f"{option}: {against} is not a function but of type {type(found).__name__}")
    return found


def _of_file(text):
    """The module of a file, under its path as its name, which hides no other. Its neighbours can be imported."""
    path = Path(text).expanduser().absolute()
    spec = importlib.util.spec_from_file_location(str(path), path)
    found = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    spec.loader.exec_module(found)
    return found


def _is_of(module, path):
    return Path(getattr(module, "__file__", None) or "").absolute() == path.absolute()


def _folded(text):
    """Text in lines of the terminal's width."""
    width = shutil.get_terminal_size().columns - 1
    return textwrap.fill(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _refuse(parser, message):
    """Replaces argparse's own exit, so that --json can report the reason."""
    parser.print_usage(sys.stderr)
    raise Usage(message)


def _pair(text):
    first, _, second = text.partition("=")
    if not first or not second:
        raise argparse.ArgumentTypeError(f"expected name=value, such as eta=0 or noise_pred=eps_hat, got {text!r}")
    return first, second


def _finite_float(text):
    if not math.isfinite(float(text)):
        raise argparse.ArgumentTypeError(f"expected a finite number, got {text!r}")
    return float(text)


def _described(text):
    name, _, words = text.partition(":")
    if not name.strip() or not words.strip():
        raise argparse.ArgumentTypeError(f"expected 'name: words', such as 'x: (B, N) float', got {text!r}")
    return name.strip(), words.strip()


def _value(text):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):  # a word
        return text


def _coloured(verdict):
    """Print the report in colour."""
    screen = importlib.import_module("rich.console").Console(markup=False, highlight=False, soft_wrap=True)
    screen.print(str(verdict).removesuffix(verdict.code), style="green" if verdict else "red")
    if verdict.code:
        syntax = importlib.import_module("rich.syntax")
        screen.print(syntax.Syntax(verdict.code, "python", background_color="default", word_wrap=True))


if __name__ == "__main__":
    command.end(main(out=command.apart() if _json(sys.argv) else None))
