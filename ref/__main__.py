"""`python -m ref`: the equations in reading order; `show NAME`: one of them, with its source; `trace NAME`: one of them
as it runs; `find WORDS`: what there is about them; `course`: all of it as a folder of pages."""
from ref import command

if __name__ == "__main__":
    command.begin("ref")  # before the imports that take a second
import argparse
import os
import sys

import numpy as np

from ref.reading import catalogue, find, page, site, text, worked


def main(words=None):
    """Run the command. words: of the command line. Returns the exit status: 2 for a request that cannot be met."""
    given = _parser().parse_args(words)
    try:
        if given.command is None:
            print("\n".join(text.folded(text.listing())), flush=True)
            return 0
        if given.command == "find":
            print("\n".join(text.folded(find.lines(given.words))), flush=True)
            return 0
        if given.command == "course":
            with np.errstate(all="ignore"):
                site.build(given.out)
            print(f"wrote {given.out}/index.html")
            return 0
        if given.command == "trace" and given.html and (reason := command.why_unwritable(given.html)):
            raise OSError(f"--html: {reason}")
        function = catalogue.equations()[catalogue.find(given.name)]
        if given.command == "show":
            print("\n".join(text.folded(text.source(function))), flush=True)
            return 0
        _trace(function, given)
    except BrokenPipeError:  # into `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (LookupError, ValueError, TypeError, OSError) as error:
        said = f"error: {error.args[0] if isinstance(error, LookupError) else error}"
        print("\n".join(text.folded([said])), file=sys.stderr)
        return 2
    return 0


def _parser():
    """The words of the command line."""
    parser = argparse.ArgumentParser(prog="python -m ref",
                                     description="Read the math as it runs. Without a command: every equation, in "
                                                 "reading order.")
    commands = parser.add_subparsers(dest="command")
    show = commands.add_parser("show", help="an equation, its source, and where its name lives in the backends and the "
                                            "tests")
    run = commands.add_parser("trace", help="an equation on a worked example, line by line, with the values that each "
                                            "line computes")
    found = commands.add_parser("find", help="equations, pages and questions about some words, and what to type next")
    found.add_argument("words", nargs="+", metavar="WORDS", help="mode collapse; why is the forward process fixed")
    built = commands.add_parser("course", help="the course as a folder of pages: topics, figures, questions, and every "
                                               "equation with its values")
    built.add_argument("--out", required=True, type=command.named, metavar="DIR", help="where its index.html goes")
    for parsed in (show, run):
        parsed.add_argument("name", help="q_sample, or module.function where several modules have the name")
    run.add_argument("--set", action="append", default=[], metavar="NAME=VALUE",
                     help="an argument in place of the example's: t=500, eta=1, x0=[[1,2]]")
    run.add_argument("--html", type=command.named, metavar="FILE",
                     help="write the trace as one page instead, with pictures")
    return parser


def _trace(function, given):
    """Run it, print or write what happened. given: the command line's. Raises ValueError where it cannot run."""
    settings = worked.settings(function, given.set)
    with np.errstate(all="ignore"):  # what overflows is shown
        try:
            ran, differences = worked.run(function, settings)
        except Exception as error:
            if not settings:
                raise
            known = [f"{name} = {text.described(worked.arguments(function)[name])}" for name in settings]
            words, said = " ".join(f"--set {word}" for word in given.set), f"{type(error).__name__}: {error}"
            raise ValueError(f"{words}: expected values that fit the worked example of {function.__name__}, "
                             f"{', '.join(known)}; got {said}") from None
        refused = isinstance(ran.returned, Exception)
        if given.html and not refused:
            command.write(given.html, page.page(function, ran, differences).encode())
            print(f"wrote {given.html}")
        else:
            print("\n".join(text.folded(text.traced(function, ran, differences))), flush=True)
    if refused:
        raise ValueError(f"{function.__name__} raised {type(ran.returned).__name__}: {ran.returned}")


if __name__ == "__main__":
    command.end(main())
