"""What the functions of `ref.pipelines.stable_diffusion` refuse, by the name of the argument."""
import numpy as np
import pytest

from ref.pipelines import stable_diffusion as sd
from tests.ref.saved_models import part
from tests.ref.test_stable_diffusion import load, run  # noqa: F401  (load is a fixture)


@pytest.mark.parametrize("given, named", [
    (dict(sampler="plms"), "sampler"), (dict(latents=None, size=(15, 16)), "size"), (dict(steps=0), "steps"),
    (dict(spacing="even"), "spacing"), (dict(latents=np.zeros((2, 4, 3, 3))), "latents"),
    (dict(guidance="7"), "guidance"), (dict(guidance=float("nan")), "guidance"), (dict(negative=None), "negative"),
    (dict(latents=None, size=8), "size"), (dict(latents=None, size=(8, 8, 8)), "size"),
])
def test_a_bad_argument_is_named(load, given, named):
    with pytest.raises((ValueError, TypeError), match=named):
        run(load("sd1"), "sd1", 0, **given)


@pytest.mark.parametrize("prompts", [None, 3, ["a", None], b"a", "lone \ud800", []])
def test_what_is_no_prompt_is_named(load, prompts):
    with pytest.raises((ValueError, TypeError), match="prompts"):
        sd.text_to_image(load("sd1"), prompts, steps=1, size=(8, 8))


@pytest.mark.parametrize("call, shape, named", [
    (lambda model, a: sd.encode_text(model, a), (7,), r"ids: expected shape \(B, L\)"),
    (lambda model, a: sd.denoise(model, a, 3, part("sd1", "states")), (2, 3, 6, 5), r"x: .*\(B, 4, h, w\)"),
    (lambda model, a: sd.denoise(model, part("sd1", "x"), 3, a), (1, 77, 12), r"context: .*\(2, L, 12\)"),
    (lambda model, a: sd.encode_image(model, a), (3, 8, 8), r"image: .*\(B, 3, H, W\)"),
    (lambda model, a: sd.decode_image(model, a), (1, 3, 4, 4), r"z: .*\(B, 4, h, w\)"),
    (lambda model, a: sd.image_to_image(model, a, "a"), (1, 4, 8, 8), "image: expected"),
    (lambda model, a: sd.image_to_image(model, a, "a"), (1, 3, 1, 1), "size: expected multiples of 2"),
    (lambda model, a: sd.image_to_image(model, np.zeros((1, 3, 8, 8)), "a", mask=a), (8,), "mask: expected"),
])
def test_an_array_of_another_shape_is_named(load, call, shape, named):
    with pytest.raises(ValueError, match=named):
        call(load("sd1"), np.zeros(shape))
