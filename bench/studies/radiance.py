"""Four ways to keep a scene, fitted to pictures of it with hand-written gradients and this project's kernels: a grid of
voxels, three planes with a small decoder, NeRF's network, and Gaussians.

A way is a module of functions in a `Way`: init, and step, which returns the gradient of half the sum of squares of a
batch's mistakes over the number of its pixels, and picture, which draws what a camera sees.
"""
import functools
from collections import namedtuple

import numpy as np

from kernels.nets import with_kernels
from kernels.numba_cpu import layers
from kernels.numba_cpu.scene import composite, composite_backward, splat, splat_backward, trilinear, trilinear_backward
from ref import philox, scene
from ref.layers import relu, relu_backward, sigmoid, softplus
from ref.nets import nerf
from ref.scene.fields import PLANES
from ref.tree import leaves

SAMPLES, NEAR, FAR = 64, 2.1, 4.3  # of a ray; from the eye
RAYS = {"voxels": 1024, "tri-plane": 1024, "NeRF": 256}  # of a batch: more steps or better ones
BATCHES = 1 << 14  # rays of a picture at a time
WHITE, SHIFT, DENSITY = np.ones(3, np.float32), -3.0, 10.0  # sigma = DENSITY softplus(value + SHIFT)
VOXELS, PLANE, FEATURES, HIDDEN = 56, 72, 12, 32  # an axis; of a plane; channels; units of the decoder
OCTAVES, WIDTH, DEPTH = 6, 64, 4  # of NeRF's network
GAUSSIANS = 2500

# Pictures (views, size, size, 3), the camera of each, and origins and directions of all of their rays, (rays, 3) each.
Views = namedtuple("Views", "pictures cameras origin direction")
# init: (seed) -> params. step: (params, views, seed, step) -> gradients. picture: (params, camera, size) ->
# (size, size, 3). rates: {first name of a parameter: of Adam}
Way = namedtuple("Way", "init step picture rates")


def views(pictures, cameras):
    """`Views` of pictures. cameras: of each."""
    uv = scene.pixel_centres(pictures.shape[1:3])
    rays = [np.concatenate(part) for part in zip(*(scene.perspective_rays(uv, *camera) for camera in cameras))]
    return Views(pictures, cameras, *rays)


# --- fields, seen along rays ------------------------------------------------------------------------------------------


def sampled(origin, direction, u):
    """Points (rays S, 3), delta and t (rays, S) of the samples of rays; delta is 0 outside of the box. origin,
    direction: (rays, 3). u: (rays, S) uniforms."""
    ends = [np.full(len(u), end) for end in (NEAR, FAR)]
    t = scene.stratified(*ends, u)
    points = (origin[:, None] + t[:, :, None] * direction[:, None]).reshape(-1, 3)
    delta = np.where(np.all(np.abs(points) <= 1, axis=1).reshape(t.shape), scene.intervals(t, ends[1]), 0)
    return [np.ascontiguousarray(a, np.float32) for a in (points, delta, t)]


def rendered(field, params, origin, direction, u):
    """The colours of rays, (rays, 3), and what `descended` needs. field: (params, points, directions) -> sigma, color,
    cache. Points outside of the box are not asked for."""
    points, delta, t = sampled(origin, direction, u)
    inside = np.flatnonzero(delta.reshape(-1) > 0)
    seen = np.repeat(direction.astype(np.float32), u.shape[1], axis=0)[inside]
    found, colors, cache = field(params, points[inside], seen)
    sigma, color = np.zeros(delta.size, np.float32), np.zeros((delta.size, 3), np.float32)
    sigma[inside], color[inside] = found, colors
    rays = sigma.reshape(delta.shape), color.reshape(*delta.shape, 3), delta, t, WHITE
    return composite(*rays)[0], (rays, inside, cache)


def along_rays(field, backward, count, params, views, seed, step):
    """`Way.step` of a field, of count rays."""
    pick = philox.below(seed, count, len(views.origin), philox.stream("batch", step))
    u = philox.uniform(seed, (count, SAMPLES), philox.stream("time", step))
    y, (rays, inside, cache) = rendered(field, params, views.origin[pick], views.direction[pick], u)
    dy = (y - views.pictures.reshape(-1, 3)[pick]) / np.float32(count)
    none = np.zeros(count, np.float32)
    dsigma, dcolor, *_ = composite_backward(dy.astype(np.float32), none, none, *rays)
    return backward(dsigma.reshape(-1)[inside], dcolor.reshape(-1, 3)[inside], params, cache)


def through_rays(field, params, camera, size):
    """`Way.picture` of a field."""
    origin, direction = scene.perspective_rays(scene.pixel_centres((size, size)), *camera)
    u, parts = np.full((BATCHES, SAMPLES), 0.5), []
    for first in range(0, len(origin), BATCHES):
        o, d = origin[first : first + BATCHES], direction[first : first + BATCHES]
        parts.append(rendered(field, params, o, d, u[: len(o)])[0])
    return np.concatenate(parts).reshape(size, size, 3)


def of_values(y):
    """sigma and color of four numbers a point, (N, 4)."""
    return DENSITY * softplus(y[:, 0] + SHIFT), sigmoid(y[:, 1:])


def of_values_backward(dsigma, dcolor, y, color):
    """Their gradient in y."""
    dy = np.concatenate([(dsigma * DENSITY * sigmoid(y[:, 0] + SHIFT))[:, None], dcolor * color * (1 - color)], axis=1)
    return dy.astype(np.float32)


def voxel_field(params, points, directions):
    y = trilinear(params["grid"], points)
    sigma, color = of_values(y)
    return sigma, color, (points, y, color)


def voxel_backward(dsigma, dcolor, params, cache):
    points, y, color = cache
    return {"grid": trilinear_backward(of_values_backward(dsigma, dcolor, y, color), params["grid"], points)[0]}


def plane_points(points, axes):
    """The points on a plane as on a grid of one layer."""
    return np.ascontiguousarray(np.concatenate([points[:, axes], np.zeros((len(points), 1), np.float32)], axis=1))


def plane_field(params, points, directions):
    f = sum(trilinear(plane, plane_points(points, axes)) for plane, axes in zip(params["planes"], PLANES))
    h = layers.linear(f, *params["first"])
    y = layers.linear(relu(h), *params["last"])
    sigma, color = of_values(y)
    return sigma, color, (points, f, h, y, color)


def plane_backward(dsigma, dcolor, params, cache):
    points, f, h, y, color = cache
    dy = of_values_backward(dsigma, dcolor, y, color)
    da, *last = layers.linear_backward(dy, relu(h), params["last"][0])
    df, *first = layers.linear_backward(relu_backward(da, h), f, params["first"][0])
    planes = [trilinear_backward(df, plane, plane_points(points, axes))[0]
              for plane, axes in zip(params["planes"], PLANES)]  # fmt: skip
    return {"planes": planes, "first": first, "last": last}


def net_field(params, points, directions):
    sigma, color, cache = with_kernels(nerf, "numba_cpu").nerf(params, points, directions, "softplus")
    return DENSITY * sigma, color, cache


def net_backward(dsigma, dcolor, params, cache):
    backward = with_kernels(nerf, "numba_cpu").nerf_backward
    return backward((DENSITY * dsigma).astype(np.float32), dcolor, params, cache, "softplus")[2]


def field_way(name, init, field, backward, rates):
    """The `Way` of a field. name: in RAYS."""
    step = functools.partial(along_rays, field, backward, RAYS[name])
    return Way(init, step, functools.partial(through_rays, field), rates)


def drawn(seed, shape, scale, place=0):
    return (scale * philox.normal(seed, shape, philox.stream("init", place))).astype(np.float32)


def planes_init(seed):
    planes = drawn(seed, (3, FEATURES, PLANE, PLANE, 1), 0.3)
    first = [drawn(seed, (HIDDEN, FEATURES), FEATURES**-0.5, 1), np.zeros(HIDDEN, np.float32)]
    return {"planes": list(planes), "first": first,
            "last": [drawn(seed, (4, HIDDEN), HIDDEN**-0.5, 2), np.zeros(4, np.float32)]}  # fmt: skip


# --- Gaussians --------------------------------------------------------------------------------------------------------


def gaussians_init(seed):
    uniform = philox.uniform(seed, (GAUSSIANS, 3), philox.stream("init"))
    q = np.tile(np.array([1, 0, 0, 0], np.float32), (GAUSSIANS, 1))
    scale = np.full((GAUSSIANS, 3), np.log(0.05), np.float32)
    return {"mean": (1.6 * uniform - 0.8).astype(np.float32), "scale": scale, "q": q,
            "opacity": np.full(GAUSSIANS, -2, np.float32), "color": drawn(seed, (GAUSSIANS, 3), 0.3, 1)}  # fmt: skip


def projected(params, camera):
    """What `splat` takes, in float32, and what `splatted` needs besides."""
    scale = np.exp(params["scale"].astype(np.float64))
    cov = scene.covariance(scale, params["q"])
    uv, cov2, depth = scene.perspective_gaussians(params["mean"], cov, *camera)
    opacity, color = sigmoid(params["opacity"]), sigmoid(params["color"])
    given = [np.ascontiguousarray(a, np.float32) for a in (uv, cov2, depth, opacity, color)]
    return [*given, WHITE], (scale, cov, opacity, color)


def gaussians_picture(params, camera, size):
    return splat(*projected(params, camera)[0], (size, size))[0].transpose(1, 2, 0)


def gaussians_step(params, views, seed, step):
    """`Way.step`: of one whole picture."""
    which = int(philox.below(seed, 1, len(views.cameras), philox.stream("batch", step))[0])
    camera, picture = views.cameras[which], views.pictures[which]
    size = len(picture)
    given, (scale, cov, opacity, color) = projected(params, camera)
    y, rest = splat(*given, (size, size))
    dy = ((y - picture.transpose(2, 0, 1)) / size**2).astype(np.float32)
    duv, dcov2, dopacity, dcolor, _ = splat_backward(dy, np.zeros_like(rest), *given, (size, size))
    focal, _, rotation, translation = camera
    dmean, dcov, *_ = scene.perspective_gaussians_backward(
        duv, dcov2, np.zeros(len(duv)), params["mean"], cov, focal, rotation, translation)
    dscale, dq = scene.covariance_backward(dcov, scale, params["q"])
    grads = {"mean": dmean, "scale": dscale * scale, "q": dq, "opacity": dopacity * opacity * (1 - opacity),
             "color": dcolor * color * (1 - color)}  # fmt: skip
    return {name: np.ascontiguousarray(g, np.float32) for name, g in grads.items()}


WAYS = {
    "voxels": field_way("voxels", lambda seed: {"grid": drawn(seed, (4, VOXELS, VOXELS, VOXELS), 0.1)}, voxel_field,
                        voxel_backward, {"grid": 0.15}),
    "tri-plane": field_way("tri-plane", planes_init, plane_field, plane_backward,
                           {"planes": 0.02, "first": 0.004, "last": 0.004}),
    "NeRF": field_way("NeRF", lambda seed: nerf.nerf_init(seed, OCTAVES, 2, WIDTH, DEPTH, 2), net_field, net_backward,
                      {"": 3e-3}),
    "Gaussians": Way(gaussians_init, gaussians_step, gaussians_picture,
                     {"mean": 0.002, "scale": 0.01, "q": 0.01, "opacity": 0.05, "color": 0.03}),
}  # fmt: skip


def numbers(params):
    """How many numbers a scene is kept in."""
    return sum(p.size for p in leaves(params))
