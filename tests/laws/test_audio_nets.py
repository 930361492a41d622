"""Laws of the networks of sound: what sees what, exactly; queues and convolution; probabilities that add to 1.

Papers
    [WaveNet]   van den Oord et al., "WaveNet: A Generative Model for Raw Audio", 2016
    [VALL-E]    Wang et al., "Neural Codec Language Models are Zero-Shot Text to Speech Synthesizers", 2023
"""
import itertools

import numpy as np
import pytest

from ref import tree
from ref.examples.nets import stirred
from ref.nets import codec, codec_lm, wavenet

RNG = np.random.default_rng(24)
LAYERS, CYCLE, CLASSES = 6, 3, 7
NET = stirred(wavenet.wavenet_init(0, CLASSES, 4, 5, LAYERS))
CODES = RNG.integers(0, CLASSES, (2, 40))
FIELD = 1 + LAYERS // CYCLE * (2**CYCLE - 1)  # 15
CONFIG = {"num_attention_heads": 2}
LM = stirred(codec_lm.codec_lm_init(0, 5, 4, 3, (3, 4), 8, 2))


def seen(predict, codes, classes):
    """(outputs, inputs): whether the output at a place changes with the code at another. predict: codes (B, L) -> (B,
    L, ...)."""
    before, length = predict(codes), codes.shape[1]
    changed = np.zeros((length, length), bool)
    for t in range(length):
        other = codes.copy()
        other[:, t] = (codes[:, t] + 1) % classes
        changed[:, t] = np.any(predict(other) != before, axis=(0, *range(2, before.ndim)))
    return changed


def law_of_causality(predict):
    """Place t sees t - FIELD .. t - 1, every one of them, and nothing else: strictly lower triangular, and exact at
    both ends of the receptive field."""
    distance = np.arange(40)[:, None] - np.arange(40)
    return np.array_equal(seen(predict, CODES, CLASSES), (distance >= 1) & (distance <= FIELD))


def logits_of(params, cycle):
    return lambda codes: wavenet.wavenet(params, codes, cycle)[0].swapaxes(1, 2)


def test_wavenet_sees_its_receptive_field_and_nothing_else():
    assert law_of_causality(logits_of(NET, CYCLE))
    assert not law_of_causality(logits_of(NET, CYCLE + 1))
    fewer = NET | {"layers": NET["layers"][1:]}
    assert not law_of_causality(logits_of(fewer, CYCLE))
    right = logits_of(NET, CYCLE)
    assert not law_of_causality(lambda codes: np.roll(right(codes), -1, axis=1))  # its own code


def test_the_gradient_sees_as_much():
    """The gradient of the logits at t in the table of codes is 0 for codes that stand nowhere in its field."""
    codes, t = np.zeros((1, 40), int), 30
    codes[0, t - FIELD], codes[0, t - FIELD - 1], codes[0, t - 1], codes[0, t] = 1, 2, 3, 4
    logits, cache = wavenet.wavenet(NET, codes, CYCLE)
    dlogits = np.zeros(logits.shape)
    dlogits[0, :, t] = RNG.standard_normal(CLASSES)
    used = np.any(wavenet.wavenet_backward(dlogits, NET, cache)["embed"]["weight"] != 0, axis=1)
    np.testing.assert_array_equal(used, [True, True, False, True, False, False, False])


def test_queues_equal_the_convolution_at_every_step():
    whole, _ = wavenet.wavenet(NET, CODES, CYCLE)
    queues, code = wavenet.wavenet_queues(NET, 2, CYCLE), None
    for t in range(40):
        logits, queues = wavenet.wavenet_step(NET, code, queues)
        assert np.abs(logits - whole[:, :, t]).max() <= 1e-14
        code = CODES[:, t]
    # queues that are one place short are another network
    queues, code, off = [q[:, :, 1:] if q.shape[2] > 1 else q for q in wavenet.wavenet_queues(NET, 2, CYCLE)], None, 0
    for t in range(40):
        logits, queues = wavenet.wavenet_step(NET, code, queues)
        off = max(off, np.abs(logits - whole[:, :, t]).max())
        code = CODES[:, t]
    assert off > 1e-3


def test_generated_codes_have_the_probabilities_of_the_network():
    """Each code is where u falls in the cumulative softmax of the network that has read those before it; an example's
    codes do not depend on its batch."""
    u = RNG.uniform(size=(3, 25))
    u[0, 3], u[1, 4] = 0, 1
    codes = wavenet.wavenet_generate(NET, u, CYCLE)
    logits, _ = wavenet.wavenet(NET, codes, CYCLE)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    below = np.cumsum(p, axis=1) - p  # (B, classes, L)
    low, width = (np.take_along_axis(a, codes[:, None], axis=1)[:, 0] for a in (below, p))
    assert np.all(low <= u + 1e-14) and np.all(u <= low + width + 1e-14) and len(np.unique(codes)) == CLASSES
    np.testing.assert_array_equal(wavenet.wavenet_generate(NET, u[1:2], CYCLE), codes[1:2])


@pytest.mark.parametrize("strides", [(2, 4, 5), (1, 3), (2,)])
def test_the_codec_has_the_lengths_that_it_says(strides):
    total = int(np.prod(strides))
    params = stirred(codec.codec_init(0, 3, 2, strides))
    x = RNG.standard_normal((2, 6 * total))
    z, _ = codec.codec_encode(params["encoder"], x)
    y, _ = codec.codec_decode(params["decoder"], z)
    assert z.shape == (2, 2, 6) and y.shape == x.shape
    if total > 1:
        with pytest.raises(ValueError, match=r"\bx\b"):
            codec.codec_encode(params["encoder"], x[:, 1:])
    # a sound that is late by one frame has vectors that are late by one, away from the ends
    long = RNG.standard_normal((1, 40 * total))
    one, late = (codec.codec_encode(params["encoder"], a)[0] for a in (long, np.roll(long, total, axis=1)))
    assert np.abs(one[:, :, 9:-10] - late[:, :, 10:-9]).max() <= 1e-13


def test_the_branches_start_as_the_identity():
    params = codec.codec_init(0, 4, 3, (2, 3))
    h = RNG.standard_normal((2, 4, 9)).astype(np.float32)
    for half in params.values():
        for level in half["levels"]:
            np.testing.assert_array_equal(codec.codec_branch(level, h)[0], h)


TEXT, STAGES = np.array([[1, 4, 0], [2, 2, 3]]), RNG.integers(0, 4, (2, 3, 4))


def test_the_first_stage_is_causal_in_sound_and_full_in_text():
    def of_sound(codes):
        return codec_lm.first_codes(LM["first"], TEXT, codes, CONFIG)[0]

    np.testing.assert_array_equal(seen(of_sound, STAGES[:, 0], 4), np.tri(4, k=-1, dtype=bool))
    for t in range(3):  # every word moves every place
        text = TEXT.copy()
        text[:, t] = (text[:, t] + 1) % 5
        other = codec_lm.first_codes(LM["first"], text, STAGES[:, 0], CONFIG)[0]
        assert np.all(np.any(other != of_sound(STAGES[:, 0]), axis=2))


def test_the_parallel_stages_see_all_places_of_earlier_stages_and_no_later_one():
    for k in (1, 2):
        def of_stage(codes):
            return codec_lm.rest_codes(LM["rest"], TEXT, codes, CONFIG)[0]

        before = of_stage(STAGES[:, :k])
        for j, t in itertools.product(range(k), range(4)):
            other = STAGES[:, :k].copy()
            other[:, j, t] = (other[:, j, t] + 1) % 4
            assert np.all(np.any(of_stage(other) != before, axis=2))
    # by way of the whole: a later stage changes no earlier term
    other = STAGES.copy()
    other[:, 2] = (other[:, 2] + 1) % 4
    kept = [codec_lm.codec_lm_log_likelihood(LM, TEXT, codes[:, :2], CONFIG) for codes in (STAGES, other)]
    np.testing.assert_array_equal(*kept)
    assert np.all(codec_lm.codec_lm_log_likelihood(LM, TEXT, STAGES, CONFIG) < kept[0])


def test_the_factorisation_sums_to_1():
    """Over all 3^(2 * 3) sounds of two stages and three places; and a network that sees its own code does not."""
    params = stirred(codec_lm.codec_lm_init(1, 2, 3, 2, (1, 3), 4, 1))
    every = np.array(list(itertools.product(range(3), repeat=6))).reshape(-1, 2, 3)
    text = np.ones((len(every), 1), int)
    assert abs(np.exp(codec_lm.codec_lm_log_likelihood(params, text, every, CONFIG)).sum() - 1) <= 1e-12
    rolled = np.roll(every, -1, axis=2)  # what the network predicts is then what it has just read

    def cheating(codes):
        logits = codec_lm.first_codes(params["first"], text, rolled[:, 0], CONFIG)[0]
        p = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
        return np.take_along_axis(p, codes[:, 0, :, None], axis=2).prod(axis=(1, 2)) / 27

    assert abs(cheating(every).sum() - 1) > 1e-3


@pytest.mark.parametrize("K, N", [(1, 5), (4, 1), (3, 7)])
def test_the_delay_pattern_is_a_bijection(K, N):
    """Every code stands at one place, K (K - 1) places are empty, and a step holds codes of K different times."""
    codes = np.arange(2 * K * N).reshape(2, K, N)
    steps = codec_lm.delay(codes, -1)
    np.testing.assert_array_equal(codec_lm.undelay(steps), codes)
    assert (steps == -1).sum() == 2 * K * (K - 1) and set(steps[steps >= 0]) == set(codes.ravel())
    for k, t in itertools.product(range(K), range(N)):
        assert np.all(steps[:, k, t + k] == codes[:, k, t])
    with pytest.raises(ValueError, match=r"\bsteps\b"):
        codec_lm.undelay(np.zeros((1, 3, 2), int))


def test_the_networks_keep_float32():
    params = tree.map(np.float32, NET)
    logits, cache = wavenet.wavenet(params, CODES, CYCLE)
    grads = wavenet.wavenet_backward(np.ones_like(logits), params, cache)
    assert logits.dtype == np.float32 and all(g.dtype == np.float32 for g in tree.leaves(grads))
    for net, given in ((codec_lm.first_codes, STAGES[:, 0]), (codec_lm.rest_codes, STAGES[:, :2])):
        params = tree.map(np.float32, LM["first" if net is codec_lm.first_codes else "rest"])
        logits, cache = net(params, TEXT, given, CONFIG)
        grads = getattr(codec_lm, f"{net.__name__}_backward")(np.ones_like(logits), params, cache, CONFIG)
        assert logits.dtype == np.float32 and all(g.dtype == np.float32 for g in tree.leaves(grads))
