"""What is special to the kernels of scenes: pictures in windows, Gaussians of every kind and place, points on the edges
of a grid, rays that end nowhere."""
import numpy as np
import pytest

from kernels import registry, tolerance
from ref import scene
from tests.kernels.backends import make, named, on_each, run, same

SPLATS = "splat", "splat_backward"


def having(*names):
    """Parametrisation by backend and those of the operations that it has, in each dtype."""
    ops = [named(f"scene.{name}") for name in names]
    return on_each(lambda b: [(op, d) for op in ops if registry.kernel(op, b.name)
                              for d in registry.dtypes(op, b.name)], ["op", "dtype"])


def holds(b, op, arguments, dtype):
    results = run(b, op, arguments, dtype)
    for result, rule in zip(results, registry.expected(op, arguments, dtype), strict=True):
        assert tolerance.error(result, rule) <= 1, tolerance.describe(result, rule)
    return results


@having("splat")
def test_a_window_has_the_bits_of_the_whole_picture(b, op, dtype):
    """Though its tiles, and so where their lists are cut, are others."""
    arguments = make(op, (60, 37, 50), dtype, cut=True, wide=6.0)
    whole, rest = run(b, op, arguments, dtype)
    u, v = arguments["origin"]
    for top, left, height, width in ((0, 0, 37, 50), (5, 3, 20, 31), (36, 49, 1, 1), (16, 17, 21, 33)):
        part = arguments | {"size": (height, width), "origin": (u + left, v + top)}
        y, window = run(b, op, part, dtype)
        here = np.s_[top : top + height, left : left + width]
        assert same(y, whole[(slice(None), *here)]) and same(window, rest[here])


@having(*SPLATS)
def test_gaussians_of_every_kind(b, op, dtype):
    """Far outside, larger than the picture, thinner than a pixel, of no opacity, behind the camera, at one depth, and
    of a matrix that is not symmetric."""
    arguments = make(op, (9, 20, 35), dtype, cut=False)
    uv, cov2, depth, opacity = (arguments[name] for name in ("uv", "cov2", "depth", "opacity"))
    uv[0], uv[1], cov2[2], cov2[3] = (-900, 4), (17, 3000), 1e5 * np.eye(2), 1e-3 * np.eye(2)
    opacity[4], depth[5], depth[6:] = 0, -2, 3
    cov2[7] = [[4, 1], [-0.5, 3]]
    holds(b, op, arguments, dtype)
    thin = arguments | {"rest_min": 0.5, "alpha_min": 0.01, "sigmas": 2.0}
    results = run(b, op, thin, dtype)
    assert all(np.all(np.isfinite(r)) for r in results)


@having(*SPLATS)
def test_no_gaussians_and_no_pixels(b, op, dtype):
    arguments = make(op, (3, 5, 6), dtype, cut=True)
    few = {name: arguments[name][:0] for name in ("uv", "cov2", "depth", "opacity", "color")}
    results = run(b, op, arguments | few, dtype)
    if op.name == "scene.splat":
        assert same(results[0], np.broadcast_to(arguments["background"][:, None, None], (3, 5, 6)))
    nothing = {"size": (0, 6)}
    if "dy" in arguments:
        nothing |= {"dy": arguments["dy"][:, :0], "drest": arguments["drest"][:0]}
    assert all(np.all(r == 0) for r in run(b, op, arguments | nothing, dtype)[:5])


@having("trilinear", "trilinear_backward")
def test_points_on_the_edges_of_a_grid_and_beyond(b, op, dtype):
    arguments = make(op, (3, 4, 2, 8), dtype)
    ends = [-1, 1, -1 - 1e-3, 1 + 1e-3, 1 / 3, 1e30, -1e30, 5]
    arguments["x"][:] = np.stack([np.roll(ends, i) for i in (0, 0, 4)], axis=1)
    holds(b, op, arguments, dtype)


@having("composite", "composite_backward")
def test_rays_without_density_behind_walls_and_without_samples(b, op, dtype):
    arguments = make(op, (6, 9), dtype)
    arguments["sigma"][0], arguments["sigma"][1, 3], arguments["delta"][2] = 0, 1e6, 0
    results = holds(b, op, arguments, dtype)
    if op.name == "scene.composite":
        assert same(results[0][0], arguments["background"]) and results[2][1] == pytest.approx(1, abs=1e-6)
    empty = {name: arguments[name][:, :0] for name in ("sigma", "color", "delta", "t")}
    y = run(b, op, arguments | empty, dtype)[0]
    assert y.shape == ((6, 3) if op.name == "scene.composite" else (6, 0))


@having("splat_backward")
def test_the_gradient_is_that_of_the_kernel_before_it(b, op, dtype):
    """Along a random direction of the colours and of the background, in which the picture is linear."""
    arguments = make(op, (15, 18, 40), dtype, cut=True)
    rng, forward = np.random.default_rng(1), {k: v for k, v in arguments.items() if k not in ("dy", "drest")}
    grads = run(b, op, arguments, dtype)
    ways = {name: rng.standard_normal(arguments[name].shape).astype(dtype) for name in ("color", "background")}
    moved = forward | {name: arguments[name] + way for name, way in ways.items()}
    (y, _), (other, _) = (run(b, named("scene.splat"), given, dtype) for given in (forward, moved))
    by_hand = sum(np.sum(g.astype(np.float64) * ways[name]) for name, g in zip(("color", "background"), grads[3:]))
    assert by_hand == pytest.approx(np.sum((other - y).astype(np.float64) * arguments["dy"]), rel=1e-4)


def test_ref_exports_what_the_records_name():
    assert all(getattr(scene, op.name.split(".")[1]) is op.truth for op in registry.OPS if op.name.startswith("scene."))
