"""An object of voxels between two cameras that stand at a right angle: its pictures, and how score distillation makes
it show one digit to each of them.

The object is dark where light passes and white where it does not: a pixel is 2 opacity - 1, in [-1, 1] as the digits
that the model was trained on. World axes: x right for the front camera, y right for the side camera, z up.

Papers
    [DreamFusion]  Poole et al., "DreamFusion: Text-to-3D using 2D Diffusion", 2023
"""
from collections import namedtuple

import numpy as np

from kernels.numba_cpu import optim
from kernels.numba_cpu.scene import composite, composite_backward, trilinear, trilinear_backward
from ref import diffusion, philox, scene
from ref.layers import sigmoid, softplus

SIZE, PIXELS, DISTANCE = 24, 12.0, 5.0  # voxels an axis; pixels of a unit of length, the box being 2 wide; of the eye
SAMPLES, DEPTH = 36, 1.5  # of a ray, within this distance of the object's centre
HEIGHT = 0.95  # half of it
SHIFT, DENSITY = -4.0, 20.0  # sigma = DENSITY softplus(value + SHIFT)
EPS, START = 0.01, -1.0  # of Adam, so that a voxel that little depends on moves little; of all voxels
VIEWS = {"front": 0.0, "side": 90.0}  # degrees around z

# The samples of the rays of some pictures: points (rays samples, 3), delta and t (rays, samples). delta is 0 outside of
# the cylinder that both cameras see all of
Rays = namedtuple("Rays", "points delta t")


def rays(angles, perspective=True, side=28, pixels=PIXELS):
    """`Rays` of square pictures, one below the other. angles: degrees around z, 0 in front. side: of a picture.
    pixels: of a unit of length, at the object's centre."""
    found, centre = [], np.array([side / 2, side / 2])
    u = np.full((side * side, SAMPLES), 0.5)
    for angle in np.deg2rad(list(angles)):
        eye = DISTANCE * np.array([np.sin(angle), -np.cos(angle), 0.0])
        pose = scene.look_at(eye, np.zeros(3), np.array([0.0, 0, 1]))
        uv = scene.pixel_centres((side, side))
        if perspective:
            origin, direction = scene.perspective_rays(uv, np.full(2, pixels * DISTANCE), centre, *pose)
        else:
            origin, direction = scene.orthographic_rays(uv, np.full(2, pixels), centre, *pose)
        ends = [np.full(len(uv), DISTANCE + end) for end in (-DEPTH, DEPTH)]
        t = scene.stratified(*ends, u)
        points = origin[:, None] + t[:, :, None] * direction[:, None]
        inside = (np.hypot(points[:, :, 0], points[:, :, 1]) <= 1) & (np.abs(points[:, :, 2]) <= HEIGHT)
        delta = np.where(inside, 2 * DEPTH / SAMPLES, 0)
        found.append((points.reshape(-1, 3), delta, t))
    return Rays(*(np.ascontiguousarray(np.concatenate(a), np.float32) for a in zip(*found)))


def rendered(grid, rays):
    """The pictures (views, pixels) in [-1, 1], and what `rendered_backward` needs. grid: (1, X, Y, Z) float32."""
    y = trilinear(grid, rays.points)[:, 0].reshape(rays.t.shape)
    sigma = (DENSITY * softplus(y + SHIFT)).astype(np.float32)
    light = np.ones((*sigma.shape, 1), np.float32), rays.delta, rays.t, np.zeros(1, np.float32)
    _, _, opacity = composite(sigma, *light)
    return 2 * opacity - 1, (grid, rays, y, sigma, light)


def rendered_backward(dx, cache):
    """The gradient of the grid. dx: (pixels,), of all pictures. cache: of `rendered`."""
    grid, rays, y, sigma, light = cache
    dopacity = np.ascontiguousarray(2 * dx, np.float32)
    zero = np.zeros((len(dx), 1), np.float32), np.zeros(len(dx), np.float32)
    dsigma, *_ = composite_backward(*zero, dopacity, sigma, *light)
    dy = (dsigma * DENSITY * sigmoid(y + SHIFT)).astype(np.float32)
    return trilinear_backward(dy.reshape(-1, 1), grid, rays.points)[0]


def distilled(x0_hat, abar, seed, steps, rate, first, last, perspective=True):
    """The grid (1, X, Y, Z) of an object made by score distillation, [DreamFusion] eq. 3 with the weight that makes it
    x - x0_hat, at times that descend from first to last. x0_hat: (xt (2, 784), t) -> prediction for the front and the
    side, guided. rate: of Adam, which falls to 0."""
    both = rays(VIEWS.values(), perspective)
    shape = (1, SIZE, SIZE, SIZE)
    grid = (START + 0.1 * philox.normal(seed, shape, philox.stream("init"))).astype(np.float32)
    m, v = np.zeros_like(grid), np.zeros_like(grid)
    for step in range(steps):
        t = scene.annealed_time(step, steps, first, last)
        x, cache = rendered(grid, both)
        pictures = x.reshape(2, -1)
        eps = philox.normal(seed, pictures.shape, philox.stream("noise", step))
        dx = pictures - x0_hat(diffusion.q_sample(pictures, t, eps, abar), t)
        g = rendered_backward(dx.reshape(-1), cache)
        falling = rate * (1 - step / steps)
        optim.adam_step(grid, g, m, v, step + 1, falling, 0.9, 0.99, EPS, 0.0, out=(grid, m, v))
    return grid


def hull(front, side):
    """The visual hull of two pictures (784,) in [-1, 1], the largest object that shows no more than both of them: a
    voxel is filled as far as both show it. Returns its grid (1, X, Y, Z)."""
    along, height = np.linspace(-1, 1, SIZE) * PIXELS, -np.linspace(-1, 1, SIZE) * PIXELS  # of voxels, in pixels
    rows, columns = (a.ravel() / 13.5 for a in np.meshgrid(height, along, indexing="ij"))
    points = np.stack([rows, columns, 0 * rows], axis=1)
    a, b = ((scene.trilinear(x.reshape(1, 28, 28, 1), points)[:, 0].reshape(SIZE, SIZE) + 1) / 2 for x in (front, side))
    both = np.minimum(a.T[:, None], b.T[None])  # (x, y, z)
    return (24 * both - 8)[None].astype(np.float32)
