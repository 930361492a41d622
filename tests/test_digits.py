"""The digits study on digits that the test writes: resumed is uninterrupted, backends agree, bad input is told."""
import gzip
import struct

import numpy as np
import pytest

from bench.studies import data, digits
from ref import philox

IMAGES = (philox.uniform(3, (40, 28, 28)) * 255).astype(np.uint8)
LABELS = (np.arange(40) % 10).astype(np.uint8)


def settings(**change):
    args = digits._arguments(["--steps", "6", "--batch", "5"] + [w for k, v in change.items() for w in (f"--{k}", str(v))])
    return {k: v for k, v in vars(args).items() if k not in ("out", "resume", "data")}


def train(given, steps, state=None):
    state = digits.start(given) if state is None else state
    while state["step"] < steps:
        digits.train_step(state, given, (data.scale(IMAGES), LABELS.astype(np.int64)))
    return state


def assert_same(a, b):
    assert a["step"] == b["step"] and a["losses"] == b["losses"]
    for part in ("params", "m", "v", "average"):
        for name in a[part]:
            assert np.array_equal(a[part][name], b[part][name]), f"{part}/{name}"


@pytest.mark.parametrize("net", ["residual", "chapter"])
def test_resumed_is_uninterrupted_to_the_bit(net, tmp_path):
    given = settings(net=net)
    whole = train(given, 6)
    digits.save(tmp_path / "half.npz", train(given, 3), given)
    assert_same(train(given, 6, digits.load(tmp_path / "half.npz", given)), whole)
    assert [p.name for p in tmp_path.iterdir()] == ["half.npz"]  # written beside, then moved


def test_a_seed_gives_the_same_numbers_and_another_seed_others():
    a, b, other = train(settings(), 2), train(settings(), 2), train(settings(seed=1), 2)
    assert_same(a, b)
    assert a["losses"] != other["losses"]


@pytest.mark.parametrize("net, predict", [("residual", "x0"), ("residual", "eps"), ("residual", "v"), ("chapter", "eps")])
def test_the_backends_train_to_the_same_loss_within_rounding(net, predict):
    losses = [train(settings(net=net, predict=predict, backend=b), 6)["losses"] for b in ("ref", "numba_cpu")]
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-5)
    assert losses[0][0] != losses[0][-1]


@pytest.mark.parametrize("net", ["residual", "chapter"])
def test_the_backends_sample_the_same_digits_within_rounding(net):
    given = settings(net=net, backend="ref", schedule="linear") | {"sampler_steps": 4}
    state = train(given, 1)
    labels = np.array([3, digits.NO_LABEL])
    a, path = digits.sample(state, given, labels)
    b, _ = digits.sample(state, given | {"backend": "numba_cpu"}, labels)
    np.testing.assert_allclose(a, b, rtol=0, atol=5e-5 * np.abs(a).max())  # x0 from eps at t = T magnifies float32 rounding 157 times
    assert a.shape == (2, 784) and path.shape[1] == 784 and np.array_equal(path[-1], a[0])


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
])  # fmt: skip
def test_bad_words_are_told(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        digits.main(words)
    assert stop.value.code == 2 and message in capsys.readouterr().err
