"""The studies: list them, or run them.

    python -m bench.studies                       a line for each
    python -m bench.studies guidance steps        run these, `all` for all; a study whose CSV is there is kept
"""
import argparse
import ast
import importlib
import sys
from pathlib import Path

HERE = Path(__file__).parent
NAMES = (
    "schedules", "guidance", "steps", "flow", "consistency", "score", "likelihood", "vae", "gan", "gan_pathologies", "vae_vs_gan_vs_diffusion",
    "training", "conformance",
)  # fmt: skip


def main(argv=None):
    """List or run. argv: list of words, or None for the command line's. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.studies", description="Questions to generative models of real digits, answered by measurement.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="studies to run, or all; none lists them")
    parser.add_argument("--out", default=str(HERE.parent / "results" / "studies"), metavar="DIR", help="where results go (default: %(default)s)")
    parser.add_argument("--again", action="store_true", help="run also what is finished")
    args = parser.parse_args(argv)
    known = studies()
    unknown = [name for name in args.names if name not in (*known, "all")]
    if unknown:
        print(f"python -m bench.studies: no study is called {', '.join(unknown)}; there are {', '.join(known)}, and all", file=sys.stderr)
        return 2
    if not args.names:
        for name, line in known.items():
            print(f"{name:{max(map(len, known))}} {line}")
        return 0
    try:
        from threadpoolctl import threadpool_limits
        from tqdm import tqdm

        threadpool_limits(1, "blas")  # no slower, and nothing to fight over
        Path(args.out).mkdir(parents=True, exist_ok=True)  # before the work, not after it
        for name in known if "all" in args.names else dict.fromkeys(args.names):
            if (Path(args.out) / f"{name}.csv").exists() and not args.again:
                print(f"{name}: finished, in {args.out}; --again runs it again")
                continue
            with tqdm(desc=name, disable=None) as bar:
                importlib.import_module(f"bench.studies.{name}").run(args.out, _progress(bar))
            print((Path(args.out) / f"{name}.txt").read_text(), end="", flush=True)
    except (ValueError, OSError, ModuleNotFoundError) as reason:
        hint = ': pip install -e ".[study]"' if isinstance(reason, ModuleNotFoundError) and "pip" not in str(reason) else ""
        print(f"python -m bench.studies: {reason}{hint}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; what was finished is kept", file=sys.stderr)
        return 130
    return 0


def studies():
    """{name: first line of its docstring} of the studies; none is imported."""
    return {name: ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text())).split("\n")[0] for name in NAMES}


def _progress(bar):
    def progress(done, total):
        bar.total = total
        bar.update(done - bar.n)

    return progress


if __name__ == "__main__":
    sys.exit(main())
