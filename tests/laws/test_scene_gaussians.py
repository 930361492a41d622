"""Laws of Gaussians in space: rotations, covariances, and the projection against line integrals.

A law returns by how much a function breaks it; the variants that public code and its readers have got wrong must break
it visibly.

Papers
    [EWA]   Zwicker et al., "EWA Splatting", 2002
    [3DGS]  Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering", 2023
"""
import numpy as np
import pytest

from ref import scene
from tests import assert_close
from tests.laws.seven_gaussians import BROKEN, CAMERA, COV, KEPT, MEAN, N, OPEN, Q, RNG, SCALE, SIZE, UV


# --- rotations and covariances ----------------------------------------------------------------------------------------


def test_rotations():
    """R R^T = I with determinant 1; q, -q and 3 q are one rotation, and the gradient is orthogonal to q; a quarter turn
    about z takes x to y."""
    R = scene.rotation_from_quaternion(Q)
    assert np.abs(R @ R.swapaxes(1, 2) - np.eye(3)).max() <= KEPT and np.abs(np.linalg.det(R) - 1).max() <= KEPT
    for factor in (-1, 3, -0.2):
        assert np.abs(scene.rotation_from_quaternion(factor * Q) - R).max() <= KEPT
    dq = scene.rotation_from_quaternion_backward(RNG.standard_normal((N, 3, 3)), Q)
    assert np.abs((dq * Q).sum(axis=1)).max() <= KEPT and np.abs(dq).max() > 0.1
    turn = scene.rotation_from_quaternion(np.array([[1.0, 0, 0, 1]]))[0]
    assert_close(turn @ np.array([1.0, 0, 0]), np.array([0.0, 1, 0]), scale=1)
    # q v q*, by the product of quaternions
    w, v, x = Q[0, 0], Q[0, 1:], np.array([0.3, -0.7, 0.4])
    by_hand = x + 2 * np.cross(v, np.cross(v, x) + w * x) / (Q[0] @ Q[0])
    assert_close(R[0] @ x, by_hand)


def law_of_axes(covariance):
    """The columns of R are the Gaussian's axes, and scale^2 its variances along them."""
    R, cov = scene.rotation_from_quaternion(Q), covariance(SCALE, Q)
    return np.abs(cov @ R - R * (SCALE**2)[:, None]).max()


def test_covariances():
    def swapped(scale, q):  # R s s' R', the factors the other way round
        R = scene.rotation_from_quaternion(q).swapaxes(1, 2)
        return R * (scale**2)[:, None] @ R.swapaxes(1, 2)

    def not_squared(scale, q):
        return scene.covariance(np.sqrt(scale), q)

    def xyzw(scale, q):  # the order of the components
        return scene.covariance(scale, np.roll(q, 1, axis=1))

    assert law_of_axes(scene.covariance) <= KEPT
    for wrong in (swapped, not_squared, xyzw):
        assert law_of_axes(wrong) > BROKEN, wrong.__name__
    one = np.ones((N, 1)) * 0.3
    assert np.abs(scene.covariance(one * np.ones(3), Q) - 0.09 * np.eye(3)).max() <= KEPT  # a ball has no rotation


# --- projection -------------------------------------------------------------------------------------------------------


def test_the_projections_jacobian_is_the_complex_step_derivative_of_the_projection():
    """cov2 = A cov A^T with A = d uv / d mean, of both cameras."""
    for project, gaussians in ((scene.perspective_project, scene.perspective_gaussians),
                               (scene.orthographic_project, scene.orthographic_gaussians)):
        A = np.stack([project(MEAN + 1e-30j * unit, *CAMERA)[0].imag / 1e-30 for unit in np.eye(3)], axis=2)
        _, cov2, _ = gaussians(MEAN, COV, *CAMERA, dilation=0.0)
        assert_close(cov2, A @ COV @ A.swapaxes(1, 2), scale=np.abs(cov2).max())
        _, wider, _ = gaussians(MEAN, COV, *CAMERA)
        assert_close(wider - cov2, np.zeros((N, 1, 1)) + 0.3 * np.eye(2), scale=100)


def line_integral(origin, direction, mean, cov):
    """The integral of exp(-(x - mean)^T cov^-1 (x - mean) / 2) along rays."""
    inverse, o = np.linalg.inv(cov), origin - mean
    a, b, c = (np.einsum("ni,ij,nj->n", u, inverse, v) for u, v in ((direction, direction), (direction, o), (o, o)))
    return np.sqrt(2 * np.pi / a) * np.exp((b * b / a - c) / 2)


def shape_of(gaussians, cov, i):
    """exp(-q / 2) at the pixels around one projected Gaussian: the alpha of an opacity, by it."""
    uv, cov2, depth = gaussians(MEAN[i:i + 1], cov[None], *CAMERA, dilation=0.0)
    _, rest = scene.splat(uv, cov2, depth, np.array([0.5]), np.ones((1, 1)), np.zeros(1), SIZE, **OPEN)
    return (1 - rest).ravel() / 0.5, uv


def test_the_line_integral_by_quadrature():
    origin, direction = scene.perspective_rays(UV, *CAMERA)
    t = np.linspace(-10, 10, 4001) + 4
    points = origin[0] + t[:, None] * direction[0]
    q = np.einsum("ni,ij,nj->n", points - MEAN[0], np.linalg.inv(COV[0]), points - MEAN[0])
    assert_close(line_integral(origin[:1], direction[:1], MEAN[0], COV[0]), np.exp(-q / 2).sum(keepdims=True) * 0.005)


@pytest.mark.parametrize("i", range(N))
def test_orthographic_splatting_is_exact(i):
    """The integral along each pixel's ray by that along the ray through the mean, to 1e-12."""
    found, uv = shape_of(scene.orthographic_gaussians, COV[i], i)
    integral = line_integral(*scene.orthographic_rays(scene.pixel_centres(SIZE), *CAMERA), MEAN[i], COV[i])
    highest = line_integral(*scene.orthographic_rays(uv, *CAMERA), MEAN[i], COV[i])
    assert np.abs(found - integral / highest).max() <= KEPT and found.max() > 0.1
    # corners for centres
    corners = line_integral(*scene.orthographic_rays(scene.pixel_centres(SIZE) - 0.5, *CAMERA), MEAN[i], COV[i])
    assert np.abs(found - corners / highest).max() > BROKEN


def test_perspective_splatting_is_of_first_order():
    """At places a fixed number of deviations away: half the size, half the error."""
    offsets = np.array([[0.7, 0.3], [-0.5, 1.0], [1.2, -0.8], [-0.9, -0.4]])
    off = []
    for size in (0.1, 0.05, 0.025, 0.0125):
        cov, worst = size**2 * COV, 0
        for i in range(N):
            uv, cov2, _ = scene.perspective_gaussians(MEAN[i:i + 1], cov[i:i + 1], *CAMERA, dilation=0.0)
            at = uv + offsets @ np.linalg.cholesky(cov2[0]).T
            integral = line_integral(*scene.perspective_rays(at, *CAMERA), MEAN[i], cov[i])
            highest = line_integral(*scene.perspective_rays(uv, *CAMERA), MEAN[i], cov[i])
            worst = max(worst, np.abs(integral / highest - np.exp(-(offsets**2).sum(axis=1) / 2)).max())
        off.append(worst)
    orders = np.log2(np.divide(off[:-1], off[1:]))
    assert np.all(np.abs(orders - 1) < 0.1) and off[0] < 0.1, orders


def test_a_limit_that_is_not_reached_changes_nothing_and_one_that_is_has_no_slope():
    free = scene.perspective_gaussians(MEAN, COV, *CAMERA)
    for a, b in zip(free, scene.perspective_gaussians(MEAN, COV, *CAMERA, limit=5.0)):
        np.testing.assert_array_equal(a, b)
    duv, dcov2, ddepth = np.zeros((N, 2)), RNG.standard_normal((N, 2, 2)), np.zeros(N)
    h, up = 1e-5, np.zeros((N, 3))
    up[:, 2] = h

    def loss(mean):
        return (dcov2 * scene.perspective_gaussians(mean, COV, *CAMERA, limit=1e-3)[1]).sum(axis=(1, 2))

    dmean, *_ = scene.perspective_gaussians_backward(duv, dcov2, ddepth, MEAN, COV, CAMERA[0], *CAMERA[2:], limit=1e-3)
    assert_close(dmean[:, 2], (loss(MEAN + up) - loss(MEAN - up)) / (2 * h), rel=1e-6, scale=np.abs(dmean).max())
