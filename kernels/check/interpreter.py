"""Triton's interpreter: a host function that launches kernels on NumPy arrays works here as it does on a GPU's."""
import contextlib
import importlib
import sys

import numpy as np

EXAMPLES = 24  # of each dtype: it is a thousand times slower
ELEMENTS = 2048  # of an array


def prepare(source):
    """Where there is no GPU, choose the interpreter before a module that uses Triton is imported, for that is when
    Triton decides. source: text of the module."""
    if "triton" in source:
        with contextlib.suppress(ImportError):
            importlib.import_module("kernels.triton_gpu.device")


@contextlib.contextmanager
def pointers(launched=None):
    """Within it a kernel in the interpreter takes NumPy arrays as pointers to their memory. launched: a list that gets
    the name of each kernel that is launched, or None."""
    module = sys.modules.get("triton.runtime.interpreter")
    if module is None or not sys.modules["triton"].knobs.runtime.interpret:
        yield
        return
    arrays, run = importlib.import_module("kernels.triton_gpu.arrays"), module.InterpretedFunction.run

    def pointer(x):
        return arrays.HostPointer(x.ctypes.data, arrays.dtype_name(x.dtype), x) if isinstance(x, np.ndarray) else x

    def of_arrays(self, *args, **kwargs):
        if launched is not None:
            launched.append(self.__name__)
        return run(self, *map(pointer, args), **{name: pointer(x) for name, x in kwargs.items()})

    module.InterpretedFunction.run = of_arrays
    try:
        yield
    finally:
        module.InterpretedFunction.run = run
