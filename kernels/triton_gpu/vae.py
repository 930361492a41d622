"""`ref.vae` on the GPU: float32, what a training step takes of an encoder's and a decoder's output, one pass over memory each.

Arguments are those of `ref.vae` (equations there), arrays of one kind (see `launch`); dkl and dnll are of the host. `out`, where
given, is an array of that kind and shape and may be one of the inputs. Sums of an example are float64, added in one order that
the example's size alone decides. Errors as there, before anything is written; but that x lies in [0, 1] is not looked at.

A program takes several short rows, one row, or a part of a long one, whose parts a second kernel adds.

Papers
    [VAE]  Kingma, Welling, "Auto-Encoding Variational Bayes", 2014
"""
import numpy as np
import triton
import triton.language as tl

from kernels import coefficients
from kernels.triton_gpu import launch
from kernels.triton_gpu.diffusion import SINGLE, pick, row_of
from kernels.triton_gpu.math import logistic, std_of
from kernels.triton_gpu.optim import tree_sum

BLOCK = 512  # elements of a program at a time


def reparameterize_kl(mu, logvar, eps, out=None):
    """[VAE] eq. 10 and appendix B:  z = mu + exp(logvar / 2) eps,  kl = 1/2 sum(mu^2 + exp(logvar) - 1 - logvar). mu, logvar, eps: (B, ...).

    Returns z (B, ...), in out where given, and kl (B,) float64, of the kind of the inputs. Raises as `ref.vae.reparameterize_kl`.
    """
    arrays = launch.read(SINGLE, mu=mu, logvar=logvar, eps=eps)
    coefficients.examples(arrays.shape)
    out, pointer = launch.output("out", out, arrays)
    return out, _by_example(_reparameterize_kl, arrays, pointer)


def reparameterize_kl_backward(dz, dkl, mu, logvar, eps, out=None):
    """Gradients of `reparameterize_kl`:  dmu = dz + dkl mu,  dlogvar = (dz eps std + dkl (exp(logvar) - 1)) / 2,  deps = std dz.

    dz, mu, logvar, eps: (B, ...). dkl: (B,), or a float for all. Returns dmu, dlogvar, deps; out: three arrays for them, which may be
    inputs. Raises as `ref.vae.reparameterize_kl_backward`.
    """
    arrays = launch.read(SINGLE, dz=dz, mu=mu, logvar=logvar, eps=eps)
    coefficients.examples(arrays.shape)
    c = launch.table(coefficients.numbers("dkl", dkl, arrays.shape).reshape(1, -1), arrays)
    made, pointers = launch.outputs(out, 3, arrays)
    launch.run(
        _reparameterize_kl_backward, launch.programs(arrays.size, c.block), arrays, *pointers, *arrays.pointers, arrays.size,
        c.pointer, c.rows, c.row_size, *c.scalars, HOW=c.how, BLOCK=c.block,
    )  # fmt: skip
    return tuple(made)


def bernoulli_nll_grad(logits, x, dnll=1.0, out=None):
    """[VAE] eq. 11 and its gradient in one pass:  nll = sum(x softplus(-logits) + (1 - x) softplus(logits)),  dlogits = dnll (sigmoid(logits) - x).

    logits, x: (B, ...), x in [0, 1]. dnll: (B,), or a float for all. Returns nll (B,) float64, of the kind of the inputs, and dlogits
    (B, ...), in out where given. Raises as `ref.vae.bernoulli_nll_grad`.
    """
    arrays = launch.read(SINGLE, logits=logits, x=x)
    coefficients.examples(arrays.shape)
    c = launch.table(coefficients.numbers("dnll", dnll, arrays.shape).reshape(1, -1), arrays)
    out, pointer = launch.output("out", out, arrays)
    return _by_example(_bernoulli_nll_grad, arrays, pointer, c.pointer, *c.scalars, EACH=c.how > 0), out


def _by_example(kernel, arrays, pointer, *args, **constants):
    """Run a kernel that sums each example. Returns the sums, (B,) float64, an array of the inputs' kind."""
    rows, n = coefficients.examples(arrays.shape)
    sums = arrays.kind.empty((rows,), "float64")
    place = launch.pointer_to(sums, arrays.kind)
    cols = min(max(triton.next_power_of_2(launch.programs(n, launch.TILES)), 32), BLOCK)  # few of them beyond the row's end
    tiles = min(launch.programs(max(n, 1), cols), launch.TILES)
    parts = launch.programs(max(n, 1), cols * tiles)
    partial = place if parts == 1 else launch.scratch(np.empty(rows * parts), arrays, filled=False)
    launch.run(
        kernel, launch.programs(rows, BLOCK // cols) * parts, arrays, pointer, partial, *arrays.pointers, rows, n, parts, *args,
        COLS=cols, TILES=tiles, BLOCK=BLOCK, **constants,
    )  # fmt: skip
    if parts > 1:
        launch.run(_add_parts, rows, arrays, place, partial, parts, BLOCK=launch.REDUCE, warps=8)
    return sums


@triton.jit
def _places(rows, n, parts, COLS: tl.constexpr, TILES: tl.constexpr, BLOCK: tl.constexpr):
    """The row and the first column of each element of this program, its first row, and its part of the rows."""
    i, group = tl.arange(0, BLOCK), tl.program_id(0) // parts
    part = tl.program_id(0) - group * parts
    first = group * (BLOCK // COLS)
    return first + i // COLS, part * (COLS * TILES) + i % COLS, first, part


@triton.jit
def _store_sums(partial, total, first, part, rows, parts, COLS: tl.constexpr, BLOCK: tl.constexpr):
    """partial[row, part] = the sum of each row's COLS elements of total, neighbours first."""
    x = total.to(tl.float64)
    for k in tl.static_range(1, 17):
        if COLS >> k > 0:
            x = tl.sum(tl.reshape(x, (BLOCK >> k, 2)), 1)  # of two: no order to choose
    row = first + tl.arange(0, BLOCK // COLS)
    tl.store(partial + row.to(tl.int64) * parts + part, x, mask=row < rows)


@triton.jit(do_not_specialize=["rows"])
def _reparameterize_kl(
    z, partial, mu, logvar, eps, rows, n, parts, COLS: tl.constexpr, TILES: tl.constexpr, BLOCK: tl.constexpr
):
    row, col, first, part = _places(rows, n, parts, COLS, TILES, BLOCK)
    total = tl.full((BLOCK,), 0.0, tl.float32)
    for tile in range(TILES):
        at, inside = row.to(tl.int64) * n + (col + tile * COLS), (row < rows) & (col + tile * COLS < n)
        m, v, e = tl.load(mu + at, mask=inside, other=0), tl.load(logvar + at, mask=inside, other=0), tl.load(eps + at, mask=inside)
        std, grown, excess = std_of(v)
        tl.store(z + at, tl.fma(std, e, m), mask=inside)
        total += 0.5 * tl.fma(m, m, excess)  # 0 outside
    _store_sums(partial, total, first, part, rows, parts, COLS, BLOCK)


@triton.jit(do_not_specialize=["rows", "n"])
def _reparameterize_kl_backward(
    dmu, dlogvar, deps, dz, mu, logvar, eps, size, table, rows, n, c, HOW: tl.constexpr, BLOCK: tl.constexpr
):
    base, i = tl.program_id(0).to(tl.int64) * BLOCK, tl.arange(0, BLOCK)
    inside = base + i < size
    if HOW:
        row, after, past = row_of(base, i, rows, n, HOW, BLOCK)
        c = pick(table, row, after, past, HOW)
    d, m = tl.load(dz + base + i, mask=inside), tl.load(mu + base + i, mask=inside)
    std, grown, excess = std_of(tl.load(logvar + base + i, mask=inside))
    g = std * d
    tl.store(dmu + base + i, tl.fma(c, m, d), mask=inside)
    tl.store(dlogvar + base + i, 0.5 * tl.fma(g, tl.load(eps + base + i, mask=inside), c * grown), mask=inside)
    tl.store(deps + base + i, g, mask=inside)


@triton.jit(do_not_specialize=["rows"])
def _bernoulli_nll_grad(
    out, partial, logits, x, rows, n, parts, table, c, EACH: tl.constexpr, COLS: tl.constexpr, TILES: tl.constexpr, BLOCK: tl.constexpr
):
    row, col, first, part = _places(rows, n, parts, COLS, TILES, BLOCK)
    total = tl.full((BLOCK,), 0.0, tl.float32)
    if EACH:
        c = tl.load(table + row, mask=row < rows)
    for tile in range(TILES):
        at, inside = row.to(tl.int64) * n + (col + tile * COLS), (row < rows) & (col + tile * COLS < n)
        l, y = tl.load(logits + at, mask=inside, other=0), tl.load(x + at, mask=inside, other=0)
        log, large, small = logistic(l)
        up, down = tl.where(l >= 0, large, small), tl.where(l >= 0, small, large)  # sigmoid(l), sigmoid(-l)
        tl.store(out + at, c * tl.fma(1.0 - y, up, -(y * down)), mask=inside)
        total += tl.where(inside, log + l * tl.where(l >= 0, 1.0 - y, -y), 0.0)
    _store_sums(partial, total, first, part, rows, parts, COLS, BLOCK)


@triton.jit(do_not_specialize=["parts"])
def _add_parts(sums, partial, parts, BLOCK: tl.constexpr):
    i, total = tl.arange(0, BLOCK), tl.full((BLOCK,), 0.0, tl.float64)
    mine = partial + tl.program_id(0).to(tl.int64) * parts
    for first in range(0, parts, BLOCK):
        total += tl.load(mine + first + i, mask=first + i < parts, other=0)
    tl.store(sums + tl.program_id(0), tree_sum(total, BLOCK))
