"""The studies: list them, run them, or rewrite their texts.

    python -m bench.studies                       what each shows, the seconds it took, the files it writes
    python -m bench.studies guidance steps        run these, `all` for all; a study whose CSV is there is kept
    python -m bench.studies --seed 1 guidance     with another seed, into seed-1, for the spread that the course states
    python -m bench.studies --text all            NAME.txt again from NAME.csv
"""
from ref import command

if __name__ == "__main__":
    command.begin("bench.studies")  # before the imports that take a second
import argparse
import ast
import sys
from pathlib import Path

from bench import files
from bench.studies import results

HERE = Path(__file__).parent
NET = "net-cosine.npz"  # the net that several studies share: trained by the first of them, read by the others
NAMES = {"schedules": f"net-linear.npz, {NET}"}  # each study, and what it writes next to its picture, table and text
NAMES |= dict.fromkeys(("guidance", "steps", "flow", "consistency"), NET)
NAMES |= dict.fromkeys(("score", "likelihood", "vae", "gan", "gan_pathologies", "vae_vs_gan_vs_diffusion"), "")
NAMES |= dict.fromkeys(("training", "tutorial", "conformance", "nets", "prompts", "latent", "sds"), "")
NAMES |= {"shapes": NET, "nerf": ""}
NAMES |= {name: f"{name}.wav" for name in ("speak", "wavenet")}
NAMES |= {name: f"{name}.wav, codec.npz" for name in ("codec", "codec_lm")}  # the codec that both use


def main(argv=None):
    """List, run or rewrite. argv: list of words, or None for the command line's. Returns the exit status."""
    said = "Questions to generative models of real digits, answered by measurement."
    parser = argparse.ArgumentParser(prog="python -m bench.studies", description=said)
    parser.add_argument("names", nargs="*", metavar="NAME", help="studies to run, or all; none lists them")
    out, where = HERE.parent / "results" / "studies", "where results go (default: %(default)s)"
    parser.add_argument("--out", default=out, type=lambda text: Path(command.named(text)), metavar="DIR", help=where)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="into the folder seed-N if it is not 0")
    parser.add_argument("--again", action="store_true", help="run finished studies again")
    parser.add_argument("--text", action="store_true", help="only rewrite NAME.txt from the figures in NAME.csv")
    args = parser.parse_args(argv)
    unknown = ", ".join(name for name in args.names if name not in (*NAMES, "all"))
    if unknown:
        known = ", ".join(NAMES)
        print(f"python -m bench.studies: no study is called {unknown}; there are {known}, and all", file=sys.stderr)
        return 2
    if args.out.exists() and not args.out.is_dir():
        print(f"python -m bench.studies: --out: expected a folder, got {args.out}", file=sys.stderr)
        return 2
    names = list(NAMES) if "all" in args.names else list(dict.fromkeys(args.names))
    folder, seeded = (args.out / f"seed-{args.seed}", {"seed": args.seed}) if args.seed else (args.out, {})
    try:
        if not names:
            print(listed(folder), end="")
        elif args.text:
            for name in names:
                rows = results.read(folder / f"{name}.csv")
                files.write_atomic(folder / f"{name}.txt", results.text(name, rows).encode())
        else:
            _run(names, folder, args.again, seeded)
    except (ValueError, OSError, ModuleNotFoundError) as reason:
        print(f"python -m bench.studies: {command.in_words(reason)}{results.hint(reason)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; finished studies are kept", file=sys.stderr)
        return 130
    return 0


def listed(out):
    """The list: each study with what it shows, the seconds its run took where they are recorded, and its files."""
    lines = []
    for name, more in NAMES.items():
        path, doc = out / f"{name}.csv", ast.get_docstring(ast.parse((HERE / f"{name}.py").read_bytes()))
        took = results.seconds(results.read(path)) if path.exists() else None
        said = ": not run yet" if took is None else took and f": run time {took}"
        writes = ", ".join(filter(None, (f"{name}.png, .csv, .txt", more)))
        lines += [name + said, "  " + doc.split("\n")[0], f"  writes {writes}"]
    return "\n".join([*lines, f"Results: {out}"]) + "\n"


def _run(names, out, again, change):
    """Run the studies that are not finished, one after another, and print their texts. change: of their SETTINGS."""
    from threadpoolctl import threadpool_limits
    from tqdm import tqdm

    threadpool_limits(1, "blas")  # no slower, and nothing to compete for
    results.writable(out, [])
    for name in names:
        if (out / f"{name}.csv").exists() and not again:
            print(f"{name}: finished, in {out}; --again runs it again")
            continue
        with tqdm(desc=name, disable=None) as bar:

            def progress(done, total):
                bar.total = total
                bar.update(done - bar.n)

            results.run(name, out, progress, **change)
        print((out / f"{name}.txt").read_text("utf-8"), end="", flush=True)


if __name__ == "__main__":
    command.end(main())
