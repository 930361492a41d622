"""`python -m bench.trajectory`: the chapter's net, a whole trajectory and a training step, against the truth and then against what people would
use instead, each on one pinned thread. Exit status 1 where a kernel is wrong."""
import argparse
import csv
import io
import os
import sys

import numpy as np

from bench import limits, peers, report
from kernels import timing

SAMPLE, TRAIN, STEPS, EVERY = (64, 256, 1024), 128, 50, 10  # batches; denoising steps; training steps of a timed call
FIELDS = ("what", "batch", "us", "gflops", "peak_share", "numpy", "torch", "compile", "peak_gflops")


def peak():
    """A call of so many multiply-adds on registers, and its floating-point operations: every load is the same line's."""
    from numba import njit

    from kernels.numba_cpu.launch import COMPILE
    from kernels.numba_cpu.tile import ROWS, lanes, lines, tile

    @njit(**COMPILE | {"cache": False})
    def chains(out, a, b, depth):
        tile(out, a, 0, 0, 0, ROWS, b, 0, 0, depth)

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


def torch_sampler(params, xT, times, table, compiled):
    """The same in torch, eager or compiled step by step. The arguments as in `numpy_sampler`. Returns the call."""
    import torch

    w1, b1, w2, b2, x0 = (torch.from_numpy(a) for a in (*(params[name] for name in ("w1", "b1", "w2", "b2")), xT))
    w, feature = w1[:, :-1].contiguous().T, w1[:, -1].contiguous()
    t, c = torch.from_numpy(np.array(times[:-1], np.float32)), torch.from_numpy(table.astype(np.float32))

    def step(x, t, c):
        e = torch.addmm(b2, torch.relu(torch.addmm(b1 + t * feature, x, w)), w2.T)
        return c[4] * (c[0] * x + c[1] * e) + c[5] * e

    run = torch.compile(step) if compiled else step

    def call():
        x = x0
        for i in range(len(t)):
            x = run(x, t[i], c[:, i])
        return x.numpy()

    return call


def torch_trainer(params, data, batch, lr, decay, abar, compiled):
    """EVERY steps of the training loop in torch with its own noise and fused Adam. params, data, batch, lr, decay, abar: as in the kernel. Returns the call."""
    import torch

    weights = [torch.from_numpy(params[name].copy()).requires_grad_() for name in ("w1", "b1", "w2", "b2")]
    average = [w.detach().clone() for w in weights]
    optimiser = torch.optim.AdamW(weights, lr=lr, weight_decay=0.0, fused=True)
    x, signal, noise = (torch.from_numpy(a.astype(np.float32)) for a in (data, np.sqrt(abar), np.sqrt(1 - abar)))

    def loss(x0, t, z):
        xt = signal[t][:, None] * x0 + noise[t][:, None] * z
        h = torch.relu(torch.nn.functional.linear(torch.cat([xt, t[:, None].float()], 1), weights[0], weights[1]))
        return torch.nn.functional.mse_loss(torch.nn.functional.linear(h, weights[2], weights[3]), z)

    run = torch.compile(loss) if compiled else loss

    def call():
        with torch.enable_grad():
            for _ in range(EVERY):
                x0, t = x[torch.randint(len(x), (batch,))], torch.randint(1, len(abar), (batch,))
                optimiser.zero_grad()
                run(x0, t, torch.randn_like(x0)).backward()
                optimiser.step()
                torch._foreach_lerp_(average, [w.detach() for w in weights], 1 - decay)

    return call


def row(what, batch, flops, contestants, seconds):
    """Times one row. what: name. batch: int. flops: of a call. contestants: {column: call}, with "kernel" and "peak". seconds: of timing."""
    run, peak_flops = contestants.pop("peak")
    times = timing.interleave(contestants | {"peak": run}, seconds)
    best = peak_flops / np.median(times["peak"])
    ratio = {c: timing.times_faster(times["kernel"], times[c]) for c in ("numpy", "torch", "compile") if c in times}
    ns = np.median(times["kernel"])
    per = EVERY if what == "mlp_train" else 1
    return dict(what=what, batch=batch, us=ns / per / 1e3, gflops=flops / ns, peak_share=flops / ns / best, peak_gflops=best) | ratio


def rows(seconds, libraries):
    """Every row, each kernel first held to the truth. seconds: a row. libraries: columns of peers. Yields rows; raises AssertionError."""
    from kernels import coefficients, plain
    from kernels.numba_cpu import fused
    from ref import fused as truth
    from ref import philox, schedules
    from ref.nets import mlp

    abar, params = schedules.alpha_bar(schedules.linear_betas()), mlp.chapter_init(0)
    exact, times = {name: p.astype(np.float64) for name, p in params.items()}, schedules.spaced_times(1000, STEPS, "trailing")
    weights, table = params["w1"].size + params["w2"].size, coefficients.ddim_trajectory(times.tolist(), 0.0, abar, "eps")
    for batch in SAMPLE:
        x = philox.normal(1, (batch, 784)).astype(np.float32)
        want = truth.mlp_sample(exact, x[:8], times, abar)
        worst = np.abs(plain.mlp_sample(params, x, times, abar)[:8] - want).max()
        out = np.empty_like(x)
        assert np.abs(fused.mlp_sample(params, x, times, abar, out=out)[:8] - want).max() <= 2 * worst, "mlp_sample is wrong"
        found = {"kernel": lambda: fused.mlp_sample(params, x, times, abar, out=out), "peak": peak(), "numpy": numpy_sampler(params, x, times, table)}
        found |= {c: torch_sampler(params, x, times, table, c == "compile") for c in libraries if c in ("torch", "compile")}
        for name in found.keys() - {"kernel", "peak"}:
            assert np.abs(found[name]()[:8] - want).max() <= peers.LOOSE * worst, f"{name}'s trajectory is another"
        yield row("mlp_sample", batch, 2 * STEPS * batch * weights, found, seconds)
    data, told = np.sign(philox.normal(2, (5000, 784))).astype(np.float32), dict(batch=TRAIN, lr=1e-3, seed=0, abar=abar, decay=0.99)
    loss = truth.mlp_train(exact, data.astype(np.float64), EVERY, **told)[2]
    assert np.allclose(fused.mlp_train(params, data, EVERY, **told)[2], loss, rtol=1e-5), "mlp_train is wrong"
    found = {"kernel": lambda: fused.mlp_train(params, data, EVERY, **told), "peak": peak(), "numpy": lambda: plain.mlp_train(params, data, EVERY, **told)}
    found |= {c: torch_trainer(params, data, TRAIN, 1e-3, 0.99, abar, c == "compile") for c in libraries if c in ("torch", "compile")}
    yield row("mlp_train", TRAIN, EVERY * 2 * TRAIN * (2 * params["w1"].size + 3 * params["w2"].size), found, seconds)


def main(argv=None):
    """Check, time, print, write. argv: the command line's words. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.trajectory", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of timing, a row (default 5)")
    parser.add_argument("--csv", help="write the rows to this file, such as bench/results/trajectory.csv")
    words = parser.parse_args(argv)
    limits.pin(1)
    from threadpoolctl import threadpool_limits

    threadpool_limits(1, "blas")  # its threads are older than the pin
    libraries, lines = peers.available(["torch", "compile"])
    print(*lines, sep="\n", file=sys.stderr)
    peers.settle(libraries, 1)
    from kernels.numba_cpu import launch

    launch.set_num_threads(1)
    machine, table = limits.machine(1), io.StringIO(newline="")
    writer = csv.DictWriter(table, (*machine, *FIELDS))
    writer.writeheader()
    print(f"{machine['machine']}, {machine['versions']}")
    try:
        for found in rows(words.seconds, libraries):
            writer.writerow(machine | {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in found.items()})
            ratios = ", ".join(f"{found[c]:.2f} x {peers.COLUMNS[c]}" for c in ("numpy", "torch", "compile") if c in found)
            print(f"{found['what']} {found['batch']:5}: {found['us']:9.0f} us, {found['gflops']:.0f} GFLOP/s, "
                  f"{found['peak_share']:.0%} of {found['peak_gflops']:.0f}; {ratios}", flush=True)  # fmt: skip
    except AssertionError as reason:
        print(f"FAIL: {reason}", file=sys.stderr)
        return 1
    if words.csv:
        report.whole(words.csv, table.getvalue().encode())
    return 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(main())
