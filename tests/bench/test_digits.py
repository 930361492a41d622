"""The digits study on digits that the test writes: resumed is uninterrupted, backends agree, bad input is told."""
import contextlib
import functools
import gzip
import struct
from itertools import pairwise

import numpy as np
import pytest

from bench.studies import data, digits
from kernels.check import selftest
from ref import diffusion, fused, philox, schedules
from ref.nets import mlp

IMAGES = (philox.uniform(3, (40, 28, 28)) * 255).astype(np.uint8)
LABELS = (np.arange(40) % 10).astype(np.uint8)
BACKENDS = ["ref", *selftest.available()[0]]  # numba_cpu and, where Triton is installed, triton_gpu, in its interpreter where there is no GPU


def settings(**change):
    args = digits._arguments(["--steps", "6", "--batch", "5"] + [w for k, v in change.items() for w in (f"--{k}", str(v))])
    return {k: v for k, v in vars(args).items() if k not in ("out", "resume", "data")}


def train(given, steps, state=None):
    """Stopped as by Ctrl-C after the first tick that finds so many steps done."""
    state = digits.start(given) if state is None else state

    def tick():
        if state["step"] >= steps:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        digits.train(state, given, examples(state), tick)
    assert state["step"] == steps
    return state


def examples(state):
    """As many pixels of each digit as the net has, and labels."""
    pixels = state["params"]["b2" if "b2" in state["params"] else "out.b"].size
    return np.ascontiguousarray(data.scale(IMAGES)[:, :pixels]), LABELS.astype(np.int64)


@pytest.fixture
def small(monkeypatch):
    """The chapter's net with 20 pixels and 9 units, for Triton's interpreter."""
    monkeypatch.setattr(mlp, "chapter_init", functools.partial(mlp.chapter_init, pixels=20, width=9))


def assert_same(a, b):
    assert a["step"] == b["step"] and a["losses"] == b["losses"]
    for part in ("params", "m", "v", "average"):
        for name in a[part]:
            assert np.array_equal(a[part][name], b[part][name]), f"{part}/{name}"


@pytest.mark.parametrize("net, predict, backend", [("residual", "x0", "numba_cpu"), ("chapter", "v", "numba_cpu"), *(("chapter", "eps", b) for b in BACKENDS)])
def test_resumed_is_uninterrupted_to_the_bit(net, predict, backend, small, tmp_path, monkeypatch):
    given = settings(net=net, predict=predict, backend=backend)
    whole = train(given, 6)
    with monkeypatch.context() as patch:
        patch.setattr(digits, "RUN", 3)
        digits.save(tmp_path / "half.npz", train(given, 3), given)
    assert_same(train(given, 6, digits.load(tmp_path / "half.npz", given)), whole)
    assert [p.name for p in tmp_path.iterdir()] == ["half.npz"]  # written beside, then moved


def test_a_seed_gives_the_same_numbers_and_another_seed_others():
    a, b, other = train(settings(), 2), train(settings(), 2), train(settings(seed=1), 2)
    assert_same(a, b)
    assert a["losses"] != other["losses"]


@pytest.mark.parametrize("net, predict", [("residual", "x0"), ("residual", "eps"), ("residual", "v"), ("chapter", "x0")])
def test_the_backends_train_to_the_same_loss_within_rounding(net, predict):
    losses = [train(settings(net=net, predict=predict, backend=b), 6)["losses"] for b in ("ref", "numba_cpu")]
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-5)
    assert losses[0][0] != losses[0][-1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_runs_of_the_chapters_net_are_the_steps_of_the_loop(backend, small):
    given = settings(net="chapter", backend="ref")
    state, run = digits.start(given), train(given | {"backend": backend}, 6)
    for _ in range(6):
        digits.train_step(state, given, examples(state))
    np.testing.assert_allclose(run["losses"], state["losses"], rtol=2e-5)
    for part in ("m", "v"):
        for name, a in state[part].items():
            np.testing.assert_allclose(run[part][name], a, rtol=0, atol=2e-5 * np.abs(a).max(), err_msg=f"{part}/{name}")
    assert run["losses"][0] != run["losses"][-1] and all(np.array_equal(run["average"][name], p) for name, p in run["params"].items())


def test_runs_end_where_checkpoints_are_saved(small, monkeypatch):
    monkeypatch.setattr(digits, "RUN", 4)
    given, seen = settings(net="chapter", steps=11), []
    state = train(given | {"steps": 3}, 3)
    digits.train(state, given, examples(state), lambda: seen.append(state["step"]))
    assert seen == [4, 8, 11] and len(state["losses"]) == 11


@pytest.mark.parametrize("net, backend", [(net, b) for net, backends in (("residual", BACKENDS[1:2]), ("chapter", BACKENDS[1:])) for b in backends])
def test_the_backends_sample_the_same_digits_within_rounding(net, backend):
    given = settings(net=net, backend="ref", schedule="linear", steps=1) | {"sampler_steps": 2}
    state = train(given, 1)
    labels = np.array([3, digits.NO_LABEL])
    a, path = digits.sample(state, given, labels)
    b, _ = digits.sample(state, given | {"backend": backend}, labels)
    np.testing.assert_allclose(a, b, rtol=0, atol=5e-5 * np.abs(a).max())  # x0 from eps at t = T magnifies float32 rounding 157 times
    assert a.shape == (2, 784) and path.shape == (3, 784) and np.array_equal(path[-1], a[0])


@pytest.mark.parametrize("net", ["residual", "chapter"])
def test_the_pictures_of_the_way_are_those_of_one_step_after_another(net):
    """[DDPM] algorithm 2 for the chapter's net, [DDIM] for the residual one, each step's noise from the stream after that of the step before."""
    given = settings(net=net, backend="ref", steps=1) | {"sampler_steps": 20}
    state, labels = train(given, 1), np.array([3, 5])
    abar, times = digits.alpha_bar(given["schedule"]), schedules.spaced_times(digits.T, 20, "trailing").tolist()
    x, way = philox.normal(0, (2, 784), digits.SAMPLING), []
    for i, (t, s) in enumerate(pairwise(times)):
        way.append(x[0])
        if net == "chapter":
            eps = mlp.chapter(state["average"], x, np.full(2, t))[0]
            x = fused.guided_ddpm_step(x, eps, eps, 1.0, t, s, 0, abar, stream=digits.SAMPLING + 1 + i)
        else:
            cond, uncond = (diffusion.eps_from_x0(x, mlp.residual(state["average"], x, np.full(2, t), asked)[0], t, abar) for asked in (labels, np.full(2, digits.NO_LABEL)))
            x = fused.guided_ddim_step(x, uncond, cond, 2.0, t, s, 0, 0.0, abar, clip=1.0)
    got, path = digits.sample(state, given, labels)
    np.testing.assert_allclose(got, x, rtol=0, atol=1e-7 * np.abs(x).max())  # float32 at the end
    np.testing.assert_allclose(path[:-1], [way[i] for i in (0, 2, 4, 6, 8, 11, 13, 15, 17)], rtol=0, atol=1e-12 * np.abs(x).max())
    assert np.array_equal(path[-1], got[0])


def test_samples_that_are_not_finite_are_not_drawn():
    """What a diverged training gives, and a launch on the GPU that gave up."""
    given = settings(net="chapter", backend="numba_cpu", steps=1) | {"sampler_steps": 20}
    state = digits.start(given)
    state["average"]["b2"][3] = np.nan
    with pytest.raises(FloatingPointError, match="samples: expected finite numbers, got NaN or inf"):
        digits.sample(state, given, np.array([10, 10]))


def test_labels_are_dropped_and_never_all_of_them():
    """The class row of `no label` gets a gradient only where a label was dropped."""
    given = settings(batch=64)
    state = train(given, 3)
    assert np.any(state["m"]["class.w"][digits.NO_LABEL]) and np.any(state["m"]["class.w"][:10])


def write_idx(folder, compress=False, images=IMAGES, labels=LABELS):
    for name in data.FILES:
        array = images if "images" in name else labels
        raw = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
        if compress:
            (folder / f"{name}.gz").write_bytes(gzip.compress(raw))
        else:
            (folder / name).write_bytes(raw)


@pytest.mark.parametrize("compress", [False, True])
def test_idx_files_are_read(compress, tmp_path):
    write_idx(tmp_path, compress)
    (images, labels), (held, held_labels) = data.load(tmp_path)
    assert images.shape == (40, 784) and images.dtype == np.float32 and held.shape == (40, 784)
    assert np.array_equal(labels, LABELS) and np.array_equal(held_labels, LABELS)
    assert np.array_equal(np.rint((images + 1) * 127.5), IMAGES.reshape(40, 784)) and images.min() >= -1 and images.max() <= 1


def test_bad_idx_files_are_told(tmp_path):
    with pytest.raises(ValueError, match="expected the IDX file train-images-idx3-ubyte or train-images-idx3-ubyte.gz, found neither"):
        data.load(tmp_path)
    write_idx(tmp_path, labels=LABELS[:-1])
    with pytest.raises(ValueError, match="expected as many train images as labels, got 40 and 39"):
        data.load(tmp_path)
    write_idx(tmp_path, images=IMAGES[:, :14])
    with pytest.raises(ValueError, match=r"expected 28x28 images of classes 0 to 9, got \(14, 28\)"):
        data.load(tmp_path)
    write_idx(tmp_path)
    cut = tmp_path / data.FILES[0]
    cut.write_bytes(cut.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"expected 31360 bytes for shape \(40, 28, 28\), got 31359"):
        data.load(tmp_path)
    cut.write_bytes(b"PNG, not IDX")
    with pytest.raises(ValueError, match="expected an IDX file of bytes with 3 axes"):
        data.load(tmp_path)


def test_a_checkpoint_of_other_settings_is_refused_before_anything_is_written(tmp_path, capsys):
    given = settings()
    digits.save(tmp_path / "c.npz", train(given, 1), given)
    words = ["--steps", "6", "--batch", "5", "--guidance", "3", "--resume", str(tmp_path / "c.npz"), "--out", str(tmp_path / "new")]
    assert digits.main(words) == 2
    assert "they differ in guidance (there 2.0, here 3.0)" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    np.savez(tmp_path / "other.npz", a=1)
    assert digits.main(["--resume", str(tmp_path / "other.npz"), "--out", str(tmp_path / "new")]) == 2
    assert "expected a checkpoint of this study" in capsys.readouterr().err
    (tmp_path / "part.npz").write_bytes((tmp_path / "c.npz").read_bytes()[:5000])
    assert digits.main(["--resume", str(tmp_path / "part.npz"), "--out", str(tmp_path / "new")]) == 2
    assert "expected a checkpoint of this study (.npz), got another kind of file" in capsys.readouterr().err
    assert digits.main(["--resume", str(tmp_path / "none.npz"), "--out", str(tmp_path / "new")]) == 2


@pytest.mark.parametrize("words, message", [
    (["--steps", "0"], "expected at least 1, got 0"), (["--batch", "-3"], "got 2400 and -3"), (["--seed", "-1"], "expected 0 <= seed"),
    (["--backend", "torch"], "invalid choice"), (["--net", "unet"], "invalid choice"), (["--predict", "score"], "invalid choice"),
    (["--backend", "triton_gpu"], "expected --net chapter --predict eps, which it has kernels to train, got --net residual --predict x0"),
    (["--backend", "triton_gpu", "--net", "chapter", "--predict", "v"], "got --net chapter --predict v"),
])  # fmt: skip
def test_bad_words_are_told(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        digits.main(words)
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_a_backend_that_is_not_installed_is_told(monkeypatch, capsys):
    monkeypatch.setattr(selftest, "available", lambda: (["numba_cpu"], {"triton_gpu": "triton is not installed"}))
    with pytest.raises(SystemExit) as stop:
        digits.main(["--net", "chapter", "--backend", "triton_gpu"])
    assert stop.value.code == 2 and "--backend triton_gpu: triton is not installed" in capsys.readouterr().err
