"""The operations of `ref.scene`: volume rendering, voxels and splatting. Their name is that of the package,
`scene.composite`.

A transmittance is a power whose exponent is a sum of that size; in splatting it is a product, so that each Gaussian in
front adds to what it may be off by. What rounding would decide is not drawn: a pixel next to a threshold.
"""
import functools
import math

import numpy as np

from kernels.ops.inputs import VALUES, data
from kernels.ops.record import Op
from ref import scene

FLUSHED = 2.0**-102  # in units of float32: an exponential below 2^-126 may be 0
MARGIN = 1e-4  # of a pixel's q, alpha and T from the thresholds, relative
CUT = dict(alpha_min=1 / 255, alpha_max=0.99, rest_min=1e-4, sigmas=3.0)
WHOLE = dict(alpha_min=0.0, alpha_max=0.99, rest_min=0.0, sigmas=math.inf)


def _some(rng, shape, dtype, values):
    """`data`, but of what is not finite NaN alone: of infinity times 0 the order makes NaN."""
    x = data(rng, shape, dtype, values)
    return np.where(np.isinf(x), x.dtype.type(np.nan), x)


# --- volume rendering -------------------------------------------------------------------------------------------------


def _rays(names, rng, shape, dtype, values, channels=3):
    """An input maker. names: of the gradients. shape: (N, S)."""
    N, S = (1,) * (2 - len(shape)) + tuple(shape[:1]) + (math.prod(shape[1:]),) * (len(shape) > 1)
    thick = "normal" if values == "large" else values  # a large density is a wall, and two tiny factors are nothing
    shapes = {"dy": (N, channels), "ddepth": (N,), "dopacity": (N,)}
    given = {name: _some(rng, shapes[name], dtype, values) for name in names}
    share = np.dtype(dtype).type(min(1, 3 / S))  # so that light comes through
    return given | {
        "sigma": share * np.abs(_some(rng, (N, S), dtype, thick)), "color": _some(rng, (N, S, channels), dtype, values),
        "delta": np.abs(_some(rng, (N, S), dtype, "normal" if values == "tiny" else thick)),
        "t": _some(rng, (N, S), dtype, values),
        "background": _some(rng, (channels,), dtype, values)}  # fmt: skip


def _weight_sizes(sigma, delta, printed=False):
    """Of w (N, S), of T behind each sample (N, S), and of rest (N,). printed: with 1 - exp(-tau), which cancels."""
    w, rest = scene.volume_weights(sigma, delta)
    depth = np.cumsum(sigma * delta, axis=1)
    T = np.exp(-depth) * (1 + depth) + FLUSHED
    front = np.concatenate([np.ones((len(T), 1)), T[:, :-1]], axis=1)[:, : T.shape[1]] if printed else 0  # T there
    return w * (1 + depth) + FLUSHED + front, T, T[:, -1] if T.shape[1] else 1 + 0 * rest


def _composite_sizes(sigma, color, delta, t, background, printed=False):
    w, _, rest = _weight_sizes(sigma, delta, printed)
    y = np.einsum("ns,nsc->nc", w, np.abs(color)) + rest[:, None] * np.abs(background)
    return y, (w * np.abs(t)).sum(axis=1), w.sum(axis=1)


def _composite_backward_sizes(dy, ddepth, dopacity, sigma, color, delta, t, background, printed=False):
    w, T, rest = _weight_sizes(sigma, delta, printed)
    dy, ddepth, dopacity, color, t = (np.abs(a) for a in (dy, ddepth, dopacity, color, t))
    dw = np.einsum("nsc,nc->ns", color, dy) + t * ddepth[:, None] + dopacity[:, None]
    behind = np.cumsum((w * dw)[:, ::-1], axis=1)[:, ::-1] + (rest * (dy @ np.abs(background)))[:, None]
    dtau = T * dw + behind
    return delta * dtau, w[:, :, None] * dy[:, None], sigma * dtau, w * ddepth[:, None], rest @ dy


# --- voxels -----------------------------------------------------------------------------------------------------------


def _voxels(names, rng, shape, dtype, values, channels=4):
    """An input maker. names: of the gradients. shape: (X, Y, Z, N); of another rank, what is made of it."""
    if len(shape) != 4:
        shape = tuple(1 + (n - 1) % most for n, most in zip(((1,) * 4 + tuple(shape))[-4:], (9, 9, 9, 999)))
    x = rng.uniform(-1.3, 1.3, (shape[3], 3)) * (values != "zeros")
    x[:1] += np.nan if values == "not finite" else 0
    given = {name: _some(rng, (shape[3], channels), dtype, values) for name in names}
    return given | {"grid": _some(rng, (channels, *shape[:3]), dtype, values), "x": x.astype(dtype)}


def _trilinear_sizes(grid, x):
    return scene.trilinear(np.abs(grid), x)


def _trilinear_backward_sizes(dy, grid, x):
    """Along each axis the slope is a difference: with the signs of a chessboard's lines it is a sum."""
    dy, dx = np.abs(dy), []
    for axis, size in enumerate(grid.shape[1:]):
        signs = np.reshape((-1.0) ** np.arange(size), [1, *(size if a == axis else 1 for a in range(3))])
        dx.append(np.abs(scene.trilinear_backward(dy, signs * np.abs(grid), x)[1][:, axis]))
    return scene.trilinear_backward(dy, np.abs(grid), x)[0], np.stack(dx, axis=1)


# --- splatting --------------------------------------------------------------------------------------------------------


def _gaussians(names, rng, shape, dtype, values, channels=3, cut=True, wide=3.0):
    """An input maker. names: of the gradients. shape: (N, H, W); of another rank, what is made of it. cut: whether the
    thresholds are those of the authors' code, or there are none. wide: about the deviation in pixels."""
    if len(shape) != 3:
        shape = tuple(1 + (n - 1) % most for n, most in zip(((1,) * 3 + tuple(shape))[-3:], (99, 40, 40)))
    N, H, W = shape
    origin = tuple(rng.integers(-3, 4, 2).tolist())
    centre = lambda n: rng.uniform(-2, 2, (n, 2)) + rng.uniform(0, 1, (n, 2)) * [W, H] + origin  # noqa: E731
    axes = rng.standard_normal((N, 2, 2)) * wide / 2
    cov2 = axes @ axes.swapaxes(1, 2) + (0.3 + wide / 9) * np.eye(2)
    given = {"uv": centre(N), "cov2": cov2, "depth": rng.choice([-1, 1, 2, 3, 4, 5, 6, 7], N) + rng.choice([0, 0.5], N),
             "opacity": rng.uniform(0.02, 1, N)}  # fmt: skip
    given = {name: x.astype(dtype) for name, x in given.items()}
    thresholds = dict(CUT if cut else WHOLE)
    # Gaussians with a pixel next to a threshold stand somewhere else
    pixels = scene.pixel_centres((H, W), origin)
    near = np.arange(N)
    while len(near := [i for i in near if _undecided(pixels, given, i, thresholds)]):
        given["uv"][near] = centre(len(near)).astype(dtype)
    given |= {"color": _some(rng, (N, channels), dtype, values), "size": (H, W), "origin": origin, "depth_min": 0.0,
              "background": _some(rng, (channels,), dtype, values)}  # fmt: skip
    if values == "not finite":  # behind the camera, where it is no part of the picture
        given["background"][:], given["color"][:] = 1, np.abs(np.nan_to_num(given["color"]))
        given["depth"][0], given["color"][0], given["uv"][0] = -1, np.nan, np.nan
    if cut:
        given["rest_min"] = 0.0
        thresholds["rest_min"] = _between(_least(**given | thresholds | {"rest_min": 0.0}), CUT["rest_min"])
    shapes = {"dy": (channels, H, W), "drest": (H, W)}
    kind = "normal" if values == "not finite" else values
    return {name: _some(rng, shapes[name], dtype, kind) for name in names} | given | thresholds


def _undecided(pixels, given, i, thresholds):
    d = pixels.T - given["uv"][i].astype(np.float64)[:, None]
    q = np.einsum("an,ab,bn->n", d, np.linalg.inv(given["cov2"][i].astype(np.float64)), d)
    alpha = given["opacity"][i].astype(np.float64) * np.exp(-q / 2)
    pairs = (q, thresholds["sigmas"] ** 2), (alpha, thresholds["alpha_min"]), (alpha, thresholds["alpha_max"])
    return any(np.any(np.abs(x - limit) < MARGIN * limit) for x, limit in pairs if 0 < limit < math.inf)


def _between(values, limit):
    """A number about limit and MARGIN away from each of the values."""
    values = np.sort(values)
    while np.any(np.abs(values - limit) < MARGIN * limit):
        limit *= 1 + 2 * MARGIN
    return limit


def _walk(uv, cov2, depth, opacity, color, background, size, origin, alpha_min, alpha_max, rest_min, sigmas, depth_min):
    """From front to back of each Gaussian i: d (2, H, W), exp(-q / 2), alpha, and where it counts before any stop; T in
    front of it; and the size of q / 2."""
    pixels = scene.pixel_centres(size, origin).T.reshape(2, *size)
    for i in (i for i in np.argsort(depth, kind="stable") if depth[i] > depth_min):
        inverse, d = np.linalg.inv(cov2[i]), pixels - uv[i][:, None, None]
        q = np.einsum("ahw,ab,bhw->hw", d, inverse, d)
        falloff = np.exp(-q / 2)
        alpha = np.minimum(opacity[i] * falloff, alpha_max)
        terms = np.einsum("ahw,ab,bhw->hw", np.abs(d), np.abs(inverse), np.abs(d)) / 2
        yield i, d, falloff, alpha, ~((q > sigmas**2) | (alpha < alpha_min)), terms


def _least(**given):
    """T behind each Gaussian at each pixel where it counts, of a picture in float64 whose pixels never stop."""
    given = {name: x.astype(np.float64) if isinstance(x, np.ndarray) else x for name, x in given.items()}
    T, found = np.ones(given["size"]), [np.ones(0)]
    for _, _, _, alpha, counts, _ in _walk(**given):
        T = np.where(counts, T * (1 - alpha), T)
        few = counts & (np.abs(T - CUT["rest_min"]) < 0.1 * CUT["rest_min"])
        found.append(T[few])
    return np.concatenate(found)


def _front(given, visit):
    """visit(i, d, falloff, alpha, counts, T, size of alpha over alpha, size of T over T) of each Gaussian front to
    back. Returns T, its size over T, and live, where no pixel stopped."""
    T, off, live = np.ones(given["size"]), np.zeros(given["size"]), np.ones(given["size"], bool)
    for i, d, falloff, alpha, counts, terms in _walk(**given):
        live &= ~(counts & live & (T * (1 - alpha) < given["rest_min"]))
        counts = counts & live
        visit(i, d, falloff, alpha, counts, T, 1 + terms, off)
        off = off + np.where(counts, 1 + alpha * (1 + terms) / (1 - alpha), 0)
        T = np.where(counts, T * (1 - alpha), T)
    return T, off


def _splat_sizes(**given):
    color, y = np.abs(np.nan_to_num(given["color"])), np.zeros((given["color"].shape[1], *given["size"]))

    def visit(i, d, falloff, alpha, counts, T, own, off):
        y[...] += np.where(counts, alpha * T * (1 + own + off) + FLUSHED, 0) * color[i][:, None, None]

    T, off = _front(given, visit)
    return y + T * (1 + off) * np.abs(given["background"])[:, None, None], T * (1 + off)


def _splat_backward_sizes(dy, drest, **given):
    dy, color = np.abs(dy), np.abs(np.nan_to_num(given["color"]))
    kept, N, C = [], len(color), color.shape[1]
    T, off = _front(given, lambda *of_one: kept.append(of_one))
    behind = np.tensordot(np.abs(given["background"]), dy, 1) + np.abs(drest)
    duv, dinverse, dopacity, dcolor = np.zeros((N, 2)), np.zeros((N, 2, 2)), np.zeros(N), np.zeros((N, C))
    dbackground = (dy * T * (1 + off)).sum(axis=(1, 2))
    for i, d, falloff, alpha, counts, before, own, _ in reversed(kept):
        d, light = np.abs(d), np.tensordot(color[i], dy, 1)
        dcolor[i] = (np.where(counts, alpha * before * (1 + own + off) + FLUSHED, 0) * dy).sum(axis=(1, 2))
        dalpha = np.where(counts, before * (light + behind) * (2 + own + 2 * off), 0)
        behind = np.where(counts, alpha * light + (1 - alpha) * behind, behind)
        dopacity[i] = (dalpha * (falloff + FLUSHED)).sum()
        dq = dalpha * (given["opacity"][i] * falloff + FLUSHED) / 2
        duv[i], dinverse[i] = (dq * d).sum(axis=(1, 2)), np.einsum("hw,ahw,bhw->ab", dq, d, d)
    turned = np.abs(np.linalg.inv(given["cov2"])).swapaxes(1, 2)
    duv = ((turned + turned.swapaxes(1, 2)) @ duv[:, :, None])[:, :, 0]
    return duv, turned @ dinverse @ turned, dopacity, dcolor, dbackground


RAYS = ((1, 1), (3, 5), (4, 4), (1, 130), (70, 9), (3, 3), (130, 70))
GRIDS = ((1, 1, 1, 3), (2, 3, 4, 5), (4, 4, 4, 4), (3, 1, 7, 40), (2, 2, 2, 1), (9, 8, 7, 5000))
PICTURES = ((1, 1, 1), (3, 3, 3), (9, 4, 18), (12, 17, 33), (20, 16, 16), (60, 40, 50))
SCENE = {"empty": False, "values": VALUES}
GRADIENT = SCENE | {"sums": True}
LIGHT = {"settings": (), "shapes": RAYS, "large": ((65_539, 2), (16_411, 64)), "options": {"channels": (1, 4, 3)}}
CHOICES = {"channels": (1, 3), "cut": (False, True)}
SPLAT = {"shapes": PICTURES, "exact": ("uv", "cov2", "depth", "opacity"), "options": CHOICES}
OPS = [
    Op(
        scene.composite, ulps=3, make=functools.partial(_rays, ()), scale=_composite_sizes, **LIGHT, **SCENE,
        textbook=functools.partial(_composite_sizes, printed=True),
        examples=("sigma", "color", "delta", "t"),
        bench={"4096 x 128": {"shape": (4096, 128)}},
    ),
    Op(
        scene.composite_backward, ulps=4, make=functools.partial(_rays, ("dy", "ddepth", "dopacity")),
        scale=_composite_backward_sizes, **LIGHT, **GRADIENT,
        textbook=functools.partial(_composite_backward_sizes, printed=True),
        bench={"4096 x 128": {"shape": (4096, 128)}},
    ),
    Op(
        scene.trilinear, ulps=4, make=functools.partial(_voxels, ()), scale=_trilinear_sizes, shapes=GRIDS,
        options={"channels": (1, 4)}, bench={"64^3, 262144": {"shape": (64, 64, 64, 2**18)}}, **SCENE,
    ),
    Op(
        scene.trilinear_backward, ulps=4, make=functools.partial(_voxels, ("dy",)), scale=_trilinear_backward_sizes,
        shapes=GRIDS, options={"channels": (1, 4)}, bench={"64^3, 262144": {"shape": (64, 64, 64, 2**18)}}, **GRADIENT,
    ),
    Op(
        scene.splat, ulps=3, make=functools.partial(_gaussians, ()), scale=_splat_sizes, **SPLAT, **SCENE,
        bench={"2000 in 128 x 128": {"shape": (2000, 128, 128)}},
    ),
    Op(
        scene.splat_backward, ulps=3, make=functools.partial(_gaussians, ("dy", "drest")), writes=0,
        scale=_splat_backward_sizes, **SPLAT, **GRADIENT, bench={"2000 in 128 x 128": {"shape": (2000, 128, 128)}},
    ),
]  # fmt: skip
