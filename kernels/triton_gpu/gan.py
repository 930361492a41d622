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
from kernels.triton_gpu.exponential import logistic
from kernels.triton_gpu.optim import tree_sum

SOFTPLUS, HINGE, SQUARE, LINE = map(tl.constexpr, range(4))


def discriminator_loss_grad(real_logits, fake_logits, out=None):
    """[GAN] eq. 1 with its sign changed, and its gradients:  L = mean(softplus(-real_logits)) + mean(softplus(fake_logits)).

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
    """[SN] eq. 16 with its sign changed, and its gradients:  L = mean(max(0, 1 - real_logits)) + mean(max(0, 1 + fake_logits)).

    real_logits, fake_logits: any shapes, at least one element each. Returns L (float64 without axes, of the kind of the inputs), dreal_logits, dfake_logits (in out where given).
    Raises as `ref.gan.hinge_discriminator_loss_grad`.
    """
    return _two(HINGE, real_logits, fake_logits, out, (-1, 1), (1, 1))


def hinge_generator_loss_grad(fake_logits, out=None):
    """[SN] eq. 17 with its sign changed, and its gradient:  L = -mean(fake_logits).

    fake_logits: any shape, at least one element. Returns L (float64 without axes, of the kind of the inputs), dfake_logits (in out where given). Raises as `ref.gan.hinge_generator_loss_grad`.
    """
    return _one(LINE, fake_logits, out, (-1, 0))


def least_squares_discriminator_loss_grad(real_logits, fake_logits, out=None):
    """[LSGAN] eq. 9, 1 for real and 0 for fake, and its gradients:  L = 1/2 mean((real_logits - 1)^2) + 1/2 mean(fake_logits^2).

    real_logits, fake_logits: any shapes, at least one element each. Returns L (float64 without axes, of the kind of the inputs), dreal_logits, dfake_logits (in out where given).
    Raises as `ref.gan.least_squares_discriminator_loss_grad`.
    """
    return _two(SQUARE, real_logits, fake_logits, out, (1, -1), (1, 0))


def least_squares_generator_loss_grad(fake_logits, out=None):
    """[LSGAN] eq. 9, to be taken for real, and its gradient:  L = 1/2 mean((fake_logits - 1)^2).

    fake_logits: any shape, at least one element. Returns L (float64 without axes, of the kind of the inputs), dfake_logits (in out where given).
    Raises as `ref.gan.least_squares_generator_loss_grad`.
    """
    return _one(SQUARE, fake_logits, out, (1, -1))


def wasserstein_discriminator_loss_grad(real_logits, fake_logits, out=None):
    """[WGAN] eq. 2 with its sign changed, and its gradients:  L = mean(fake_logits) - mean(real_logits).

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
    partial = launch.partial_sums(arrays)
    out, pointer = launch.output("out", out, arrays)
    _pass(curve, arrays, pointer, partial, 0, place, sign)
    return _means(partial, arrays, partial.count, arrays.size, 1, sign), out


def _two(curve, real_logits, fake_logits, out, real_place, fake_place):
    real, fake = launch.read(SINGLE, real_logits=real_logits), launch.read(SINGLE, fake_logits=fake_logits)
    if real.kind is not fake.kind:
        raise TypeError(f"fake_logits: expected {real.kind.name} like real_logits, got {fake.kind.name}")
    partial = launch.partial_sums(real, fake)
    first = launch.programs(real.size, launch.BLOCK * launch.TILES)
    made = [launch.output(f"out[{i}]", None if out is None else out[i], arrays) for i, arrays in enumerate((real, fake))]
    if out is not None:
        launch.apart((made[0][1], real.size), (made[1][1], fake.size))
        launch.apart((made[0][1], real.size), (fake.pointers[0], fake.size))  # which is read after that is written
    _pass(curve, real, made[0][1], partial, 0, real_place, 1)
    _pass(curve, fake, made[1][1], partial, first, fake_place, 1)
    return _means(partial, real, first, real.size, fake.size, 1), made[0][0], made[1][0]


def _pass(curve, arrays, pointer, partial, first, place, sign):
    slope, shift = place
    launch.run(
        _curve_grad, launch.programs(arrays.size, launch.BLOCK * launch.TILES), arrays, pointer, partial.pointer, *arrays.pointers, arrays.size,
        first, float(slope), float(shift), sign * slope / arrays.size, CURVE=curve, BLOCK=launch.BLOCK, TILES=launch.TILES,
    )  # fmt: skip


def _means(partial, arrays, count, size, other, sign):
    """sign times the mean of the first count partial sums over size elements and of the rest over other, added. arrays: of the launch."""
    out = arrays.kind.empty((), "float64")
    pointer = launch.pointer_to(out, arrays.kind)
    launch.run(_add_means, 1, arrays, pointer, partial.pointer, count, partial.count, size, other, sign, BLOCK=launch.REDUCE, warps=8)
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


@triton.jit(do_not_specialize=["first"])
def _curve_grad(out, partial, logits, size, first, slope, shift, c, CURVE: tl.constexpr, BLOCK: tl.constexpr, TILES: tl.constexpr):
    i, total = tl.arange(0, BLOCK), tl.full((BLOCK,), 0.0, tl.float32)
    for tile in range(TILES):
        base = (tl.program_id(0).to(tl.int64) * TILES + tile) * BLOCK
        inside = base + i < size
        value, derivative = _curve(tl.fma(slope, tl.load(logits + base + i, mask=inside, other=0), shift), CURVE)
        tl.store(out + base + i, c * derivative, mask=inside)
        total += tl.where(inside, value, 0.0)
    tl.store(partial + first + tl.program_id(0), tree_sum(total.to(tl.float64), BLOCK))


@triton.jit
def _sum_of(partial, first, end, BLOCK: tl.constexpr):
    i, total = tl.arange(0, BLOCK), tl.full((BLOCK,), 0.0, tl.float64)
    for at in range(first, end, BLOCK):
        total += tl.load(partial + at + i, mask=at + i < end, other=0)
    return tree_sum(total, BLOCK)


@triton.jit(do_not_specialize=["count", "end", "size", "other", "sign"])
def _add_means(out, partial, count, end, size, other, sign, BLOCK: tl.constexpr):
    loss = _sum_of(partial, 0, count, BLOCK) / size.to(tl.float64) + _sum_of(partial, count, end, BLOCK) / other.to(tl.float64)
    tl.store(out, sign.to(tl.float64) * loss)
