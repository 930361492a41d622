"""The same operations as people write them without this project: NumPy, torch, torch.compile, JAX, numexpr.

equations.py  each operation once, for all libraries        sound.py  whether a peer is right
<library>_peer.py  how the library runs an equation         loops.py  sampling and training of `simple_mlp`
torch_layers.py  layers of networks, and their gradients

A peer does the kernel's whole job in a call: it folds the coefficients from t and abar (by `kernels.coefficients`, as
the kernel does), runs the equation as written, has its inputs in its own arrays and its output memory ready where the
library can use it. Where an operation makes noise, each library uses its own generator, NumPy its fastest.

A maker takes (op, arguments, shape), op a record of the registry, and returns {how: call}: `how` names the variants of
a library, of which the fastest counts. Without an entry in `equations` NumPy's column is the NumPy backend, and the
other libraries return {}.
"""
import importlib
import importlib.util

COLUMNS = {
    "numpy": "NumPy", "hidden": "NumPy, hidden-space sampling", "torch": "torch", "graph": "CUDA graph",
    "compile": "torch.compile", "jax": "JAX", "numexpr": "numexpr",
}  # fmt: skip
NEEDS = {c: "torch" if c in ("graph", "compile") else "numpy" if c == "hidden" else c for c in COLUMNS}
ON_GPU = ("torch", "graph", "compile")


def available(columns):
    """The columns whose library is installed, and a line for each library that is not. columns: names of COLUMNS."""
    missing = sorted({NEEDS[c] for c in columns if importlib.util.find_spec(NEEDS[c]) is None})
    lines = [f"{name} is not installed: no column; pip install {name}" for name in missing]
    return [c for c in columns if NEEDS[c] not in missing], lines


def settle(columns, threads):
    """Import the libraries and give each that many threads. columns: of `available`. threads: int."""
    if any(NEEDS[c] == "torch" for c in columns):
        torch = importlib.import_module("torch")
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        # as people set them who want speed
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.benchmark = True
    if "numexpr" in columns:
        importlib.import_module("numexpr").set_num_threads(threads)
    if "jax" in columns:  # its threads are the cores that the process may use
        importlib.import_module("jax").config.update("jax_platforms", "cpu")


def make(column, op, arguments, shape):
    """{how: call} of one column. column: of COLUMNS. op: `registry.Op`. arguments, shape: of the call."""
    return importlib.import_module(f"bench.peers.{NEEDS[column]}_peer").make(column, op, arguments, shape)
