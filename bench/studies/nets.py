"""Three networks, one budget of seconds: residual MLP, U-Net, transformer.

Each learns to predict x0 from noised digits, a tenth of the labels dropped, by Adam whose rate falls to 0 along half a
cosine of the seconds; then DDIM with guidance draws digits from its moving average. All three are `ref.nets` on the
layers of numba_cpu; what differs is the network, and how many steps the seconds buy.
"""
import time

import numpy as np

from bench.studies import data, denoiser, fit, metrics, net, pictures
from ref import philox, tree
from ref.nets import dit, mlp, unet

SETTINGS = dict(seconds=120, batch=64, count=500, sampler_steps=25, guidance=2.0, threads=2, seed=0)
UNET = dict(
    in_channels=1, out_channels=1, block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=8,
    down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    attention_head_dim=16, num_class_embeds=denoiser.NO_LABEL + 1,
)  # fmt: skip
DIT = dict(input_size=28, patch_size=4, in_channels=1, hidden_size=128, depth=4, num_heads=4, num_classes=10,
           learn_sigma=False)  # fmt: skip
COLOURS = {"residual MLP": "#0072B2", "U-Net": "#D55E00", "DiT": "#009E73"}
POINTS = 60  # of a curve of the loss
COLUMNS = {
    "net": "", "parameters": "numbers that are trained", "train_steps": "training steps that the seconds bought",
    "loss": "mean square error of x0_hat, mean of the last twentieth of the steps",
} | metrics.COLUMNS  # fmt: skip


def rows(this):
    """Train, sample, judge; {name: images (B, 784)} and the labels to draw."""
    from threadpoolctl import threadpool_limits

    judge, real, perfect = metrics.references(this.count, this.seed)
    labels, found, curves, drawn = net.requested(this.count), [], [], {}
    this.total = 3 * (POINTS + 1)
    with threadpool_limits(this.threads, "blas"):
        for name, (params, forward, backward) in networks(this.seed).items():
            average, path = train(params, forward, backward, this)
            x0_hat = net.predictor(average, labels, this.guidance, forward=forward)
            abar = denoiser.alpha_bar("cosine")
            drawn[name] = net.ddim(x0_hat, labels.size, abar, this.sampler_steps, this.seed)
            tail = [loss for _, loss in path[-max(1, len(path) // 20) :]]
            found.append({"net": name, "parameters": sum(p.size for p in tree.leaves(params)), "train_steps": len(path),
                          "loss": float(np.mean(tail))} | metrics.judged(judge, real, drawn[name], labels))
            curves += [{"net": name, "at_second": float(part[-1][0]), "mean_loss": float(np.mean([x for _, x in part]))}
                       for part in np.array_split(path, min(POINTS, len(path)))]  # fmt: skip
            this.tick()
    found.append({"net": "real", **metrics.judged(judge, real, *perfect)})
    return found + curves, drawn | {"real digits": perfect[0]}, labels


def networks(seed, backend="numba_cpu"):
    """{name: fresh parameters, forward(params, x, t, labels) -> out, cache, backward(dout, params, cache) -> dparams}
    on digits (B, 784), on a backend."""
    settings = {key: DIT[key] for key in ("num_heads",)}
    mlps, unets, dits = (fit.backend(backend).net(module) for module in (mlp, unet, dit))

    def of_images(network):
        def forward(params, x, t, labels):
            y, cache = network(params, x.reshape(-1, 1, 28, 28), t, labels)
            return y.reshape(x.shape), cache

        return forward

    return {
        "residual MLP": (mlp.residual_init(seed), mlps.residual, lambda *a: mlps.residual_backward(*a)[1]),
        "U-Net": (
            unet.unet_init(seed, UNET), of_images(lambda p, x, t, c: unets.unet(p, x, t, None, UNET, c)),
            lambda dout, p, cache: unets.unet_backward(dout.reshape(-1, 1, 28, 28), p, cache, UNET)[2]),
        "DiT": (
            dit.dit_init(seed, **DIT), of_images(lambda p, x, t, c: dits.dit(p, x, t, c, settings)),
            lambda dout, p, cache: dits.dit_backward(dout.reshape(-1, 1, 28, 28), p, cache, settings)[1]),
    }  # fmt: skip


def train(params, forward, backward, this, lr=1e-3, ema=0.998):
    """[DDPM] algorithm 1 for this.seconds, x0 predicted. Returns the moving average of params, and (second, loss) of
    each step."""
    kernels, state, path, shown = fit.backend("numba_cpu"), fit.begin(params), [], 0
    images, labels = data.load()[0]
    began, abar = time.perf_counter(), denoiser.alpha_bar("cosine")
    while (spent := time.perf_counter() - began) < this.seconds:
        step = len(path) + 1
        # A batch, noised
        pick, noise = fit.picked(len(images), this.seed, this.batch, step), philox.stream("noise", step)
        x0, label = images[pick], denoiser.dropped(labels[pick], this.seed, step)
        t = 1 + philox.below(this.seed, this.batch, denoiser.T, philox.stream("time", step))
        xt = np.asarray(kernels.fused.q_sample_noise(x0, t, this.seed, abar, noise), np.float32)
        # Predict, and take the loss back through the net
        out, cache = forward(state["params"], xt, t, label)
        loss, dout = kernels.fused.eps_loss_grad(np.ascontiguousarray(out), x0)
        grads = backward(dout, state["params"], cache)
        fit.descend(kernels, state, grads, step, fit.annealed(lr, spent, this.seconds), ema)
        path.append((time.perf_counter() - began, float(loss)))
        while shown < POINTS * min(1.0, path[-1][0] / this.seconds):
            shown += 1
            this.tick()
    return state["average"], path


def shown(rows):
    """The rows of the text: the networks, without the points of their curves."""
    return [row for row in rows if row["at_second"] == ""]


def draw(rows, drawn, labels):
    """The loss against seconds, and samples of each digit."""
    figure, upper, lower = pictures.parts((9.2, 6.4), 2.4, 4)
    left, right = upper.subplots(1, 2)
    curves = [row for row in rows if row.get("at_second", "") != ""]
    styles = {name: {"color": colour} for name, colour in COLOURS.items()}
    pictures.lines(left, curves, "net", "at_second", "mean_loss", styles)
    left.set(xlabel="seconds of training", ylabel="mean square error of x0_hat", yscale="log")
    left.legend()
    real = next(row for row in rows if row["net"] == "real")
    for name, colour in COLOURS.items():
        row = next(row for row in rows if row["net"] == name)
        right.plot(row["frechet"], row["adherence"], "o", ms=6, color=colour, label=name)
    right.axvline(real["frechet"], color="black", ls="--", lw=1, label="real digits")
    right.set(xlabel=pictures.LABELS["frechet"], ylabel=pictures.LABELS["adherence"], xlim=(0, None))
    right.legend()
    for axis, (name, images) in zip(lower.subplots(2, 2).flat, drawn.items()):
        pictures.gallery(axis, pictures.of_each_class(images, labels, 5), 10, name)
    return figure
