"""What the benchmark takes from a record of the registry beyond its name, in one place.

MERGE: each function is `return op.FIELD` once the record has the field; the tables below are for records without it.
"""
from kernels import plain

ADAM = ("p", "m", "v")
IN_PLACE = {"optim.adam_step": ADAM, "fused.adam_ema_step": (*ADAM, "avg"), "optim.ema_step": ("avg",)}


def in_place(op):
    """The arguments that the operation updates where they stand, as a training loop does, in the order of its results.
    Names, () for none."""
    return getattr(op, "in_place", IN_PLACE.get(op.name, ()))


def takes_dtype(op):
    """Whether the operation takes the dtype of its result as an argument."""
    return getattr(op, "takes_dtype", op.name == "philox.normal")


def rows(op):
    """What the operation's data are, "images" or "matrix": it decides in which shapes it is timed."""
    return getattr(op, "rows", "matrix" if op.name.split(".")[0] in ("vae", "gan") else "images")


def sums(op):
    """Whether a result depends on the whole batch."""
    return getattr(op, "sums", "loss" in op.name)


def has_flops(op):
    """Whether arithmetic bounds the operation, not memory: a loop of a network."""
    return getattr(op, "flops", None) is not None


def flops(op, arguments):
    """The floating-point operations of a call, or None where memory bounds it."""
    return op.flops(**arguments) if has_flops(op) else None


def precisions(op):
    """The precisions of a GPU's products in addition to float32. Names."""
    return getattr(op, "precisions", ())


def tuned(op):
    """The NumPy backend's function of the operation. MERGE: `return registry.kernel(op, "numpy_cpu")`."""
    if op.name.startswith("gan."):
        name = op.name.removeprefix("gan.").removesuffix("_grad")
        f = plain.gan_loss_grad
        return lambda out=None, scratch=None, **logits: f(name, *logits.values(), out=out, scratch=scratch)
    return op.plain


def gan_losses():
    """{name: (the curve's name, [(slope, shift), ...], sign)}. MERGE: of `kernels.numpy_cpu.gan.LOSSES`,
    curve.__name__."""
    return plain.GAN
