"""Cameras: where they stand, the rays through their pixels, and projection; each next to its gradient.

The convention, that of OpenCV and COLMAP: x points right, y down, z forward. A pose takes the world to the camera,

    p_camera = rotation p_world + translation.

uv are places in the picture in pixels, u to the right and v down, 0 at the upper left corner: the centre of the first
pixel is (0.5, 0.5). focal (f_u, f_v) and centre (c_u, c_v) are in pixels, too. Two other conventions have converters.
Everything here is float64.

Papers
    [HZ]    Hartley, Zisserman, "Multiple View Geometry in Computer Vision", 2nd edition, 2004
    [NeRF]  Mildenhall et al., "NeRF: Representing Scenes as Neural Radiance Fields for View Synthesis", 2020
"""
import numpy as np

from ref.shapes import integer, shaped

OPENGL, PYTORCH3D = np.array([1.0, -1, -1]), np.array([-1.0, -1, 1])  # their axes in ours


def look_at(eye, target, up):
    """The pose of a camera at `eye` that looks at `target`, [HZ] section 6.1, and whose picture has `up` upwards:

        z = (target - eye) / |target - eye|,   x = z cross up / |z cross up|,   y = z cross x

    the rows of the rotation; translation = -rotation eye.

    eye, target, up: (3,).
    Returns rotation (3, 3), translation (3,), float64.
    Raises ValueError where shapes do not fit, the target is the eye, or up is along the line of sight.
    """
    eye, rotation = _frame(eye, target, up)[:2]
    return rotation, -rotation @ eye


def look_at_backward(drotation, dtranslation, eye, target, up):
    """Gradients of `look_at`. With c = a cross b:  da = b cross dc,  db = dc cross a; with n = a / |a|:  da = (dn - n
    (n . dn)) / |a|.

    drotation: (3, 3). dtranslation: (3,). eye, target, up: (3,).
    Returns deye, dtarget, dup, each (3,) float64.
    Raises as `look_at` does.
    """
    eye, rotation, forward, side, up = _frame(eye, target, up)
    drotation, dtranslation = shaped(drotation, "drotation", 3, 3), shaped(dtranslation, "dtranslation", 3)
    x, y, z = rotation
    # translation = -rotation eye
    dx, dy, dz = drotation - np.outer(dtranslation, eye)
    deye = -dtranslation @ rotation
    # y = z cross x
    dz, dx = dz + np.cross(x, dy), dx + np.cross(dy, z)
    # x = side / |side|, side = z cross up
    dside = _through_norm(dx, x, side)
    dz, dup = dz + np.cross(up, dside), np.cross(dside, z)
    # z = forward / |forward|
    dforward = _through_norm(dz, z, forward)
    return deye - dforward, dforward, dup


def pixel_centres(size, origin=(0, 0)):
    """The places of the pixels' centres, row by row:  uv = (origin_u + j + 1/2, origin_v + i + 1/2), [NeRF]'s code
    leaves out the halves.

    size: (H, W). origin: (u, v), ints, the first pixel of a window of a picture.
    Returns uv (H W, 2) float64.
    Raises TypeError for what are no ints.
    """
    (H, W), (u, v) = [integer(n, "size") for n in size], [integer(n, "origin") for n in origin]
    rows, columns = np.divmod(np.arange(H * W), max(W, 1))
    return np.stack([columns + u, rows + v], axis=1) + 0.5


def perspective_rays(uv, focal, centre, rotation, translation):
    """The ray of each place in the picture of a pinhole camera, [HZ] eq. 6.14:

        origin = -rotation^T translation,   direction = rotation^T n / |n|,   n = ((uv - centre) / focal, 1)

    Directions have length 1, so that a distance along them is one; [NeRF]'s code has n itself.

    uv: (N, 2). focal, centre: (2,). rotation: (3, 3). translation: (3,).
    Returns origin, direction, each (N, 3) float64.
    Raises ValueError where shapes do not fit.
    """
    uv, focal, centre, rotation, translation = _picture(uv, focal, centre, rotation, translation)
    _, n = _directions(uv, focal, centre)
    origin = -translation @ rotation
    return np.zeros(n.shape) + origin, n @ rotation


def perspective_rays_backward(dorigin, ddirection, uv, focal, centre, rotation, translation):
    """Gradients of `perspective_rays`. dorigin, ddirection: (N, 3). uv, focal, centre, rotation, translation: as there.

    Returns duv, dfocal, dcentre, drotation, dtranslation, float64.
    Raises as it does.
    """
    uv, focal, centre, rotation, translation = _picture(uv, focal, centre, rotation, translation)
    dorigin, ddirection = shaped(dorigin, "dorigin", len(uv), 3), shaped(ddirection, "ddirection", len(uv), 3)
    a, n = _directions(uv, focal, centre)
    dsum = dorigin.sum(axis=0)
    drotation = n.T @ ddirection - np.outer(translation, dsum)
    # n = a / |a|, a = ((uv - centre) / focal, 1)
    da = _through_norm(ddirection @ rotation.T, n, a)
    duv = da[:, :2] / focal
    dfocal = -(da * a)[:, :2].sum(axis=0) / focal
    return duv, dfocal, -duv.sum(axis=0), drotation, -rotation @ dsum


def orthographic_rays(uv, focal, centre, rotation, translation):
    """The ray of each place in the picture of a camera without perspective, [HZ] section 6.3: all are parallel.

        origin = rotation^T (((uv - centre) / focal, 0) - translation),   direction = rotation^T (0, 0, 1)

    uv: (N, 2). focal, centre: (2,); focal is pixels per unit of length. rotation: (3, 3). translation: (3,).
    Returns origin, direction, each (N, 3) float64.
    Raises ValueError where shapes do not fit.
    """
    uv, focal, centre, rotation, translation = _picture(uv, focal, centre, rotation, translation)
    flat = (uv - centre) / focal
    origin = flat @ rotation[:2] - translation @ rotation
    return origin, np.zeros(origin.shape) + rotation[2]


def orthographic_rays_backward(dorigin, ddirection, uv, focal, centre, rotation, translation):
    """Gradients of `orthographic_rays`. dorigin, ddirection: (N, 3). uv, focal, centre, rotation, translation: as
    there.

    Returns duv, dfocal, dcentre, drotation, dtranslation, float64.
    Raises as it does.
    """
    uv, focal, centre, rotation, translation = _picture(uv, focal, centre, rotation, translation)
    dorigin, ddirection = shaped(dorigin, "dorigin", len(uv), 3), shaped(ddirection, "ddirection", len(uv), 3)
    flat, dsum = (uv - centre) / focal, dorigin.sum(axis=0)
    drotation = np.concatenate([flat.T @ dorigin, ddirection.sum(axis=0)[None]]) - np.outer(translation, dsum)
    duv = dorigin @ rotation[:2].T / focal
    return duv, -(duv * flat).sum(axis=0), -duv.sum(axis=0), drotation, -rotation @ dsum


def perspective_project(points, focal, centre, rotation, translation):
    """Where a pinhole camera sees points, [HZ] eq. 6.1, with p = rotation point + translation:

        uv = focal (p_x, p_y) / p_z + centre,   depth = p_z

    A depth of 0 or less is not in front of the camera, and its uv mean nothing.

    points: (N, 3). focal, centre: (2,). rotation: (3, 3). translation: (3,).
    Returns uv (N, 2), depth (N,), float64.
    Raises ValueError where shapes do not fit.
    """
    points, focal, rotation, translation = _world(points, focal, rotation, translation)
    centre, p = shaped(centre, "centre", 2), points @ rotation.T + translation
    return focal * p[:, :2] / p[:, 2:] + centre, p[:, 2].copy()


def perspective_project_backward(duv, ddepth, points, focal, rotation, translation):
    """Gradients of `perspective_project`:  dp_xy = focal duv / p_z,  dp_z = ddepth - dp_xy . p_xy / p_z.

    duv: (N, 2). ddepth: (N,). points, focal, rotation, translation: as there.
    Returns dpoints, dfocal, dcentre, drotation, dtranslation, float64.
    Raises as it does.
    """
    points, focal, rotation, translation = _world(points, focal, rotation, translation)
    duv, ddepth = shaped(duv, "duv", len(points), 2), shaped(ddepth, "ddepth", len(points))
    p = points @ rotation.T + translation
    flat = p[:, :2] / p[:, 2:]
    dflat = focal * duv
    dp = np.concatenate([dflat, (ddepth * p[:, 2] - (dflat * flat).sum(axis=1))[:, None]], axis=1) / p[:, 2:]
    return dp @ rotation, (duv * flat).sum(axis=0), duv.sum(axis=0), dp.T @ points, dp.sum(axis=0)


def orthographic_project(points, focal, centre, rotation, translation):
    """Where a camera without perspective sees points, [HZ] section 6.3:  uv = focal (p_x, p_y) + centre,  depth = p_z,
    with p = rotation point + translation.

    points: (N, 3). focal, centre: (2,). rotation: (3, 3). translation: (3,).
    Returns uv (N, 2), depth (N,), float64.
    Raises ValueError where shapes do not fit.
    """
    points, focal, rotation, translation = _world(points, focal, rotation, translation)
    centre, p = shaped(centre, "centre", 2), points @ rotation.T + translation
    return focal * p[:, :2] + centre, p[:, 2].copy()


def orthographic_project_backward(duv, ddepth, points, focal, rotation, translation):
    """Gradients of `orthographic_project`. duv: (N, 2). ddepth: (N,). points, focal, rotation, translation: as there.

    Returns dpoints, dfocal, dcentre, drotation, dtranslation, float64.
    Raises as it does.
    """
    points, focal, rotation, translation = _world(points, focal, rotation, translation)
    duv, ddepth = shaped(duv, "duv", len(points), 2), shaped(ddepth, "ddepth", len(points))
    p = points @ rotation.T + translation
    dp = np.concatenate([focal * duv, ddepth[:, None]], axis=1)
    return dp @ rotation, (duv * p[:, :2]).sum(axis=0), duv.sum(axis=0), dp.T @ points, dp.sum(axis=0)


def to_opengl(rotation, translation):
    """The pose as OpenGL, Blender and [NeRF]'s data have it: the camera to the world, x right, y up, z backward.

    rotation: (3, 3). translation: (3,).
    Returns pose (4, 4) float64, [rotation^T diag(1, -1, -1), -rotation^T translation; 0, 1].
    Raises ValueError where shapes do not fit.
    """
    rotation, translation = _pose(rotation, translation)
    top = np.concatenate([rotation.T * OPENGL, -(translation @ rotation)[:, None]], axis=1)
    return np.concatenate([top, np.array([[0.0, 0, 0, 1]])])


def from_opengl(pose):
    """The inverse of `to_opengl`, for a pose that turns and shifts alone. pose: (4, 4). Returns rotation (3, 3),
    translation (3,), float64."""
    pose = shaped(pose, "pose", 4, 4)
    rotation = (pose[:3, :3] * OPENGL).T
    return rotation, -(rotation * pose[:3, 3]).sum(axis=1)


def to_pytorch3d(rotation, translation):
    """The pose as PyTorch3D has it: the world to the camera for points as rows, p_camera = p_world R + T, with x left,
    y up, z forward.

    rotation: (3, 3). translation: (3,).
    Returns R (3, 3), rotation^T diag(-1, -1, 1), and T (3,), diag(-1, -1, 1) translation, float64.
    Raises ValueError where shapes do not fit.
    """
    rotation, translation = _pose(rotation, translation)
    return rotation.T * PYTORCH3D, translation * PYTORCH3D


def from_pytorch3d(rotation, translation):
    """The inverse of `to_pytorch3d`. rotation: (3, 3), its R. translation: (3,), its T. Returns rotation (3, 3),
    translation (3,), float64."""
    rotation, translation = _pose(rotation, translation)
    return (rotation * PYTORCH3D).T, translation * PYTORCH3D


def _pose(rotation, translation):
    return shaped(rotation, "rotation", 3, 3), shaped(translation, "translation", 3)


def _picture(uv, focal, centre, rotation, translation):
    return (shaped(uv, "uv", "N", 2), shaped(focal, "focal", 2), shaped(centre, "centre", 2),
            *_pose(rotation, translation))


def _world(points, focal, rotation, translation):
    return shaped(points, "points", "N", 3), shaped(focal, "focal", 2), *_pose(rotation, translation)


def _length(a):
    return np.sqrt((a * a).sum(axis=-1, keepdims=True))


def _through_norm(dn, n, a):
    """The gradient of n = a / |a| in a."""
    return (dn - n * (n * dn).sum(axis=-1, keepdims=True)) / _length(a)


def _directions(uv, focal, centre):
    a = np.concatenate([(uv - centre) / focal, np.ones((len(uv), 1))], axis=1)
    return a, a / _length(a)


def _frame(eye, target, up):
    """eye, the rotation, and what its rows were made of: forward and side; up."""
    eye, target, up = shaped(eye, "eye", 3), shaped(target, "target", 3), shaped(up, "up", 3)
    forward = target - eye
    if np.all(forward == 0):
        raise ValueError(f"target: expected another point than the eye, got {target}")
    z = forward / _length(forward)
    side = np.cross(z, up)
    if np.all(np.real(np.abs(side)) <= 1e-12 * np.abs(up).max()):
        raise ValueError(f"up: expected a direction off the line of sight, got {up}")
    x = side / _length(side)
    return eye, np.stack([x, np.cross(z, x), z]), forward, side, up
