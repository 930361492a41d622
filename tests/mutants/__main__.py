"""Mutation tests: small faults put into the code one at a time, and which of them the tests find.

    python -m tests.mutants                    a sample of 20 of all mutants, the same each time; exit status 1 if any survives
    python -m tests.mutants --sample 50 --seed 1
    python -m tests.mutants --historical       the mutants listed by hand, known bugs of such code
    python -m tests.mutants --only samplers    of those with "samplers" in their name; with --all, each of them
    python -m tests.mutants --list             their names, and stop

A mutant is an operator at one place of one function (tests/mutants/operators.py). Each is tried in a copy of the tree with the tests
about its file; before that, the tests have to pass in the copy without any fault. A mutant that cannot change a result is listed
with the reason in tests/mutants/equivalent.py and not tried.
"""
import argparse
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

from tests.mutants import sites
from tests.mutants.equivalent import EQUIVALENT
from tests.mutants.historical import HISTORICAL

ROOT = sites.ROOT
PATIENCE = 900  # seconds for the tests of one mutant; an endless loop counts as caught
ROOMS = {"ref": ("ref", "laws"), "kernels": ("kernels",), "bench": ("bench",)}
ALSO = {  # tests whose name does not follow from the file's
    "ref/shapes.py": "ref/test_diffusion ref/test_flow",
    "ref/tree.py": "ref/test_nets",
    "ref/diffusion.py": "laws/test_process",
    "ref/objectives.py": "laws/test_likelihood",
    "ref/sde.py": "laws/test_likelihood",
    "ref/vae.py": "laws/test_vae_gan",
    "ref/gan.py": "laws/test_vae_gan",
    "bench/studies/digits.py": "bench/test_digits",
}


def tests_of(path):
    """The test files about a file, as paths from the root: tests/ROOM/test_NAME*.py by its own name and by that of its folder."""
    top, *inner = path.relative_to(ROOT).with_suffix("").parts
    rooms = (inner[0],) if (ROOT / "tests" / inner[0]).is_dir() else ROOMS[top]
    names = ["*"] if rooms == (inner[0],) else inner[::-1]
    found = [test for name in names for room in rooms for ending in ("", "_*") for test in sorted(ROOT.glob(f"tests/{room}/test_{name}{ending}.py"))]
    found += [ROOT / "tests" / f"{test}.py" for test in ALSO.get(path.relative_to(ROOT).as_posix(), "").split()]
    if top == "ref" and "_backward(" in path.read_text():
        found.append(ROOT / "tests/ref/test_gradients.py")
    found = found or [test for room in rooms for test in sorted(ROOT.glob(f"tests/{room}/test_*.py"))]
    return list(dict.fromkeys(test.relative_to(ROOT).as_posix() for test in found if test.exists()))


def run_tests(tree, tests):
    """pytest's exit status and its last lines: 0 passed, 1 a test failed, 2 the files could not be read or it took too long."""
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "NUMBA_CACHE_DIR": str(tree / ".numba"), "PYTHONPATH": str(tree)}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return 2, ["too long"]
    return done.returncode, (done.stdout + done.stderr).strip().splitlines()[-12:]


def attempt(tree, path, source):
    """pytest's exit status with the changed source in place of the file, and the lines. The file is put back."""
    place = tree / path.relative_to(ROOT)
    sound = place.read_text()
    shutil.rmtree(tree / ".numba", ignore_errors=True)  # no fault may be hidden by code compiled before it
    place.write_text(source)
    try:
        return run_tests(tree, tests_of(path))
    finally:
        place.write_text(sound)


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
    return [draw.choice(functions[target]) for target in draw.sample(sorted(functions), min(args.sample, len(functions)))]


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
    # every mutant listed by hand, and every equivalent one, must still apply
    for site in [*(site for _, site in HISTORICAL), *EQUIVALENT]:
        sites.mutated(site)
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
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".git", "__pycache__", ".hypothesis", ".pytest_cache", "*.egg-info", "out"))
        status, last = run_tests(tree, sorted({test for _, path, _ in faulty for test in tests_of(path)}))
        if status != 0:
            print("the tests do not pass without any fault, so they cannot be tested:", *last, sep="\n    ")
            return 2
        survivors = []
        for name, path, source in faulty:
            began = time.perf_counter()
            status, last = attempt(tree, path, source)
            if status > 2:
                print(f"pytest itself failed on {name}:", *last, sep="\n    ")
                return 2
            survivors += [name] * (status == 0)
            print(f"{'caught' if status else 'SURVIVED':9} {time.perf_counter() - began:5.1f} s  {name}", flush=True)
    print(f"{len(faulty) - len(survivors)} of {len(faulty)} caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
