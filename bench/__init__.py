"""How fast the kernels are on this machine, next to what people would use instead. `python -m bench` prints the tables.

measure.py  one row: check the kernel, check the peers, time them in turn      clocks.py   the clocks of a GPU
machine.py  the name and the limits of this machine, and whether it is busy    peers/      the same in other libraries
targets.py  reads targets.csv, what each row must reach
report.py   CSV, tables, bench/results/README.md, eight rows of README.md      plot.py     the picture of a sweep
files.py    files written completely or not at all                             studies/    experiments on real data
"""
import sys

try:
    from kernels import expect  # noqa: F401
except ImportError as reason:  # a file or a folder of the user's own
    print(f"bench: another kernels hides the package of this project: {reason}; rename it", file=sys.stderr)
    sys.exit(2)
