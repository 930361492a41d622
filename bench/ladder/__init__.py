"""How a kernel is made fast, one rung at a time: `python -m bench.ladder NAME`.

A ladder is a module with SHAPE, the data that are timed, SMALL, what tests take, OP, the operation's name, OPTIONS of
its record, and RUNGS: functions of its arguments. Each says what it changes about the rung before, and what that should
buy and why; what it bought is measured. The last rung is the project's own kernel.
"""
import importlib
import inspect

from bench.peers import sound
from kernels import registry, timing

LADDERS = "guided_ddim_step", "linear"


def ladder(name):
    """The module of a ladder. name: of LADDERS."""
    return importlib.import_module(f"bench.ladder.{name}")


def checked(steps, shape):
    """The arguments of the timed call, after each rung has met the truth, loosely, as a peer does. steps: from
    `ladder`. shape: of the data. Raises ValueError that names the rung."""
    op = next(op for op in registry.OPS if op.name == steps.OP)
    arguments = timing.problem(op, steps.OPTIONS, shape)
    truth = sound.Truth(op, arguments, shape, registry.expected(op, arguments, "float32"))
    for rung in steps.RUNGS:
        try:
            truth.check(rung(**arguments))
        except ValueError as reason:
            raise ValueError(f"{rung.__name__}: {reason}") from None
    return op, arguments


def said(rung):
    """What a rung changes, and what was predicted. rung: function."""
    changed, _, predicted = inspect.getdoc(rung).partition("\n\nPredicted: ")
    return " ".join(changed.split()), " ".join(predicted.split())
