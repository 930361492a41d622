"""A denoiser of digits: its training, step by step and to the bit repeatable, its checkpoints, and how it is sampled.

Everything random is a function of (seed, step): batch, times, noise and dropped labels have streams of
`ref.philox.stream`. So a run that was interrupted and resumed gives the numbers of one that was not, to the bit.
"""
import io
import json
import time
from itertools import pairwise

import numpy as np

from bench import files
from bench.studies import fit
from ref import philox, schedules, tree
from ref.nets import mlp

T = 1000
NO_LABEL = 10
DROPPED = 0.1  # the share of labels dropped in training, which guidance needs
RUN = 250  # training steps of simple_mlp in one call, the most that Ctrl-C loses; it divides the 500 of a checkpoint
SAMPLING = ("guidance",)  # settings that training never reads: a checkpoint may be sampled with others
COUNTED = ("step", "digits", "seconds", "losses")  # of a state, what is no tree of arrays
DEFAULTS = {
    "residual": dict(steps=2400, schedule="cosine", predict="x0", lr=1e-3, ema=0.998, anneal=True, sampler_steps=50),
    "simple_mlp": dict(steps=5000, schedule="linear", predict="eps", lr=1e-3, ema=0.0, anneal=False, sampler_steps=T),
}


def settings_of(net="residual", **change):
    """The settings of a training: the net's defaults and what differs from them."""
    return {"net": net, "batch": 128, "backend": "numba_cpu", "guidance": 2.0, "seed": 0} | DEFAULTS[net] | change


def start(settings):
    """The state before the first step: that of `fit.begin`, and the step, seconds and losses so far. A setting "pixels"
    is for other data than digits."""
    init = mlp.residual_init if settings["net"] == "residual" else mlp.simple_mlp_init
    params = init(settings["seed"], **{k: settings[k] for k in ("pixels",) if k in settings})
    return {"step": 0, "seconds": 0.0, "digits": "", "losses": [], **fit.begin(params)}


def train(state, settings, digits, tick):
    """`train_run` for simple_mlp and its prediction of noise, else `train_step`, until settings["steps"], counting the
    seconds. Changes state. digits: images (N, 784) in [-1, 1], labels (N,). tick: called after each step, or run."""
    began = time.perf_counter() - state["seconds"]
    advance = train_run if settings["net"] == "simple_mlp" and settings["predict"] == "eps" else train_step
    digits = fit.backend(settings["backend"]).send(digits[0]), digits[1]
    while state["step"] < settings["steps"]:
        advance(state, settings, digits)
        state["seconds"] = time.perf_counter() - began
        tick()


def trained(settings, digits, tick):
    """The moving average of the parameters of a net trained from the start."""
    state = start(settings)
    train(state, settings, digits, tick)
    return state["average"]


def train_run(state, settings, digits):
    """The steps of simple_mlp up to the next multiple of RUN, in one call of `mlp_train`: to the bit the same wherever
    a run begins. Changes state. digits: images where the backend wants them, labels that are ignored."""
    kernels, step = fit.backend(settings["backend"]), state["step"]
    params, m, v, average = (tree.map(kernels.send, state[part]) for part in fit.PARTS)
    run = 1 if kernels.interpreted else RUN
    how = settings["batch"], settings["lr"], settings["seed"], alpha_bar(settings["schedule"])
    resumed = {"step": step, "m": m, "v": v, "average": average}
    steps = min(run - step % run, settings["steps"] - step)
    params, kept, losses = kernels.fused.mlp_train(params, digits[0], steps, *how, resumed)
    step = kept.pop("step")
    kept = {part: tree.map(kernels.receive, arrays) for part, arrays in [("params", params), *kept.items()]}
    # in one go: Ctrl-C may strike at any time
    state.update(kept, step=step, losses=state["losses"] + kernels.receive(losses).tolist())


def train_step(state, settings, digits):
    """One step of [DDPM] algorithm 1 with Adam and the moving average. Changes state."""
    kernels = fit.backend(settings["backend"])
    seed, step, predict = settings["seed"], state["step"] + 1, settings["predict"]
    abar, noise = alpha_bar(settings["schedule"]), philox.stream("noise", step)

    # a batch, its times and its labels, some of them dropped
    pick = fit.picked(len(digits[0]), seed, settings["batch"], step)
    x0, label = digits[0][pick], dropped(digits[1][pick], seed, step)
    t = 1 + philox.below(seed, settings["batch"], T, philox.stream("time", step))

    # noise it, predict, and take the loss back through the net
    xt = _single(kernels.fused.q_sample_noise(x0, t, seed, abar, noise))
    residual, nets = settings["net"] == "residual", kernels.net(mlp)
    net = nets.residual if residual else nets.simple_mlp
    backward = nets.residual_backward if residual else nets.simple_mlp_backward
    out, cache = net(state["params"], xt, t, *[label][:residual])
    if predict == "eps":
        loss, dout = kernels.fused.eps_loss_noise(out, seed, noise)  # the noise is regenerated, not kept
    else:
        target = x0
        if predict == "v":
            eps = _single(kernels.philox.normal(seed, x0.shape, noise))
            target = kernels.diffusion.v_target(x0, eps, t, abar)
        loss, dout = kernels.fused.eps_loss_grad(out, _single(target))
    _, grads = backward(_single(dout), state["params"], cache)

    lr = fit.annealed(settings["lr"], step, settings["steps"]) if settings["anneal"] else settings["lr"]
    fit.descend(kernels, state, grads, step, lr, settings["ema"])
    state["step"] = step
    state["losses"].append(float(loss))


def dropped(labels, seed, step):
    """Labels, each replaced by NO_LABEL with the chance DROPPED."""
    return np.where(philox.uniform(seed, labels.shape, philox.stream("label", step)) < DROPPED, NO_LABEL, labels)


def sample(state, settings, labels, first=0):
    """Digits for the labels (NO_LABEL for none): DDIM with guidance for the residual net; for simple_mlp eta = 1 over
    all T steps, which is DDPM. first: of the streams of sampling, that of x_T; the steps use those after it. Returns
    images (B, 784) in [-1, 1], and the first example's way there, (10, 784)."""
    kernels, abar, seed = fit.backend(settings["backend"]), alpha_bar(settings["schedule"]), settings["seed"]
    how = dict(eta=1.0)
    if settings["net"] == "residual":
        how = dict(guidance=(labels, settings["guidance"]), clip=settings.get("clip", 1.0))
    params, times = tree.map(kernels.send, state["average"]), trailing(settings["sampler_steps"])
    size, path = (labels.size, settings.get("pixels", 784)), []
    x = kernels.philox.normal(seed, size, philox.stream("sampling", first))
    for begin, end in pairwise(np.unique(np.linspace(0, times.size - 1, 10).astype(int)).tolist()):
        path.append(kernels.receive(x)[0])
        how |= dict(seed=seed, stream=philox.stream("sampling", first + 1 + begin), predict=settings["predict"])
        x = kernels.fused.mlp_sample(params, x, times[begin : end + 1], abar, **how)
    x = _single(kernels.receive(x))
    if not np.isfinite(x).all():
        why = "the training diverged, or another program took the GPU in the middle of a launch"
        raise FloatingPointError(f"samples: expected finite numbers, got NaN or inf: {why}")
    return x, np.array([*path, x[0]])


def trailing(steps):
    """The times of a sampler from T to 0, (steps + 1,)."""
    return schedules.spaced_times(T, steps, "trailing")


def alpha_bar(schedule):
    """abar (T + 1,) of the schedule's name, "linear" or "cosine"."""
    return schedules.alpha_bar(schedules.linear_betas(T) if schedule == "linear" else schedules.cosine_betas(T))


def save(path, state, settings):
    """Write the checkpoint atomically, its arrays under PART/dotted.path. path: .npz."""
    arrays = {f"{part}/{name}": a for part in fit.PARTS for name, a in tree.named(state[part]).items()}
    arrays |= {k: state[k] for k in COUNTED}
    content = io.BytesIO()
    np.savez(content, settings=json.dumps(settings, sort_keys=True), **arrays)
    files.write_atomic(path, content.getvalue())


def load(path, settings):
    """The state that `save` wrote. Raises ValueError, which names the file, for another kind of file, a damaged one,
    other settings than those of SAMPLING or other arrays."""
    found, wanted = _read(path), tree.named(start(settings)["params"])
    theirs = json.loads(str(found["settings"]))
    trained = {k: v for k, v in settings.items() if k not in SAMPLING}
    differ = [f"{k} (there {theirs.get(k)!r}, here {v!r})" for k, v in trained.items() if theirs.get(k) != v]
    if differ:
        raise ValueError(f"{path}: expected a checkpoint of the same settings, but they differ in {', '.join(differ)}")
    shapes = {f"{part}/{name}": (a.dtype, a.shape) for part in fit.PARTS for name, a in wanted.items()}
    for name, (dtype, shape) in shapes.items():
        if name not in found or (found[name].dtype, found[name].shape) != (dtype, shape):
            got = f"{found[name].dtype} of {found[name].shape}" if name in found else "no such array"
            raise ValueError(f"{path}: expected {name}, {dtype} of {shape}, got {got}: another version's, or damaged")
    if more := sorted(found.keys() - {*shapes, *COUNTED, "settings"}):
        raise ValueError(f"{path}: expected the arrays of {settings['net']}, got {more[0]} too: another version's")
    state = {part: {n: np.ascontiguousarray(found[f"{part}/{n}"]) for n in wanted} for part in fit.PARTS}
    state = {part: tree.from_named(arrays) for part, arrays in state.items()} | {n: found[n].tolist() for n in COUNTED}
    right = type(state["step"]) is int and 0 <= state["step"] <= settings["steps"] and type(state["digits"]) is str
    if not (right and np.shape(state["losses"]) == (state["step"],) and 0 <= state["seconds"] < np.inf):
        got = f"step {state['step']}, {np.size(state['losses'])} losses, {state['seconds']} seconds"
        raise ValueError(f"{path}: expected a step up to {settings['steps']}, as many losses and seconds, got {got}")
    return state


def _read(path):
    """The arrays of a checkpoint by name, with at least `settings` and COUNTED."""
    with files.arrays(path, "a whole checkpoint of this study") as found:
        json.loads(str(found["settings"])).keys()
    if missing := [name for name in COUNTED if name not in found or found[name].dtype.kind not in "iufU"]:
        raise ValueError(f"{path}: expected {', '.join(COUNTED)} in the checkpoint, got none of {', '.join(missing)}")
    return found


def _single(array):
    return np.asarray(array).astype(np.float32, copy=False)
