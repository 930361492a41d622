"""Laws of the camera: the convention by what is seen where, rays and projection as inverses, and the converters.

Papers
    [HZ]  Hartley, Zisserman, "Multiple View Geometry in Computer Vision", 2nd edition, 2004
"""
import numpy as np
import pytest

from ref import scene
from tests import assert_close

KEPT, BROKEN = 1e-12, 1e-3
EYE, TARGET, UP = np.array([3.0, -2.0, 1.0]), np.array([0.2, 0.3, -0.1]), np.array([0.0, 0.0, 1.0])
FOCAL, CENTRE, SIZE = np.array([20.0, 24.0]), np.array([8.0, 6.0]), (12, 16)


def law_of_the_convention(look_at):
    """Of what the camera looks at: it is at the centre, as deep as it is far; a point above it is higher in the
    picture (v smaller), a point to its right is to the right (u larger); the frame is right-handed."""
    rotation, translation = look_at(EYE, TARGET, UP)
    right = np.cross(TARGET - EYE, UP)
    points = np.stack([TARGET, TARGET + 0.1 * UP, TARGET + 0.1 * right])
    uv, depth = scene.perspective_project(points, FOCAL, CENTRE, rotation, translation)
    off = np.abs(uv[0] - CENTRE).max() + abs(depth[0] - np.linalg.norm(TARGET - EYE))
    off += np.abs(rotation @ rotation.T - np.eye(3)).max() + abs(np.linalg.det(rotation) - 1)
    off += np.abs(rotation @ EYE + translation).max() + abs(uv[1, 0] - CENTRE[0]) + abs(uv[2, 1] - CENTRE[1])
    return off + float(uv[1, 1] >= CENTRE[1]) + float(uv[2, 0] <= CENTRE[0])


def flipped(signs, back=False):
    def look_at(eye, target, up):
        rotation, _ = scene.look_at(eye, target, up)
        rotation = np.array(signs)[:, None] * rotation
        return (rotation.T if back else rotation), -(rotation.T if back else rotation) @ eye

    return look_at


def test_the_convention():
    assert law_of_the_convention(scene.look_at) <= 1e-11
    wrong = {"OpenGL": flipped([1.0, -1, -1]), "PyTorch3D": flipped([-1.0, -1, 1]),
             "left-handed": flipped([1.0, -1, 1]), "camera to world": flipped([1.0, 1, 1], True),
             "the eye for the translation": lambda *a: (scene.look_at(*a)[0], -a[0])}
    for name, look_at in wrong.items():
        assert law_of_the_convention(look_at) > BROKEN, name


VIEWS = {"perspective": (scene.perspective_rays, scene.perspective_project),
         "orthographic": (scene.orthographic_rays, scene.orthographic_project)}


@pytest.mark.parametrize("name", VIEWS)
def test_what_is_on_a_ray_is_seen_where_the_ray_started(name):
    """At any distance along it; the directions have length 1."""
    rays, project = VIEWS[name]
    pose, uv = scene.look_at(EYE, TARGET, UP), scene.pixel_centres(SIZE)
    origin, direction = rays(uv, FOCAL, CENTRE, *pose)
    assert np.abs((direction**2).sum(axis=1) - 1).max() <= KEPT
    for distance in (0.5, 3.0, 40.0):
        seen, depth = project(origin + distance * direction, FOCAL, CENTRE, *pose)
        assert np.abs(seen - uv).max() <= 1e-11 and np.all(depth > 0)
    swapped = rays(uv[:, ::-1], FOCAL, CENTRE, *pose)
    assert np.abs(project(swapped[0] + swapped[1], FOCAL, CENTRE, *pose)[0] - uv).max() > BROKEN


def law_of_symmetry(pixel_centres):
    """The directions of a picture whose principal point is its middle add up to one along the line of sight: each pixel
    has its mirror image. Corners for centres break that."""
    H, W = SIZE
    uv = pixel_centres(SIZE)
    _, direction = scene.perspective_rays(uv, FOCAL, np.array([W / 2, H / 2]), np.eye(3), np.zeros(3))
    picture = direction.reshape(H, W, 3)
    across, down = picture + picture[:, ::-1] * [1, -1, -1], picture + picture[::-1] * [-1, 1, -1]
    return max(np.abs(across).max(), np.abs(down).max())


def test_pixels_are_seen_through_their_centres():
    assert law_of_symmetry(scene.pixel_centres) <= KEPT
    assert law_of_symmetry(lambda size: scene.pixel_centres(size) - 0.5) > BROKEN  # corners
    assert law_of_symmetry(lambda size: scene.pixel_centres(size[::-1])) > BROKEN  # W for H
    assert scene.pixel_centres((1, 2)).tolist() == [[0.5, 0.5], [1.5, 0.5]]
    # a window of a picture, to the bit
    H, W = SIZE
    whole = scene.pixel_centres(SIZE).reshape(H, W, 2)[3:7, 5:9].reshape(-1, 2)
    np.testing.assert_array_equal(scene.pixel_centres((4, 4), (5, 3)), whole)


def test_converters():
    """Written down by hand for a camera on the x axis that looks at the origin with z up; and back, to the bit of what
    rounding leaves."""
    rotation, translation = scene.look_at(np.array([2.0, 0, 0]), np.zeros(3), UP)
    assert_close(rotation, np.array([[0.0, 1, 0], [0, 0, -1], [-1, 0, 0]]))
    # OpenGL's columns are its right, up and backward in the world, and where it stands
    assert_close(scene.to_opengl(rotation, translation),
                 np.array([[0.0, 0, 1, 2], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]))
    # PyTorch3D: a point to the left of the camera has x > 0, one above it y > 0, one in front of it z > 0
    R, T = scene.to_pytorch3d(rotation, translation)
    left_up_near = np.array([[1.0, -0.3, 0.2]])
    assert_close(left_up_near @ R + T, np.array([[0.3, 0.2, 1.0]]))
    pose = scene.look_at(EYE, TARGET, UP)
    for to, back in ((scene.to_opengl, lambda made: scene.from_opengl(made)),
                     (scene.to_pytorch3d, lambda made: scene.from_pytorch3d(*made))):
        for found, given in zip(back(to(*pose)), pose):
            assert_close(found, given, rel=1e-14, scale=4)
