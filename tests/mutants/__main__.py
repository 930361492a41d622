"""Mutation tests: small faults put into the code one at a time, and which of them the tests find.

    python -m tests.mutants                    a sample of 20, the same each time; exit status 1 if any survives
    python -m tests.mutants --sample 50 --seed 1
    python -m tests.mutants --historical       the mutants listed by hand, known bugs of such code
    python -m tests.mutants --only samplers    of those with "samplers" in their name; with --all, each of them
    python -m tests.mutants --list             their names, and stop

A mutant is an operator at one place of one function (tests/mutants/operators.py). Each is tried in a copy of the tree
with the tests about its file; before that, the tests have to pass in the copy without any fault. A mutant that cannot
change a result is listed with the reason (EQUIVALENT) and not tried.
"""
import argparse
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

from tests.house import imports
from tests.mutants import sites
from tests.mutants.historical import EQUIVALENT, HISTORICAL

ROOT = sites.ROOT
PATIENCE = 5  # times as long as the tests take without a fault; then it is an endless loop, which counts as caught
NOT_COPIED = (".git", "__pycache__", ".hypothesis", ".pytest_cache", "*.egg-info", "out")


def tests_of(path):
    """The paths of the test files about a file: those with its name or its folder's, and the laws that import it."""
    top, *inner = path.relative_to(ROOT).with_suffix("").parts
    room = inner[0] if (ROOT / "tests" / inner[0]).is_dir() else top  # kernels/check has tests/check
    files = sorted(ROOT.glob(f"tests/{room}/test_*.py"))
    found = [test for name in (*inner[::-1], top) for test in files if re.match(rf"test_{name}[_.]", test.name)]
    found = found if found and room == top else files
    if found != files and len(inner) > 1:  # a backend: its own tests and those that all of them share
        found += [test for test in files if not (ROOT / top / test.stem.removeprefix("test_")).is_dir()]
    if top == "ref":
        found += [ROOT / f"tests/ref/test_{name}.py" for name in ("refusals", "every_equation", "gradients")]
        module = ".".join((top, *inner, ""))
        laws = {test: imports(test.read_text("utf-8")) for test in sorted(ROOT.glob("tests/laws/test_*.py"))}
        found += [test for test, names in laws.items() if any(f"{name}.".startswith(module) for name in names)]
    return list(dict.fromkeys(test.relative_to(ROOT).as_posix() for test in found))


def run_tests(tree, tests, patience=None):
    """pytest's exit status and last lines: 0 passed, 1 failed, 2 unreadable or not done in time. patience: seconds."""
    shutil.rmtree(tree / ".numba", ignore_errors=True)  # no fault may be hidden by code compiled before it
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(tree)}
    environment["NUMBA_CACHE_DIR"] = str(tree / ".numba")
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=patience)
    except subprocess.TimeoutExpired:
        return 2, []
    return done.returncode, (done.stdout + done.stderr).strip().splitlines()[-12:]


def refused(site):
    """Why a mutant does not apply, None where it does."""
    try:
        sites.mutated(site)
    except (LookupError, ValueError) as reason:
        return reason


def selected(args):
    """[(name, site)] to try."""
    pool = [(f"{site.target}: {name}", site) for name, site in HISTORICAL]
    if not args.historical:
        pool += [(str(site), site) for site in sites.everything() if site not in EQUIVALENT]
    pool = [(name, site) for name, site in pool if args.only in name]
    if args.all or args.historical or args.list:
        return pool
    # one mutant of each of N functions, so that a long function is drawn no more often than a short one
    draw, functions = random.Random(args.seed), {}
    for name, site in pool:
        functions.setdefault(site.target, []).append((name, site))
    targets = draw.sample(sorted(functions), min(args.sample, len(functions)))
    return [draw.choice(functions[target]) for target in targets]


def arguments(argv):
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.split("\n")[0])
    parser.add_argument("--sample", type=int, default=20, metavar="N", help="try N of them (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default: 0)")
    parser.add_argument("--all", action="store_true", help="try all of them")
    parser.add_argument("--historical", action="store_true", help="try all that are listed by hand, and no others")
    parser.add_argument("--only", default="", metavar="NAME", help="only those with NAME in their name")
    parser.add_argument("--list", action="store_true", help="list them and stop")
    return parser.parse_args(argv)


def main(argv=None):
    args = arguments(argv)
    if outdated := [reason for site in [*(site for _, site in HISTORICAL), *EQUIVALENT] if (reason := refused(site))]:
        print("these mutants of historical.py no longer apply:", *outdated, sep="\n    ")
        return 2
    chosen = selected(args)
    if args.list:
        print(*(name for name, _ in chosen), sep="\n")
        return 0
    if not chosen:
        print(f"no mutant has {args.only!r} in its name")
        return 2
    faulty = [(name, *sites.mutated(site)) for name, site in chosen]
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        tree = pathlib.Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*NOT_COPIED))
        began = time.perf_counter()
        status, last = run_tests(tree, sorted({test for _, path, _ in faulty for test in tests_of(path)}))
        patience = 60 + PATIENCE * (time.perf_counter() - began)
        if status != 0:
            print("the tests do not pass without any fault, so they cannot be tested:", *last, sep="\n    ")
            return 2
        survivors = []
        for name, path, source in faulty:
            began, place = time.perf_counter(), tree / path.relative_to(ROOT)
            place.write_text(source, "utf-8")
            status, last = run_tests(tree, tests_of(path), patience)
            shutil.copy(path, place)
            if status > 2:
                print(f"pytest itself failed on {name}:", *last, sep="\n    ")
                return 2
            survivors += [name] * (status == 0)
            print(f"{'caught' if status else 'SURVIVED':9} {time.perf_counter() - began:5.1f} s  {name}", flush=True)
    print(f"{len(faulty) - len(survivors)} of {len(faulty)} caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
