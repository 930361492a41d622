"""Noise: known answers word for word, the counter and its carry, Box-Muller to 40 digits, and the law of 1e6 draws."""
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, strategies as st

from kernels import coefficients
from ref import philox
from tests import assert_close, golden

GOLD = golden("philox")
WORD = st.integers(0, 2**32 - 1)
WORD64 = st.integers(0, 2**64 - 1)
ONES = 0xFFFFFFFF


def by_hand(counter, key, rounds=10):
    """Philox4x32 again in Python's own integers: slow, and sharing no line with `ref.philox`."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(rounds):
        product0, product1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (product1 >> 32) ^ c1 ^ k0, product1 % 2**32, (product0 >> 32) ^ c3 ^ k1, product0 % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [c0, c1, c2, c3]


def words_by_hand(seed, size, stream=0, first_block=0):
    words = []
    for block in range(first_block, first_block + (size + 3) // 4):
        words += by_hand([block % 2**32, block // 2**32, stream % 2**32, stream // 2**32],
                         [seed % 2**32, seed // 2**32])
    return words[:size]


# Random123 1.14.0, tests/kat_vectors, the lines "philox4x32 10".
@pytest.mark.parametrize("counter, key, out", [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES, ONES, ONES, ONES), (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
     (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
], ids=["zeros", "ones", "pi"])
def test_philox_gives_the_published_known_answers(counter, key, out):
    words = philox.philox4x32(np.array(counter, np.uint32), np.array(key, np.uint32))
    assert words.dtype == np.uint32 and words.tolist() == list(out)
    assert by_hand(counter, key) == list(out)


def test_philox_replays_256_rows_of_randomgen():
    out = philox.philox4x32(GOLD["rg/ctr"], GOLD["rg/key"])
    np.testing.assert_array_equal(out, GOLD["rg/out"])
    np.testing.assert_array_equal(philox.philox4x32(GOLD["rg/ctr"].reshape(8, 32, 4), GOLD["rg/key"].reshape(8, 32, 2)),
                                  GOLD["rg/out"].reshape(8, 32, 4))


@given(counter=st.tuples(WORD, WORD, WORD, WORD), key=st.tuples(WORD, WORD), rounds=st.integers(1, 16))
def test_philox_equals_python_integers(counter, key, rounds):
    out = philox.philox4x32(np.array(counter, np.uint32), np.array(key, np.uint32), rounds)
    assert out.tolist() == by_hand(counter, key, rounds)


def test_one_key_broadcasts_over_many_counters():
    counter, key = GOLD["rg/ctr"], GOLD["rg/key"][3]
    many = philox.philox4x32(counter, key)
    assert many.shape == (256, 4)
    np.testing.assert_array_equal(many, philox.philox4x32(counter, np.tile(key, (256, 1))))


def test_bits_replay_randomgens_stream():
    np.testing.assert_array_equal(philox.bits(0, 20)[4:], GOLD["rg/stream_key0_ctr0_16"])  # it begins at counter 1


def test_bits_replay_tritons_randint4x():
    """Triton: counter (offset, 0, 0, 0), key (seed lo, seed hi); so its offset is our block."""
    compared = 0
    for i, seed in enumerate(GOLD["triton/seeds"]):
        for j, offset in enumerate(GOLD["triton/offset0"]):
            if offset < 2**20:  # further along, the words before it would only cost memory
                ours = philox.bits(int(seed), (int(offset) + 64, 4))[int(offset):]
                np.testing.assert_array_equal(ours.T, GOLD["triton/randint4x"][i, j])
                compared += 1
    assert compared == 12


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 7, 8, 9, 31])
@pytest.mark.parametrize("seed, stream", [
    (0, 0), (1, 0), (0, 1), (2**32 - 1, 2**32 - 1), (2**32, 2**32), (2**32 + 7, 5), (5, 2**32 + 7),
    (2**64 - 1, 2**64 - 1), (0x0123456789ABCDEF, 0xFEDCBA9876543210),
])  # fmt: skip
def test_bits_are_block_by_block_what_the_convention_says(seed, stream, size):
    words = philox.bits(seed, size, stream)
    assert words.dtype == np.uint32 and words.shape == (size,)
    assert words.tolist() == words_by_hand(seed, size, stream)


def test_block_number_carries_into_the_second_word(monkeypatch):
    """Blocks 2^32 - 2 .. 2^32 + 1 without the 64 GiB before them: `bits` counts its blocks with numpy.arange, so here
    arange starts at 2^32 - 2."""
    started = []

    class NumpyFarAlong:
        def __getattr__(self, name):
            return getattr(np, name)

        def arange(self, stop, dtype):
            started.append(stop)
            return np.arange(stop, dtype=dtype) + np.array(2**32 - 2).astype(dtype)

    monkeypatch.setattr(philox, "np", NumpyFarAlong())
    words = philox.bits(9, 16, stream=3)
    assert started == [4], "bits no longer counts its blocks with one numpy.arange: this test must follow it"
    assert words.tolist() == words_by_hand(9, 16, stream=3, first_block=2**32 - 2)
    assert words[8:].tolist() != words_by_hand(9, 8, stream=3), "after 2^32 blocks the stream must not start again"


def test_streams_and_seeds_do_not_overlap():
    """Every (seed, stream) below differs in one bit of one 32-bit word from another; no block of four words occurs
    twice."""
    pairs = [(a, b) for a in (0, 1, 2, 2**31, 2**32, 2**33, 2**63) for b in (0, 1, 2, 2**31, 2**32, 2**33, 2**63)]
    blocks = np.concatenate([philox.bits(seed, (512, 4), stream) for seed, stream in pairs])
    assert len(np.unique(blocks, axis=0)) == len(pairs) * 512


@given(seed=WORD64, stream=WORD64, shape=st.lists(st.integers(0, 5), max_size=4).map(tuple))
@pytest.mark.parametrize("draw", [philox.bits, philox.uniform, philox.normal])
def test_element_i_depends_on_neither_size_nor_shape(draw, seed, stream, shape):
    """The prefix property: a longer or differently shaped draw begins with the same numbers."""
    size = math.prod(shape)
    part, whole = draw(seed, shape, stream), draw(seed, 640, stream)
    assert part.shape == shape
    np.testing.assert_array_equal(part.ravel(), whole[:size])


@pytest.mark.parametrize("size", [1, 3, 5, 7, 9])
def test_the_last_pair_of_an_odd_size_is_whole(size):
    np.testing.assert_array_equal(philox.normal(11, size), philox.normal(11, size + 1)[:-1])


def test_numpy_integers_are_seeds_too():
    np.testing.assert_array_equal(philox.bits(np.uint64(2**64 - 1), np.int64(8)), philox.bits(2**64 - 1, 8))


@pytest.mark.parametrize("n", [1, 3, 10, 1000, 2**31 + 1, 2**32])
def test_integers_are_the_high_word_of_a_product(n):
    words, got = philox.bits(5, 2000, 9), philox.below(5, 2000, n, 9)
    assert got.dtype == np.int64 and got.tolist() == [int(w) * n // 2**32 for w in words]
    assert 0 <= got.min() and got.max() < n
    if n <= 10:
        assert np.unique(got).size == n and np.all(np.abs(np.bincount(got) / 2000 - 1 / n) < 6 * np.sqrt(1 / n / 2000))


def with_words(monkeypatch, words):
    """From here on every draw sees these words, whatever the seed."""
    words = np.array(words, np.uint32)
    monkeypatch.setattr(philox, "bits", lambda seed, shape, stream=0: words[:np.prod(shape)].reshape(shape))
    return words.size


@pytest.mark.parametrize("word, u", [(0, 2.0**-33), (1, 3 * 2.0**-33), (0x7FFFFFFF, 0.5), (0x80000000, 0.5),
                                     (0xFFFFFF00, 1 - 2.0**-24), (0xFFFFFF7F, 1 - 2.0**-24), (0xFFFFFF80, 1.0),
                                     (ONES, 1.0)])
def test_uniform_at_the_edges(monkeypatch, word, u):
    with_words(monkeypatch, [word])
    assert philox.uniform(0, 1).tolist() == [u]


@given(word=WORD)
def test_uniform_is_the_exact_value_rounded_twice(word):
    """float32(word) is one rounding; times 2^-32 is exact; plus 2^-33 fits a float64, so float32 of that is the
    second."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        with_words(monkeypatch, [word])
        u = philox.uniform(0, 1)
    exact = Fraction(float(np.float32(float(word)))) / 2**32 + Fraction(1, 2**33)
    assert u.dtype == np.float64 and Fraction(float(exact)) == exact
    assert u[0] == np.float32(float(exact)) and 0 < u[0] <= 1


def test_uniforms_are_float32_values():
    u = philox.uniform(3, 10_000)
    np.testing.assert_array_equal(u, u.astype(np.float32).astype(np.float64))


# Box-Muller to 40 digits, by mpmath 1.3.0 (which the tests do not need):
#   import mpmath as mp, numpy as np;  from fractions import Fraction as F;  mp.mp.dps = 40
#   f32 = lambda exact: F(float(np.float32(float(exact))))
#   U = lambda w: f32(f32(w) / 2**32 + F(1, 2**33));   A = lambda w: f32(f32(w - 2**32 * (w >> 31)) / 2**31 + F(1,
# 2**32))
#   real = lambda q: mp.mpf(q.numerator) / q.denominator
#   def pair(w0, w1):
#       r, a = mp.sqrt(-2 * mp.log(real(U(w1)))), real(A(w0))
#       return mp.nstr(r * mp.sinpi(a), 40), mp.nstr(r * mp.cospi(a), 40)
BOX_MULLER = [
    (0x00000000, 0x00000000, "0.000000004947373628142718565841707530788534009713",
     "6.763705635001895201642731647945848278958"),
    (0x00000000, 0xFFFFFFFF, "0.0", "0.0"),
    (0xFFFFFFFF, 0x00000000, "-0.000000004947373628142718565841707530788534009713",
     "6.763705635001895201642731647945848278958"),
    (0x7FFFFFFF, 0x00000000, "0.0", "-6.763705635001895203452132229320734514717"),
    (0x80000000, 0x00000000, "0.0", "-6.763705635001895203452132229320734514717"),
    (0x00000001, 0x00000001, "0.00000001448130783968370118524933406204005348573",
     "6.599279456093685598653164219275257778224"),
    (0x40000000, 0x00000001, "6.599279456093685614541889506855164051493", "0.0"),
    (0xC0000000, 0x00000001, "-6.599279456093685614541889506855164051493", "0.0"),
    (0x20000000, 0x80000000, "0.8325546111576977563531646448952010476306",
     "0.8325546111576977563531646448952010476306"),
    (0x20000001, 0x7FFFFFFF, "0.8325546111576977563531646448952010476306",
     "0.8325546111576977563531646448952010476306"),
    (0x60000000, 0xFFFFFF00, "0.0002441406286379789245469530163858201332633",
     "-0.0002441406286379789245469530163858201332633"),
    (0xE0000000, 0xFFFFFF7F, "-0.0002441406286379789245469530163858201332633",
     "0.0002441406286379789245469530163858201332633"),
    (0xA0000000, 0xFFFFFF80, "0.0", "0.0"),
    (0x3FFFFFFF, 0x000000FF, "5.768446475139470473991261642187714128154", "0.0"),
    (0x3FFFFF00, 0x01000001, "3.330218444630557484662416305384579155187",
     "0.000001247190213263163106555915789788754812071"),
    (0xBFFFFF80, 0x01000003, "-3.330218373038265897693847770225922529255",
     "-0.0000006235950932256515021756724362955610365945"),
    (0x7FFFFF00, 0x3FFFFFFF, "0.0000006235951066315815532779578948943774060354",
     "-1.665109222315278742331208152692289577593"),
    (0x80000080, 0x40000000, "-0.0000003117975533157962430547513480907467948063",
     "-1.665109222315366320112549005259972575053"),
    (0x6627E8D5, 0xE169C58D, "0.2989567579277720788161284126101506370632",
     "-0.4063368315519212824673955572659218899753"),
    (0x408F276D, 0x41C83B0E, "1.64837675957343355943158048312348467541",
     "-0.02262497349368171880555798698643624880739"),
    (0xD16CFE09, 0x94FDCCEB, "-0.9467499328082958568565047502590168149505",
     "0.4315578252167394366242569615443087608371"),
    (0x9B785FB4, 0xFFFFFD80, "-0.0003048283423763609405887264116470727102204",
     "-0.0003814423613031180067588188793634343745629"),
]


def test_normals_of_chosen_words_agree_with_40_digits(monkeypatch):
    """Among them the word 0 in both places, u = 1, u next to 1, a = +-1, +-1/2 and next to them."""
    size = with_words(monkeypatch, [word for row in BOX_MULLER for word in row[:2]])
    expected = np.array([float(digits) for row in BOX_MULLER for digits in row[2:]])
    assert_close(philox.normal(0, size), expected, rel=5 * 2.0**-52)


def test_normals_follow_the_curand_convention_up_to_the_rounding_of_u_and_a(monkeypatch):
    """The golden draws (cuRAND's convention) keep u and 2 pi v in float64; ours round u and a to float32 first. Its
    words are (u's, the angle's), ours (the angle's, u's), and its angle in [0, 2 pi) is ours in [-pi, pi). So they
    agree to what those roundings (2^-24 relative, twice for u) can move: r^2 by 4 times 2^-24, the angle by pi
    2^-24."""
    size = with_words(monkeypatch, GOLD["bm/words"][:, ::-1].ravel())
    ours, theirs = philox.normal(0, size).reshape(-1, 2), GOLD["bm/curand"]
    r2, r2_theirs = (ours**2).sum(1), (theirs**2).sum(1)
    assert np.all(np.abs(r2 - r2_theirs) <= 4 * 2.0**-24)
    direction, direction_theirs = ours / np.sqrt(np.maximum(r2, 1e-300))[:, None], theirs / np.sqrt(r2_theirs)[:, None]
    seen = r2 > 0  # u rounds to 1 in two rows, and their direction is gone
    assert seen.sum() == 62
    assert np.all(np.abs(direction - direction_theirs)[seen] <= 1.01 * np.pi * 2.0**-24)


def test_the_largest_normal_is_the_documented_one(monkeypatch):
    with_words(monkeypatch, [0x7FFFFFFF, 0])
    assert_close(np.abs(philox.normal(0, 2)), np.array([0.0, math.sqrt(66 * math.log(2))]), rel=1e-15)


def test_stream_gives_every_use_its_own_streams():
    names = [*philox.TRAINING, *philox.BLOCKS]
    taken = [philox.stream(what, step) for what in names for step in (0, 1, 2, 2**58 - 1)]
    assert len(set(taken)) == len(taken) and min(taken) == 0 and max(taken) < 2**64
    assert [philox.stream(what, 7) for what in philox.TRAINING] == [28, 29, 30, 31]
    assert (philox.stream("sampling"), philox.stream("classifier", 2), philox.stream("init", 3)) == (1 << 60,
                                                                                                     (1 << 61) + 2,
                                                                                                     (1 << 62) + 3)


def test_stream_of_a_training_step_is_the_kernels_own():
    assert [philox.stream(what, 9) for what in philox.TRAINING] == [coefficients.PER_STEP * 9 + i for i in range(4)]
