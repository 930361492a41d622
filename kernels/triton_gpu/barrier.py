"""A barrier for all programs of a launch. They have to run at the same time, so the launch is cooperative.

In the interpreter one program runs after the other, and nobody could wait. There a launch is one phase of the kernel,
`phase` != ALL, and the barrier does nothing.
"""
from collections import namedtuple

import triton
import triton.language as tl

ALL = tl.constexpr(0)  # a launch that is every phase
PATIENCE = 1 << 22  # reads of the counter before a program gives up, about a second

Turn = namedtuple("Turn", "barriers patience")  # how many were passed, and how many reads of the counter are left


@triton.jit
def wait(counter, turn, PHASE: tl.constexpr):
    """Waits until every program has arrived. counter: two ints, arrivals and whether a program gave up. turn: `Turn`.
    PHASE: of the launch.
    Returns the next turn; its patience is 0 if this program gave up."""
    barriers, patience = turn
    if PHASE == ALL:
        barriers += 1
        tl.debug_barrier()
        target = barriers * tl.num_programs(0)
        seen = tl.atomic_add(counter, 1, sem="acq_rel") + 1
        while (seen < target) & (patience > 0):
            seen = tl.atomic_add(counter, 0, sem="acquire")
            patience -= 1
        if seen < target:
            tl.atomic_max(counter + 1, 1)
        tl.debug_barrier()
    return Turn(barriers, patience)


@triton.jit
def gave_up(counter, turn):
    """Whether this program or another gave up. counter, turn: as in `wait`."""
    return (turn.patience == 0) | (tl.load(counter + 1, volatile=True) != 0)
