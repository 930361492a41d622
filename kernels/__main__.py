"""`python -m kernels`: every operation, on every backend, against the truth, on this machine. Exit status 1 on any FAIL."""
import sys

from kernels import ours, registry


def main():
    """Print one line a verdict. Returns the exit status."""
    backends, missing = ours.available()
    for backend, why in missing.items():
        print(f"{backend}: not checked, {why}")
    for backend in filter(ours.interpreted, backends):
        print(f"{backend}: no GPU here, so in its interpreter, on small arrays")
    print(f"{'op':<30}{'backend':<12}{'dtype':<10}{'cases':>6}{'worst / allowed':>17}")
    failed = False
    for op in registry.OPS:
        for backend in backends:
            if registry.kernel(op, backend) is None:
                continue
            for dtype in registry.dtypes(op, backend):
                verdict = ours.check(op, backend, dtype)
                failed |= not verdict.ok
                line = f"{op.name:<30}{backend:<12}{dtype:<10}{verdict.cases:>6}{verdict.error:>17.2f}"
                print(line, " ok" if verdict.ok else f" FAIL  {verdict.failure}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
