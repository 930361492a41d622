"""`python -m bench.training_step NET`: a training step of the digits study's DiT or U-Net (forward, loss, backward,
Adam, moving average) on kernels, in NumPy, in torch, eager and compiled, and on a GPU as a CUDA graph; gradients agree
first."""
from ref import command

if __name__ == "__main__":
    command.begin("bench.training_step")  # before the imports that take a second
import argparse
import importlib
import importlib.util
import os
import sys

import numpy as np

from bench import clocks, machine, peers
from bench.studies import fit, nets
from bench.studies.prompt import train
from kernels import registry, timing
from kernels.check import selftest
from ref import philox, tree

NAMES = {"dit": "DiT", "unet": "U-Net"}
HYPER = {"lr": 1e-3, "decay": 0.998}
LOOSE = 1e-3  # of the largest gradient of all; float32 sums of a whole network


def problem(name, batch):
    """Parameters that no 0 hides anything of, and x0, xt (B, 784), t and labels (B,)."""
    params, *_ = nets.networks(0)[name]
    count = iter(range(10**6))
    params = tree.map(lambda p: (p + 0.02 * philox.normal(next(count), p.shape)).astype(p.dtype), params)
    x0, xt = (np.float32(philox.normal(seed, (batch, 784))) for seed in (1, 2))
    return params, (x0, xt, philox.below(3, batch, 1000) + 1, philox.below(4, batch, 11))


def ours(backend, name, params, batch):
    """A call of one step on a backend, and one of the gradients alone, a tree. All parameters lie in one vector, and on
    a GPU the gradients are one recorded launch."""
    kernels, (_, forward, backward) = fit.backend(backend), nets.networks(0, backend)[name]
    arrays, shapes = fit.array_module(backend), tree.map(np.shape, params)
    batch, state = [arrays.asarray(part) for part in batch], train.state_of(params, arrays)
    weights = train.split(state["params"], shapes)

    def gradients(x0, xt, t, labels):
        out, cache = forward(weights, xt, t, labels)
        loss, dout = kernels.fused.eps_loss_grad(out.copy(), x0)
        return train.packed(backward(dout, weights, cache))

    at_once = fit.recorded(gradients, backend)
    return (lambda: fit.descend(kernels, state, at_once(*batch), 1, HYPER["lr"], HYPER["decay"]),
            lambda: train.split(at_once(*batch), shapes))  # fmt: skip


def agree(name, found, wanted):
    """Raises ValueError where gradients differ. name: whose. found, wanted: NumPy arrays by name."""
    largest = max(np.abs(g).max() for g in wanted.values())
    for key, want in wanted.items():
        error = np.abs(found[key] - want).max() / largest if key in found else np.inf
        if not error <= LOOSE and key != "pos_embed":  # which is fixed
            raise ValueError(f"{name}: gradient of {key} off by {error:.2g} of the largest, expected {LOOSE:.0e}")


def contestants(name, batch, gpu, say):
    """{name: a call of one step}, each with gradients that agree with the reference's. say: takes a line."""
    params, data = problem(name, batch)
    step, gradients = ours("ref", name, params, data)
    wanted, made = tree.named(gradients()), {} if gpu else {"NumPy": step}
    backend = "triton_gpu" if gpu else "numba_cpu"
    step, gradients = ours(backend, name, params, data)
    agree(backend, {key: fit.host(g) for key, g in tree.named(gradients()).items()}, wanted)
    made |= {backend: step}
    if importlib.util.find_spec("torch") is None:
        say("torch is not installed: not timed")
        return made
    peers.settle(["torch"], 1)
    torch_nets = importlib.import_module("bench.peers.torch_nets")
    for column, (call, weights) in torch_nets.trainers(name, params, data, HYPER, gpu).items():
        if column != "graph":  # which has taken steps already; it is the eager one
            call()
            agree(column, {key: w.grad.cpu().numpy() for key, w in weights.items()}, wanted)
        made[peers.COLUMNS[column]] = call
    return made


def main(argv=None):
    """Check, time, print. argv: list of words, or None for the command line's. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.training_step", description=__doc__.replace("`", ""))
    parser.add_argument("net", choices=NAMES)
    parser.add_argument("--batch", type=int, default=128, help="examples of a step (default: 128)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of timing (default: 10)")
    parser.add_argument("--backend", choices=registry.BACKENDS, help="default: triton_gpu on a GPU, else numba_cpu")
    words = parser.parse_args(argv)
    there = "triton_gpu" in selftest.available()[0] and not selftest.interpreted("triton_gpu")
    gpu = words.backend == "triton_gpu" or there and words.backend is None
    if words.batch < 1 or gpu and not there:
        parser.error("expected a batch of at least 1" if words.batch < 1 else "--backend: there is no GPU here")
    if not gpu:
        machine.pin(1)
        importlib.import_module("kernels.numba_cpu.engine").set_num_threads(1)
    runs = contestants(NAMES[words.net], words.batch, gpu, lambda line: print(line, file=sys.stderr))
    times = timing.interleave(runs, words.seconds, clock=clocks.calls if gpu else timing.wall)
    print(f"{NAMES[words.net]}, a training step of {words.batch}, float32. {machine.busy()}")
    mine = times["triton_gpu" if gpu else "numba_cpu"]
    for key, ns in times.items():
        ratio = timing.times_faster(mine, ns)
        print(f"{key:14} {np.median(ns) / 1e6:9.2f} ms, {ratio:.2f} times as long as the kernels")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    command.end(main())
