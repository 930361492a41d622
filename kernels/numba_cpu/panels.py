"""Matrices turned round for `matmul`, whole or in panels of a tile's width."""
from kernels.numba_cpu.cache import njit
from kernels.numba_cpu.engine import COMPILE, INLINE
from kernels.numba_cpu.intrinsics import turn, wide
from kernels.numba_cpu.matmul import VECTORS, lanes


@njit(**INLINE)
def transpose(o, along, x, stride, rows, columns):
    """o[j along + i] = x[i stride + j] for i < rows, j < columns, a square block at a time. o, x: flat. along, stride,
    rows, columns: ints."""
    side = lanes(o) // VECTORS
    wide_rows, wide_columns = rows // side * side, columns // side * side
    for i in range(0, wide_rows, side):
        for j in range(0, wide_columns, side):
            turn(o, j * along + i, along, x, i * stride + j, stride)
        for j in range(wide_columns, columns):
            for k in range(i, i + side):
                o[j * along + k] = x[k * stride + j]
    for i in range(wide_rows, rows):
        for j in range(columns):
            o[j * along + i] = x[i * stride + j]


@njit(**INLINE)
def copy_panel(panel, width, w, count, terms):
    """panel (terms, width) = `count` rows of w (rows, terms), and 0. panel, w: flat. width, count, terms: ints."""
    panel[: terms * width if count < width else 0] = 0
    transpose(panel, width, w, terms, count, terms)


@njit(**COMPILE)
def panelled(lo, hi, panels, w, rows, width, terms):
    """The panels lo .. hi - 1 of matrices w (rows, terms), each of `width` rows of one matrix: (terms, width). panels,
    w: flat."""
    wide()
    groups = -(-rows // width)
    for panel in range(lo, hi):
        first = panel % groups * width
        from_w = w[(panel // groups * rows + first) * terms :]
        copy_panel(panels[panel * width * terms :], width, from_w, min(width, rows - first), terms)
