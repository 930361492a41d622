"""Memory that shows what a kernel did outside of its arrays: all around a view is the byte 0xFF, in floats a NaN."""
import numpy as np

GUARD = 16  # elements before and after
LAYOUTS = ("C", "Fortran", "transposed", "sliced", "reversed", "offset", "read-only")


def place(shape, dtype, layout):
    """An arena of bytes and a view of `shape` in it, all 0xFF. shape: tuple. dtype: of the view. layout: of LAYOUTS;
    "offset" begins between two aligned addresses."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape))
    stretch = 2 if layout == "sliced" else 1
    arena = np.full((size * stretch + 2 * GUARD) * dtype.itemsize + 1, 0xFF, np.uint8)
    first = GUARD * dtype.itemsize + (layout == "offset")
    flat = arena[first : first + size * stretch * dtype.itemsize].view(dtype)
    if layout == "Fortran":
        return arena, flat.reshape(shape[::-1]).T
    if layout == "transposed" and len(shape) > 1:
        order = (1, 0) + tuple(range(2, len(shape)))
        return arena, flat.reshape([shape[i] for i in order]).transpose(order)
    if layout == "sliced":
        return arena, flat.reshape(shape[:-1] + (2 * shape[-1],))[..., ::2]
    if layout == "reversed":
        return arena, flat.reshape(shape)[..., ::-1]
    return arena, flat.reshape(shape)


def put(array, layout):
    """The array's values in a fresh arena. array: any. layout: of LAYOUTS. Returns the arena's bytes and the view."""
    arena, view = place(array.shape, array.dtype, layout)
    view[...] = array
    if layout == "read-only":
        view.flags.writeable = False
    return arena, view


def guards_intact(arena, view):
    """Whether no byte outside the view was written. arena, view: from `place`. Overwrites the view."""
    view.view(f"u{view.dtype.itemsize}")[...] = -1 + 2 ** (8 * view.dtype.itemsize)
    return bool(np.all(arena == 0xFF))
