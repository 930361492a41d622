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
    """[GAN] eq. 1 with its sign changed; arguments as in `ref.gan.discriminator_loss_grad`."""
    return _loss(softplus, out, (-1, 0), (1, 0), real_logits=real_logits, fake_logits=fake_logits)


def generator_loss_grad(fake_logits, out=None):
    """[GAN] section 3, non-saturating; arguments as in `ref.gan.generator_loss_grad`."""
    return _loss(softplus, out, (-1, 0), fake_logits=fake_logits)


def generator_loss_saturating_grad(fake_logits, out=None):
    """[GAN] eq. 1 as G sees it; arguments as in `ref.gan.generator_loss_saturating_grad`."""
    return _loss(softplus, out, (1, 0), sign=-1, fake_logits=fake_logits)


def hinge_discriminator_loss_grad(real_logits, fake_logits, out=None):
    """[SN] eq. 16 with its sign changed; arguments as in `ref.gan.hinge_discriminator_loss_grad`."""
    return _loss(hinge, out, (-1, 1), (1, 1), real_logits=real_logits, fake_logits=fake_logits)


def hinge_generator_loss_grad(fake_logits, out=None):
    """[SN] eq. 17; arguments as in `ref.gan.hinge_generator_loss_grad`."""
    return _loss(line, out, (-1, 0), fake_logits=fake_logits)


def least_squares_discriminator_loss_grad(real_logits, fake_logits, out=None):
    """[LSGAN] eq. 2, a = 0, b = 1; arguments as in `ref.gan.least_squares_discriminator_loss_grad`."""
    return _loss(square, out, (1, -1), (1, 0), real_logits=real_logits, fake_logits=fake_logits)


def least_squares_generator_loss_grad(fake_logits, out=None):
    """[LSGAN] eq. 2, c = 1; arguments as in `ref.gan.least_squares_generator_loss_grad`."""
    return _loss(square, out, (1, -1), fake_logits=fake_logits)


def wasserstein_discriminator_loss_grad(real_logits, fake_logits, out=None):
    """[WGAN] eq. 3 with its sign changed; arguments as in `ref.gan.wasserstein_discriminator_loss_grad`."""
    return _loss(line, out, (-1, 0), (1, 0), real_logits=real_logits, fake_logits=fake_logits)


def wasserstein_generator_loss_grad(fake_logits, out=None):
    """[WGAN] eq. 3 as G sees it; arguments as in `ref.gan.wasserstein_generator_loss_grad`."""
    return _loss(line, out, (-1, 0), fake_logits=fake_logits)


def _loss(curve, out, *places, sign=1, **logits):
    """sign mean(F(slope logits + shift)), added over logits, and the gradient of each. places: slope, shift of each."""
    arrays = [read(SINGLE, **{name: x}) for name, x in logits.items()]
    if arrays[0].kind is not arrays[-1].kind:
        raise TypeError(f"fake_logits: expected {arrays[0].kind.name} like real_logits, got {arrays[1].kind.name}")
    outs = [out] if len(arrays) == 1 else [None, None] if out is None else out
    names = ["out"] if len(arrays) == 1 else ["out[0]", "out[1]"]
    made, pointers = zip(*map(output, names, outs, arrays))
    if out is not None and len(arrays) == 2:
        apart(*((p, a.size) for p, a in zip(pointers, arrays)))
        for i in (0, 1):  # one is written while the other is read
            apart((pointers[i], arrays[i].size), (arrays[1 - i].pointers[0], arrays[1 - i].size))
    partial = reduce.partial_sums(*arrays)
    numbers = [(float(slope), float(shift), sign * slope / a.size) for a, (slope, shift) in zip(arrays, places)]
    reduce.add(curve, partial, *zip(arrays, ((p,) for p in pointers), numbers), warps=8)
    first, sizes = reduce.programs(arrays[0]), (arrays[0].size, arrays[-1].size)
    return reduce.scalar(_add_means, arrays[0], partial.pointer, first, partial.count, *sizes, sign), *made


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
