"""The same bits on every run, on any number of threads, and for a row alone or in any batch."""
import numpy as np

from kernels import registry
from tests.kernels.backends import cases, choices, last, make, run, same


@cases()
def test_bits_of_every_run(b, op, dtype):
    arguments = make(op, op.shapes[-1] if op.shapes else b.large[-1], dtype, **last(op))
    first, *others = b.repeat(lambda: run(b, op, arguments, dtype), 20)
    assert all(same(a, f) for other in others for a, f in zip(other, first, strict=True))


@cases(lambda op: op.rowwise)
def test_bits_of_a_row_alone(b, op, dtype):
    """Rows end inside a vector of the machine, in another place each time; the noise of a row is that of its place."""
    for options in choices(b, op):
        for n in b.lengths:
            arguments = make(op, (3, n), dtype, **options)
            batch = run(b, op, arguments, dtype)
            for i in range(1 if "seed" in arguments else 3):
                rows = {name: np.ascontiguousarray(a[i : i + 1]) for name, a in registry.arrays(arguments).items()}
                each = [name for name in registry.PER_EXAMPLE if isinstance(arguments.get(name), np.ndarray)]
                alone = arguments | rows | {name: arguments[name][i : i + 1] for name in each}
                for whole, row in zip(batch, run(b, op, alone, dtype), strict=True):
                    assert not np.ndim(whole) or same(whole[i : i + 1], row), (options, n, i)
