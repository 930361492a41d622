"""Gaussians in space: their covariance and their projection; each next to its gradient.

Everything here is float64. N Gaussians. A covariance is (3, 3) in the world, (2, 2) in pixels. Gradients in a
covariance are those of its elements one by one: nothing assumes that it is symmetric, so that each of the two mixed
elements has its own half.

Papers
    [EWA]   Zwicker et al., "EWA Splatting", 2002
    [3DGS]  Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering", 2023
"""
import numpy as np

from ref.scene.camera import (
    orthographic_project, orthographic_project_backward, perspective_project, perspective_project_backward,
)  # fmt: skip
from ref.shapes import number, shaped


def rotation_from_quaternion(q):
    """The rotation of q / |q| = (w, x, y, z), [3DGS] appendix A:

        row 1 of R = (1 - 2 (y^2 + z^2), 2 (x y - w z), 2 (x z + w y))
        row 2 of R = (2 (x y + w z), 1 - 2 (x^2 + z^2), 2 (y z - w x))
        row 3 of R = (2 (x z - w y), 2 (y z + w x), 1 - 2 (x^2 + y^2))

    q: (N, 4), of any length above 0; q and -q are the same rotation.
    Returns R (N, 3, 3) float64.
    Raises ValueError for another shape or a q of 0.
    """
    _, (w, x, y, z) = _unit(q)
    return np.stack([
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ], axis=1).reshape(-1, 3, 3)  # fmt: skip


def rotation_from_quaternion_backward(dR, q):
    """Gradient of `rotation_from_quaternion`:  dq = (dn - n (n . dn)) / |q|,  n = q / |q|, so that it is orthogonal to
    q.

    dR: (N, 3, 3). q: (N, 4).
    Returns dq (N, 4) float64.
    Raises as it does.
    """
    length, (w, x, y, z) = _unit(q)
    (a, b, c), (d, e, f), (g, h, i) = shaped(dR, "dR", len(w), 3, 3).transpose(1, 2, 0)
    dn = 2 * np.stack([
        x * (h - f) + y * (c - g) + z * (d - b),
        w * (h - f) + y * (b + d) + z * (c + g) - 2 * x * (e + i),
        w * (c - g) + x * (b + d) + z * (f + h) - 2 * y * (a + i),
        w * (d - b) + x * (c + g) + y * (f + h) - 2 * z * (a + e),
    ])  # (4, N)
    n = np.stack([w, x, y, z])
    return ((dn - n * (n * dn).sum(axis=0)) / length).T.copy()


def covariance(scale, q):
    """[3DGS] eq. 6:  cov = R S S^T R^T, with S = diag(scale) and R = rotation_from_quaternion(q).

    scale: (N, 3), the deviations along the Gaussian's own axes, which are the columns of R. q: (N, 4).
    Returns cov (N, 3, 3) float64.
    Raises ValueError where shapes do not fit or a q is 0.
    """
    M, _ = _axes(scale, q)
    return M @ M.swapaxes(1, 2)


def covariance_backward(dcov, scale, q):
    """Gradients of `covariance`, with M = R S:  dM = (dcov + dcov^T) M,  dscale_j = sum_i R_ij dM_ij,  dR = dM S.

    dcov: (N, 3, 3). scale: (N, 3). q: (N, 4).
    Returns dscale, dq, float64.
    Raises as `covariance` does.
    """
    M, R = _axes(scale, q)
    dcov = shaped(dcov, "dcov", len(M), 3, 3)
    dM = (dcov + dcov.swapaxes(1, 2)) @ M
    return (R * dM).sum(axis=1), rotation_from_quaternion_backward(dM * shaped(scale, "scale", len(M), 3)[:, None], q)


def perspective_gaussians(mean, cov, focal, centre, rotation, translation, dilation=0.3, limit=np.inf):
    """Gaussians as a pinhole camera sees them, [3DGS] eq. 5, with [EWA]'s Jacobian: the projection near
    the mean p = rotation mean + translation is taken for a linear one.

        cov2 = J W cov W^T J^T + dilation I,   J = (f_u / p_z, 0, -f_u r_x / p_z; 0, f_v / p_z, -f_v r_y / p_z)

    with W the rotation and r = (p_x, p_y) / p_z, kept within +-limit: [3DGS]'s code has 1.3 times the tangent of half
    the angle of view there, which is no part of the equation. The dilation, in pixels^2, keeps a Gaussian about a pixel
    wide; it makes it larger and no fainter.

    mean: (N, 3). cov: (N, 3, 3). focal, centre, rotation, translation: as in `perspective_project`. dilation, limit:
    floats >= 0.
    Returns uv (N, 2), cov2 (N, 2, 2), depth (N,), float64.
    Raises ValueError where shapes do not fit or dilation or limit is below 0.
    """
    uv, depth = perspective_project(mean, focal, centre, rotation, translation)
    A, *_ = _jacobian(mean, focal, rotation, translation, limit)
    return uv, _projected(shaped(cov, "cov", len(uv), 3, 3), A, dilation), depth


def perspective_gaussians_backward(duv, dcov2, ddepth, mean, cov, focal, rotation, translation, limit=np.inf):
    """Gradients of `perspective_gaussians`, with A = J W:

        dcov = A^T dcov2 A,   dA = dcov2 A cov^T + dcov2^T A cov,   dJ = dA W^T,   dW = sum_n J^T dA

    then through J, in which a kept r has no slope, and through `perspective_project`.

    duv: (N, 2). dcov2: (N, 2, 2). ddepth: (N,). mean, cov, focal, rotation, translation, limit: as there.
    Returns dmean, dcov, dfocal, dcentre, drotation, dtranslation, float64.
    Raises as it does.
    """
    mean, focal, rotation = shaped(mean, "mean", "N", 3), shaped(focal, "focal", 2), shaped(rotation, "rotation", 3, 3)
    A, J, p, r, free = _jacobian(mean, focal, rotation, translation, limit)
    dcov, dA = _through_projection(dcov2, shaped(cov, "cov", len(p), 3, 3), A)
    dJ, z = dA @ rotation.T, p[:, 2:]
    # J's two diagonals: focal / z and -focal r / z
    near, far = dJ[:, [0, 1], [0, 1]], dJ[:, :, 2]  # (N, 2)
    dfocal = ((near - far * r) / z).sum(axis=0)
    dr = np.where(free, -far * focal / z, 0)
    dz = -((near - far * r) * focal / z**2 + dr * r / z).sum(axis=1, keepdims=True)
    dp = np.concatenate([dr / z, dz], axis=1)
    # The mean's own projection
    dmean, dfocal_uv, dcentre, drotation, dtranslation = perspective_project_backward(
        duv, ddepth, mean, focal, rotation, translation)
    drotation = drotation + dp.T @ mean + np.einsum("nia,nib->ab", J, dA)
    return dmean + dp @ rotation, dcov, dfocal + dfocal_uv, dcentre, drotation, dtranslation + dp.sum(axis=0)


def orthographic_gaussians(mean, cov, focal, centre, rotation, translation, dilation=0.3):
    """Gaussians as a camera without perspective sees them, [3DGS] eq. 5:  cov2 = A cov A^T + dilation I,  A =
    diag(focal) (the first two rows of the rotation).

    It is exact: the integral of a Gaussian along parallel rays is the Gaussian of cov2.

    mean: (N, 3). cov: (N, 3, 3). focal, centre, rotation, translation: as in `orthographic_project`. dilation: float
    >= 0.
    Returns uv (N, 2), cov2 (N, 2, 2), depth (N,), float64.
    Raises ValueError where shapes do not fit or the dilation is below 0.
    """
    uv, depth = orthographic_project(mean, focal, centre, rotation, translation)
    A = shaped(focal, "focal", 2)[:, None] * shaped(rotation, "rotation", 3, 3)[:2]
    return uv, _projected(shaped(cov, "cov", len(uv), 3, 3), A, dilation), depth


def orthographic_gaussians_backward(duv, dcov2, ddepth, mean, cov, focal, rotation, translation):
    """Gradients of `orthographic_gaussians`, as in `perspective_gaussians_backward`.

    duv: (N, 2). dcov2: (N, 2, 2). ddepth: (N,). mean, cov, focal, rotation, translation: as there.
    Returns dmean, dcov, dfocal, dcentre, drotation, dtranslation, float64.
    Raises as it does.
    """
    dmean, dfocal, dcentre, drotation, dtranslation = orthographic_project_backward(
        duv, ddepth, mean, focal, rotation, translation)
    focal, rows = shaped(focal, "focal", 2), shaped(rotation, "rotation", 3, 3)[:2]
    dcov, dA = _through_projection(dcov2, shaped(cov, "cov", len(dmean), 3, 3), focal[:, None] * rows)
    dA = dA.sum(axis=0)  # (2, 3)
    drotation[:2] += focal[:, None] * dA
    return dmean, dcov, dfocal + (rows * dA).sum(axis=1), dcentre, drotation, dtranslation


def _unit(q):
    """The lengths (N,) and the four components of the unit quaternions, each (N,)."""
    q = shaped(q, "q", "N", 4)
    length = np.sqrt((q * q).sum(axis=1))
    if np.any(length == 0):
        raise ValueError("q: expected a quaternion of a length above 0, got 0")
    return length, (q / length[:, None]).T


def _axes(scale, q):
    """M = R S and R."""
    R = rotation_from_quaternion(q)
    return R * shaped(scale, "scale", len(R), 3)[:, None], R


def _jacobian(mean, focal, rotation, translation, limit):
    """A = J W, J (N, 2, 3), p (N, 3), r (N, 2), and where r is free."""
    limit = number(limit, "limit")
    if not limit >= 0:
        raise ValueError(f"limit: expected a number >= 0, got {limit}")
    rotation, translation = shaped(rotation, "rotation", 3, 3), shaped(translation, "translation", 3)
    focal, p = shaped(focal, "focal", 2), shaped(mean, "mean", "N", 3) @ rotation.T + translation
    tangent, z = p[:, :2] / p[:, 2:], p[:, 2:]
    free = ~(np.abs(np.real(tangent)) > limit)
    r = np.where(free, tangent, limit * np.sign(np.real(tangent)) if limit < np.inf else 0)
    J = np.concatenate([(focal / z)[:, None] * np.eye(2)[None], (-focal * r / z)[:, :, None]], axis=2)
    return J @ rotation, J, p, r, free


def _projected(cov, A, dilation):
    dilation = number(dilation, "dilation")
    if not dilation >= 0:
        raise ValueError(f"dilation: expected a number >= 0, got {dilation}")
    return A @ cov @ A.swapaxes(-1, -2) + dilation * np.eye(2)


def _through_projection(dcov2, cov, A):
    """dcov and dA of cov2 = A cov A^T."""
    across, dcov2 = A.swapaxes(-1, -2), shaped(dcov2, "dcov2", len(cov), 2, 2)
    return across @ dcov2 @ A, dcov2 @ A @ cov.swapaxes(1, 2) + dcov2.swapaxes(1, 2) @ A @ cov
