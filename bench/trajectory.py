"""`python -m bench.trajectory`: the chapter's net, a whole trajectory and a training step, against the truth and then against what people would
use instead, on the CPU each on one pinned thread. Exit status 1 where a kernel is wrong."""
import argparse
import csv
import functools
import importlib
import io
import os
import sys

import numpy as np

from bench import clocks, machine, peers, report
from bench.targets import LOOP_COLUMNS, judge_loop
from kernels import loops, registry, timing, tolerance

SAMPLE = {"numba_cpu": (64, 256, 1024), "triton_gpu": (64, 256, 1024, 8192)}  # batches
TRAIN, STEPS, EVERY = 128, 50, {"numba_cpu": 100, "triton_gpu": 200}  # a batch; denoising steps; training steps of a timed call
PRECISIONS = {"numba_cpu": ("float32",), "triton_gpu": ("bfloat16", "float32")}
ROUNDED = 2.0**14  # so many times more may err what rounds its operands to 8 or 11 bits, not 24; tests hold ours to plain NumPy's with the same rounding
FIELDS = ("what", "precision", "batch", "us", "gflops", "peak_share", *LOOP_COLUMNS, "peak_gflops", "target", "met")


def peak():
    """A call of so many multiply-adds on registers, and its floating-point operations: every load is the same line's."""
    from numba import njit

    from kernels.numba_cpu.engine import COMPILE
    from kernels.numba_cpu.matmul import ROWS, lanes, lines, tile

    @njit(**COMPILE | {"cache": False})
    def chains(out, a, b, depth):
        tile(out, 0, lanes(out), a, 0, 0, 0, ROWS, b, 0, 0, depth)

    like, depth = np.zeros(1, np.float32), 100_000
    out, a, b = lines(ROWS * lanes(like), like), lines(16, like), lines(64, like)
    return lambda: chains(out, a, b, depth), 2 * ROWS * lanes(like) * depth


def numpy_sampler(params, xT, times, table):
    """The trajectory in NumPy with `out=` and no needless temporaries. params, xT, times: of the net. table: of the steps. Returns the call."""
    w1, b1, w2, b2 = (params[name] for name in ("w1", "b1", "w2", "b2"))
    xt, h, e = np.empty((len(xT), w1.shape[1]), np.float32), np.empty((len(xT), len(w1)), np.float32), np.empty_like(xT)
    c, x = table.astype(np.float32), xt[:, :-1]

    def call():
        x[...] = xT
        for i, t in enumerate(times[:-1]):
            xt[:, -1] = t
            np.maximum(np.add(np.matmul(xt, w1.T, out=h), b1, out=h), 0, out=h)
            np.add(np.matmul(h, w2.T, out=e), b2, out=e)
            np.multiply(x, c[4, i] * c[0, i], out=x)
            np.add(x, np.multiply(e, c[4, i] * c[1, i] + c[5, i], out=e), out=x)
        return x

    return call


def numpy_hidden_sampler(params, xT, times, table):
    """The same in the hidden layer alone, as the kernel goes (see `kernels.numba_cpu.mlp`): what is algebra in its lead, and not the kernel. The arguments as
    in `numpy_sampler`. Returns the call."""
    from kernels import coefficients

    w1, b1, w2, b2 = (params[name] for name in ("w1", "b1", "w2", "b2"))
    lines, whole, offset = coefficients.ddim_chain(table, "eps")
    lines, feature = lines.astype(np.float32), w1[:, -1]
    u, h, total, e = (np.empty((len(xT), len(w1)), np.float32) for _ in range(4))

    def call():
        w = w1[:, :-1]
        m, shift = w @ w2, w @ b2
        np.matmul(xT, w.T, out=u)
        total[...] = 0
        for i, t in enumerate(times[:-1]):
            a, b = lines[:, i]
            np.maximum(np.add(u, np.float32(t) * feature + b1, out=h), 0, out=h)
            np.multiply(np.add(np.matmul(h, m.T, out=e), shift, out=e), b, out=e)
            np.add(np.multiply(u, a, out=u), e, out=u)
            np.add(np.multiply(total, a, out=total), np.multiply(h, b, out=h), out=total)
        return np.float32(whole) * xT + (total @ w2.T + np.float32(offset) * b2)

    return call


def torch_sampler(params, xT, times, table, how, device="cpu"):
    """The same in torch: eager, compiled ("compile"), or one CUDA graph of all steps ("graph"). What is compiled is put into one graph too, on the GPU: the
    graphs that "reduce-overhead" makes, one a step, write over what the next step reads. The arguments as in `numpy_sampler`. Returns the call; its
    result is a tensor."""
    import torch

    w1, b1, w2, b2, x0 = (torch.from_numpy(a).to(device) for a in (*(params[name] for name in ("w1", "b1", "w2", "b2")), xT))
    w, feature = w1[:, :-1].contiguous().T, w1[:, -1].contiguous()
    t, c = torch.from_numpy(np.array(times[:-1], np.float32)).to(device), torch.from_numpy(table.astype(np.float32)).to(device)

    def step(x, t, c):
        e = torch.addmm(b2, torch.relu(torch.addmm(b1 + t * feature, x, w)), w2.T)
        return c[4] * (c[0] * x + c[1] * e) + c[5] * e

    run = torch.compile(step) if how == "compile" else step

    def call():
        x = x0
        for i in range(len(t)):
            x = run(x, t[i], c[:, i])
        return x

    return _graph(call) if device == "cuda" and how != "torch" else call


def _graph(call):
    """A call that replays the graph of what call launched."""
    import torch

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):  # what it allocates on its first calls is not of the graph
        for _ in range(3):
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()

    def replay():
        graph.replay()
        return result

    replay.of = call  # its tensors live as long: the graph knows addresses only
    return replay


def torch_trainer(params, data, batch, lr, decay, abar, how, steps, device="cpu"):
    """Steps of the training loop in torch with its own noise and fused Adam. params, data, batch, lr, decay, abar, steps: as in the kernel. how, device: as
    in `torch_sampler`. Returns the call."""
    import torch

    weights = [torch.from_numpy(params[name].copy()).to(device).requires_grad_() for name in ("w1", "b1", "w2", "b2")]
    average = [w.detach().clone() for w in weights]
    optimiser = torch.optim.AdamW(weights, lr=lr, weight_decay=0.0, fused=True, capturable=device == "cuda")
    x, signal, noise = (torch.from_numpy(a.astype(np.float32)).to(device) for a in (data, np.sqrt(abar), np.sqrt(1 - abar)))

    def loss(x0, t, z):
        xt = signal[t][:, None] * x0 + noise[t][:, None] * z
        h = torch.relu(torch.nn.functional.linear(torch.cat([xt, t[:, None].float()], 1), weights[0], weights[1]))
        return torch.nn.functional.mse_loss(torch.nn.functional.linear(h, weights[2], weights[3]), z)

    run = torch.compile(loss) if how == "compile" else loss

    def step():
        with torch.enable_grad():
            x0, t = x[torch.randint(len(x), (batch,), device=device)], torch.randint(1, len(abar), (batch,), device=device)
            optimiser.zero_grad(set_to_none=how != "graph")
            run(x0, t, torch.randn_like(x0)).backward()
            optimiser.step()
            torch._foreach_lerp_(average, [w.detach() for w in weights], 1 - decay)

    one = _graph(step) if how == "graph" else step

    def call():
        for _ in range(steps):
            one()

    return call


def row(what, batch, flops, contestants, seconds, clock, steps=1, **more):
    """Times one row. what: name. batch: int. flops: of a call. contestants: {column: call}, with "kernel", and "peak" on the CPU. seconds: of timing. clock: as in
    `kernels.timing.interleave`. steps: of a call, that are told apart. more: columns. Returns the row."""
    run, peak_flops = contestants.pop("peak", (None, None))
    times = timing.interleave(contestants | ({"peak": run} if run else {}), seconds, clock=clock)
    ns = np.median(times["kernel"])
    found = dict(what=what, batch=batch, us=ns / steps / 1e3, gflops=flops / ns) | more
    if run:
        best = peak_flops / np.median(times["peak"])
        found |= dict(peak_share=flops / ns / best, peak_gflops=best)
    return found | {c: timing.times_faster(times["kernel"], times[c]) for c in LOOP_COLUMNS if c in times}


def _right(name, found, rule, loose=1.0):
    """Raises AssertionError where an error is more than loose times the allowed one."""
    units = tolerance.error(np.asarray(found.cpu() if hasattr(found, "cpu") else found, np.float32)[: len(rule.truth)], rule)
    assert units <= loose, f"{name} is wrong: {units:.3g} times the allowed error"


def rows(backend, seconds, libraries):
    """Every row, each kernel first held to the truth. backend: name. seconds: a row. libraries: columns of peers. Yields rows; raises AssertionError."""
    from kernels import coefficients, plain
    from ref import fused as truth
    from ref import philox, schedules
    from ref.nets import mlp

    fused, (send, receive) = importlib.import_module(f"kernels.{backend}.fused"), registry.carriers(backend)
    device, clock = ("cpu", timing.wall) if backend == "numba_cpu" else ("cuda", clocks.events)
    abar, params = schedules.alpha_bar(schedules.linear_betas()), mlp.simple_mlp_init(0)
    exact, sent = {name: p.astype(np.float64) for name, p in params.items()}, {name: send(p) for name, p in params.items()}
    times = schedules.spaced_times(1000, STEPS, "trailing")
    table, (width, pixels) = coefficients.ddim_trajectory(times.tolist(), 0.0, abar, "eps"), params["w2"].T.shape
    hows = [how for how in ("torch", "graph", "compile") if (how if how == "compile" else "torch") in libraries and (device == "cuda" or how != "graph")]
    for precision in PRECISIONS[backend]:
        told = {"precision": precision} if device == "cuda" else {}
        for batch in SAMPLE[backend]:
            x = philox.normal(1, (batch, pixels)).astype(np.float32)
            few = x[:8]
            rule = tolerance.whole(truth.mlp_sample(exact, few, times, abar), [plain.mlp_sample(loops.turned(params, o), few, times, abar) for o in loops.orders(width)], np.float32)
            on, out = send(x), send(np.empty_like(x))
            kernel = functools.partial(fused.mlp_sample, sent, on, times, abar, out=out, **told)
            _right("mlp_sample", receive(kernel()), rule, ROUNDED if precision == "bfloat16" else 1)
            found = {"kernel": kernel}
            if device == "cpu":
                found |= {"peak": peak(), "numpy": numpy_sampler(params, x, times, table), "numpy_hidden": numpy_hidden_sampler(params, x, times, table)}
            found |= {how: torch_sampler(params, x, times, table, how, device) for how in hows}
            for name in found.keys() - {"kernel", "peak"}:
                _right(name, found[name](), rule, ROUNDED if device == "cuda" else peers.LOOSE)
            flops = 2 * width * (width * pixels + batch * (STEPS * width + 2 * pixels))  # the hidden way's: W1 W2, a product a step, in and out
            yield row("mlp_sample", batch, flops, found, seconds, clock, precision=precision)
    data, steps = np.sign(philox.normal(2, (5000, pixels))).astype(np.float32), EVERY[backend]
    given = dict(batch=TRAIN, lr=1e-3, seed=0, abar=abar, decay=0.99)
    loss = truth.mlp_train(exact, data.astype(np.float64), 10, **given)[2]
    for precision in PRECISIONS[backend]:
        told, on = {"precision": precision} if device == "cuda" else {}, send(data)
        assert np.allclose(receive(fused.mlp_train(sent, on, 10, **given, **told)[2]), loss, rtol=1e-2 if precision == "bfloat16" else 1e-5), "mlp_train is wrong"
        found = {"kernel": functools.partial(fused.mlp_train, sent, on, steps, **given, **told)}
        found |= {"peak": peak(), "numpy": lambda: plain.mlp_train(params, data, steps, **given)} if device == "cpu" else {}
        found |= {how: torch_trainer(params, data, TRAIN, 1e-3, 0.99, abar, how, steps, device) for how in hows}
        yield row("mlp_train", TRAIN, steps * 2 * TRAIN * (2 * params["w1"].size + 3 * params["w2"].size), found, seconds, clock, steps, precision=precision)


def main(argv=None):
    """Check, time, print, write. argv: the command line's words. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.trajectory", description=__doc__)
    parser.add_argument("--backend", choices=list(SAMPLE), default="numba_cpu", help="(default numba_cpu)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of timing, a row (default 5)")
    parser.add_argument("--csv", help="write the rows to this file, such as bench/results/trajectory.csv")
    words = parser.parse_args(argv)
    if not words.seconds >= 0:
        parser.error(f"--seconds: expected at least 0, got {words.seconds}")
    if words.csv and not os.path.isdir(os.path.dirname(words.csv) or "."):
        parser.error(f"--csv: expected a file in a folder that there is, got {words.csv}")
    on_gpu = words.backend == "triton_gpu"
    if on_gpu and importlib.import_module("kernels.triton_gpu.launch").INTERPRETED:
        print("bench.trajectory: there is no GPU here, and times of the interpreter mean nothing", file=sys.stderr)
        return 2
    libraries, lines = peers.available(["torch", "compile"])
    print(*lines, sep="\n", file=sys.stderr)
    if not on_gpu:
        machine.pin(1)
        from threadpoolctl import threadpool_limits

        threadpool_limits(1, "blas")  # its threads are older than the pin
        importlib.import_module("kernels.numba_cpu.engine").set_num_threads(1)
    peers.settle(libraries, 1)
    if on_gpu and libraries:
        importlib.import_module("torch").backends.cuda.matmul.allow_tf32 = True  # as those have it who want speed
    here, table = machine.describe(1, on_gpu), io.StringIO(newline="")
    writer = csv.DictWriter(table, (*here, *FIELDS))
    writer.writeheader()
    print(f"{here['machine']}, {here['versions']}")
    try:
        for found in rows(words.backend, words.seconds, libraries):
            found = judge_loop(words.backend, found)
            writer.writerow(here | {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in found.items()})
            ratios = ", ".join(f"{found[c]:.2f} x {said}" for c, said in LOOP_COLUMNS.items() if c in found)
            met = f"; asked {found['target']}: {found['met']}" if found["met"] else ""
            share = f", {found['peak_share']:.0%} of {found['peak_gflops']:.0f}" if "peak_share" in found else ""
            print(f"{found['what']} {found['precision']} {found['batch']:5}: {found['us']:9.1f} us, {found['gflops']:.0f} GFLOP/s{share}; {ratios}{met}", flush=True)
    except AssertionError as reason:
        print(f"FAIL: {reason}", file=sys.stderr)
        return 1
    if words.csv:
        report.whole(words.csv, table.getvalue().encode())
    return 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(main())
