"""Laws: what is reported of a broken one."""
import re

import numpy as np
import pytest

from kernels import tolerance
from kernels.check import check, laws
from kernels.numba_cpu import fused


def test_a_broken_law_is_reported_with_its_error():
    """An example alone is the next number of float32, unless it is near 0."""
    def law(xt, uncond, cond, w, t, s):
        out = fused.guided_flow_step(xt, uncond, cond, w, t, s)
        return np.where(np.abs(out) > 0.01, np.nextafter(out, out.dtype.type(np.inf)), out) if len(out) == 1 else out

    verdict = check(law, "guided_flow_step", dtype="float32", examples=100, strict=True)
    first, then, allowed, units = re.search(r"first (\S+), then (\S+),\D* (\S+), (\S+) ", verdict.message).groups()
    assert verdict.kind == "breaks a law" and np.float32(then) == np.nextafter(np.float32(first), np.float32(np.inf))
    assert float(units) == pytest.approx((np.float32(then) - np.float32(first)) / float(allowed), rel=0.02)


@pytest.mark.parametrize("law, first, then, place, allowed, units", [
    (1, [4.0], [5.0], 0, 0.25, 4), (2, [1.0], [2.0], 0, 0.5, 2), (3, [2.0, 4.0], [2.0, 4.5], 1, 0.25, 2),
])  # fmt: skip
def test_a_broken_law_is_measured_by_the_allowed_error_of_its_own_examples(law, first, then, place, allowed, units):
    rule = tolerance.Rule(np.array([1.0, 2.0, 4.0]), np.array([0.5, 1.0, 0.25]))
    message = laws.apart(laws.LAWS[law], [(np.array(first), np.array(then))], [rule])
    numbers = [float(x) for x in re.findall(r"\d+(?:\.\d+)?", message)]
    assert numbers == [place, first[place], then[place], allowed, units]
