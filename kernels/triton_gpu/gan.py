"""`ref.gan` on the GPU: float32, each loss and its gradient in one pass over the logits.

Every loss is  sign mean(F(slope logit + shift))  for one of four F, or two such means added. Arguments are those of `ref.gan`
(equations there), arrays of one kind (see `launch`), of any two shapes. `out`, where given, is an array like the logits, which it
may be, or for two gradients a pair. Sums are float64, added in one order. Errors as there, before anything is written.

Papers
    [GAN]      Goodfellow et al., "Generative Adversarial Nets", 2014
    [LSGAN]    Mao et al., "Least Squares Generative Adversarial Networks", 2017
    [WGAN]     Arjovsky, Chintala, Bottou, "Wasserstein Generative Adversarial Networks", 2017
    [SN]       Miyato et al., "Spectral Normalization for Generative Adversarial Networks", 2018
"""
import triton
import triton.language as tl

from kernels.triton_gpu import launch
from kernels.triton_gpu.diffusion import SINGLE
from kernels.triton_gpu.math import logistic
from kernels.triton_gpu.optim import tree_sum

SOFTPLUS, HINGE, SQUARE, LINE = map(tl.constexpr, range(4))


def discriminator_loss_grad(real_logits, fake_logits, out=None):
    """[GAN] eq. 1, which D maximises, with its sign changed, and its gradients:  L = mean(softplus(-real_logits)) + mean(softplus(fake_logits)).

    real_logits, fake_logits: any shapes, at least one element each. Returns L (float64 without axes, of the kind of the inputs), dreal_logits, dfake_logits (in out where given).
    Raises as `ref.gan.discriminator_loss_grad`.
    """
    return _two(SOFTPLUS, real_logits, fake_logits, out, (-1, 0), (1, 0))


def generator_loss_grad(fake_logits, out=None):
    """[GAN] section 3, non-saturating, and its gradient:  L = mean(softplus(-fake_logits)).

    fake_logits: any shape, at least one element. Returns L (float64 without axes, of the kind of the inputs), dfake_logits (in out where given). Raises as `ref.gan.generator_loss_grad`.
    """
    return _one(SOFTPLUS, fake_logits, out, (-1, 0))


def generator_loss_saturating_grad(fake_logits, out=None):
    """[GAN] eq. 1 as G sees it, and its gradient:  L = -mean(softplus(fake_logits)).

    fake_logits: any shape, at least one element. Returns L (float64 without axes, of the kind of the inputs), dfake_logits (in out where given).
    Raises as `ref.gan.generator_loss_saturating_grad`.
    """
    return _one(SOFTPLUS, fake_logits, out, (1, 0), -1)


def hinge_discriminator_loss_grad(real_logits, fake_logits, out=None):
    """[SN] eq. 16, which D maximises, with its sign changed, and its gradients:  L = mean(max(0, 1 - real_logits)) + mean(max(0, 1 + fake_logits)).

    real_logits, fake_logits: any shapes, at least one element each. Returns L (float64 without axes, of the kind of the inputs), dreal_logits, dfake_logits (in out where given).
    Raises as `ref.gan.hinge_discriminator_loss_grad`.
    """
    return _two(HINGE, real_logits, fake_logits, out, (-1, 1), (1, 1))


def hinge_generator_loss_grad(fake_logits, out=None):
    """[SN] eq. 17, which G minimises, and its gradient:  L = -mean(fake_logits).

    fake_logits: any shape, at least one element. Returns L (float64 without axes, of the kind of the inputs), dfake_logits (in out where given). Raises as `ref.gan.hinge_generator_loss_grad`.
    """
    return _one(LINE, fake_logits, out, (-1, 0))


def least_squares_discriminator_loss_grad(real_logits, fake_logits, out=None):
    """[LSGAN] eq. 2 with a = 0 for fake and b = 1 for real, and its gradients:  L = 1/2 mean((real_logits - 1)^2) + 1/2 mean(fake_logits^2).

    real_logits, fake_logits: any shapes, at least one element each. Returns L (float64 without axes, of the kind of the inputs), dreal_logits, dfake_logits (in out where given).
    Raises as `ref.gan.least_squares_discriminator_loss_grad`.
    """
    return _two(SQUARE, real_logits, fake_logits, out, (1, -1), (1, 0))


def least_squares_generator_loss_grad(fake_logits, out=None):
    """[LSGAN] eq. 2 with c = 1, to be taken for real, and its gradient:  L = 1/2 mean((fake_logits - 1)^2).

    fake_logits: any shape, at least one element. Returns L (float64 without axes, of the kind of the inputs), dfake_logits (in out where given).
    Raises as `ref.gan.least_squares_generator_loss_grad`.
    """
    return _one(SQUARE, fake_logits, out, (1, -1))


def wasserstein_discriminator_loss_grad(real_logits, fake_logits, out=None):
    """[WGAN] eq. 3, which the critic maximises, with its sign changed, and its gradients:  L = mean(fake_logits) - mean(real_logits).

    real_logits, fake_logits: any shapes, at least one element each. Returns L (float64 without axes, of the kind of the inputs), dreal_logits, dfake_logits (in out where given).
    Raises as `ref.gan.wasserstein_discriminator_loss_grad`.
    """
    return _two(LINE, real_logits, fake_logits, out, (-1, 0), (1, 0))


def wasserstein_generator_loss_grad(fake_logits, out=None):
    """[WGAN] eq. 3 as G sees it, and its gradient:  L = -mean(fake_logits).

    fake_logits: any shape, at least one element. Returns L (float64 without axes, of the kind of the inputs), dfake_logits (in out where given).
    Raises as `ref.gan.wasserstein_generator_loss_grad`.
    """
    return _one(LINE, fake_logits, out, (-1, 0))


def _one(curve, fake_logits, out, place, sign=1):
    arrays = launch.read(SINGLE, fake_logits=fake_logits)
    out, pointer = launch.output("out", out, arrays)
    return _means(curve, [arrays], [pointer], [place], sign), out


def _two(curve, real_logits, fake_logits, out, real_place, fake_place):
    real, fake = launch.read(SINGLE, real_logits=real_logits), launch.read(SINGLE, fake_logits=fake_logits)
    if real.kind is not fake.kind:
        raise TypeError(f"fake_logits: expected {real.kind.name} like real_logits, got {fake.kind.name}")
    made = [launch.output(f"out[{i}]", None if out is None else out[i], arrays) for i, arrays in enumerate((real, fake))]
    pointers = [pointer for _, pointer in made]
    if out is not None:
        launch.apart((pointers[0], real.size), (pointers[1], fake.size))
        launch.apart((pointers[0], real.size), (fake.pointers[0], fake.size))  # one is written while the other is read
        launch.apart((pointers[1], fake.size), (real.pointers[0], real.size))
    return _means(curve, [real, fake], pointers, [real_place, fake_place], 1), *(array for array, _ in made)


def _means(curve, logits, outs, places, sign):
    """sign mean(F(slope logits + shift)), added over logits, and its gradients into outs. places: slope and shift of each."""
    partial = launch.partial_sums(*logits)
    each = [
        (out, a.pointers[0], a.size, float(slope), float(shift), sign * slope / a.size) for out, a, (slope, shift) in zip(outs, logits, places)
    ]
    programs = launch.programs(logits[0].size, launch.BLOCK * launch.TILES)  # those after them take the second
    launch.run(
        _curve_grad, partial.count, logits[0], partial.pointer, programs, *each[0], *each[-1],
        CURVE=curve, BLOCK=launch.BLOCK, TILES=launch.TILES, warps=8,
    )  # fmt: skip
    out = logits[0].kind.empty((), "float64")
    pointer = launch.pointer_to(out, logits[0].kind)
    launch.run(
        _add_means, 1, logits[0], pointer, partial.pointer, programs, partial.count, logits[0].size, logits[-1].size, sign,
        BLOCK=launch.REDUCE, warps=8,
    )  # fmt: skip
    return launch.scalar(out)


@triton.jit
def _curve(u, CURVE: tl.constexpr):
    """F(u) and F'(u). u: float32 block. CURVE: which F."""
    one = tl.full(u.shape, 1.0, tl.float32)
    if CURVE == SOFTPLUS:
        log, large, small = logistic(u)
        return tl.where(u >= 0, u + log, log), tl.where(u >= 0, large, small)
    elif CURVE == HINGE:
        return tl.where(u <= 0, 0.0, u), tl.where(u > 0, one, 0.0)
    elif CURVE == SQUARE:
        return 0.5 * (u * u), u
    else:
        return u, one


@triton.jit(do_not_specialize=["programs"])
def _curve_grad(
    partial, programs, out, logits, size, slope, shift, c, out2, logits2, size2, slope2, shift2, c2,
    CURVE: tl.constexpr, BLOCK: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    i, total, program = tl.arange(0, BLOCK), tl.full((BLOCK,), 0.0, tl.float32), tl.program_id(0)
    size, size2 = tl.cast(size, tl.int64), tl.cast(size2, tl.int64)
    if program >= programs:
        out, logits, size, slope, shift, c, program = out2, logits2, size2, slope2, shift2, c2, program - programs
    for tile in range(TILES):
        base = (program.to(tl.int64) * TILES + tile) * BLOCK
        inside = base + i < size
        value, derivative = _curve(tl.fma(slope, tl.load(logits + base + i, mask=inside, other=0), shift), CURVE)
        tl.store(out + base + i, c * derivative, mask=inside)
        total += tl.where(inside, value, 0.0)
    tl.store(partial + tl.program_id(0), tree_sum(total.to(tl.float64), BLOCK))


@triton.jit(do_not_specialize=["count", "end", "size", "size2", "sign"])
def _add_means(out, partial, count, end, size, size2, sign, BLOCK: tl.constexpr):
    i, total = tl.arange(0, BLOCK), tl.full((BLOCK,), 0.0, tl.float64)
    weight, weight2 = sign.to(tl.float64) / size.to(tl.float64), sign.to(tl.float64) / size2.to(tl.float64)
    for first in range(0, end, BLOCK):
        at = first + i
        total += tl.load(partial + at, mask=at < end, other=0) * tl.where(at < count, weight, weight2)
    tl.store(out, tree_sum(total, BLOCK))
