"""Compiles a function that only kernels call to LLVM code, which is linked into each of these kernels.

Numba makes machine code of every function that it compiles. For such a function no one would run it, and it takes a
quarter of the time of compiling."""
import ctypes

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

# A call from Python jumps here, since there is no machine code, and raises a TypeError
REFUSAL = ctypes.cast(ctypes.pythonapi.PyErr_BadArgument, ctypes.c_void_p).value


class Callee(Compiler):
    """The `pipeline_class` to give to Numba for such a function."""

    def compile_extra(self, func):
        """As Numba's, but into a `_Library`. func: a Python function."""
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
        """Does nothing: there is no machine code that would read the environment."""
