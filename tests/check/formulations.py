"""Right orders of operations, as diffusers, k-diffusion, guided-diffusion, PyTorch, Optax and textbooks have them: none
may be called wrong, and one that is less accurate is said to be.

    python -m tests.check.formulations [--seeds 20] [--examples 200] [--op NAME]

grades every one in float32 and float64 on the cases that the checker draws, and prints how many are what.
"""
import argparse
import collections

from kernels.check import draw, forms
from kernels.check.adapter import caller, find
from kernels.check.case import Failure, called
from kernels.check.grade import GRADES, LESS_ACCURATE, RIGHT, WRONG
from kernels.check.judge import Seen, judge, rules_of
from tests.check import formulations_layers as of_layers
from tests.check import formulations_losses as of_losses
from tests.check import formulations_steps as of_steps

FORMULATIONS = of_steps.FORMULATIONS + of_losses.FORMULATIONS + of_layers.FORMULATIONS


def grades(op, entries, dtype, examples, seed):
    """(label, grade, the worst error in units of the allowed one or the message) of each formulation of an operation,
    on shared cases. op: `Op`. entries: of FORMULATIONS. dtype, examples, seed: of the cases."""
    callers = {label: caller(function, op, fixed=fixed) for _, label, function, fixed in entries}
    seen, failures = {label: Seen() for label in callers}, {}
    kinds = {label: (*call.fixed.items(), *forms.of(call)) for label, call in callers.items()}
    for kind in set(kinds.values()):
        same = {label: call for label, call in callers.items() if kinds[label] == kind}
        for case in draw.cases(next(iter(same.values())), dtype, examples, seed):
            rules = rules_of(op, case.arguments, dtype)
            for label in same.keys() - failures.keys():
                try:
                    judge(
                        same[label], case, case.arguments, called(same[label], case, case.arguments), rules, seen[label]
                    )
                except Failure as failure:
                    failures[label] = f"{failure.kind}: {failure.message} {case.options} {case.values} {case.shape}"
    for label in callers:
        worst = max([x.units for x in seen[label].less.values()], default=seen[label].error.get(dtype, 0.0))
        grade = WRONG if label in failures else LESS_ACCURATE if seen[label].less else RIGHT
        yield label, grade, failures.get(label, worst)


def by_operation(named=""):
    """(Op, its formulations) of each operation. named: part of its name."""
    found = collections.defaultdict(list)
    for entry in FORMULATIONS:
        found[find(entry[0]).name].append(entry)
    return [(find(name), entries) for name, entries in found.items() if named in name]


def main(argv=None):
    """Grade all, print. argv: list of words, or None for the command line's. Returns the exit status: 1 where any is
    called wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.check.formulations", description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--op", default="", metavar="NAME", help="only those with this in their name")
    words, count = parser.parse_args(argv), collections.Counter()
    for op, entries in by_operation(words.op):
        for dtype in op.dtypes:
            seen, worst = collections.defaultdict(set), {}
            for seed in range(words.seeds):
                for label, grade, error in grades(op, entries, dtype, words.examples, seed):
                    seen[label].add(grade)
                    before = worst.get(label, 0.0)  # of a wrong one the message stays
                    worst[label] = max(before, error) if str not in (type(before), type(error)) else (
                        error if grade == WRONG else before)
            for label, found in seen.items():
                grade = max(found, key=GRADES.index)
                count[dtype, grade] += 1
                how = worst[label] if isinstance(worst[label], str) else f"{worst[label]:.3g}"
                print(f"{op.name:<36}{dtype:<9}{grade:<22}{label}: {how}", flush=True)
    for (dtype, grade), n in sorted(count.items()):
        print(f"{dtype}: {n} {grade}")
    return int(any(grade == WRONG for _, grade in count))


if __name__ == "__main__":
    raise SystemExit(main())
