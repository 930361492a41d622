"""`audio.wavenet_generate` on the CPU. One code more or less likely than u is another sound from there on, so that no
rule of rounding fits: in float64 the codes are those of the truth, in float32 each is where u falls in the truth's
softmax of the codes before it, up to rounding."""
import numpy as np
import pytest

from kernels.numba_cpu import audio, engine
from ref import tree
from ref.examples.nets import stirred
from ref.nets import wavenet

RNG = np.random.default_rng(25)
SIZES = [(7, 4, 5, 6, 3), (256, 32, 64, 10, 5), (5, 3, 2, 1, 1), (11, 6, 9, 4, 10)]  # classes, channels, skip, ...


def net(classes, channels, skip, layers, dtype=np.float64):
    return tree.map(lambda a: a.astype(dtype), stirred(wavenet.wavenet_init(0, classes, channels, skip, layers)))


def outside(params, codes, u, cycle):
    """By how much each u is outside of its code's interval of the truth's cumulative softmax."""
    logits, _ = wavenet.wavenet(tree.map(np.float64, params), codes, cycle)
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    above = np.cumsum(e / e.sum(axis=1, keepdims=True), axis=1)
    high = np.take_along_axis(above, codes[:, None], axis=1)[:, 0]
    low = high - np.take_along_axis(e / e.sum(axis=1, keepdims=True), codes[:, None], axis=1)[:, 0]
    return np.maximum(low - u, u - high).max()


@pytest.mark.parametrize("classes, channels, skip, layers, cycle", SIZES)
def test_codes_are_those_of_the_truth(classes, channels, skip, layers, cycle):
    params, u = net(classes, channels, skip, layers), RNG.uniform(size=(2, 70))
    u[0, 5], u[1, 6] = 0, 1
    codes = audio.wavenet_generate(params, u, cycle)
    np.testing.assert_array_equal(codes, wavenet.wavenet_generate(params, u, cycle))
    assert codes.dtype == np.int64 and len(np.unique(codes)) > 3


@pytest.mark.parametrize("classes, channels, skip, layers, cycle", SIZES)
def test_float32_codes_are_where_u_falls(classes, channels, skip, layers, cycle):
    """Of the softmax of the truth, to 2e-5; not of one that has read its own code, or of another network's."""
    params, u = net(classes, channels, skip, layers, np.float32), RNG.uniform(size=(2, 300))
    codes = audio.wavenet_generate(params, u, cycle)
    assert outside(params, codes, u, cycle) <= 2e-5
    assert outside(params, np.roll(codes, 1, axis=1), u, cycle) > 0.01
    assert outside(params | {"end": params["end"][:1] * 2} if skip == classes else tree.map(
        lambda a: a * np.float32(0.9), params), codes, u, cycle) > 1e-3


def test_an_example_depends_on_nothing_else():
    """Not on its batch, nor on the number of threads; what comes later changes nothing before."""
    params, u = net(*SIZES[1][:4], np.float32), RNG.uniform(size=(3, 400))
    codes, threads = audio.wavenet_generate(params, u, 5), engine.get_num_threads()
    np.testing.assert_array_equal(audio.wavenet_generate(params, u[1:2], 5), codes[1:2])
    np.testing.assert_array_equal(audio.wavenet_generate(params, u[:, :250], 5), codes[:, :250])
    try:
        engine.set_num_threads(3)
        np.testing.assert_array_equal(audio.wavenet_generate(params, u, 5), codes)
    finally:
        engine.set_num_threads(threads)
    assert audio.wavenet_generate(params, u[:0], 5).shape == (0, 400)
    assert audio.wavenet_generate(params, u[:, :0], 5).shape == (3, 0)


def test_bad_input_is_refused():
    params, u = net(*SIZES[0][:4]), RNG.uniform(size=(2, 9))
    for wrong in (u[0], u + 1, u * np.nan):
        with pytest.raises(ValueError, match=r"\bu\b"):
            audio.wavenet_generate(params, wrong, 3)
    with pytest.raises(ValueError, match=r"\bcycle\b"):
        audio.wavenet_generate(params, u, 0)
    broken = params | {"end": [params["end"][0], tree.map(lambda a: a * np.nan, params["end"][1])]}
    with pytest.raises(ValueError, match=r"\bparams\b"):
        audio.wavenet_generate(broken, u, 3)
