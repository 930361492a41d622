"""A training step is timed where its gradients agree with the reference's, and not where one is off."""
import importlib.util

import numpy as np
import pytest

from bench import training_step


def test_the_steps_on_kernels_agree_and_are_offered_next_to_numpy(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # torch, which would be compiled
    lines = []
    made = training_step.contestants("DiT", 2, False, lines.append)
    assert list(made) == ["NumPy", "numba_cpu"] and "torch" in lines[0]
    for call in made.values():
        call()


@pytest.mark.parametrize("found", [{"w": np.array([1.0, 2.01])}, {"w": np.array([1.0, np.nan])}, {}], ids=str)
def test_a_gradient_that_is_off_is_named(found):
    with pytest.raises(ValueError, match=r"torch: gradient of w"):
        training_step.agree("torch", found, {"w": np.array([1.0, 2.0])})
    training_step.agree("torch", {"w": np.array([1.0, 2.001])}, {"w": np.array([1.0, 2.0])})
