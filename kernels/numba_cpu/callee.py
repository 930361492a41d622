"""How a function that only kernels call is compiled: to LLVM code, which is linked into each of them.

Numba makes machine code of every function that it compiles. Here nothing would run it, and it takes a quarter of the
time."""
import ctypes

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

# What a call from Python gets: a TypeError, in place of the machine code that is not there
REFUSAL = ctypes.cast(ctypes.pythonapi.PyErr_BadArgument, ctypes.c_void_p).value


class Callee(Compiler):
    """Numba's `pipeline_class` of such a function."""

    def compile_extra(self, func):
        """As Numba's, into a library of its own. func: in Python."""
        self.state.library = _Library(self.state.targetctx.codegen(), func.__qualname__)
        return super().compile_extra(func)


class _Library(JITCodeLibrary):
    def _finalize_final_module(self):
        self._finalized = True

    def get_pointer_to_function(self, name):
        self._ensure_finalized()
        return REFUSAL

    @property
    def codegen(self):
        return _NoMachineCode


class _NoMachineCode:
    @staticmethod
    def set_env(name, env):
        """Nothing: the kernel has no copy of it."""
