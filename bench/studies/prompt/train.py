"""How the model is trained: scenes drawn on the fly, [SD3]'s times, the error of x0_hat weighted by a power of 1 / t;
Muon for the matrices of blocks, Adam for the rest, and a moving average. The networks and their gradients are
`ref.nets` on the backend's layers (`kernels.nets`); noise and optimiser are its kernels. On latents the autoencoder is
trained first.

On `triton_gpu` the arrays are CuPy's, and what NumPy's functions are left in the networks hand them to CuPy; the loss
and its gradients are one CUDA graph.
"""
import functools
import io
import json
import math
import time

import numpy as np

from bench import files
from bench.studies import fit
from bench.studies.prompt import autoencoder, model, scenes
from ref import flow, philox, tree

DROPPED = 0.1  # the share of captions dropped, which guidance needs
# momentum: of Muon, None for Adam alone; mean: of logit t; power: of 1 / t in the loss
SETTINGS = dict(batch=256, lr=3e-3, momentum=0.95, beta1=0.9, beta2=0.99, weight_decay=0.01, ema=0.999, seed=0,
                mean=0.0, power=1.0)  # fmt: skip
# What a backend trains unless told otherwise, (sizes, settings). The shipped one takes more than 20 minutes of 2 cores
RECIPES = {"numba_cpu": (dict(width=128, depth=4, heads=4, patch=2, shape=[4, 8, 8], widths=[16, 32, 32]),
                         dict(batch=64, mean=1.4, power=0.0))}  # fmt: skip
# share: of the steps or seconds; kl: weight of the divergence; measured: scenes whose latents are scaled
AUTOENCODER = SETTINGS | dict(batch=64, lr=2e-3, momentum=None, weight_decay=0.0, ema=0.998)
AUTOENCODER |= dict(share=0.1, kl=1e-4, measured=512)
VECTORS = ("params", "m", "v", "average")  # of a state: all parameters in one vector each
KEPT = *VECTORS, "autoencoder"  # in a checkpoint


def recipe(backend, **asked):
    """The sizes and settings of a training: `model.SIZES` and SETTINGS, with what RECIPES has for the backend, with
    what is asked for and not None."""
    sizes, settings = RECIPES.get(backend, ({}, {}))
    asked = {name: value for name, value in asked.items() if value is not None}
    return model.SIZES | sizes, SETTINGS | settings | asked


def begin(sizes, settings, arrays=np):
    """The state before the first step, its autoencoder not trained: no numbers. arrays: module that makes its arrays,
    numpy or cupy."""
    return state_of(model.start(settings["seed"], sizes), arrays) | {"autoencoder": arrays.zeros(0, np.float32)}


def state_of(fresh, arrays=np):
    """The same of any parameters. fresh: a tree of them. arrays: as in `begin`."""
    vector = packed(tree.map(arrays.asarray, fresh))
    state = {"params": vector, "m": vector * 0, "v": vector * 0, "average": vector.copy()}
    return state | {"step": 0, "seconds": 0.0, "losses": []}


def views(vector, sizes):
    """The tree of parameters whose leaves lie one after another in vector."""
    return split(vector, model.start(None, sizes))


def places(params):
    """Where the parameters lie in a vector: {name: (begin, shape)}, Adam's before those of Muon, whose matrices of one
    shape lie together; and of each such shape its begin and all of them, (count, rows, columns). params: a tree of
    arrays or of shapes."""
    shapes = {name: getattr(leaf, "shape", leaf) for name, leaf in tree.named(params).items()}
    matrices = {name: model.matrices(name, shape) for name, shape in shapes.items()}
    found, groups, at = {}, {}, 0
    for name in sorted(shapes, key=lambda name: matrices[name][1:] if matrices[name] else ()):
        if matrices[name]:
            count, *shape = matrices[name]
            begin, so_far = groups.get(tuple(shape), (at, 0))
            groups[tuple(shape)] = begin, so_far + count
        found[name] = at, shapes[name]
        at += math.prod(shapes[name])
    return found, [(begin, (count, *shape)) for shape, (begin, count) in groups.items()]


def split(vector, shapes):
    """The tree of arrays of these shapes that lie in vector as `places` says. shapes: a tree of them."""
    found = {name: vector[at : at + math.prod(shape)].reshape(shape) for name, (at, shape) in places(shapes)[0].items()}
    return tree.from_named({name: found[name] for name in tree.named(shapes)})


def packed(grads):
    """The inverse of `split`: the leaves of a tree in one vector, float32."""
    leaves, where = tree.named(grads), places(grads)[0]
    flat = np.zeros(sum(leaf.size for leaf in leaves.values()), np.float32, like=next(iter(leaves.values())))
    for name, (at, shape) in where.items():
        flat[at : at + math.prod(shape)].reshape(shape)[...] = leaves[name]
    return flat


def batch_of(step, settings, sprites):
    """What a step trains on: what `scenes.painted` takes of the pictures, words (B, LENGTH) of which a share is
    dropped, times (B,)."""
    size, seed = settings["batch"], settings["seed"]
    layout = scenes.layouts(seed, "training", (step - 1) * size + np.arange(size))
    ids = scenes.ids(scenes.captions(layout))
    ids[philox.uniform(seed, (size,), philox.stream("label", step)) < DROPPED] = 0
    t = flow.logit_normal_times(philox.normal(seed, (size,), philox.stream("time", step)), settings["mean"])
    return *scenes.placed(layout, *sprites[1:]), ids, t


def gradients(params, ink, sizes, backend, eps, size, number, corner, rgb, ids, t, encode=None, power=1.0):
    """The loss of a batch and its gradients, one vector. params: `views` of a vector. ink: of `scenes.handwriting`.
    eps: (B, 3, 32, 32) noise. The rest: of `batch_of`, on the device where the arrays are. encode: pictures -> what is
    noised in their place, of the shape of eps, or None. power: of 1 / t in the loss."""
    pictures = scenes.painted(ink, size, number, corner, rgb)
    x0 = pictures if encode is None else encode(pictures)
    times = t.astype(np.float32)[:, None, None, None]
    xt = (1 - times) * x0 + times * eps
    # L = mean((x0_hat - x0)^2 / t^power)
    x0_hat, cache = model.predict(params, xt, t, ids, sizes, backend)
    error = (x0_hat - x0) / times**power
    loss = (error * (x0_hat - x0)).mean()
    dparams = model.predict_backward(error * (2 / error.size), params, cache, sizes, backend)
    return loss, packed(dparams)


def rebuilt(*given):
    """`autoencoder.rebuild` with its gradients in one vector."""
    loss, grads = autoencoder.rebuild(*given)
    return loss, packed(grads)


def advance(state, loss_and_gradients, settings, sprites, backend, done=0.0, shape=model.SHAPE, groups=()):
    """One step. Changes state. loss_and_gradients: `gradients` of its parameters. done: the share of the training that
    is over; the rate falls to 0 over its second half. shape: of the noise of an example. groups: Muon's, of
    `places`."""
    kernels, arrays = fit.backend(backend), fit.array_module(backend)
    step, size = state["step"] + 1, (settings["batch"], *shape)
    eps = arrays.asarray(kernels.philox.normal(settings["seed"], size, philox.stream("noise", step)), np.float32)
    batch = [arrays.asarray(part) for part in batch_of(step, settings, sprites)]
    loss, grads = loss_and_gradients(eps, *batch)
    # Adam, Muon, and the moving average
    rate = max(settings["lr"] * min(1.0, 2 * (1 - done), step / 100), 1e-9)
    params, m, v, average = (state[name] for name in VECTORS)
    decay = min(settings["ema"], step / (step + 9))  # an average over the past so far, at first
    rest = slice(groups[0][0] if groups else len(params))
    kernels.adam_ema(*(x[rest] for x in (params, grads, m, v, average)), step, rate, settings["beta1"],
                     settings["beta2"], 1e-8, settings["weight_decay"], decay)
    for begin, matrices in groups:
        here = slice(begin, begin + math.prod(matrices))
        kernels.muon_ema(*(x[here].reshape(matrices) for x in (params, grads, m, average)), rate, settings["momentum"],
                         settings["weight_decay"], decay)
    state["step"] = step
    state["losses"].append(loss.copy())


def train(state, sizes, settings, sprites, backend, steps=None, seconds=None, tick=lambda: None):
    """Train until `steps`, or for `seconds` in all, of which an autoencoder takes its share first. Changes state. tick:
    called after each step."""
    if "widths" in sizes and not len(state["autoencoder"]):
        _learn_latents(state, sizes, settings, sprites, backend, steps, seconds, tick)
    params, ink = views(state["params"], sizes), fit.array_module(backend).asarray(sprites[0])
    net = whole(state, "params", sizes).get("autoencoder")
    encode = net and functools.partial(autoencoder.means, net, backend=backend)
    of_batch = functools.partial(gradients, params, ink, sizes, backend, power=settings["power"], encode=encode)
    groups = places(model.start(None, sizes))[1] if settings["momentum"] else ()
    _descend(state, of_batch, settings, sprites, backend, steps, seconds, tick, model.shape_of(sizes), groups)


def _descend(state, of_batch, settings, sprites, backend, steps, seconds, tick, *more):
    """Steps until `steps`, or for `seconds` in all, from the end of the first, which compiles. Changes state. of_batch,
    more: as in `advance`, shape and groups."""
    loss_and_gradients, began = fit.recorded(of_batch, backend), None
    while state["step"] < (steps or np.inf) and state["seconds"] < (seconds or np.inf):
        done = state["step"] / steps if steps else state["seconds"] / seconds
        advance(state, loss_and_gradients, settings, sprites, backend, done, *more)
        if state["step"] % 50 == 0:  # the losses wait for the GPU, so they are fetched seldom
            state["losses"] = [float(loss) for loss in state["losses"]]
        began = time.perf_counter() - state["seconds"] if began is None else began
        state["seconds"] = time.perf_counter() - began
        tick()
    state["losses"] = [float(loss) for loss in state["losses"]]


def _learn_latents(state, sizes, settings, sprites, backend, steps, seconds, tick):
    """Trains the autoencoder, and moves and scales its latents to mean 0 and deviation 1 in each channel. Changes
    state."""
    arrays, own = fit.array_module(backend), AUTOENCODER | {"seed": settings["seed"]}
    net = state_of(autoencoder.start(own["seed"], sizes["widths"]), arrays)
    shapes, ink = autoencoder.start(None, sizes["widths"]), arrays.asarray(sprites[0])
    of_batch = functools.partial(rebuilt, split(net["params"], shapes), ink, own["kl"], backend)

    def ticked():
        state["seconds"] = net["seconds"]
        tick()

    length = steps and max(1, round(own["share"] * steps)), seconds and own["share"] * seconds
    _descend(net, of_batch, own, sprites, backend, *length, ticked, autoencoder.LATENT)
    layout = scenes.layouts(own["seed"], "training", np.arange(own["measured"]))
    average = split(net["average"], shapes)
    latents = autoencoder.means(average, arrays.asarray(scenes.pictures(layout, sprites)), backend)
    scale, shift = (fit.host(f(latents, axis=(0, 2, 3))) for f in (np.std, np.mean))
    state["autoencoder"] = packed(autoencoder.rescaled(average, scale, shift))


def whole(state, which, sizes):
    """All that draws: the tree of parameters, with the autoencoder's if it has one. which: of VECTORS."""
    if not len(state["autoencoder"]):
        return views(state[which], sizes)
    net = split(state["autoencoder"], autoencoder.start(None, sizes["widths"]))
    return views(state[which], sizes) | {"autoencoder": net}


def host(state):
    """The state with its vectors as NumPy arrays and its losses as floats."""
    losses = [float(loss) for loss in state["losses"]]
    return state | {name: fit.host(state[name]) for name in KEPT} | {"losses": losses}


def save(path, state, about):
    """Write a checkpoint, atomically. state: on the host. about: dict that JSON can hold."""
    content = io.BytesIO()
    rest = {name: state[name] for name in ("step", "seconds", "losses")}
    np.savez(content, about=json.dumps(about | rest, sort_keys=True), **{name: state[name] for name in KEPT})
    files.write_atomic(path, content.getvalue())


def load(path, about, arrays=np):
    """The state that `save` wrote. Raises ValueError, which names the file, where it is damaged or another's."""
    with files.arrays(path, "a whole checkpoint of this study") as found:
        theirs = json.loads(str(found.pop("about")))
        state = {name: arrays.asarray(found[name]) for name in KEPT}
        state |= {name: theirs.pop(name) for name in ("step", "seconds", "losses")}
    if theirs != about:
        raise ValueError(f"{path}: expected a checkpoint of {about}, got one of {theirs}")
    return state
