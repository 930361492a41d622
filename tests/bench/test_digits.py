"""The digits study on digits that the test writes: resumed is uninterrupted, backends agree, bad input is refused."""
import contextlib
import functools
from itertools import pairwise

import numpy as np
import pytest

from bench.studies import classifier, data, denoiser, digits
from kernels.check import selftest
from ref import diffusion, fused, philox, schedules, tree
from ref.nets import mlp
from tests.bench import with_a_narrow_net

IMAGES = (philox.uniform(3, (40, 28, 28)) * 255).astype(np.uint8)
LABELS = (np.arange(40) % 10).astype(np.uint8)
BACKENDS = ["ref", *selftest.available()[0]]  # triton_gpu in its interpreter where there is no GPU


def settings(**change):
    return digits.settings_of(digits.arguments(["--steps=6", "--batch=5", *(f"--{k}={v}" for k, v in change.items())]))


def train(given, steps, state=None):
    """Stopped as by Ctrl-C after the first tick that finds so many steps done."""
    state = denoiser.start(given) if state is None else state

    def tick():
        if state["step"] >= steps:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        denoiser.train(state, given, examples(state), tick)
    assert state["step"] == steps
    return state


def examples(state):
    """As many pixels of each digit as the net has, and labels."""
    pixels = (state["params"]["b2"] if "b2" in state["params"] else state["params"]["out"]["b"]).size
    return np.ascontiguousarray(data.scale(IMAGES)[:, :pixels]), LABELS.astype(np.int64)


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    with_a_narrow_net(monkeypatch)


@pytest.fixture
def small(monkeypatch):
    """simple_mlp with 20 pixels and 9 units, for Triton's interpreter."""
    monkeypatch.setattr(mlp, "simple_mlp_init", functools.partial(mlp.simple_mlp_init, pixels=20, width=9))


def assert_same(a, b):
    assert a["step"] == b["step"] and a["losses"] == b["losses"]
    for part in ("params", "m", "v", "average"):
        for name, array in tree.named(a[part]).items():
            assert np.array_equal(array, tree.named(b[part])[name]), f"{part}/{name}"


@pytest.mark.parametrize("net, predict, backend", [("residual", "x0", "numba_cpu"), ("simple_mlp", "v", "numba_cpu"),
                                                  *(("simple_mlp", "eps", b) for b in BACKENDS)])
def test_resumed_is_uninterrupted_to_the_bit(net, predict, backend, small, tmp_path, monkeypatch):
    given = settings(net=net, predict=predict, backend=backend)
    whole = train(given, 6)
    with monkeypatch.context() as patch:
        patch.setattr(denoiser, "RUN", 3)
        denoiser.save(tmp_path / "half.npz", train(given, 3), given)
    assert_same(train(given, 6, denoiser.load(tmp_path / "half.npz", given)), whole)
    assert [p.name for p in tmp_path.iterdir()] == ["half.npz"]  # written beside, then moved


def test_a_seed_gives_the_same_numbers_and_another_seed_others():
    a, b, other = train(settings(), 2), train(settings(), 2), train(settings(seed=1), 2)
    assert_same(a, b)
    assert a["losses"] != other["losses"]


@pytest.mark.parametrize("how", ["residual x0", "residual eps", "residual v", "simple_mlp x0"])
def test_the_backends_train_to_the_same_loss_within_rounding(how):
    net, predict = how.split()
    losses = [train(settings(net=net, predict=predict, backend=b), 6)["losses"] for b in ("ref", "numba_cpu")]
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-5)
    assert losses[0][0] != losses[0][-1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_runs_of_simple_mlp_are_the_steps_of_the_loop(backend, small):
    given = settings(net="simple_mlp", backend="ref")
    state, run = denoiser.start(given), train(given | {"backend": backend}, 6)
    for _ in range(6):
        denoiser.train_step(state, given, examples(state))
    np.testing.assert_allclose(run["losses"], state["losses"], rtol=2e-5)
    for part in ("m", "v"):
        for name, a in state[part].items():
            np.testing.assert_allclose(run[part][name], a, rtol=0, atol=2e-5 * np.abs(a).max(), err_msg=name)
    assert run["losses"][0] != run["losses"][-1]
    assert all(np.array_equal(run["average"][name], p) for name, p in run["params"].items())


def test_runs_end_where_checkpoints_are_saved(small, monkeypatch):
    monkeypatch.setattr(denoiser, "RUN", 4)
    given, seen = settings(net="simple_mlp", steps=11), []
    state = train(given | {"steps": 3}, 3)
    denoiser.train(state, given, examples(state), lambda: seen.append(state["step"]))
    assert seen == [4, 8, 11] and len(state["losses"]) == 11


@pytest.mark.parametrize("net, backend", [("residual", "numba_cpu"), *(("simple_mlp", b) for b in BACKENDS[1:])])
def test_the_backends_sample_the_same_digits_within_rounding(net, backend):
    given = settings(net=net, backend="ref", schedule="linear", steps=1) | {"sampler_steps": 2}
    state = train(given, 1)
    labels = np.array([3, denoiser.NO_LABEL])
    a, path = denoiser.sample(state, given, labels)
    b, _ = denoiser.sample(state, given | {"backend": backend}, labels)
    # x0 from eps at t = T magnifies float32 rounding 157 times
    np.testing.assert_allclose(a, b, rtol=0, atol=5e-5 * np.abs(a).max())
    assert a.shape == (2, 784) and path.shape == (3, 784) and np.array_equal(path[-1], a[0])


@pytest.mark.parametrize("net", ["residual", "simple_mlp"])
def test_the_path_is_that_of_one_step_after_another(net):
    """[DDPM] algorithm 2 for simple_mlp, [DDIM] for the residual net; each step's noise comes from the next stream."""
    given = settings(net=net, backend="ref", steps=1) | {"sampler_steps": 20}
    state, labels = train(given, 1), np.array([3, 5])
    abar, times = denoiser.alpha_bar(given["schedule"]), schedules.spaced_times(denoiser.T, 20, "trailing").tolist()
    x, way = philox.normal(0, (2, 784), philox.stream("sampling")), []
    for i, (t, s) in enumerate(pairwise(times)):
        way.append(x[0])
        if net == "simple_mlp":
            eps = mlp.simple_mlp(state["average"], x, np.full(2, t))[0]
            x = fused.guided_ddpm_step(x, eps, eps, 1.0, t, s, 0, abar, stream=philox.stream("sampling", 1 + i))
        else:
            x0_hats = (mlp.residual(state["average"], x, np.full(2, t), who)[0] for who in (labels, np.full(2, 10)))
            cond, uncond = (diffusion.eps_from_x0(x, x0_hat, t, abar) for x0_hat in x0_hats)
            x = fused.guided_ddim_step(x, uncond, cond, 2.0, t, s, 0, 0.0, abar, clip=1.0)
    got, path = denoiser.sample(state, given, labels)
    np.testing.assert_allclose(got, x, rtol=0, atol=1e-7 * np.abs(x).max())  # float32 at the end
    drawn = [way[i] for i in (0, 2, 4, 6, 8, 11, 13, 15, 17)]
    np.testing.assert_allclose(path[:-1], drawn, rtol=0, atol=1e-12 * np.abs(x).max())
    assert np.array_equal(path[-1], got[0])


def test_samples_that_are_not_finite_are_not_drawn():
    """What a diverged training gives, and a launch on the GPU that gave up."""
    given = settings(net="simple_mlp", backend="numba_cpu", steps=1) | {"sampler_steps": 20}
    state = denoiser.start(given)
    state["average"]["b2"][3] = np.nan
    with pytest.raises(FloatingPointError, match="samples"):
        denoiser.sample(state, given, np.array([10, 10]))


def test_labels_are_dropped_and_never_all_of_them():
    """The class row of `no label` gets a gradient only where a label was dropped."""
    given = settings(batch=64)
    state = train(given, 3)
    moment = state["m"]["class"]["w"]
    assert np.any(moment[denoiser.NO_LABEL]) and np.any(moment[:10])


def test_the_samples_are_judged_by_held_out_digits_and_drawn_from_the_average(monkeypatch, capsys):
    given, seen = settings(backend="ref", steps=1) | {"sampler_steps": 2}, []
    state, args = train(given, 1), digits.arguments(["--backend=ref"])
    monkeypatch.setattr(classifier, "train", lambda *held_out: seen.append(held_out) or {})
    monkeypatch.setattr(classifier, "accuracy", lambda judge, images, labels: len(images) / 1000)
    monkeypatch.setattr(digits, "draw", lambda *_: b"picture")
    trained, held_out = ((data.scale(images), LABELS) for images in (IMAGES, 255 - IMAGES))
    assert digits._sample(args, state, given, trained, held_out) == b"picture"
    assert len(seen) == 1 and np.array_equal(seen[0][0], held_out[0])
    assert "50.0% of 500" in (said := capsys.readouterr().out) and "real digits: 4.0%" in said
    # the average and not the parameters is sampled
    other = state | {"params": tree.zeros_like(state["params"])}
    labels = np.array([3, 5])
    samples = [denoiser.sample(s, given, labels)[0] for s in (state, other)]
    assert np.array_equal(*samples) and not np.array_equal(samples[0], denoiser.sample(
        state | {"average": tree.zeros_like(state["params"])}, given, labels)[0])  # fmt: skip


@pytest.mark.parametrize("words", [
    "--steps 0", "--batch -3", "--batch 10000001", "--seed -1", "--seed 18446744073709551616", "--guidance nan",
    "--guidance -inf", "--guidance 1e30", "--out", "--data", "--resume", "--backend torch", "--net unet",
    "--predict score", "--backend triton_gpu",
    "--backend triton_gpu --net simple_mlp --predict v",
])  # fmt: skip
def test_bad_words_are_refused(words, capsys):
    with pytest.raises(SystemExit) as stop:
        digits.main([*words.split(), *[""] * (" " not in words)])  # an empty name
    assert stop.value.code == 2 and words.split()[0] in capsys.readouterr().err.split("error: ")[1]


def test_the_old_name_of_simple_mlp_is_accepted():
    assert settings(net="chapter") == settings(net="simple_mlp")


def test_a_backend_that_is_not_installed_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(selftest, "available", lambda: (["numba_cpu"], {"triton_gpu": "triton is not installed"}))
    with pytest.raises(SystemExit) as stop:
        digits.main(["--net", "simple_mlp", "--backend", "triton_gpu"])
    assert stop.value.code == 2 and "triton is not installed" in capsys.readouterr().err
