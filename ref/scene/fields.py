"""What stands at each point of a scene: voxels, planes, and functions of a direction; each next to its gradient.

Everything here is float64. N points or directions, C channels. The box of a grid is [-1, 1] in each axis: the first
value stands at -1, the last at 1 (PyTorch's align_corners=True). Axes come in the order of the coordinates, x first,
unlike PyTorch's. Beyond the box a grid falls to 0 within one cell: values outside of it count as 0.

Papers
    [Plenoxels]  Fridovich-Keil et al., "Plenoxels: Radiance Fields without Neural Networks", 2022
    [DVGO]       Sun, Sun, Chen, "Direct Voxel Grid Optimization", 2022
    [EG3D]       Chan et al., "Efficient Geometry-aware 3D Generative Adversarial Networks", 2022
    [3DGS]       Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering", 2023
    [Sloan]      Sloan, "Stupid Spherical Harmonics (SH) Tricks", 2008
    [NeRF]       Mildenhall et al., "NeRF: Representing Scenes as Neural Radiance Fields for View Synthesis", 2020
"""
import itertools

import numpy as np

from ref.layers import sigmoid, softplus
from ref.shapes import integer, number, shaped

PLANES = (0, 1), (0, 2), (1, 2)  # XY, XZ, YZ
A0, A1, A2, A3 = (np.sqrt(k / np.pi) for k in (1 / 4, 3 / 4, 15 / 4, 5 / 16))  # of degrees 0, 1, 2, 2
A4, A5, A6, A7, A8 = (np.sqrt(k / np.pi) for k in (35 / 32, 105 / 4, 21 / 32, 7 / 16, 105 / 16))  # of degree 3


def trilinear(grid, x):
    """The value at each point between the eight corners of its voxel, [Plenoxels] section 3.3:

        y = sum_corners grid[corner] prod_axes (1 - |p - corner|),   p = (x + 1) / 2 (size - 1)

    grid: (C, X, Y, Z). x: (N, 3).
    Returns y (N, C) float64.
    Raises ValueError where shapes do not fit.
    """
    return _interpolate(shaped(grid, "grid", "C", "X", "Y", "Z"), shaped(x, "x", "N", 3))


def trilinear_backward(dy, grid, x):
    """Gradients of `trilinear`: dgrid gathers what each corner gave, in the order of the points; dx is the slope of
    the weights.

    dy: (N, C). grid: (C, X, Y, Z). x: (N, 3).
    Returns dgrid, dx, float64.
    Raises as `trilinear` does.
    """
    grid, x = shaped(grid, "grid", "C", "X", "Y", "Z"), shaped(x, "x", "N", 3)
    return _scatter(shaped(dy, "dy", len(x), len(grid)), grid, x)


def voxels(grid, x, shift=0.0):
    """Density and colour of a grid of voxels, [DVGO] section 4, between whose values lies a straight line:

        sigma = softplus(y_0 + shift),   color = sigmoid(y_1, y_2, ...),   y = trilinear(grid, x)

    So sigma >= 0 has an edge inside a voxel. Outside of the box sigma is softplus(shift).

    grid: (1 + C, X, Y, Z). x: (N, 3). shift: float.
    Returns sigma (N,), color (N, C), float64.
    Raises ValueError where shapes do not fit.
    """
    y = trilinear(grid, x)
    return softplus(y[:, 0] + number(shift, "shift")), sigmoid(y[:, 1:])


def voxels_backward(dsigma, dcolor, grid, x, shift=0.0):
    """Gradients of `voxels`:  dy_0 = dsigma sigmoid(y_0 + shift),  dy_k = dcolor_k color_k (1 - color_k).

    dsigma: (N,). dcolor: (N, C). grid, x, shift: as in `voxels`.
    Returns dgrid, dx, float64.
    Raises as `voxels` does.
    """
    y = trilinear(grid, x)
    dsigma, dcolor = shaped(dsigma, "dsigma", len(y)), shaped(dcolor, "dcolor", len(y), y.shape[1] - 1)
    color = sigmoid(y[:, 1:])
    dsum = dsigma * sigmoid(y[:, 0] + number(shift, "shift"))
    return trilinear_backward(np.concatenate([dsum[:, None], dcolor * color * (1 - color)], axis=1), grid, x)


def triplane(planes, x):
    """The sum of three planes' values at the point's projections, [EG3D] section 3, each between four corners:

        y = XY(x, y) + XZ(x, z) + YZ(y, z)

    The authors' code reads the third one at (z, x): it has XZ twice, and no f(y, z) can be represented.

    planes: (3, C, R, R), XY, XZ, YZ. x: (N, 3).
    Returns y (N, C) float64.
    Raises ValueError where shapes do not fit.
    """
    planes, x = _planes(planes, x)
    return sum(_interpolate(plane, x[:, axes]) for plane, axes in zip(planes, PLANES))


def triplane_backward(dy, planes, x):
    """Gradients of `triplane`, those of the three planes. dy: (N, C). planes: (3, C, R, R). x: (N, 3).

    Returns dplanes, dx, float64.
    Raises as `triplane` does.
    """
    planes, x = _planes(planes, x)
    dy, dplanes, dx = shaped(dy, "dy", len(x), planes.shape[1]), [], np.zeros(x.shape)
    for plane, axes in zip(planes, PLANES):
        dplane, dpart = _scatter(dy, plane, x[:, axes])
        dplanes.append(dplane)
        dx[:, axes] += dpart
    return np.stack(dplanes), dx


def spherical_harmonics(direction, degree=3):
    """The real spherical harmonics of n = direction / |direction| up to a degree, [Sloan] appendix A2, in the order
    and with the signs of [3DGS]: degree by degree, m from -degree to degree.

    direction: (N, 3), of any length. degree: int, 0 to 3.
    Returns y (N, (degree + 1)^2) float64.
    Raises ValueError where shapes do not fit, for another degree, or a direction of length 0.
    """
    _, n, count = _unit(direction, degree)
    x, y, z = n.T
    xx, yy, zz = x * x, y * y, z * z
    return np.stack([
        A0 + 0 * x,
        -A1 * y, A1 * z, -A1 * x,
        A2 * x * y, -A2 * y * z, A3 * (2 * zz - xx - yy), -A2 * x * z, A2 / 2 * (xx - yy),
        -A4 * y * (3 * xx - yy), A5 * x * y * z, -A6 * y * (4 * zz - xx - yy), A7 * z * (2 * zz - 3 * xx - 3 * yy),
        -A6 * x * (4 * zz - xx - yy), A8 * z * (xx - yy), -A4 * x * (xx - 3 * yy),
    ][:count], axis=1)  # fmt: skip


def spherical_harmonics_backward(dy, direction, degree=3):
    """Gradient of `spherical_harmonics`:  ddirection = (dn - n (n . dn)) / |direction|, with dn of the polynomials.

    dy: (N, (degree + 1)^2). direction, degree: as there.
    Returns ddirection (N, 3) float64.
    Raises as it does.
    """
    length, n, count = _unit(direction, degree)
    dy = shaped(dy, "dy", len(n), count)
    x, y, z = n.T
    xx, yy, zz, xy, yz, xz, o = x * x, y * y, z * z, x * y, y * z, x * z, 0 * x
    slopes = [  # in x, y, z, of each polynomial
        (o, o, o),
        (o, o - A1, o), (o, o, o + A1), (o - A1, o, o),
        (A2 * y, A2 * x, o), (o, -A2 * z, -A2 * y), (-2 * A3 * x, -2 * A3 * y, 4 * A3 * z), (-A2 * z, o, -A2 * x),
        (A2 * x, -A2 * y, o),
        (-6 * A4 * xy, -3 * A4 * (xx - yy), o), (A5 * yz, A5 * xz, A5 * xy),
        (2 * A6 * xy, -A6 * (4 * zz - xx - 3 * yy), -8 * A6 * yz),
        (-6 * A7 * xz, -6 * A7 * yz, 3 * A7 * (2 * zz - xx - yy)),
        (-A6 * (4 * zz - 3 * xx - yy), 2 * A6 * xy, -8 * A6 * xz), (2 * A8 * xz, -2 * A8 * yz, A8 * (xx - yy)),
        (-3 * A4 * (xx - yy), 6 * A4 * xy, o),
    ]  # fmt: skip
    dn = np.einsum("nk,kdn->nd", dy, np.array(slopes[:count]))
    return (dn - n * (n * dn).sum(axis=1, keepdims=True)) / length


def harmonic_color(coefficients, direction):
    """A colour that depends on the direction it is seen from, [3DGS] section 4:

        color = max(0, 1/2 + sum_k coefficients_k y_k),   y = spherical_harmonics(direction)

    coefficients: (N, (degree + 1)^2, C). direction: (N, 3), from the eye to the point.
    Returns color (N, C) float64.
    Raises ValueError where shapes do not fit.
    """
    coefficients, y = _harmonics(coefficients, direction)
    raw = 0.5 + np.einsum("nkc,nk->nc", coefficients, y)
    return np.where(np.real(raw) < 0, 0, raw)


def harmonic_color_backward(dcolor, coefficients, direction):
    """Gradients of `harmonic_color`, 0 where the colour was cut off. dcolor: (N, C). coefficients, direction: as there.

    Returns dcoefficients, ddirection, float64.
    Raises as it does.
    """
    coefficients, y = _harmonics(coefficients, direction)
    dcolor = shaped(dcolor, "dcolor", len(y), coefficients.shape[2])
    draw = np.where(0.5 + np.einsum("nkc,nk->nc", coefficients, y) < 0, 0, dcolor)
    dy = np.einsum("nkc,nc->nk", coefficients, draw)
    return y[:, :, None] * draw[:, None], spherical_harmonics_backward(dy, direction, _degree(coefficients))


def positional_encoding(x, octaves, pi=True, identity=False):
    """Sines of all coordinates, then their cosines, at frequencies that double, [NeRF] eq. 4:

        y = (sin(2^k a x), cos(2^k a x)),   k = 0 .. octaves - 1

    with a = pi as in the paper, or a = 1 as in the authors' code, which puts x itself first: pi=False, identity=True.

    x: (N, D). octaves: int. pi, identity: bools.
    Returns y (N, 2 D octaves), or D more, float64.
    Raises ValueError for another shape or octaves < 0.
    """
    x, frequencies = _octaves(x, octaves, pi)
    angle = x[:, None] * frequencies[:, None]  # (N, octaves, D)
    waves = np.stack([np.sin(angle), np.cos(angle)], axis=2).reshape(len(x), -1)
    return np.concatenate([x, waves], axis=1) if identity else waves


def positional_encoding_backward(dy, x, octaves, pi=True, identity=False):
    """Gradient of `positional_encoding`:  dx = sum_k 2^k a (cos(2^k a x) dsin_k - sin(2^k a x) dcos_k).

    dy: as y there. x, octaves, pi, identity: as there.
    Returns dx (N, D) float64.
    Raises as it does.
    """
    x, frequencies = _octaves(x, octaves, pi)
    (N, D), K = x.shape, len(frequencies)
    dy = shaped(dy, "dy", N, 2 * D * K + D * bool(identity))
    own, waves = np.split(dy, [D * bool(identity)], axis=1)
    dsin, dcos = waves.reshape(N, K, 2, D).swapaxes(1, 2).swapaxes(0, 1)
    angle = x[:, None] * frequencies[:, None]  # (N, octaves, D)
    dx = (frequencies[:, None] * (np.cos(angle) * dsin - np.sin(angle) * dcos)).sum(axis=1)
    return dx + own if identity else dx


def _corners(x, sizes):
    """For each corner of the cells of the points: its place in the flat grid (N,), its weight (N,), and the weight's
    slope in each axis (N, D). A corner outside of the grid stands behind its last value."""
    sizes = np.array(sizes)
    p = (x + 1) / 2 * (sizes - 1)
    first = np.floor(np.real(p))
    f = p - first
    first = np.clip(np.nan_to_num(first), -2, sizes + 1).astype(np.int64)  # NaN stays in f
    for corner in itertools.product((0, 1), repeat=len(sizes)):
        at, up = first + corner, np.array(corner)
        inside = np.all((at >= 0) & (at < sizes), axis=1)
        weight, slope = np.where(up, f, 1 - f), np.where(up, 1, -1) * (sizes - 1) / 2
        others = [np.prod(np.delete(weight, axis, axis=1), axis=1) for axis in range(len(sizes))]
        place = np.ravel_multi_index(tuple(np.where(inside[:, None], at, 0).T), sizes)
        yield np.where(inside, place, sizes.prod()), np.prod(weight, axis=1), np.stack(others, axis=1) * slope


def _rows(grid):
    """The values of a grid as rows (cells + 1, C), and a row of zeros for what is outside."""
    return np.concatenate([grid.reshape(len(grid), -1).T, np.zeros((1, len(grid)))])


def _interpolate(grid, x):
    values = _rows(grid)
    return sum(weight[:, None] * values[place] for place, weight, _ in _corners(x, grid.shape[1:]))


def _scatter(dy, grid, x):
    values, dx = _rows(grid), np.zeros(x.shape)
    dvalues = np.zeros(values.shape)
    for place, weight, slope in _corners(x, grid.shape[1:]):
        np.add.at(dvalues, place, weight[:, None] * dy)
        dx += slope * (values[place] * dy).sum(axis=1, keepdims=True)
    return dvalues[:-1].T.reshape(grid.shape).copy(), dx


def _planes(planes, x):
    planes = shaped(planes, "planes", 3, "C", "R", "R")
    return shaped(planes, "planes", 3, "C", planes.shape[2], planes.shape[2]), shaped(x, "x", "N", 3)


def _unit(direction, degree):
    """The lengths (N, 1), the unit directions, and how many harmonics there are."""
    direction, degree = shaped(direction, "direction", "N", 3), integer(degree, "degree")
    if not 0 <= degree <= 3:
        raise ValueError(f"degree: expected 0 to 3, got {degree}")
    length = np.sqrt((direction**2).sum(axis=1, keepdims=True))
    if np.any(length == 0):
        raise ValueError("direction: expected a length above 0, got 0")
    return length, direction / length, (degree + 1) ** 2


def _degree(coefficients):
    degree = {1: 0, 4: 1, 9: 2, 16: 3}.get(coefficients.shape[1])
    if degree is None:
        raise ValueError(f"coefficients: expected 1, 4, 9 or 16 for each point, got shape {coefficients.shape}")
    return degree


def _harmonics(coefficients, direction):
    coefficients = shaped(coefficients, "coefficients", "N", "K", "C")
    direction = shaped(direction, "direction", len(coefficients), 3)
    return coefficients, spherical_harmonics(direction, _degree(coefficients))


def _octaves(x, octaves, pi):
    x, octaves = shaped(x, "x", "N", "D"), integer(octaves, "octaves")
    if octaves < 0:
        raise ValueError(f"octaves: expected at least 0, got {octaves}")
    return x, 2.0 ** np.arange(octaves) * (np.pi if pi else 1)
