"""What the tests of `ref/` share: the golden arrays, and the one comparison of float64 with float64."""
import pathlib

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
GOLDENS = ROOT / "tests" / "goldens"


def golden(name):
    """The arrays of tests/goldens/<name>.npz; the sidecar <name>.json says which program they came from."""
    with np.load(GOLDENS / f"{name}.npz") as arrays:
        return dict(arrays)


def redrawn(shapes, seed):
    """{name: array} for {name: shape}: every number random, weights of about 1 / sqrt(inputs), those of norms about
    1."""
    draw, params = np.random.default_rng(seed), {}
    for name, shape in shapes.items():
        z = draw.standard_normal(shape)
        inputs = np.prod(shape[1:]) if len(shape) > 1 else 9
        params[name] = z / np.sqrt(inputs) + (len(shape) == 1 and name.endswith("weight"))
    return params


def assert_close(actual, expected, rel=1e-12, scale=None):
    """|actual - expected| <= rel * scale in every element; scale is |expected| if not given, else the size of the terms
    that were added to make it.

    It also refuses to pass where the same rule would have let through zeros, twice the numbers, their negative, or the
    numbers rolled by one (unless that is the same array): so a tolerance that can see nothing cannot be written.
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    assert actual.dtype == np.float64 and expected.dtype == np.float64, f"{actual.dtype}, expected {expected.dtype}"
    scale = np.abs(expected) if scale is None else np.broadcast_to(np.abs(scale), expected.shape)
    worst = _worst(actual, expected, rel * scale)
    assert worst <= 1, f"off by {worst:.3g} times the allowed {rel:g}"
    for name, wrong in {"zeros": 0 * expected, "twice": 2 * expected, "the negative": -expected,
                        "rolled by one": np.roll(expected.ravel(), 1).reshape(expected.shape)}.items():
        if not np.array_equal(wrong, expected):
            assert _worst(wrong, expected, rel * scale) > 1, f"this tolerance would also accept {name}"


def _worst(actual, expected, allowed):
    """The largest error in units of the allowed one: 0 where both are the same number, inf for any NaN."""
    if expected.size == 0:
        return 0.0
    error = np.where(actual == expected, 0.0, np.abs(actual - expected))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(error == 0, 0.0, error / allowed)
    return np.inf if np.isnan(ratio).any() else float(ratio.max())
