"""What holds for every equation at the edges of its arguments: NaN stays or is refused, nothing special happens at 0
and at 1, every type of int is a time or a label; and edges worked by hand."""
import inspect
import re

import numpy as np
import pytest

from ref import consistency, diffusion, edm, gan, layers, objectives, optim, samplers, schedules, shapes
from ref import tree, vae
from tests import assert_close
from tests.ref import ABAR, EQUATIONS, worked
from tests.ref.test_every_equation import arrays_in

NAMES = [name.removeprefix("ref.") for name in EQUATIONS]
# what a function takes and need not read: weights and caches of a backward pass, logits where the slope is a constant
UNREAD = (r"(generator|discriminator)_loss_backward-(real|fake)_logits|elbo_backward-(nll|kl)|embedding_backward-w"
          r"|relu_backward-x|clamp_logvar_backward-logvar|_backward-(params|cache)|b3$|-class\.w$|inpaint-noise"
          r"|stft_backward-[xS]|residual_decode_backward-codebooks|replace_dead-(x|codebook)"
          r"|rest_codes-params-(heads\.0|stage)|wavenet_queues-params"
          r"|text_end_backward-y|patchify_backward-x"
          r"|encode-params-decoder|decode-params-encoder|encode-params-post|decode-params-quant"
          r"|stable_diffusion(_3)?\.\w+-model")  # whose networks have their own tests
COUNTS = set("t s u T steps iterations order rounds seed stream step k K s0 s1 width n dims size batch index what "
             "count shape heads groups stride dilation patch factor end base freq_shift octaves degree first last hop "
             "length power rate bands fixed cycle batch empty buckets max_distance".split())


def numbers(result):
    """Every float of a result, in one array."""
    result = result if isinstance(result, tuple) else (result,)
    found = [r for r in result if isinstance(r, (float, np.floating))] + arrays_in(result)
    return np.concatenate([np.zeros(0), *(np.ravel(a).astype(np.float64) for a in found)])


def settings(name):
    """{argument: number} of the settings of an equation that are no counts."""
    function, arguments = worked(name)
    given = {n: arguments.get(n, p.default) for n, p in inspect.signature(function).parameters.items()}
    return {n: v for n, v in given.items() if isinstance(v, (float, np.floating, int)) and not isinstance(v, bool)
            and n not in COUNTS and not name.endswith("_init")}  # fmt: skip


def variants(name):
    """Other settings with which NaN has to stay, too."""
    takes = {*settings(name)} | ({"clip", "variance"} & {*inspect.signature(worked(name)[0]).parameters})
    some = {"w": (0.0, 1.0), "clip": (0.5,), "eta": (1.0,), "variance": ("large",), "phi": (0.0, 1.0)}
    return [{}] + [{n: value} for n, values in some.items() if n in takes for value in values]


@pytest.mark.parametrize("name", NAMES)
def test_nan_in_any_array_stays_or_is_refused(name):
    """In one element of one array at a time: no norm, loss, clip or activation makes a number of it."""
    for given in variants(name):
        function, arguments = worked(name, **given)
        for argument, value in arguments.items():
            for path, array in tree.named(value).items() if isinstance(value, (dict, list)) else [("", value)]:
                floats = isinstance(array, np.ndarray) and array.dtype.kind == "f" and array.size
                if floats and not re.search(UNREAD, f"{name}-{argument}" + f"-{path}" * bool(path)):
                    assert nan_shows(function, arguments, argument, path, array), (argument, path, given)


def nan_shows(function, arguments, argument, path, array):
    """Whether NaN in the first, the middle or the last element of an array shows in the result, or is refused."""
    for place in {0, array.size // 2, array.size - 1}:
        changed = array.copy()
        changed.flat[place] = np.nan
        changed = tree.from_named(tree.named(arguments[argument]) | {path: changed}) if path else changed
        try:
            with np.errstate(all="ignore"):
                if np.isnan(numbers(function(**arguments | {argument: changed}))).any():
                    return True
        except ValueError:
            return True
    return False


@pytest.mark.parametrize("name", [name for name in NAMES if settings(name)])
def test_nan_for_a_setting_shows_or_is_refused(name):
    function, arguments = worked(name)
    for setting in {*settings(name)} - {"s_min", "s_max", "s_noise"}:  # which nobody reads without churn
        try:
            with np.errstate(all="ignore"):
                assert np.isnan(numbers(function(**arguments | {setting: np.nan}))).any(), setting
        except ValueError:
            pass


REFUSES_0 = (r"betas-(start|end|max_beta)|karras|shift$|abar_t$|gamma|sigma_data|beta_m|sde.*sigma_m|-h$|prior_std"
             r"|bin_width|std$|-c$|sigma_t$|distillation.*sigma_s|heun_step|max_norm|max_value|scalings-sigma$"
             r"|max_period|log_mel.*floor|mel_filters-high|log_snr_step|ancestral_step-sigma$|interval_weight-high")
REFUSES_1 = (r"betas-(start|end)|abar|sigma_t$|heun_step|ancestral_step-sigma|samplers.consistency|max_value|beta1"
             r"|phi-z|interval_weight-high|alpha_max|muon_step-momentum")
# no line there
BENT = (r"beta2|s_churn|max_period|samplers.consistency|training_step-sigma_s|(mlp_sample|euler_ancestral)-eta-1"
        r"|clamp|phi-z|gaussians_backward-limit|scene\.splat|image_to_image-strength")


@pytest.mark.parametrize("name", [name for name in NAMES if settings(name)])
def test_nothing_special_happens_where_a_setting_is_0_or_1(name):
    """A setting of 0 is none left out, nothing is floored, and there is no dead zone: the slope from there on is that
    of a larger step. Both ends of a range belong to it."""
    function, arguments = worked(name)
    for setting in settings(name):
        for end, sign, refused in ((0.0, 1, REFUSES_0), (1.0, -1, REFUSES_1)):
            if re.search(refused, f"{name}-{setting}") or re.search(BENT, f"{name}-{setting}-{end:g}"):
                continue
            with np.errstate(all="ignore"):
                at, near, far = (numbers(function(**arguments | {setting: end + sign * h})) for h in (0, 1e-6, 0.03))
            finite = np.isfinite(at) & np.isfinite(near) & np.isfinite(far)
            slopes = (near - at)[finite] / 1e-6, (far - at)[finite] / 0.03
            off, size = (np.abs(a).max(initial=0) for a in (slopes[0] - slopes[1], slopes[1]))
            assert off <= 0.6 * size + 0.02 * np.abs(at[finite]).max(initial=0), (setting, end)


INTS = "bBhHiIqQ"


@pytest.mark.parametrize("name", [n for n in NAMES if {"t", "abar"} <= {*worked(n)[1]} and n != "edm.sigma_at"])
def test_every_type_of_int_is_a_time(name):
    """Alone or one for each example, all of one type or of two that have no int in common."""
    function, arguments = worked(name)
    for kinds, given in (("bq", {"t": 100, "s": 40, "u": 120}), (INTS[1:], {"t": 200, "s": 150, "u": 220})):
        given = {n: t for n, t in given.items() if n in arguments}
        if name == "diffusion.ddim_inverse_step":  # from t to a later s
            given = {"t": given["s"], "s": given["t"]}
        for wrap in (lambda t, kind: np.dtype(kind).type(t), lambda t, kind: np.full(2, t, kind)):
            want = numbers(function(**arguments | {n: wrap(t, "q") for n, t in given.items()}))
            for kind, other in [(kind, other) for kind in kinds for other in (kind, "q", "Q")]:
                times = {n: wrap(t, other if n == "s" else kind) for n, t in given.items()}
                np.testing.assert_array_equal(numbers(function(**arguments | times)), want)


@pytest.mark.parametrize("kind", INTS)
def test_every_type_of_int_is_a_label(kind):
    rows, rng = min(300, np.iinfo(kind).max), np.random.default_rng(0)
    w, dy, index = rng.standard_normal((rows, 3)), rng.standard_normal((5, 3)), rng.integers(rows // 2, rows, 5)
    logits, one_hot, labels = rng.standard_normal((5, rows)), np.eye(rows)[index.tolist()], index.astype(kind)
    np.testing.assert_array_equal(layers.embedding(w, labels), one_hot @ w)
    assert_close(layers.embedding_backward(dy, w, labels), one_hot.T @ dy)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert_close(layers.cross_entropy(logits, labels), -np.mean(np.log(p[one_hot == 1])))
    assert_close(layers.cross_entropy_backward(1.0, logits, labels), (p - one_hot) / 5, rel=1e-11)


REFUSED = {"clip": (0, 0.0, -1, np.nan), "eta": (-1e-9, 1 + 1e-9, np.nan), "variance": ("Small", None)}


@pytest.mark.parametrize("name", [n for n in NAMES if {*REFUSED} & {*inspect.signature(worked(n)[0]).parameters}])
def test_a_setting_out_of_range_is_refused_by_every_function_that_takes_it(name):
    function, arguments = worked(name)
    for setting in {*REFUSED} & {*inspect.signature(function).parameters}:
        for value in REFUSED[setting]:
            with pytest.raises(ValueError, match=rf"\b{setting}\b"):
                function(**arguments | {setting: value})


@pytest.mark.parametrize("name", [name for name in NAMES if {"t", "abar"} <= {*worked(name)[1]}])
def test_an_abar_that_is_none_is_refused(name):
    function, arguments = worked(name)
    for wrong in (np.nan, 1.5, -0.5):
        abar = np.array(arguments["abar"], np.float64)
        abar[1] = wrong
        with pytest.raises(ValueError, match=r"\babar\b"):
            function(**arguments | {"abar": abar})


def test_schedules_of_one_step_downhill_and_with_many_capped():
    for betas in (schedules.linear_betas, schedules.scaled_linear_betas):
        assert_close(betas(1, 0.1, 0.3), np.array([0.1]))
        assert_close(betas(3, 0.3, 0.1), betas(3, 0.1, 0.3)[::-1])
    # f = cos^2 of 0, 30, 60, 90 degrees
    assert_close(schedules.cosine_betas(3, 0.0, 0.5), np.array([1 / 4, 0.5, 0.5]))
    assert_close(schedules.cosine_betas(3, 0.0, 1.0), np.array([1 / 4, 2 / 3, 1.0]))
    assert schedules.spaced_times(10, 4, "trailing").tolist() == [10, 8, 5, 2, 0]  # 7.5 and 2.5 go to even
    assert schedules.spaced_times(6, 4, "trailing").tolist() == [6, 4, 3, 2, 0]  # 4.5 and 1.5


@pytest.mark.parametrize("s0, s1, K, interval", [(1, 3, 10, 3), (2, 7, 11, 4), (1, 4, 9, 3), (1, 127, 800, 100),
                                                 (1, 128, 799, 99), (1, 129, 800, 99), (5, 5, 7, 7)])
def test_levels_double_at_fractions_of_log2(s0, s1, K, interval):
    """K' = floor(K / (log2 floor(s1 / s0) + 1)): of 3 it is 10 / 2.58, of 7 / 2 that of 3 again, 11 / 2.58; just below
    and above 128, 800 / 7.99, 799 / 8 and 800 / 8.01."""
    levels = [consistency.discretization_steps(k, K, s0, s1) for k in range(min(K, 3 * interval))]
    assert levels == [min(s0 * 2 ** (k // interval), s1) + 1 for k in range(min(K, 3 * interval))]


def test_history_and_noise_that_do_not_count_may_be_nan_in_some_examples():
    x, x0_hat, last = np.random.default_rng(0).standard_normal((3, 2, 3))
    times, spoiled = (np.array([9, 5]), np.array([6, 3]), np.array([4, 0])), last.copy()
    spoiled[1] = np.nan
    np.testing.assert_array_equal(diffusion.dpmpp_2m_step(x, x0_hat, spoiled, *times, ABAR),
                                  diffusion.dpmpp_2m_step(x, x0_hat, last, *times, ABAR))
    for step in (diffusion.ddpm_step, lambda *a, **k: diffusion.ddpm_step(*a, **k, variance="large"),
                 lambda *a, **k: diffusion.ddim_step(*a, **k, eta=1.0)):  # fmt: skip
        np.testing.assert_array_equal(*(step(x, x0_hat, *times[1:], z, abar=ABAR) for z in (spoiled, last)))
    # where abar[s] = 1 it is data, whatever s is
    flat = np.array([1.0, 1.0, 0.5])
    for variance in ("small", "large"):
        out = diffusion.ddpm_step(x, x0_hat, 2, 1, np.full_like(x, np.nan), flat, variance)
        assert_close(out, diffusion.x0_from_eps(x, x0_hat, 2, flat), rel=1e-14, scale=np.abs(x) + np.abs(x0_hat))


def test_the_direction_is_a_number_where_rounding_takes_it_below_0():
    x, eps = np.ones((1, 1)), np.full((1, 1), 0.5)
    for abar_s in np.random.default_rng(1).uniform(0.01, 0.99, 200):
        out = diffusion.ddim_step(1e-10 * x, 1e-10 * eps, 2, 1, 0 * x, 1.0, np.array([1.0, abar_s, 1e-20]))
        assert np.all(np.isfinite(out))


def test_the_variance_of_the_posterior_has_the_shape_of_its_times():
    x, many = np.ones((3, 3)), np.array([4, 5, 6])
    for t, s in ((many, 2), (9, many), (many, many - 1)):
        variance = diffusion.posterior(x, x, t, s, ABAR)[1]
        each = [diffusion.posterior(x, x, int(a), int(b), ABAR)[1] for a, b in zip(*np.broadcast_arrays(t, s))]
        assert np.array_equal(variance, each) and isinstance(each[0], float)


def test_adam_late_and_early():
    """The bias corrections are those of the step, however late."""
    one, zero = np.ones(1), np.zeros(1)
    for step in (1, 70_000, 2**16, 2**17 + 1):
        p, m, v = optim.adam_step(zero, one, zero, zero, step, 1.0, 0.9999, 0.99999, 0.0, 0.0)
        want = -(1e-4 / (1 - 0.9999**step)) / (1e-5 / (1 - 0.99999**step)) ** 0.5
        assert_close(p, np.array([want]), rel=1e-9)


@pytest.mark.parametrize("bad, scale", [(np.nan, 1.0), (np.inf, 0.0), (-np.inf, 0.0)])
def test_a_gradient_that_is_no_number_stays_one_and_nan_is_no_norm_to_clip_by(bad, scale):
    with np.errstate(invalid="ignore"):
        (one, other), n = optim.clip_by_global_norm([np.array([3.0, bad]), np.array([4.0])], 1.0)
    assert one[0] == 3 * scale and other[0] == 4 * scale and np.isnan(one[1])
    np.testing.assert_equal(n, abs(bad))


def test_shapes_that_would_broadcast_are_refused():
    x = np.ones((2, 3))
    with pytest.raises(ValueError, match=r"\bavg\b"):
        optim.ema_step(x, x.T.copy(), 0.5)
    with pytest.raises(ValueError, match=r"\bw\b"):
        shapes.per_example([1.0], x, "w")
    for square in (np.ones((3, 3)), np.ones((3, 3, 3, 3))):
        assert shapes.per_example([1.0, 2.0, 3.0], square, "w").shape == (3,) + (1,) * (square.ndim - 1)
        assert shapes.at(ABAR, np.array([1, 2, 3]), square, "t").shape == (3,) + (1,) * (square.ndim - 1)
    with pytest.raises(ValueError, match=r"\blabels\b"):
        layers.cross_entropy(x, np.array([0, -1]))
    with pytest.raises(ValueError, match=r"\bsigma\b"):
        edm.heun_step(x, x, x, np.inf, 1.0)


def test_a_level_near_0_is_not_0():
    """Heun corrects a step to it, and its denoiser is called there."""
    for sampler in (samplers.heun, samplers.flow_heun):
        seen = []
        sampler(lambda x, level: seen.append(level) or x / 2, np.ones((1, 1)), [1.0, 1e-9])
        assert seen == [1.0, 1e-9]


def test_ends_of_other_ranges():
    real, fake = np.array([[1.0], [2.0]]), np.array([[5.0], [7.0]])
    np.testing.assert_array_equal(gan.interpolate(real, fake, np.array([0.0, 1.0])), [[5.0], [2.0]])
    assert vae.clamp_logvar(-1.0, low=0.0) == 0 and vae.clamp_logvar_backward(1.0, -1.0, low=0.0) == 0
    assert vae.clamp_logvar(1.0, high=0.0) == 0 and vae.clamp_logvar_backward(1.0, 1.0, high=0.0) == 0
    assert diffusion.log_snr_step(0.5, 1.0) == np.inf and diffusion.log_snr_step(np.float32(0.5), 1) == np.inf
    for snr in (1e-320, 1e308):
        assert objectives.min_snr_weight(snr, 5, "v") == min(snr, 5) / (snr + 1)
