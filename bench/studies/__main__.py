"""The studies: list them, run them, or rewrite their texts.

    python -m bench.studies                       what each shows, the seconds it took, the files it writes
    python -m bench.studies guidance steps        run these, `all` for all; a study whose CSV is there is kept
    python -m bench.studies --text all            NAME.txt again from NAME.csv
"""
import argparse
import ast
import importlib
import sys
from pathlib import Path

from bench import files
from bench.studies import results

HERE = Path(__file__).parent
NET = "net-cosine.npz"  # the net that several studies share: trained by the first of them, read by the others
NAMES = {  # each study, and what it writes next to its picture, table and text
    "schedules": f"net-linear.npz, {NET}", "guidance": NET, "steps": NET, "flow": NET, "consistency": NET, "score": "", "likelihood": "", "vae": "", "gan": "",
    "gan_pathologies": "", "vae_vs_gan_vs_diffusion": "", "training": "", "conformance": "",
}  # fmt: skip


def main(argv=None):
    """List, run or rewrite. argv: list of words, or None for the command line's. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.studies", description="Questions to generative models of real digits, answered by measurement.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="studies to run, or all; none lists them")
    parser.add_argument("--out", default=str(HERE.parent / "results" / "studies"), metavar="DIR", help="where results go (default: %(default)s)")
    parser.add_argument("--again", action="store_true", help="run finished studies again")
    parser.add_argument("--text", action="store_true", help="only rewrite NAME.txt from the figures in NAME.csv")
    args = parser.parse_args(argv)
    known = studies()
    unknown = [name for name in args.names if name not in (*known, "all")]
    if unknown:
        print(f"python -m bench.studies: no study is called {', '.join(unknown)}; there are {', '.join(known)}, and all", file=sys.stderr)
        return 2
    names = list(known) if "all" in args.names else list(dict.fromkeys(args.names))
    try:
        if not names:
            print(listed(known, Path(args.out)), end="")
        elif args.text:
            for name in names:
                table = (Path(args.out) / f"{name}.csv").read_text()
                files.write_atomic(Path(args.out) / f"{name}.txt", results.text(name, results.parsed(table)).encode())
        else:
            _run(names, Path(args.out), args.again)
    except (ValueError, OSError, ModuleNotFoundError) as reason:
        print(f"python -m bench.studies: {reason}{results.hint(reason)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; finished studies are kept", file=sys.stderr)
        return 130
    return 0


def studies():
    """{name: first line of its docstring} of the studies; none is imported."""
    return {name: ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text())).split("\n")[0] for name in NAMES}


def listed(known, out):
    """The list: each study with what it shows, the seconds its run took where they are recorded, and its files."""
    lines = []
    for name, line in known.items():
        path, files = out / f"{name}.csv", f"{name}.png, .csv, .txt"
        took = f"run time {results.seconds(results.parsed(path.read_text()))}" if path.exists() else "not run yet"
        lines += [f"{name}: {took}", f"  {line}", f"  writes {', '.join(filter(None, (files, NAMES[name])))}"]
    return "\n".join([*lines, f"Results: {out}"]) + "\n"


def _run(names, out, again):
    """Run the studies that are not finished, one after another, and print their texts."""
    from threadpoolctl import threadpool_limits
    from tqdm import tqdm

    threadpool_limits(1, "blas")  # no slower, and nothing to compete for
    results.writable(out, [])
    for name in names:
        if (out / f"{name}.csv").exists() and not again:
            print(f"{name}: finished, in {out}; --again runs it again")
            continue
        with tqdm(desc=name, disable=None) as bar:

            def progress(done, total, bar=bar):
                bar.total = total
                bar.update(done - bar.n)

            importlib.import_module(f"bench.studies.{name}").run(out, progress)
        print((out / f"{name}.txt").read_text(), end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
