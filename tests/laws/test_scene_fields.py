"""Laws of the fields: what a grid and three planes represent exactly, the adjoint, and the harmonics' orthogonality.

Papers
    [EG3D]   Chan et al., "Efficient Geometry-aware 3D Generative Adversarial Networks", 2022
    [Sloan]  Sloan, "Stupid Spherical Harmonics (SH) Tricks", 2008
"""
import itertools

import numpy as np
import pytest

from ref import scene
from tests import assert_close

KEPT, BROKEN = 1e-12, 1e-3
RNG = np.random.default_rng(5)
SIZES = 4, 5, 3
X = RNG.uniform(-1, 1, (60, 3))
POINTS = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in SIZES), indexing="ij"))  # of the grid's values


def affine(x, y, z):
    """Of the first degree in each coordinate alone."""
    return 1 + 2 * x - 3 * y + 0.5 * z + x * y - 2 * y * z + 3 * x * z + 4 * x * y * z


def law_of_affine_functions(trilinear):
    return np.abs(trilinear(affine(*POINTS)[None], X)[:, 0] - affine(*X.T)).max()


def middles(grid, x):
    """The convention in which values stand in the middle of cells."""
    return scene.trilinear(grid, (x * SIZES) / (np.array(SIZES) - 1))


def reversed_axes(grid, x):
    """PyTorch's order: the last axis is x."""
    return scene.trilinear(grid.transpose(0, 3, 2, 1), x)


def nearest(grid, x):
    i = np.rint((x + 1) / 2 * (np.array(SIZES) - 1)).astype(int)
    return grid[:, *i.T].T


def test_trilinear_is_exact_on_tri_affine_functions():
    assert law_of_affine_functions(scene.trilinear) <= KEPT
    for wrong in (middles, reversed_axes, nearest):
        assert law_of_affine_functions(wrong) > BROKEN, wrong.__name__


def test_the_slopes_of_a_tri_affine_function_are_exact():
    grid, h = affine(*POINTS)[None], 1e-30
    for axis in range(3):
        x = X.T.astype(complex)
        x[axis] += 1j * h
        _, dx = scene.trilinear_backward(np.ones((60, 1)), grid, X)
        assert np.abs(dx[:, axis] - affine(*x).imag / h).max() <= 1e-11


def test_the_scatter_is_the_adjoint_of_the_gather():
    """<trilinear(grid), dy> = <grid, dgrid>: also where many points share a voxel, and beyond the box."""
    grid, x = RNG.standard_normal((2, *SIZES)), np.concatenate([X, X[:7], 1.2 * X, [[1.0, 1, 1], [-1, -1, -1]]])
    dy = RNG.standard_normal((len(x), 2))
    y, (dgrid, _) = scene.trilinear(grid, x), scene.trilinear_backward(dy, grid, x)
    assert abs((y * dy).sum() - (grid * dgrid).sum()) <= KEPT * np.abs(dy).sum()
    lost = np.zeros_like(dgrid)  # a scatter without accumulation keeps the last of those that share a corner
    i = np.floor((x[:60] + 1) / 2 * (np.array(SIZES) - 1)).astype(int)
    lost[:, *i.T] = dy[:60].T
    assert abs((y * dy).sum() - (grid * lost).sum()) > BROKEN


def test_weights_add_to_1_inside_and_fall_to_0_within_a_cell():
    ones = np.ones((1, *SIZES))
    assert np.abs(scene.trilinear(ones, X) - 1).max() <= KEPT
    cell = 2 / (np.array(SIZES) - 1)
    beyond = np.array([[1 + cell[0] / 4, 0, 0], [0, -1 - cell[1] / 2, 0], [0, 0, 1 + cell[2]], [9.0, 0, 0]])
    assert_close(scene.trilinear(ones, beyond)[:, 0], np.array([0.75, 0.5, 0, 0]), scale=1)
    at = POINTS.reshape(3, -1).T
    grid = RNG.standard_normal((2, *SIZES))
    assert_close(scene.trilinear(grid, at), grid.reshape(2, -1).T, scale=2)
    spoiled = ones.copy()
    spoiled[0, 0, 0, 0] = np.nan  # what no point is near to shows nowhere
    assert np.isfinite(scene.trilinear(spoiled, np.array([[0.9, 0.9, 0.9], [5.0, 5, 5]]))).all()


def law_of_planes(triplane):
    """Three planes represent any f(x, y) + g(x, z) + h(y, z) of the first degree in each coordinate; h alone, too."""
    a, b = np.meshgrid(np.linspace(-1, 1, 4), np.linspace(-1, 1, 4), indexing="ij")
    planes = np.stack([1 + a - 2 * a * b, 3 * b + a * b, 2 * a - b + 5 * a * b])[:, None]
    x, y, z = X.T
    of_yz = triplane(planes * np.array([0, 0, 1]).reshape(3, 1, 1, 1), X)[:, 0]
    all_three = triplane(planes, X)[:, 0]
    exact = 1 + x - 2 * x * y + 3 * z + x * z + 2 * y - z + 5 * y * z
    return max(np.abs(of_yz - (2 * y - z + 5 * y * z)).max(), np.abs(all_three - exact).max())


def planes_on(*axes):
    def triplane(planes, x):
        grids = planes[:, :, :, :, None] * np.ones((1, 1, 1, 1, 2))
        return sum(scene.trilinear(grid, np.stack([x[:, i], x[:, j], 0 * x[:, 0]], axis=1))
                   for grid, (i, j) in zip(grids, axes))

    return triplane


def test_planes():
    assert law_of_planes(scene.triplane) <= KEPT
    assert law_of_planes(planes_on((0, 1), (0, 2), (1, 2))) <= KEPT
    assert law_of_planes(planes_on((0, 1), (0, 2), (2, 0))) > BROKEN  # the authors' third plane
    assert law_of_planes(planes_on((0, 1), (0, 2), (0, 2))) > BROKEN
    assert law_of_planes(lambda planes, x: scene.triplane(planes, x) / 3) > BROKEN  # their mean


def sphere():
    """Nodes and weights exact for polynomials of degree 15 on the unit sphere: Gauss and Legendre in z, evenly
    around."""
    z, w = np.polynomial.legendre.leggauss(8)
    phi = np.arange(16) * np.pi / 8
    z, w, phi = np.repeat(z, 16), np.repeat(w, 16) * np.pi / 8, np.tile(phi, 8)
    return np.stack([np.sqrt(1 - z * z) * np.cos(phi), np.sqrt(1 - z * z) * np.sin(phi), z], axis=1), w


def law_of_orthonormality(harmonics):
    n, w = sphere()
    y = harmonics(n)
    return np.abs(y.T @ (w[:, None] * y) - np.eye(16)).max()


def test_harmonics_are_orthonormal():
    assert law_of_orthonormality(scene.spherical_harmonics) <= KEPT
    for k in range(16):  # a constant that is wrong by a thousandth
        factor = np.where(np.arange(16) == k, 1.001, 1)
        assert law_of_orthonormality(lambda n, factor=factor: factor * scene.spherical_harmonics(n)) > BROKEN
    for degree in range(4):
        np.testing.assert_array_equal(scene.spherical_harmonics(X, degree),
                                      scene.spherical_harmonics(X)[:, :(degree + 1) ** 2])


def test_harmonics_of_a_degree_are_its_own():
    """The Laplacian of a homogeneous harmonic polynomial is 0: r^l y is orthogonal to every polynomial below l; parity
    is (-1)^l; and the sum of squares of a degree is (2 l + 1) / 4 pi (Unsoeld)."""
    y, minus = scene.spherical_harmonics(X), scene.spherical_harmonics(-X)
    n, w = sphere()
    at = scene.spherical_harmonics(n)
    for degree in range(4):
        own = slice(degree**2, (degree + 1) ** 2)
        assert np.abs(minus[:, own] - (-1) ** degree * y[:, own]).max() <= KEPT
        assert np.abs((y[:, own] ** 2).sum(axis=1) - (2 * degree + 1) / (4 * np.pi)).max() <= KEPT
        for powers in itertools.product(range(degree), repeat=3):
            if sum(powers) < degree:
                assert np.abs((w * np.prod(n**powers, axis=1)) @ at[:, own]).max() <= KEPT


def test_harmonics_have_the_signs_of_gaussian_splatting():
    """Each along a direction where it is large: -y, z, -x for degree 1, and 3DGS's constants for the others."""
    n = np.array([[1.0, 2, 3]]) / np.sqrt(14)
    x, y, z = n[0]
    found = scene.spherical_harmonics(n)[0]
    by_hand = [0.28209479177387814, -0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x,
               1.0925484305920792 * x * y, -1.0925484305920792 * y * z,
               0.31539156525252005 * (2 * z * z - x * x - y * y), -1.0925484305920792 * x * z,
               0.5462742152960396 * (x * x - y * y), -0.5900435899266435 * y * (3 * x * x - y * y),
               2.890611442640554 * x * y * z, -0.4570457994644658 * y * (4 * z * z - x * x - y * y),
               0.3731763325901154 * z * (2 * z * z - 3 * x * x - 3 * y * y),
               -0.4570457994644658 * x * (4 * z * z - x * x - y * y), 1.445305721320277 * z * (x * x - y * y),
               -0.5900435899266435 * x * (x * x - 3 * y * y)]  # as the authors' code has them
    assert_close(found, np.array(by_hand))


def test_the_length_of_a_direction_changes_nothing():
    y = scene.spherical_harmonics(X)
    assert np.abs(scene.spherical_harmonics(X * RNG.uniform(0.1, 9, (60, 1))) - y).max() <= KEPT
    dx = scene.spherical_harmonics_backward(np.ones((60, 16)), X)
    assert np.abs((dx * X).sum(axis=1)).max() <= 1e-11 and np.abs(dx).max() > 1


def test_a_colour_below_0_is_0_and_has_no_gradient():
    coefficients = np.zeros((2, 1, 1))
    coefficients[0] = -9
    assert scene.harmonic_color(coefficients, X[:2]).tolist() == [[0.0], [0.5]]
    dcoefficients, _ = scene.harmonic_color_backward(np.ones((2, 1)), coefficients, X[:2])
    assert dcoefficients[0] == 0 and dcoefficients[1] > 0.28


@pytest.mark.parametrize("pi, a", [(True, np.pi), (False, 1.0)])
def test_positional_encoding_both_ways(pi, a):
    y = scene.positional_encoding(X, 4, pi)
    by_hand = np.concatenate([f(2**k * a * X) for k in range(4) for f in (np.sin, np.cos)], axis=1)
    assert_close(y, by_hand, scale=1)
    assert_close(scene.positional_encoding(X, 4, pi, identity=True), np.concatenate([X, by_hand], axis=1), scale=1)
    # with pi the first octave turns once over the box: its ends are the same place
    ends = scene.positional_encoding(np.array([[-1.0], [1.0]]), 4, pi)
    assert (np.abs(ends[0] - ends[1]).max() <= 1e-14) == pi
