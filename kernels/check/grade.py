"""Three grades, and how they are told apart: rounding shrinks with the precision of the arithmetic, a wrong formula
does not.

    from kernels.check.grade import grade
    grade({"float64": 94.0, "float32": 3.0})     # "right, less accurate"

An error is measured in units of what is allowed where it stands, the allowance widened there by what one unit in the
last place of each input and each coefficient changes in the truth. Up to 1 it is right. Measured on 41 real mistakes
and 78 right formulations, in float64 the mistakes stand at 3e8 units or more and the formulations at 111 or less; LESS
lies between, and no unit of any dtype then passes an error of 2 % of the terms.
"""
import math

RIGHT, LESS_ACCURATE, WRONG = GRADES = "right", "right, less accurate", "wrong"
LESS = {"float64": 1e4, "float32": 1e4, "float16": 32.0, "bfloat16": 4.0}  # units from which an error is no rounding
ULPS = 2.0**-29  # of float64 in one of float32
LUCK = 2.0**-10  # the worst of a few rounding errors may be so much smaller than it should be
LEFT = 2.0**-8  # of an error: what is left of rounding in float64 is less, though float32 may have lost all digits


def grade(units):
    """The grade of a function. units: {dtype: its worst error there in units of the allowed one}; inf for a NaN, a
    missing or a misshapen result. A dtype without an entry in LESS is exact: there up to 1 is right, the rest wrong.
    Returns one of GRADES; the worst dtype decides."""
    worst = [_in_one(error, LESS.get(dtype, 1.0)) for dtype, error in units.items()]
    return max(worst, key=GRADES.index, default=RIGHT)


def _in_one(error, less):
    if math.isnan(error) or error > 1 and error >= less:
        return WRONG
    return LESS_ACCURATE if error > 1 else RIGHT


def shrinks(narrow, wide, lost):
    """Whether the errors of a function are rounding, by those of float32 and of float64 on the same inputs. An
    ill-conditioned order of operations may pass LESS in float64; its error still shrinks, and that of a wrong formula
    stays. narrow, wide: the worst errors of a few runs in float32 and in float64. lost: whether float32 has lost most
    digits; else the errors have the proportion of their ulps."""
    return math.isfinite(narrow) and wide < (LEFT if lost else ULPS / LUCK) * narrow


def in_proportion(narrow, wide):
    """Whether the errors of float64 are not far less than their ulps say: a fault in float32 alone, of which float64
    knows nothing, is no rounding. narrow, wide: as in `shrinks`."""
    return wide >= ULPS * LUCK * narrow
