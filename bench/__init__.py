"""How fast the kernels are, on this machine, beside what people would use instead. `python -m bench` prints the table.

measure.py  one row: check the kernel, check the peers, then time them in turn
clocks.py   those of the GPU          machine.py  what this machine's memory can do, and its name
peers.py    the same operations in NumPy, torch, torch.compile, JAX and numexpr
targets.py  what each row must reach  report.py   table, CSV, README, picture
"""
