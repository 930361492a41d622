"""Sampling and training of `ref.nets.mlp.simple_mlp` in torch: eager, compiled, and as a CUDA graph."""
import numpy as np
import torch
from torch.nn.functional import linear, mse_loss

from bench.peers import loops
from kernels import trajectory


def make(column, op, arguments):
    """See `bench.peers`. column: "torch", "compile" or "graph"."""
    on_gpu = any(hasattr(a, "__cuda_array_interface__") for a in arguments["params"].values())
    if column == "graph" and not on_gpu:
        return {}
    if op.name == "fused.mlp_train":
        return {column: _trainer(arguments, column, on_gpu)}
    return {column: _sampler(arguments, column, on_gpu)} if loops.plain_sampling(arguments) else {}


def _there(array, on_gpu):
    return torch.as_tensor(array, device="cuda").clone() if on_gpu else torch.from_numpy(np.array(array))


def compiled(f):
    torch.compiler.reset()  # else a second shape is compiled for any shape
    return torch.compile(f, dynamic=False)


def _sampler(a, column, on_gpu):
    w1, b1, w2, b2, x_T = (_there(array, on_gpu) for array in (*loops.net(a), a["xT"]))
    w, feature = w1[:, :-1].contiguous().T, w1[:, -1].contiguous()
    table = trajectory.ddim_trajectory(a["times"], 0.0, a["abar"], "eps")
    t, c = (_there(np.array(array, np.float32), on_gpu) for array in (a["times"][:-1], table))

    def step(x, t, c):
        e = torch.addmm(b2, torch.relu(torch.addmm(b1 + t * feature, x, w)), w2.T)
        return c[4] * (c[0] * x + c[1] * e) + c[5] * e

    run = compiled(step) if column == "compile" else step

    def call():
        x = x_T
        for i in range(len(t)):
            x = run(x, t[i], c[:, i])
        return x

    # what is compiled is captured too: graphs of one step ("reduce-overhead") would overwrite what the next step reads
    return captured(call) if on_gpu and column != "torch" else call


def captured(call):
    """A call that replays the CUDA graph of what call launched."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):  # allocations of the first calls are no part of the graph
        for _ in range(3):
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()

    def replay():
        graph.replay()
        return result

    replay.keep = call  # the graph knows addresses only: its tensors live as long as call
    return replay


def step_of(loss_of, weights, optimizer, decay, column):
    """A call of one step: the loss, its gradients, the optimizer, and the moving average of the weights; for the column
    "graph" replayed as one. It returns the loss. loss_of: takes nothing. weights: a list. optimizer: of torch. decay:
    of the average."""
    average = [w.detach().clone() for w in weights]

    def step():
        with torch.enable_grad():
            optimizer.zero_grad(set_to_none=column != "graph")
            loss = loss_of()
            loss.backward()
            optimizer.step()
            torch._foreach_lerp_(average, [w.detach() for w in weights], 1 - decay)
        return loss.detach()

    return captured(step) if column == "graph" else step


def _trainer(a, column, on_gpu):
    """Steps of [DDPM] algorithm 1 with its own noise, torch's fused AdamW and the moving average."""
    weights = [_there(array, on_gpu).requires_grad_() for array in loops.net(a)]
    settings = dict(lr=a["lr"], weight_decay=a.get("weight_decay", 0.0), eps=a.get("eps", 1e-8))
    optimizer = torch.optim.AdamW(weights, **settings, fused=True, capturable=on_gpu)
    x, abar = (_there(a[name], on_gpu) for name in ("data", "abar"))
    signal, noise = abar.sqrt().float(), (1 - abar).sqrt().float()

    def loss_of(x0, t, z):
        xt = signal[t][:, None] * x0 + noise[t][:, None] * z
        h = torch.relu(linear(torch.cat([xt, t[:, None].float()], 1), weights[0], weights[1]))
        return mse_loss(linear(h, weights[2], weights[3]), z)

    run = compiled(loss_of) if column == "compile" else loss_of

    def drawn():
        x0 = x[torch.randint(len(x), (a["batch"],), device=x.device)]
        t = torch.randint(1, len(signal), (a["batch"],), device=x.device)
        return run(x0, t, torch.randn_like(x0))

    one = step_of(drawn, weights, optimizer, a.get("decay", 0.0), column)

    def call():
        for _ in range(a["steps"]):
            loss = one()
        return loss.reshape(1)

    return call
