"""`ref.scene` against programs that nobody here wrote: PyTorch's grid_sample and autograd, gsplat's and nerfacc's
PyTorch functions, in float64. tests/goldens/make_scene.py wrote the numbers."""
import inspect
import json

import numpy as np
import pytest

from ref import scene
from tests import GOLDENS, assert_close, golden

ARRAYS = golden("scene")
CASES = json.loads((GOLDENS / "scene.json").read_text("utf-8"))["cases"]


def part(name, key):
    """{the rest of its name: array} of a case's arrays whose name begins with the key."""
    start = f"{name}/{key}/"
    return {path.removeprefix(start): a for path, a in ARRAYS.items() if path.startswith(start)}


def called(function, given):
    returned = function(**{n: given[n] for n in inspect.signature(function).parameters if n in given})
    return returned if isinstance(returned, tuple) else (returned,)


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients(name):
    forward = getattr(scene, name.rstrip("_0123456789"))
    backward = getattr(scene, f"{forward.__name__}_backward")
    given = part(name, "in") | CASES[name]["settings"]
    outputs, names = called(forward, given), list(inspect.signature(backward).parameters)
    expected, up = part(name, "out"), part(name, "up")
    assert len(outputs) == len(expected)
    for found, exact in zip(outputs, expected.values()):
        assert_close(found, exact, scale=np.abs(exact).max())
    gradients = called(backward, given | dict(zip(names, up.values())))
    order = [n for n in inspect.signature(forward).parameters if isinstance(given.get(n), np.ndarray)]
    found = dict(zip([n for n in order if n != "depth" or name != "splat"], gradients, strict=True))
    for argument, exact in part(name, "grad").items():
        assert_close(found[argument], exact, 1e-11, scale=np.abs(exact).max())


def test_the_cases_reach_what_they_are_for():
    """Points beyond the box, a Gaussian beyond the limit, colours below 0, pixels that are done, cut and left out."""
    assert (np.abs(ARRAYS["trilinear/in/x"]) > 1).any()
    given = part("perspective_gaussians", "in")
    free, kept = (scene.perspective_gaussians(**given, limit=limit)[1] for limit in (np.inf, 1.3 * 8 / 20))
    assert np.abs(free - kept).max() > 1
    assert (ARRAYS["harmonic_color_16/out/0"] == 0).any()
    given = part("splat", "in") | {"size": (12, 14)}
    y, _ = scene.splat(**given)
    for threshold, off in (("alpha_min", 0.0), ("alpha_max", 1 - 1e-12), ("rest_min", 0.0), ("sigmas", np.inf)):
        assert np.abs(scene.splat(**given, **{threshold: off})[0] - y).max() > 0, threshold
