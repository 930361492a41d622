"""A ray tracer: pictures of a few coloured solids, or of a mesh, from cameras whose poses are known exactly.

Surfaces are matt: colour times (AMBIENT + (1 - AMBIENT) max(0, n . light)), seen before white. A pixel is the mean over
a square of rays. Rays and poses are those of `ref.scene.camera`.
"""
from collections import namedtuple

import numpy as np

from ref import scene

AMBIENT, LIGHT = 0.45, np.array([0.4, -0.6, 0.7])
FAR = np.inf  # where a ray meets nothing
STRIPES = 4.0  # of a striped solid, per unit of height
CHUNK = 1 << 22  # rays times triangles at a time

Sphere = namedtuple("Sphere", "centre radius color other")
Box = namedtuple("Box", "low high color other")
Mesh = namedtuple("Mesh", "corners color")  # corners: (triangles, 3, 3)
Camera = namedtuple("Camera", "focal centre rotation translation")

SOLIDS = (
    Sphere((0.0, 0.0, 0.28), 0.42, (0.85, 0.15, 0.1), (0.95, 0.85, 0.2)), Box((-0.7, -0.7, -0.55), (0.7, 0.7, -0.3),
    (0.2, 0.35, 0.75), (0.2, 0.35, 0.75)), Sphere((0.48, -0.42, -0.12), 0.2, (0.1, 0.6, 0.3), (0.1, 0.6, 0.3)),
    Box((-0.62, 0.2, -0.3), (-0.3, 0.52, 0.35), (0.55, 0.2, 0.6), (0.9, 0.75, 0.9)),
    Sphere((-0.45, -0.42, -0.16), 0.16, (0.95, 0.55, 0.1), (0.95, 0.55, 0.1)),
)  # fmt: skip


def cameras(count, size, first=0.0, distance=3.2):
    """Cameras on a sphere around the origin that look at it, spread evenly by the golden angle, from below the horizon
    to above the object. size: of a square picture. first: turns of the first one."""
    found = []
    for i in range(count):
        height = -0.15 + 1.0 * (i + 0.5) / count
        angle = 2 * np.pi * (first + 0.381966 * i)
        flat = np.sqrt(1 - height**2)
        eye = distance * np.array([flat * np.cos(angle), flat * np.sin(angle), height])
        focal, centre = np.full(2, 1.35 * size), np.full(2, size / 2)
        found.append(Camera(focal, centre, *scene.look_at(eye, np.zeros(3), np.array([0.0, 0, 1]))))
    return found


def picture(solids, camera, size, fine=3):
    """(size, size, 3) in [0, 1]: the mean of fine x fine rays a pixel. solids: of this module. camera: `Camera`."""
    uv = scene.pixel_centres((size * fine, size * fine)) / fine
    color = traced(solids, *scene.perspective_rays(uv, *camera))
    return color.reshape(size, fine, size, fine, 3).mean(axis=(1, 3))


def traced(solids, origin, direction):
    """The colour of each ray, (N, 3). origin, direction: (N, 3), of length 1."""
    nearest, color = np.full(len(origin), FAR), np.ones((len(origin), 3))
    for solid in solids:
        t, normal = MEET[type(solid)](solid, origin, direction)
        nearer = t < nearest
        nearest = np.where(nearer, t, nearest)
        color[nearer] = shaded(solid, (origin + np.where(nearer, t, 0)[:, None] * direction)[nearer], normal[nearer])
    return color


def shaded(solid, point, normal):
    """The colour of a solid at points with these normals, each (N, 3)."""
    striped = np.floor(STRIPES * 2 * point[:, 2:]) % 2 == 1
    base = np.where(striped, getattr(solid, "other", solid.color), solid.color)
    light = LIGHT / np.linalg.norm(LIGHT)
    return base * (AMBIENT + (1 - AMBIENT) * np.maximum(0, normal @ light))[:, None]


def meet_sphere(sphere, origin, direction):
    """Where rays meet a sphere, FAR for nowhere, and the normals there. origin, direction: (N, 3)."""
    away = origin - sphere.centre
    b = (away * direction).sum(axis=1)
    inside = b * b - (away * away).sum(axis=1) + sphere.radius**2
    t = -b - np.sqrt(np.maximum(inside, 0))
    t = np.where((inside > 0) & (t > 0), t, FAR)
    return t, (away + np.where(t < FAR, t, 0)[:, None] * direction) / sphere.radius


def meet_box(box, origin, direction):
    """The same of a box along the axes."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = [(np.array(side) - origin) / direction for side in (box.low, box.high)]
    enter, leave = np.minimum(*ends), np.maximum(*ends)
    axis, t = enter.argmax(axis=1), enter.max(axis=1)
    t = np.where((t < leave.min(axis=1)) & (t > 0), t, FAR)
    normal = np.zeros_like(direction)
    normal[np.arange(len(t)), axis] = -np.sign(direction[np.arange(len(t)), axis])
    return t, normal


def meet_mesh(mesh, origin, direction):
    """The same of triangles, seen from both sides: with the sides a, b of a triangle from its corner c, the ray o + t d
    meets it at u a + v b + c = o + t d, u, v >= 0, u + v <= 1, solved by Cramer's rule."""
    corner, a, b = mesh.corners[:, 0], mesh.corners[:, 1] - mesh.corners[:, 0], mesh.corners[:, 2] - mesh.corners[:, 0]
    nearest, which = np.full(len(origin), FAR), np.zeros(len(origin), int)
    step = max(1, CHUNK // max(len(corner), 1))
    for first in range(0, len(origin), step):
        o, d = origin[first : first + step, None], direction[first : first + step, None]
        across, away = np.cross(d, b), o - corner
        with np.errstate(divide="ignore", invalid="ignore"):
            over = 1 / (across * a).sum(axis=2)
            u, turned = (across * away).sum(axis=2) * over, np.cross(away, a)
            v, t = (turned * d).sum(axis=2) * over, (turned * b).sum(axis=2) * over
            t = np.where((u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0), t, FAR)
        which[first : first + step], nearest[first : first + step] = t.argmin(axis=1), t.min(axis=1)
    normal = np.cross(a, b)[which]
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    return nearest, normal * -np.sign((normal * direction).sum(axis=1, keepdims=True))


MEET = {Sphere: meet_sphere, Box: meet_box, Mesh: meet_mesh}


def read_obj(path, color=(0.8, 0.5, 0.25)):
    """The mesh of a Wavefront OBJ file, one colour, moved and scaled into the ball of radius 0.85; a face of more
    corners is cut into triangles. Only v and f lines count. Raises ValueError, which names the line, for what is no
    such file.
    """
    points, faces = [], []
    with open(path, encoding="utf-8", errors="replace") as file:
        for n, line in enumerate(file, 1):
            kind, *words = line.split() or [""]
            try:
                if kind == "v":
                    points.append([float(word) for word in words[:3]])
                    if len(words) < 3:
                        raise ValueError("three numbers")
                elif kind == "f":
                    corners = [int(word.split("/")[0]) for word in words]
                    corners = [i - 1 if i > 0 else len(points) + i for i in corners]
                    if len(corners) < 3 or not all(0 <= i < len(points) for i in corners):
                        raise ValueError("three or more corners, each a vertex above")
                    faces += [[corners[0], *pair] for pair in zip(corners[1:], corners[2:])]
            except ValueError:
                got = f"got {line.strip()[:60]!r}"
                raise ValueError(f"{path}: expected numbers or vertices in line {n}, {got}") from None
    if not faces:
        raise ValueError(f"{path}: expected an OBJ file with faces (f lines), got none")
    points = np.array(points)
    used = points[np.unique(faces)]
    middle = (used.min(axis=0) + used.max(axis=0)) / 2
    corners = (points - middle)[np.array(faces)] / max(np.linalg.norm(used - middle, axis=1).max(), 1e-12) * 0.85
    flat = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) == 0
    return Mesh(corners[~flat], color)
