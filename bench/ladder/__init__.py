"""How a kernel is made fast, one rung at a time: `python -m bench.ladder NAME`.

A ladder is a module with SHAPE, the data that are timed, SMALL, what tests take, OP, the operation's name, OPTIONS of
its record, and RUNGS: functions of its arguments. Each says what it changes about the rung before, and what that should
buy and why; what it bought is measured. The last rung is the project's own kernel. One of the GPU has BACKEND, DTYPE of
the data, and limit(array), a call of what the machine can do, and its operations.
"""
import importlib
import inspect

from bench.peers import sound
from kernels import registry, timing

LADDERS = "guided_ddim_step", "linear", "attention"


def ladder(name):
    """The module of a ladder. name: of LADDERS."""
    return importlib.import_module(f"bench.ladder.{name}")


def checked(steps, shape):
    """The arguments of the timed call, where its backend wants them, after each rung has met the truth, loosely, as a
    peer does; on a GPU on SMALL, which the host can check. steps: from `ladder`. shape: of the data. Raises ValueError
    that names the rung."""
    op, dtype = next(op for op in registry.OPS if op.name == steps.OP), getattr(steps, "DTYPE", "float32")
    send, receive = registry.carriers(getattr(steps, "BACKEND", "numba_cpu"))
    few = steps.SMALL if hasattr(steps, "BACKEND") else shape
    arguments = timing.problem(op, steps.OPTIONS, few, dtype=dtype)
    truth = sound.Truth(op, arguments, few, registry.expected(op, arguments, dtype))
    there = registry.sent(arguments, send)
    for rung in steps.RUNGS:
        try:
            truth.check(receive(rung(**there)))
        except ValueError as reason:
            raise ValueError(f"{rung.__name__}: {reason}") from None
    if few != shape:
        arguments = timing.problem(op, steps.OPTIONS, shape, dtype=dtype)
        there = registry.sent(arguments, send)
    return op, there


def said(rung):
    """What a rung changes, and what was predicted. rung: function."""
    changed, _, predicted = inspect.getdoc(rung).partition("\n\nPredicted: ")
    return " ".join(changed.split()), " ".join(predicted.split())
