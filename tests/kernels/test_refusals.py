"""Bad input is refused before anything is written, by an error that names the argument, on every backend."""
import numpy as np
import pytest

from kernels import registry
from kernels.ops.audio import NETS, parameters
from kernels.ops.loops import residual, simple_mlp
from ref import schedules, tree
from tests.kernels.backends import ABAR, make, named, on_each

X, X3, SCALAR = np.ones((4, 6), np.float32), np.ones((3, 6), np.float32), np.array(1, np.float32)
NO_NOISE, NO_SIGNAL = np.array([1.0, 1.0, 0.5]), schedules.zero_terminal_snr(ABAR)
SIMPLE, RESIDUAL = simple_mlp(6, 5), residual(6, 5)
MOMENTS = {part: tree.map(np.zeros_like, SIMPLE) for part in ("m", "v", "average")}
STATE = {"step": 1, **MOMENTS}


def net(name, shape):
    """The residual net with another tensor."""
    return tree.from_named(tree.named(RESIDUAL) | {name: np.ones(shape, np.float32)})


def wavenet(name, shape, dtype=np.float32, value=1):
    """A small WaveNet with another tensor."""
    *sizes, _ = NETS["one layer"]
    return tree.from_named(tree.named(parameters(*sizes, np.float32)) | {name: np.full(shape, value, dtype)})


def sevens(shape, dtype=np.float32):
    """A result of that shape."""
    return lambda send: send(np.full(shape, 7, dtype))


def shared(*begins):
    """Results that begin at these elements of one memory."""

    def out(send):
        memory = sevens(99)(send)
        return tuple(memory[i : i + 24].reshape(4, 6) for i in begins)

    return out


NUMBA, TRITON = "numba_cpu", "triton_gpu"  # a row for one of them only
CHANGED = {  # operation: [(what is wrong, the changed arguments, the argument that the error names, error, backend)]
    "diffusion.q_sample": [
        ("a list", dict(x0=X.tolist()), "x0", TypeError),
        ("integers", dict(x0=X.astype(np.int32)), "x0", TypeError),
        ("the other byte order", dict(x0=X.astype(">f4")), "x0", TypeError, NUMBA),
        ("half", dict(x0=X.astype(np.float16)), "x0", TypeError, NUMBA),
        ("double", dict(x0=X.astype(np.float64)), "x0", TypeError, TRITON),
        ("mixed with double", dict(eps=X.astype(np.float64)), "eps", TypeError),
        ("mixed with half", dict(eps=X.astype(np.float16)), "eps", TypeError),
        ("unequal shapes", dict(eps=X[:3]), "x0.*eps"),
        ("a shape that would broadcast", dict(eps=X[:, :1].copy()), "x0.*eps"),
        ("t too large", dict(t=1001), "t"),
        ("t negative", dict(t=np.array([0, 1, -1, 2])), "t"),
        ("t a float", dict(t=1.5), "t", TypeError),
        ("t of another length", dict(t=np.array([1, 2, 3])), "t"),
        ("t along the last axis", dict(t=np.arange(6)), "t"),
        ("NaN in abar", dict(t=np.arange(4), abar=np.where(np.arange(1001) == 2, np.nan, ABAR)), "abar"),
        ("complex abar", dict(abar=ABAR + 0j), "abar"),
        ("abar above 1", dict(t=1, abar=np.array([1.0, 1.5, 0.5])), "abar"),
        ("abar that begins with the first step", dict(t=1, abar=ABAR[1:]), "abar"),
        ("out of another shape", dict(out=sevens((2, 6))), "out"),
        ("out of double", dict(out=sevens((4, 6), np.float64)), "out", TypeError),
        ("out of half", dict(out=sevens((4, 6), np.float16)), "out", TypeError),
    ],
    "diffusion.ddpm_step": [
        ("a step without noise", dict(t=1, s=0, abar=NO_NOISE), "abar"),
        ("s = t", dict(t=5, s=5), "s"),
        ("abar that rises", dict(t=2, s=1, abar=np.array([1.0, 0.2, 0.6])), "abar"),
        ("no signal to go to", dict(t=3, s=2, abar=np.array([1.0, 0.5, 0.0, 0.0])), "abar"),
        ("clip = 0", dict(clip=0), "clip"),
        ("an unknown variance", dict(variance="learned"), "variance"),
    ],
    "diffusion.ddim_step": [("s > t in one row", dict(t=np.full(4, 5), s=np.array([1, 6, 1, 1])), "s")],
    "diffusion.posterior": [("without noise", dict(t=np.array([1, 2, 2, 2]), s=0, abar=NO_NOISE), "abar")],
    "diffusion.x0_from_eps": [("without signal", dict(t=1000, abar=NO_SIGNAL), "abar")],
    "diffusion.eps_from_x0": [("at t = 0", dict(t=0), "abar")],
    "diffusion.score_from_eps": [("at t = 0", dict(t=np.array([3, 0, 1, 1])), "abar")],
    "diffusion.q_sample_backward": [("two results in one array", dict(out=shared(0, 0)), "out")],
    "fused.guided_dpmpp_2m_step": [
        ("history without its time", dict(x0_last=X, u=None, t=5, s=4), "x0_last.*u"),
        ("u not before t", dict(x0_last=X, u=5, t=5, s=4), "s"),
        ("two results in one array", dict(x0_last=None, u=None, out=shared(0, 0)), "out"),
    ],
    "fused.guided_flow_step": [("past the noise", dict(t=1.5, s=0.5), "s")],
    "fused.heun_step": [("sigma_next = 0", dict(sigma_next=0.0), "sigma_next")],
    "fused.guided_ddim_step": [("eta above 1", dict(eta=1.1), "eta")],
    "fused.q_sample_noise": [("a stream of 65 digits", dict(stream=2**64), "stream")],
    "fused.eps_loss_noise": [("nothing to average", dict(eps_hat=X[:0].copy(), out=None), "0, 6")],
    "philox.normal": [("a seed below 0", dict(seed=-1), "seed")],
    "optim.adam_step": [
        ("step 0", dict(step=0), "step"),
        ("half a step", dict(step=1.5), "step", TypeError),
        ("beta2 = 1", dict(beta2=1.0), "beta2"),
        ("beta1 below 0", dict(beta1=-0.1), "beta1"),
        ("eps below 0", dict(eps=-1.0), "eps"),
        ("lr not a number", dict(lr=np.nan), "lr"),
        ("infinite weight decay", dict(weight_decay=np.inf), "weight_decay"),
        ("results that overlap", dict(out=shared(0, 18, 60)), "out"),
    ],
    "optim.ema_step": [("a decay above 1", dict(decay=1.5), "decay")],
    "optim.muon_step": [
        ("vectors", dict.fromkeys("pgm", X[0]) | {"out": None}, "matrices"),
        ("unequal shapes", dict(g=X[:3]), "p.*g"),
        ("momentum = 1", dict(momentum=1.0), "momentum"),
        ("lr not a number", dict(lr=np.nan), "lr"),
        ("results that overlap", dict(out=shared(0, 18)), "out"),
    ],
    "optim.clip_by_global_norm": [("max_norm = 0", dict(max_norm=0.0), "max_norm")],
    "vae.reparameterize_kl": [("no batch axis", dict(mu=SCALAR, logvar=SCALAR, eps=SCALAR, out=None), "B")],
    "vae.reparameterize_kl_backward": [("dkl of another length", dict(dkl=np.ones(3)), "dkl")],
    "gan.discriminator_loss_grad": [
        ("no fake logits", dict(fake_logits=X[:0].copy(), out=None), "fake_logits", ValueError, NUMBA),
        ("no logits", dict(fake_logits=X[:0].copy(), out=None), "0, 6", ValueError, TRITON),
        ("both gradients in one array", dict(out=shared(0, 0)), "out"),
    ],
    "layers.attention": [
        ("a mask that does not broadcast", dict(mask=np.ones((3, 1, 1, 2), bool)), "mask"),
        ("a mask of ints", dict(mask=np.ones((1, 1, 1, 1), int)), "mask", TypeError),
        ("double", dict(q=np.ones((1, 1, 4, 6))), "q", TypeError),
        ("mixed with half", dict(k=np.ones((1, 1, 4, 6), np.float16)), "k", TypeError),
        ("keys of another width", dict(k=np.ones((1, 1, 4, 5), np.float32)), "q.*k.*v"),
        ("heads too wide", dict.fromkeys("qkv", np.ones((1, 1, 2, 257), np.float32)), "q, k and v", ValueError, TRITON),
    ],
    "layers.group_norm_silu": [
        ("groups that do not divide the channels", dict(groups=4), "groups"),
        ("one axis", dict(x=np.ones(6, np.float32)), "groups"),
        ("w of another length", dict(w=np.ones(5, np.float32), b=None), "w"),
    ],
    "layers.layer_norm_modulate": [
        ("a scale too few", dict(scale=X3, shift=X3), "scale"), ("two axes", dict(x=X), "x"),
    ],
    "scene.composite": [
        ("a density below 0", dict(sigma=-X), "sigma", ValueError, NUMBA),
        ("a length below 0", dict(delta=-X), "delta", ValueError, NUMBA),
        ("distances of other rays", dict(t=X3), "sigma.*t"),
        ("colours of other rays", dict(color=np.ones((3, 6, 3), np.float32)), "color"),
        ("another background", dict(background=np.ones(2, np.float32)), "background"),
    ],
    "scene.trilinear": [
        ("two axes", dict(grid=X), "grid"), ("points of a plane", dict(x=np.ones((4, 2), np.float32)), "x"),
        ("mixed with double", dict(x=np.ones((4, 3))), "x", TypeError),
    ],
    "scene.splat": [
        ("an opacity above 1", dict(opacity=np.full(1, 1.5, np.float32)), "opacity"),
        ("a covariance that has no inverse", dict(cov2=np.ones((1, 2, 2), np.float32)), "cov2"),
        ("a depth of NaN", dict(depth=np.full(1, np.nan, np.float32)), "depth"),
        ("colours of other Gaussians", dict(color=np.ones((2, 3), np.float32)), "color"),
        ("alpha_max = 1", dict(alpha_max=1.0), "alpha_max"), ("no size", dict(size=(4.0, 6)), "size", TypeError),
        ("mixed with double", dict(uv=np.ones((1, 2))), "(uv|cov2)", TypeError),
    ],
    "audio.wavenet_generate": [
        ("a probability above 1", dict(u=X + 1), "u"), ("one axis", dict(u=X[0] / 2), "u"),
        ("no cycle", dict(cycle=0), "cycle"), ("half a layer", dict(cycle=1.5), "cycle", TypeError),
        ("another net", dict(params=RESIDUAL), "params"),
        ("a bias of another length", dict(params=wavenet("end.1.bias", (3,))), "params"),
        ("mixed with double", dict(params=wavenet("end.1.bias", (5,), np.float64)), "params", TypeError),
        ("logits of NaN", dict(params=wavenet("end.1.bias", (5,), np.float32, np.nan)), "params"),
    ],
    "layers.geglu": [("an odd axis", dict(x=np.ones((4, 5), np.float32)), "x")],
    "fused.mlp_sample": [
        ("another prediction", dict(predict="mu"), "predict"),
        ("classes for a net without", dict(guidance=([0, 1, 2], 2.0)), "guidance"),
        ("labels out of range", dict(params=RESIDUAL, guidance=([0, 1, 5], 2.0)), "guidance"),
        ("too few labels", dict(params=RESIDUAL, guidance=([0, 1], 2.0)), "guidance"),
        ("labels that are no ints", dict(params=RESIDUAL, guidance=([0.0, 1, 2], 2.0)), "guidance"),
        ("times that ascend", dict(times=[0, 500]), "times"),
        ("a time twice", dict(times=[500, 500, 0]), "times"),
        ("one time", dict(times=[500]), "times"),
        ("times that are no ints", dict(times=[500.0, 0.0]), "times"),
        ("a time beyond T", dict(times=[1001, 0]), "times"),
        ("eta", dict(eta=1.5), "eta"),
        ("clip", dict(clip=0.0), "clip"),
        ("seed", dict(seed=-1), "seed"),
        ("stream", dict(stream=2**64), "stream"),
        ("no signal at T", dict(times=[1000, 0], abar=np.append(ABAR[:-1], 0.0)), "abar"),
        ("a list", dict(xT=X3.tolist()), "xT", TypeError),
        ("one axis", dict(xT=X3[0]), "xT"),
        ("other pixels", dict(xT=X3[:, :5].copy()), "params"),
        ("double", dict(xT=X3.astype(np.float64)), "params", TypeError, NUMBA),
        ("half", dict(xT=X3.astype(np.float16)), "xT", TypeError, TRITON),
        ("half weights", dict(params=SIMPLE | {"w1": SIMPLE["w1"].astype(np.float16)}), "params", TypeError),
        ("a weight too few", dict(params={n: p for n, p in SIMPLE.items() if n != "b2"}), "params"),
        ("a bias of another length", dict(params=SIMPLE | {"b1": SIMPLE["b1"][:4]}), "params"),
        ("a block of another width", dict(params=net("blocks.1.w2", (5, 4))), "params"),
        ("an odd width of the times' features", dict(params=net("time.w", (5, 3))), "width"),
        ("out of another shape", dict(out=sevens((2, 6))), "out"),
        ("out of double", dict(out=sevens((3, 6), np.float64)), "out", TypeError),
        ("an unknown precision", dict(precision="float16"), "precision", ValueError, TRITON),
    ],
    "fused.mlp_train": [
        ("no steps", dict(steps=0), "steps.*batch"),
        ("no batch", dict(batch=0), "steps.*batch"),
        ("a batch that 32 bits do not count", dict(batch=2**27), "batch", ValueError, TRITON),
        ("half a step", dict(steps=1.5), "steps", TypeError),
        ("half an example", dict(batch=1.5), "batch", TypeError),
        ("no data", dict(data=X3[:0].copy()), "n"),
        ("a list", dict(data=X3.tolist()), "data", TypeError),
        ("one axis", dict(data=X3[0]), "data"),
        ("other pixels", dict(data=X3[:, :5].copy()), "params"),
        ("double", dict(data=X3.astype(np.float64)), "params", TypeError, NUMBA),
        ("another net", dict(params=RESIDUAL), "params"),
        ("seed", dict(seed=2**64), "seed"),
        ("abar", dict(abar=np.full(5, np.nan)), "abar"),
        ("one time", dict(abar=np.ones(1)), "n"),
        ("decay", dict(decay=1.5), "decay"),
        ("a moment of another shape", dict(state=STATE | {"m": SIMPLE | {"b1": np.zeros(4, np.float32)}}), "state"),
        ("the state of another net", dict(state=STATE | {"m": simple_mlp(6, 4)}), "state"),
        ("a state without steps", dict(state=MOMENTS), "state"),
        ("an unknown precision", dict(precision="tf32"), "precision", ValueError, TRITON),
    ],
}  # fmt: skip
LOOPS = {"fused.mlp_sample": dict(width=5), "fused.mlp_train": dict(width=5, batch=2, steps=1)}
LAYERS = tuple(name for name in CHANGED if name.startswith("layers."))
NO_OUT = "audio.wavenet_generate", "fused.mlp_train", "optim.clip_by_global_norm", *LAYERS


def rows(b):
    found = {}
    for name, changes in CHANGED.items():
        for what, change, argument, *rest in changes:
            error, only = (*rest, *(ValueError, None)[len(rest):])
            if only in (None, b.name) and registry.kernel(named(name), b.name):
                found[f"{name}-{what}"] = named(name), change, error, argument
    return found


@on_each(rows, ["op", "change", "error", "argument"])
def test_bad_input_is_refused_before_anything_is_written(b, op, change, error, argument):
    shape = X3.shape if op.name in LOOPS else X.shape
    options = LOOPS.get(op.name) or {name: choices[0] for name, choices in op.options.items()}
    arguments = {"out": None if op.name in NO_OUT else lambda send: [sevens(shape)(send) for _ in range(op.writes)]}
    arguments |= make(op, shape, **options) | change
    out = arguments.pop("out")
    out = out and out(b.send)
    results = out if isinstance(out, (list, tuple)) else [out] if out is not None else []
    extra = {"out": results[0] if len(results) == 1 else tuple(results)} if results else {}
    sent = registry.sent(arguments, b.send, op)
    with pytest.raises(error, match=rf"\b{argument}\b"):
        registry.call(op, registry.kernel(op, b.name), sent, "float32", **extra)
    assert all(np.all(b.receive(result) == 7) for result in results)
