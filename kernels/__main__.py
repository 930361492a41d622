"""Is a kernel right? Compared with the truth, on this machine. Exit status: 0 right (less accurate or not), 1 wrong, 2
impossible request.

    python -m kernels                                              every operation, on every installed backend
    python -m kernels --op guide                                   those with this in their name
    python -m kernels check ddim_step --against my_module:my_step  anybody's function
    python -m kernels check --list                                 what it can be checked as
    python -m kernels check --truth mine:f --against mine:fast_f   any function against any NumPy function
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
import pathlib
import sys

from kernels import registry
from kernels.check import interpreter, language, search, selftest
from kernels.check.adapter import ARRAYS, CONVENTIONS, Usage, listing


def main(argv=None):
    """Check, print. argv: list of words, or None for the command line's. Returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m kernels", description=__doc__.split("\n")[0])
    parser.add_argument("--op", dest="named", default="", metavar="NAME", help="only those with this in their name")
    commands = parser.add_subparsers(dest="command", metavar="check", help="without it: every operation")
    about = _arguments(commands)
    try:
        words = parser.parse_args(argv)
        if words.command is None:
            if not any(words.named in op.name for op in registry.OPS):
                parser.error(f"--op: no operation has {words.named!r} in its name")
            return every_operation(words.named)
        if words.list:
            print(listing())
            return 0
        if not ((words.op or words.truth) and words.against):
            about.error("expected an operation or --truth MODULE:FUNCTION, and --against MODULE:FUNCTION; or --list")
        if words.arguments and not words.truth:
            about.error("--argument: expected with --truth, whose argument it describes")
        given = {"truth": function(words.truth, "--truth"), "arguments": dict(words.arguments)} if words.truth else {}
        verdict = search.check(
            function(words.against), words.op, words.dtype, words.arrays, words.device, words.examples, words.seed,
            dict(words.mapping), [name for name in CONVENTIONS if getattr(words, name)], words.seconds,
            {name: _value(text) for name, text in words.fixed}, words.strict, words.inplace, words.large, **given,
        )  # fmt: skip
    except Usage as reason:
        print(f"python -m kernels check: {reason}", file=sys.stderr)
        if "--json" in argv:
            print(json.dumps({"right": None, "reason": str(reason)}, indent=1))
        return 2
    if words.json:
        error = verdict.error if math.isfinite(verdict.error) else None
        print(json.dumps({"right": bool(verdict), "grade": verdict.grade} | dataclasses.asdict(verdict) | {"error": error}, indent=1))
    elif importlib.util.find_spec("rich") and sys.stdout.isatty():
        _coloured(verdict)
    else:
        print(verdict)
    return 0 if verdict else 1


def _arguments(commands):
    """The parser of `check`."""
    description = "Compare a function with the truth of an operation."
    about = commands.add_parser("check", help="anybody's function", description=description, epilog=language.PAGE,
                                formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    about.error = functools.partial(_refuse, about)
    add = about.add_argument
    add("op", nargs="?", metavar="OP", help="such as ddim_step or diffusion.ddim_step")
    add("--list", action="store_true", help="every operation that can be checked, with its arguments")
    add("--against", metavar="MODULE:FUNCTION", help="the function; it takes the operation's arguments by name")
    add("--truth", metavar="MODULE:FUNCTION", help="in place of OP: any NumPy function that says what is right")
    add("--argument", dest="arguments", action="append", default=[], type=_described, metavar="'NAME: WORDS'",
        help="what an argument of --truth is, such as 'x: (B, N) float'; repeat it for more")
    add("--dtype", help="such as float16 (default: each that the operation has on this device)")
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
        help="the function writes its results over these arguments (default: those that a training loop overwrites)")
    add("--large", action="store_true", help="also arrays past 2^31 elements, for a GPU")
    add("--seconds", type=float, default=1.0, help="of timing, if the function is right; 0 for none (default: 1)")
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
        row = selftest.check(op, backend, dtype)
        failed |= not row.ok
        line = f"{row.op:<42}{backend:<11}{dtype:<9}{row.cases:>5}{row.error:>7.2f}"
        print(line, " ok" if row.ok else f" FAIL  {row.failure}", flush=True)
    return int(failed)


def function(against, option="--against"):
    """The function of "module:function", in the current folder first. against: text. option: where it was said. Raises
    Usage for none."""
    module, _, name = against.partition(":")
    if not module or not name:
        raise Usage(f"{option}: expected module:function, such as my_package.my_module:my_step, got {against}")
    try:
        spec = importlib.util.find_spec(module)
        if spec and spec.origin and spec.origin.endswith(".py"):
            interpreter.prepare(pathlib.Path(spec.origin).read_text(errors="replace"))
        found = importlib.import_module(module)
    except (Exception, SystemExit) as reason:  # whatever the module does when it is imported
        raise Usage(f"{option}: {module} cannot be imported: {type(reason).__name__}: {reason}") from None
    for part in name.split("."):
        if not hasattr(found, part):
            others = ", ".join(n for n in dir(found) if callable(getattr(found, n)) and n[0] != "_")
            raise Usage(f"{option}: {module} has no {name}; it has {others or 'no function'}")
        found = getattr(found, part)
    if not callable(found):
        raise Usage(f"{option}: {against} is not a function but of type {type(found).__name__}")
    return found


def _refuse(parser, message):
    """Replaces argparse's own exit, so that --json can report the reason."""
    parser.print_usage(sys.stderr)
    raise Usage(message)


def _pair(text):
    first, _, second = text.partition("=")
    if not first or not second:
        raise argparse.ArgumentTypeError(f"expected name=value, such as eta=0 or noise_pred=eps_hat, got {text!r}")
    return first, second


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
    try:
        sys.exit(main())
    except BrokenPipeError:  # into `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
