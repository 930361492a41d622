"""Laws of residual quantisation, and its gradients next to the two wrong ones of public trainings.

Papers
    [SoundStream]  Zeghidour et al., "SoundStream: An End-to-End Neural Audio Codec", 2021
"""
import numpy as np

from ref import audio

RNG = np.random.default_rng(23)
X = RNG.standard_normal((60, 4))
BOOKS = np.stack([RNG.standard_normal((7, 4)) * 0.8**k for k in range(5)])
WITH_ZERO = BOOKS * (np.arange(7) > 0)[:, None]


def errors(x, codebooks):
    """|r_k| of each vector after 0, 1, ... stages, (K + 1, B)."""
    _, quantised = audio.residual_quantise(x, codebooks)
    left = [x, *(x - np.cumsum(quantised, axis=0))]
    return np.linalg.norm(left, axis=2)


def test_the_error_falls_for_every_vector_with_the_zero_vector():
    """Without it the error falls on average and rises for some."""
    assert np.diff(errors(X, WITH_ZERO), axis=0).max() <= 1e-12
    free = errors(X, BOOKS)
    assert np.diff(free, axis=0).max() > 0.1 and np.diff(free.mean(axis=1)).max() < 0


def test_codes_decode_to_the_sum_and_a_code_is_the_nearest():
    codes, quantised = audio.residual_quantise(X, BOOKS)
    assert np.abs(audio.residual_decode(codes, BOOKS) - quantised.sum(axis=0)).max() <= 1e-14
    r = X
    for k in range(5):
        distance = np.linalg.norm(r[:, None] - BOOKS[k], axis=2)
        np.testing.assert_array_equal(codes[k], distance.argmin(axis=1))
        r = r - quantised[k]
    # what is an entry in each stage is quantised without error, and again to itself
    again, _ = audio.residual_quantise(BOOKS[0], BOOKS[:1])
    np.testing.assert_array_equal(again[0], np.arange(7))
    # the first stages of many are those of few
    few, _ = audio.residual_quantise(X, BOOKS[:3])
    np.testing.assert_array_equal(few, codes[:3])


class Traced:
    """A number and its derivative along one direction of x: what automatic differentiation of the public trainings
    does, stage by stage. `stopped` is their detach."""

    def __init__(self, value, slope):
        self.value, self.slope = value, slope

    def __add__(self, other):
        return Traced(self.value + other.value, self.slope + other.slope)

    def __sub__(self, other):
        return Traced(self.value - other.value, self.slope - other.slope)

    def stopped(self):
        return Traced(self.value, np.zeros_like(self.slope))


def trained(x, direction, codebooks, once, residual_stopped):
    """The slopes along a direction of the sum of all stages' outputs, and of the commitment losses, for the choices of
    a training. once: the straight-through over the sum, not in each stage. residual_stopped: whether residuals hold the
    entries as constants, not the straight-through of them."""
    r, x = Traced(x, direction), Traced(x, direction)
    out, loss = Traced(0 * x.value, 0 * direction), 0
    for codebook in codebooks:
        q = Traced(codebook[audio.nearest_code(r.value, codebook)], 0 * direction)
        through = r + (q - r).stopped()
        loss = loss + (2 * (r.value - q.value) * r.slope).sum() / r.value.size
        out = out + (q if once else through)
        r = r - (q if residual_stopped else through)
    return (x + (out - x).stopped() if once else out).slope, loss


def test_the_gradients_as_chosen_beside_the_two_wrong_ones():
    """Straight-through once over the sum: the gradient is that of x; with a straight-through in each stage and stopped
    residuals, K times it. With residuals that are not stopped, stages 2 and on are without a commitment gradient."""
    direction, (_, quantised) = RNG.standard_normal(X.shape), audio.residual_quantise(X, BOOKS)
    mine = (audio.straight_through_backward(direction), (audio.commitment_loss_backward(
        1.0, X, quantised) * direction).sum())
    chosen, counted, unpulled = (trained(X, direction, BOOKS, *how) for how in ((True, True), (False, True), (
        False, False)))
    np.testing.assert_array_equal(chosen[0], mine[0])
    assert abs(chosen[1] - mine[1]) <= 1e-13
    assert np.abs(counted[0] - 5 * direction).max() <= 1e-14  # one stage counted five times
    assert abs(counted[1] - mine[1]) <= 1e-13
    assert np.abs(unpulled[0] - direction).max() <= 1e-14
    first_alone = (audio.commitment_loss_backward(1.0, X, quantised[:1]) * direction).sum()
    assert abs(unpulled[1] - first_alone) <= 1e-13 and abs(unpulled[1] - mine[1]) > 1e-2


def test_straight_through_has_the_value_of_q_to_the_bit():
    q = audio.residual_quantise(X, BOOKS)[1].sum(axis=0)
    np.testing.assert_array_equal(audio.straight_through(X, q, X), q)
    assert np.any(X + (q - X) != q)  # as it is often written


def test_codebook_loss_moves_each_entry_to_the_mean_of_its_residuals():
    """A gradient step of the right size is a step of k-means in every stage, the residuals as they were."""
    codes, quantised = audio.residual_quantise(X, BOOKS)
    gradient = audio.codebook_loss_backward(1.0, BOOKS, codes, X, quantised)
    r = X
    for k in range(5):
        n = np.bincount(codes[k], minlength=7)[:, None]
        stepped = BOOKS[k] - gradient[k] * X.size / (2 * np.maximum(n, 1))
        assert np.abs(stepped - audio.kmeans_step(r, BOOKS[k])).max() <= 1e-13
        r = r - quantised[k]
    assert abs(audio.codebook_loss(BOOKS, codes, X, quantised) - audio.commitment_loss(X, quantised)) <= 1e-14


def test_kmeans_never_gets_worse_and_keeps_what_is_fixed():
    book, before = WITH_ZERO[0], np.inf
    for _ in range(12):
        off = ((X - book[audio.nearest_code(X, book)]) ** 2).mean()
        assert off <= before + 1e-15
        before, book = off, audio.kmeans_step(X, book, 1)
    assert not book[0].any() and np.any(audio.kmeans_step(X, book)[0])


def test_moving_average():
    """With decay 0 it is k-means; a constant batch is a fixed point; each step keeps the share that it should."""
    book = BOOKS[0]
    codes = audio.nearest_code(X, book)
    count, total = audio.moving_average_codebook(np.ones(7), book, X, codes, 0.0)
    used = count > 0
    assert used.any() and np.abs((total[used].T / count[used]).T - audio.kmeans_step(X, book)[used]).max() <= 1e-14
    again = audio.moving_average_codebook(count, total, X, codes, 0.9)
    assert np.abs(again[0] - count).max() <= 1e-13 and np.abs(again[1] - total).max() <= 1e-13
    kept, _ = audio.moving_average_codebook(np.full(7, 100.0), book, X, codes, 0.9)
    assert np.abs(kept - (90 + 0.1 * np.bincount(codes, minlength=7))).max() <= 1e-13


def test_dead_codes_are_replaced_and_the_others_stay():
    count = np.array([0.0, 0, 3, 0.5, 1, 9, 0])
    index = np.arange(7) * 2
    book = audio.replace_dead(WITH_ZERO[0], count, X, index, 1.0, 1)
    dead = np.array([False, True, False, True, False, False, True])
    np.testing.assert_array_equal(book[dead], X[index[dead]])
    np.testing.assert_array_equal(book[~dead], WITH_ZERO[0][~dead])
