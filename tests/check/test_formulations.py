"""No right order of operations is called wrong: each once. `python -m tests.check.formulations` grades them at many
seeds."""
import pytest

from kernels import registry
from kernels.check.grade import LESS_ACCURATE, RIGHT, WRONG
from tests.check.formulations import FORMULATIONS, by_operation, grades

EXAMPLES = 20
SURE = {  # what some of them are, of an operation and a formulation: the grade in float32, and in float64
    ("diffusion.x0_from_eps", "as printed, float64 coefficients"): (RIGHT, RIGHT),
    ("diffusion.score_from_eps", "as printed, in the dtype"): (LESS_ACCURATE, RIGHT),
    ("diffusion.posterior", "form 2, in the dtype"): (LESS_ACCURATE, LESS_ACCURATE),
    ("diffusion.ddpm_step", "algorithm 2 as printed, in the dtype"): (LESS_ACCURATE, RIGHT),
    ("diffusion.ddim_step", "x0 derived again, in the dtype"): (LESS_ACCURATE, LESS_ACCURATE),
    ("optim.ema_step", "as printed"): (RIGHT, RIGHT),
    ("optim.ema_step", "lerp"): (LESS_ACCURATE, LESS_ACCURATE),
    ("optim.clip_by_global_norm", "in float64; PyTorch"): (LESS_ACCURATE, LESS_ACCURATE),
    ("vae.reparameterize_kl", "expm1; exp of a half"): (RIGHT, RIGHT),
}


@pytest.mark.parametrize("op, entries", by_operation(), ids=lambda x: getattr(x, "name", ""))
def test_no_formulation_is_called_wrong_and_what_is_less_accurate_is_said_to_be(op, entries):
    for dtype in op.dtypes:
        found = {label: (grade, error) for label, grade, error in grades(op, entries, dtype, EXAMPLES, seed=0)}
        assert not {label: error for label, (grade, error) in found.items() if grade == WRONG}
        sure = {label: grades[dtype == "float64"] for (name, label), grades in SURE.items() if name == op.name}
        assert {label: found[label][0] for label in sure} == sure


def test_there_are_many_of_every_operation():
    assert len(FORMULATIONS) >= 280
    assert {op.name for op, _ in by_operation()} == {op.name for op in registry.OPS if not op.orders}
