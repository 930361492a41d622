"""Sampling and training of `ref.nets.mlp.simple_mlp` in NumPy. Each maker takes (column, op, arguments) and returns
{how: call}."""
import numpy as np

from kernels import registry, trajectory

TORCH = ("fused.mlp_sample", "fused.mlp_train")


def plain_sampling(arguments):
    """Whether the arguments of `mlp_sample` are those of the loops here: eps predicted, no noise, no clip, no
    guidance."""
    plain = {"eta": 0, "predict": "eps", "clip": None, "guidance": None}
    return "w1" in arguments["params"] and all(arguments.get(name, value) == value for name, value in plain.items())


def net(arguments):
    """w1, b1, w2, b2 of the arguments."""
    return (arguments["params"][name] for name in ("w1", "b1", "w2", "b2"))


def _sample(column, op, arguments):
    if not plain_sampling(arguments):
        return {}
    return {column: (_by_pixels if column == "numpy" else _by_hidden_layer)(arguments)}


def _by_pixels(a):
    """[DDIM] eq. 12 from each time to the next with `out=` and no needless temporaries."""
    w1, b1, w2, b2 = net(a)
    c = trajectory.ddim_trajectory(a["times"], 0.0, a["abar"], "eps").astype(np.float32)
    xt, h, e = (np.empty((len(a["xT"]), n), np.float32) for n in (w1.shape[1], len(w1), len(w2)))
    x = xt[:, :-1]  # (B, pixels); the last column of xt is t

    def call():
        x[...] = a["xT"]
        for i, t in enumerate(a["times"][:-1]):
            xt[:, -1] = t
            # the network
            np.maximum(np.add(np.matmul(xt, w1.T, out=h), b1, out=h), 0, out=h)
            np.add(np.matmul(h, w2.T, out=e), b2, out=e)
            # the step
            np.multiply(x, c[4, i] * c[0, i], out=x)
            np.add(x, np.multiply(e, c[4, i] * c[1, i] + c[5, i], out=e), out=x)
        return x

    return call


def _by_hidden_layer(a):
    """The same with u = W1 x as the state, as the kernels iterate: what part of their lead is algebra."""
    w1, b1, w2, b2 = net(a)
    lines, whole, offset = trajectory.ddim_chain(a["times"], a["abar"], "eps")
    lines, feature = lines.astype(np.float32), w1[:, -1]
    u, h, total, e = (np.empty((len(a["xT"]), len(w1)), np.float32) for _ in range(4))

    def call():
        w = w1[:, :-1]
        m, shift = w @ w2, w @ b2
        np.matmul(a["xT"], w.T, out=u)
        total[...] = 0
        for t, (slope, weight) in zip(a["times"], lines.T):
            np.maximum(np.add(u, np.float32(t) * feature + b1, out=h), 0, out=h)
            np.multiply(np.add(np.matmul(h, m.T, out=e), shift, out=e), weight, out=e)
            np.add(np.multiply(u, slope, out=u), e, out=u)
            np.add(np.multiply(total, slope, out=total), np.multiply(h, weight, out=h), out=total)
        return np.float32(whole) * a["xT"] + (total @ w2.T + np.float32(offset) * b2)

    return call


def _train(column, op, arguments):
    function = registry.kernel(op, "numpy_cpu")
    return {"out=": lambda: function(**arguments)} if column == "numpy" else {}


NUMPY = {"fused.mlp_sample": _sample, "fused.mlp_train": _train}
