"""Trees of parameters, and what the checks of `ref.shapes` accept."""
import numpy as np
import pytest

from ref import shapes, tree

TREE = {"in": {"w": np.ones((2, 3), np.float32), "b": np.zeros(2)},
        "blocks": [{"w1": np.full(2, 4.0)}, {"w1": np.full(3, 5.0)}], "out": np.ones(1)}


def test_named_paths_are_dotted_and_from_named_is_the_inverse():
    named = tree.named(TREE)
    assert list(named) == ["in.w", "in.b", "blocks.0.w1", "blocks.1.w1", "out"]
    again = tree.from_named(named)
    assert tree.named(again) == named and isinstance(again["blocks"], list)
    many = {f"blocks.{i}.w": np.full(1, i) for i in range(12)}
    assert [b["w"][0] for b in tree.from_named(dict(reversed(many.items())))["blocks"]] == list(range(12))


def test_map_and_zeros_like_keep_the_structure():
    doubled = tree.map(lambda a, b: a + b, TREE, TREE)
    assert list(tree.named(doubled)) == list(tree.named(TREE))
    assert all(np.array_equal(d, 2 * a) for d, a in zip(tree.leaves(doubled), tree.leaves(TREE)))
    for zero, a in zip(tree.leaves(tree.zeros_like(TREE)), tree.leaves(TREE), strict=True):
        assert not zero.any() and zero.shape == a.shape and zero.dtype == a.dtype


@pytest.mark.parametrize("other", [{"in": 1}, TREE | {"blocks": []}, TREE | {"more": 1}, [1], 3])
def test_map_refuses_another_structure(other):
    with pytest.raises(ValueError, match="trees"):
        tree.map(lambda a, b: a, TREE, other)


def test_per_example_shapes_a_number_or_one_for_each_example():
    x = np.zeros((2, 3, 4))
    assert shapes.per_example(2, x, "w").shape == () and shapes.per_example([1, 2], x, "w").shape == (2, 1, 1)
    with pytest.raises(ValueError, match="w: expected one number"):
        shapes.per_example([1, 2, 3], x, "w")


def test_a_complex_argument_stays_complex():
    a, b = shapes.same_shape(a=np.ones(2, np.float32), b=1j * np.ones(2))
    assert a.dtype == np.float64 and b.dtype == np.complex128
