"""`ref.gan` on the GPU: float32, each loss and its gradient in one pass over the logits.

Every loss is  sign mean(F(slope logit + shift))  for one of four F, or two such means added. Arguments are those of
`ref.gan` (equations there), arrays of one kind (see `arrays`), of any two shapes. `out`, where given, is an array
like the logits, which it may be, or for two gradients a pair. Sums are float64, added in one order. Errors as there,
before anything is written.

Papers
    [GAN]      Goodfellow et al., "Generative Adversarial Nets", 2014
    [LSGAN]    Mao et al., "Least Squares Generative Adversarial Networks", 2017
    [WGAN]     Arjovsky, Chintala, Bottou, "Wasserstein Generative Adversarial Networks", 2017
    [SN]       Miyato et al., "Spectral Normalization for Generative Adversarial Networks", 2018
"""
import triton
import triton.language as tl

from kernels.triton_gpu import reduce
from kernels.triton_gpu.arrays import SINGLE, apart, output, read
from kernels.triton_gpu.math import logistic


def discriminator_loss_grad(real_logits, fake_logits, out=None):
    """[GAN] eq. 1, which D maximises, with its sign changed, and its gradients; real_logits, fake_logits
    as in `ref.gan.discriminator_loss_grad`.
    """
    return _two(softplus, real_logits, fake_logits, out, (-1, 0), (1, 0))


def generator_loss_grad(fake_logits, out=None):
    """[GAN] section 3, non-saturating, and its gradient; arguments as in `ref.gan.generator_loss_grad`."""
    return _one(softplus, fake_logits, out, (-1, 0))


def generator_loss_saturating_grad(fake_logits, out=None):
    """[GAN] eq. 1 as G sees it, and its gradient; arguments as in `ref.gan.generator_loss_saturating_grad`."""
    return _one(softplus, fake_logits, out, (1, 0), -1)


def hinge_discriminator_loss_grad(real_logits, fake_logits, out=None):
    """[SN] eq. 16, which D maximises, with its sign changed, and its gradients; arguments
    as in `ref.gan.hinge_discriminator_loss_grad`."""
    return _two(hinge, real_logits, fake_logits, out, (-1, 1), (1, 1))


def hinge_generator_loss_grad(fake_logits, out=None):
    """[SN] eq. 17, which G minimises, and its gradient; arguments as in `ref.gan.hinge_generator_loss_grad`."""
    return _one(line, fake_logits, out, (-1, 0))


def least_squares_discriminator_loss_grad(real_logits, fake_logits, out=None):
    """[LSGAN] eq. 2 with a = 0 for fake and b = 1 for real, and its gradients; arguments
    as in `ref.gan.least_squares_discriminator_loss_grad`."""
    return _two(square, real_logits, fake_logits, out, (1, -1), (1, 0))


def least_squares_generator_loss_grad(fake_logits, out=None):
    """[LSGAN] eq.
    2 with c = 1, to be taken for real, and its gradient; arguments as in `ref.gan.least_squares_generator_loss_grad`.
    """
    return _one(square, fake_logits, out, (1, -1))


def wasserstein_discriminator_loss_grad(real_logits, fake_logits, out=None):
    """[WGAN] eq. 3, which the critic maximises, with its sign changed, and its gradients; arguments
    as in `ref.gan.wasserstein_discriminator_loss_grad`."""
    return _two(line, real_logits, fake_logits, out, (-1, 0), (1, 0))


def wasserstein_generator_loss_grad(fake_logits, out=None):
    """[WGAN] eq. 3 as G sees it, and its gradient; arguments as in `ref.gan.wasserstein_generator_loss_grad`."""
    return _one(line, fake_logits, out, (-1, 0))


def _one(curve, fake_logits, out, place, sign=1):
    fake = read(SINGLE, fake_logits=fake_logits)
    out, pointer = output("out", out, fake)
    return _means(curve, [fake], [pointer], [place], sign), out


def _two(curve, real_logits, fake_logits, out, real_place, fake_place):
    real, fake = read(SINGLE, real_logits=real_logits), read(SINGLE, fake_logits=fake_logits)
    if real.kind is not fake.kind:
        raise TypeError(f"fake_logits: expected {real.kind.name} like real_logits, got {fake.kind.name}")
    made = [output(f"out[{i}]", None if out is None else out[i], a) for i, a in enumerate((real, fake))]
    pointers = [pointer for _, pointer in made]
    if out is not None:
        apart((pointers[0], real.size), (pointers[1], fake.size))
        apart((pointers[0], real.size), (fake.pointers[0], fake.size))  # one is written while the other is read
        apart((pointers[1], fake.size), (real.pointers[0], real.size))
    return _means(curve, [real, fake], pointers, [real_place, fake_place], 1), *(array for array, _ in made)


def _means(curve, logits, outs, places, sign):
    """sign mean(F(slope logits + shift)), added over logits, and its gradients into outs.
    places: slope and shift of each."""
    partial = reduce.partial_sums(*logits)
    numbers = [(float(slope), float(shift), sign * slope / a.size) for a, (slope, shift) in zip(logits, places)]
    parts = [(a, (out,), c) for a, out, c in zip(logits, outs, numbers)]
    reduce.add(curve, partial, *parts[0], other=parts[1] if len(parts) > 1 else None, warps=8)
    first, sizes = reduce.programs(logits[0]), (logits[0].size, logits[-1].size)
    return reduce.scalar(_add_means, logits[0], partial.pointer, first, partial.count, *sizes, sign)


@triton.jit
def softplus(total, logit, slope, shift, scale):
    """F(u) = log(1 + e^u), u = slope logit + shift: total + F(u) and scale F'(u). total, logit: blocks.
    slope, shift, scale: numbers."""
    u = tl.fma(slope, logit, shift)
    log, large, small = logistic(u)
    return total + tl.where(u >= 0, u + log, log), scale * tl.where(u >= 0, large, small)


@triton.jit
def hinge(total, logit, slope, shift, scale):
    """F(u) = max(0, u). total, logit, slope, shift, scale: as in `softplus`."""
    u = tl.fma(slope, logit, shift)
    return total + tl.where(u <= 0, 0.0, u), scale * tl.where(u > 0, 1.0, 0.0)


@triton.jit
def square(total, logit, slope, shift, scale):
    """F(u) = u^2 / 2. total, logit, slope, shift, scale: as in `softplus`."""
    u = tl.fma(slope, logit, shift)
    return total + 0.5 * (u * u), scale * u


@triton.jit
def line(total, logit, slope, shift, scale):
    """F(u) = u. total, logit, slope, shift, scale: as in `softplus`."""
    u = tl.fma(slope, logit, shift)
    return total + u, scale * tl.full(u.shape, 1.0, tl.float32)


@triton.jit(do_not_specialize=["count", "end", "size", "size2", "sign"])
def _add_means(out, partial, count, end, size, size2, sign, BLOCK: tl.constexpr):
    i, total = tl.arange(0, BLOCK), tl.full((BLOCK,), 0.0, tl.float64)
    weight, weight2 = sign.to(tl.float64) / size.to(tl.float64), sign.to(tl.float64) / size2.to(tl.float64)
    for first in range(0, end, BLOCK):
        at = first + i
        total += tl.load(partial + at, mask=at < end, other=0) * tl.where(at < count, weight, weight2)
    tl.store(out, reduce.tree_sum(total, BLOCK))
