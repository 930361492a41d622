"""Is a kernel right? Held against the truth, on this machine. Exit status 0 right, 1 wrong, 2 what was asked for cannot be done.

    python -m kernels                                                         every operation, on every backend that is here
    python -m kernels --op guide                                              those with this in their name
    python -m kernels check ddim_step --against my_package.my_module:my_step  anybody's function
    python -m kernels check --list                                            what it can be checked as
"""
import argparse
import ast
import dataclasses
import functools
import importlib
import importlib.util
import json
import math
import os
import sys

from kernels import registry
from kernels.check import search, selftest
from kernels.check.adapter import ARRAYS, CONVENTIONS, Usage, listing


def main(argv=None):
    """Check, print. argv: list of words, or None for the command line's. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m kernels", description=__doc__.split("\n")[0])
    parser.add_argument("--op", dest="named", default="", metavar="NAME", help="only operations with this in their name")
    about = parser.add_subparsers(dest="command", metavar="check", help="without it: every operation").add_parser(
        "check", help="anybody's function", description="Hold a function against the truth of an operation.")
    about.add_argument("op", nargs="?", metavar="OP", help="such as ddim_step or diffusion.ddim_step")
    about.add_argument("--list", action="store_true", help="what can be checked: every operation with its arguments and what it is")
    about.add_argument("--against", metavar="MODULE:FUNCTION", help="the function; it takes the operation's arguments by name")
    about.add_argument("--dtype", help="such as float16 (default: each that the operation has on this device)")
    about.add_argument("--arrays", choices=ARRAYS, help="what the function takes (default: numpy; on a GPU numba-cuda's or torch's)")
    about.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    about.add_argument("--examples", type=int, default=200, metavar="N", help="for each dtype (default 200)")
    about.add_argument("--seed", type=int, default=0, metavar="N", help="of what is drawn (default 0)")
    about.add_argument("--map", action="append", default=[], type=_pair, metavar="THEIRS=OURS", help="an argument that has another name; may be given again")
    about.add_argument("--fix", action="append", default=[], type=_held, metavar="NAME=VALUE",
                       help="an option or an argument that is held at one value: variance=small, clip=None, eta=0; t=scalar for one time, not one for each example")  # fmt: skip
    for name, (_, _, words) in CONVENTIONS.items():
        about.add_argument(f"--{name.replace('_', '-')}", action="store_true", help=words)
    about.add_argument("--seconds", type=float, default=1.0, help="of timing, where it is right; 0 for none (default 1)")
    about.add_argument("--json", action="store_true", help="the verdict for machines")
    argv = sys.argv[1:] if argv is None else argv
    about.error = functools.partial(_refuse, about)
    try:
        words = parser.parse_args(argv)
        if words.command is None:
            if not any(words.named in op.name for op in registry.OPS):
                parser.error(f"--op: no operation has {words.named!r} in its name")
            return every_operation(words.named)
        if words.list:
            print(listing())
            return 0
        if not (words.op and words.against):
            about.error("expected an operation and --against MODULE:FUNCTION, or --list")
        found = search.check(
            function(words.against), words.op, words.dtype, words.arrays, words.device, words.examples, words.seed, dict(words.map),
            [name for name in CONVENTIONS if getattr(words, name)], words.seconds, dict(words.fix),
        )  # fmt: skip
    except Usage as reason:
        print(f"python -m kernels check: {reason}", file=sys.stderr)
        if "--json" in argv:
            print(json.dumps({"right": None, "reason": str(reason)}, indent=1))
        return 2
    if words.json:
        told = {"right": bool(found)} | dataclasses.asdict(found)
        print(json.dumps(told | {"error": found.error if math.isfinite(found.error) else None}, indent=1))
    elif importlib.util.find_spec("rich") and sys.stdout.isatty():
        _coloured(found)
    else:
        print(found)
    return 0 if found else 1


def every_operation(named=""):
    """Check and print a line for each operation, backend and dtype. named: part of the name. Returns the exit status."""
    backends, missing = selftest.available()
    for backend, why in missing.items():
        print(f"{backend}: not checked, {why}")
    for backend in filter(selftest.interpreted, backends):
        print(f"{backend}: no GPU here, so in its interpreter, on small arrays")
    print(f"{'op':<42}{'backend':<12}{'dtype':<10}{'cases':>6}{'worst / allowed':>17}")
    failed = False
    for op in (op for op in registry.OPS if named in op.name):
        for backend in (b for b in backends if registry.kernel(op, b)):
            for dtype in registry.dtypes(op, backend):
                row = selftest.check(op, backend, dtype)
                failed |= not row.ok
                line = f"{row.op:<42}{backend:<12}{dtype:<10}{row.cases:>6}{row.error:>17.2f}"
                print(line, " ok" if row.ok else f" FAIL  {row.failure}", flush=True)
    return int(failed)


def function(against):
    """The function of "module:function", the folder that the command is run in first. against: text. Raises Usage where it cannot be had."""
    module, _, name = against.partition(":")
    if not module or not name:
        raise Usage(f"--against: expected module:function, such as my_package.my_module:my_step, got {against}")
    try:
        found = importlib.import_module(module)
    except (Exception, SystemExit) as reason:  # whatever a stranger's module does when it is imported
        raise Usage(f"--against: {module} cannot be imported: {type(reason).__name__}: {reason}") from None
    for part in name.split("."):
        if not hasattr(found, part):
            raise Usage(f"--against: {module} has no {name}; it has {', '.join(n for n in dir(found) if callable(getattr(found, n)) and n[0] != '_') or 'no function'}")
        found = getattr(found, part)
    if not callable(found):
        raise Usage(f"--against: {against} is no function, it is of type {type(found).__name__}")
    return found


def _refuse(parser, message):
    """In the place of argparse's own exit, so that --json has the last word."""
    parser.print_usage(sys.stderr)
    raise Usage(message)


def _pair(text, such="theirs=ours, such as noise_pred=eps_hat"):
    first, _, second = text.partition("=")
    if not first or not second:
        raise argparse.ArgumentTypeError(f"expected {such}, got {text!r}")
    return first, second


def _held(text):
    name, value = _pair(text, "name=value, such as eta=0 or t=scalar")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):  # a word
        return name, value


def _coloured(found):
    """The report with its code in colour, and the rest as it is."""
    console, syntax = (importlib.import_module(f"rich.{name}") for name in ("console", "syntax"))
    screen = console.Console()
    report = str(found)
    screen.print(report.removesuffix(found.code), style="green" if found else "red", markup=False, highlight=False, soft_wrap=True)
    if found.code:
        screen.print(syntax.Syntax(found.code, "python", background_color="default", word_wrap=True))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # into `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
