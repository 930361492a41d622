"""The networks that are trained on a GPU run on arrays of another library, which NumPy hands its functions to, and
which refuse to meet NumPy's own arrays, as CuPy's do."""
import numpy as np
import pytest

from ref import tree
from ref.examples import nets
from ref.nets import joint_dit, t5, text


class Elsewhere(np.lib.mixins.NDArrayOperatorsMixin):
    """An array that stands for one on a device."""

    def __init__(self, array):
        self.array = array

    def __array__(self, *_, **__):
        raise TypeError("an array on a device was taken for one of NumPy's")

    def __array_ufunc__(self, ufunc, method, *given, **more):
        return sent(getattr(ufunc, method)(*map(fetched, given), **{k: fetched(v) for k, v in more.items()}))

    def __array_function__(self, function, types, given, more):
        if function is np.asarray:  # of `like`, which sends an array there
            return sent(np.asarray(*given, **more))
        found = function(*map(fetched, given), **{k: fetched(v) for k, v in more.items()})
        return [sent(part) for part in found] if isinstance(found, (list, tuple)) else sent(found)

    def __getattr__(self, name):
        found = getattr(self.array, name)
        return (lambda *a, **k: sent(found(*a, **k))) if callable(found) and name != "dtype" else sent(found)

    def __getitem__(self, index):
        return sent(self.array[index])

    def __setitem__(self, index, value):
        self.array[index] = fetched(value)

    def __len__(self):
        return len(self.array)

    def __bool__(self):
        return bool(self.array)


def sent(x):
    return Elsewhere(x) if isinstance(x, (np.ndarray, np.generic)) else x


def fetched(x):
    """The NumPy array of x, of lists and tuples too. Raises TypeError for one that is NumPy's already."""
    if isinstance(x, (list, tuple)):
        return type(x)(map(fetched, x))
    if isinstance(x, np.ndarray) and x.ndim and x.dtype.kind == "f":
        raise TypeError(f"an array of NumPy's met one on a device: {x.shape}")
    return x.array if isinstance(x, Elsewhere) else x


CONTEXT = nets.read(nets.IDS)
T = np.array([3, 500])
RUNS = {
    "text": lambda params: text.text_encoder(params, nets.IDS, nets.CONFIG),
    "t5": lambda params: t5.t5_encoder(params, nets.IDS, nets.T5),
    "joint_dit": lambda params: joint_dit.joint_dit(params, params["given"], T, params["text"], nets.CONFIG),
}
BACKWARD = {
    "text": lambda dy, params, cache: text.text_encoder_backward(dy, params, cache, nets.CONFIG),
    "t5": lambda dy, params, cache: t5.t5_encoder_backward(dy, params, cache, nets.T5),
    "joint_dit": joint_dit.joint_dit_backward,
}


@pytest.mark.parametrize("name", RUNS)
def test_arrays_of_another_library_give_the_same_bits(name):
    params = nets.net(name) | {"given": nets.IMAGE, "text": CONTEXT}
    y, cache = RUNS[name](params)
    wanted = y, BACKWARD[name](y, params, cache)
    y, cache = RUNS[name](tree.map(Elsewhere, params))
    found = y, BACKWARD[name](y, tree.map(Elsewhere, params), cache)
    for a, b in zip(tree.leaves(listed(wanted)), tree.leaves(tree.map(fetched, listed(found)))):
        np.testing.assert_array_equal(a, b)


def listed(found):
    return [listed(part) for part in found] if isinstance(found, (list, tuple)) else found
