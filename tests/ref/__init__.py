"""What the tests of `ref` share: a short schedule, shapes, and small worked examples of every equation."""
import inspect

import numpy as np
from hypothesis import strategies as st

from ref import samplers, schedules, tree
from ref.examples import example
from ref.reading.catalogue import equations
from ref.reading.worked import backward_example
from tests import assert_close

ABAR = schedules.alpha_bar(schedules.linear_betas(20, 0.01, 0.3))
EQUATIONS = equations()
SEEDS = st.integers(0, 2**32 - 1)
SHAPES = st.tuples(st.integers(1, 4), st.lists(st.integers(1, 4), max_size=3)).map(lambda case: (case[0], *case[1]))
SMALL = {"x0": np.array([[-0.3, 0.8, 0.1], [0.5, -0.9, 0.4]]), "pixels": 3}  # in place of the examples' two digits


def arrays(shape, seed, how_many):
    """Standard normals of one shape."""
    return np.random.default_rng(seed).standard_normal((how_many, *shape))


def worked(name, **given):
    """The equation and its arguments by name: of its worked example, some given. name: without "ref."."""
    function = EQUATIONS[f"ref.{name}"]
    is_backward = name.endswith("_backward")
    return function, (backward_example(function, SMALL | given)[3] if is_backward else example(function, SMALL | given))


def assert_keeps_float32(net, net_backward, arguments):
    """A network runs the same code in float32: every gradient has its dtype, and the output is near that in float64.
    arguments: by name, with params and config."""
    exact, _ = net(**arguments)
    single = {name: a.astype(np.float32) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a
              for name, a in arguments.items()} | {"params": tree.map(np.float32, arguments["params"])}
    y, cache = net(**single)
    gradients = net_backward(np.ones_like(y), single["params"], cache, arguments["config"])
    assert y.dtype == np.float32 and all(g.dtype == np.float32 for g in tree.leaves(list(gradients)))
    assert_close(y.astype(np.float64), exact, 1e-5, np.abs(exact).max())


def by_time(sampler, **settings):
    """A sampler of a model of ints as a function of (model, xT, times, noise, abar); nothing is known to `inpaint`."""
    def sample(model, xT, times, noise, abar, **more):
        given = dict(model=model, xT=xT, times=times, noise=noise, abar=abar, known=xT,
                     mask=np.zeros_like(xT)) | settings | more
        return sampler(**{name: given[name] for name in inspect.signature(sampler).parameters if name in given})

    return sample


BY_TIME = {
    "ddpm small": by_time(samplers.ddpm), "ddpm large": by_time(samplers.ddpm, variance="large"),
    "ddim 0": by_time(samplers.ddim, eta=0), "ddim 0.5": by_time(samplers.ddim, eta=0.5),
    "ddim 1": by_time(samplers.ddim, eta=1), "dpmpp_2m": by_time(samplers.dpmpp_2m),
    **{f"unipc {order}": by_time(samplers.unipc, order=order) for order in (1, 2, 3)},
    "dpmpp_2m_sde": by_time(samplers.dpmpp_2m_sde), "inpaint": by_time(samplers.inpaint),
}
