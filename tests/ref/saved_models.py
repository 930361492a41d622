"""Folders of small Stable Diffusion models, written again from tests/goldens/stable_diffusion.json and
stable_diffusion_3.json."""
import json

import numpy as np

from tests import GOLDENS, golden, redrawn

SIDECAR = json.loads((GOLDENS / "stable_diffusion.json").read_text("utf-8"))
THIRD = json.loads((GOLDENS / "stable_diffusion_3.json").read_text("utf-8"))["cases"]
ARRAYS = golden("stable_diffusion") | golden("stable_diffusion_3")
CASES = SIDECAR["cases"]
KINDS = {np.dtype(np.float64): "F64", np.dtype(np.float32): "F32", np.dtype(np.float16): "F16"}


def drawn(name):
    """{file: {name: array}} of one model, float64, as the maker of the goldens drew them."""
    case = (CASES | THIRD)[name]
    return {file: redrawn(shapes, case["seed"] + i) for i, (file, shapes) in enumerate(case["shapes"].items())}


def safetensors(path, tensors, kinds=None):
    """Write a file. tensors: {name: array}. kinds: {name: its kind} where the array's dtype does not say it."""
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, a in tensors.items():
        kind = (kinds or {}).get(name, KINDS.get(a.dtype))
        header[name] = {"dtype": kind, "shape": list(a.shape), "data_offsets": [at, at + a.nbytes]}
        at += a.nbytes
    written = json.dumps(header).encode()
    written += b" " * (-len(written) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(written).to_bytes(8, "little") + written + b"".join(a.tobytes() for a in tensors.values()))


def write(name, folder, dtype=np.float64):
    """The folder of one model. Returns it."""
    for file, text in (CASES | THIRD)[name]["files"].items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text, "utf-8")
    for file, tensors in drawn(name).items():
        safetensors(folder / file, {path: a.astype(dtype) for path, a in tensors.items()})
    return folder


def part(name, key):
    """An array of one model's."""
    return ARRAYS[f"{name}/{key}"]
