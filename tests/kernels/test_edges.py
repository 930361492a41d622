"""The edges of every operation on every backend: its settings at their ends, thin and square arrays, tiny, huge and
infinite numbers, times of every type of int, seeds of 64 bits, and the same bits again after all that."""
import numpy as np

from kernels import registry, tolerance
from tests.kernels.backends import last, make, named, on_each, run, same

SETTINGS = {  # what the records leave out: the ends, the other sign, and more than a byte, 16, 31 or 32 bits
    "lr": (0.0, 0.3), "beta1": (0.0, 0.5), "beta2": (0.0, 0.5), "eps": (0.0, 0.5), "weight_decay": (0.0, 0.5),
    "step": (1, 3, 300, 2**16 + 1, 2**40), "decay": (0.0, 0.25, 1.0), "dloss": (0.0, -2.0), "dkl": (0.0, -2.0),
    "dnll": (0.0, -2.0), "w": (1.0, 0.0, -1.5), "eta": (0.0, 1.0, 1e-6), "clip": (None, 1e-3, np.inf, 2.0),
    "max_norm": (np.inf, 1e9, 1e-6), "seed": (0, 2**31, 2**32, 2**63, 2**64 - 1),
    "stream": (0, 2**31, 2**32, 2**63, 2**64 - 1),
}  # fmt: skip
LENGTHS = 341, 513, 1023, 2047  # of four rows: several, some, two or one in a program of Triton
WALKS = (  # an operation of each way to walk
    "diffusion.q_sample", "diffusion.q_sample_backward", "diffusion.ddim_step", "fused.q_sample_noise",
    "fused.guided_ddim_step", "fused.guided_dpmpp_2m_step", "vae.reparameterize_kl_backward", "vae.bernoulli_nll_grad",
)  # fmt: skip


def exact(keep):
    """Parametrisation by backend, operation and dtype, without halves: they differ in loads and stores alone."""
    return on_each(lambda b: [(op, d) for op in registry.OPS if keep(op) and registry.kernel(op, b.name)
                              for d in registry.dtypes(op, b.name) if d not in registry.HALVES], ["op", "dtype"])


def agrees(b, op, arguments, dtype="float32", slack=0.0):
    """Whether the results are the truth's. slack: allowed in addition."""
    results, rules = run(b, op, arguments, dtype), registry.expected(op, arguments, dtype)
    rules = [tolerance.Rule(rule.truth, rule.allowed + slack) for rule in rules]
    return all(tolerance.error(*pair) <= 1 for pair in zip(results, rules, strict=True))


@exact(lambda op: not op.orders)
def test_every_setting_at_its_ends(b, op, dtype):
    base = make(op, (3, 5), dtype, **last(op, "schedule"))
    before = run(b, op, base, dtype)
    for name in (set(op.takes) & set(SETTINGS)) - set(registry.arrays(base)):
        for value in SETTINGS[name][-1 if b.slow else 0 :]:
            assert agrees(b, op, base | {name: value}, dtype), (name, value)
    assert all(same(*pair) for pair in zip(run(b, op, base, dtype), before)), "what was called before leaves a trace"


@on_each(lambda b: [(named(name),) for name in WALKS], ["op"])
def test_rows_of_about_the_length_of_a_program(b, op):
    for n in LENGTHS:
        assert agrees(b, op, make(op, (4, n), **last(op))), n


THIN = (1, 7), (7, 1), (3, 1, 5)
SIZES = {"float32": (1e-42, 1e-25, 1e15, 1e18), "float64": (1e-321, 1e-150, 1e100, 1e150)}  # no square overflows
ARRAYS = [op.name for op in registry.OPS if op.data and not op.shapes and op.name != "optim.clip_by_global_norm"]


@exact(lambda op: op.name in ARRAYS)
def test_tiny_and_huge_examples_of_as_many_elements_an_axis(b, op, dtype):
    """Nothing is flushed, floored or squared too early, and an example has its own time. Where numbers lie evenly, next
    to 0, some steps are allowed: few in a short schedule, since none of its coefficients is large."""
    options = last(op) | ({"schedule": "short"} if "schedule" in op.options else {})
    base, data = make(op, (4, 4, 4, 4), dtype, **options), {}
    few = [1e-15, *SIZES[dtype][1:]] if "v" in base else SIZES[dtype]  # what Adam makes of so small a rate is rounding
    for sizes in [few] if b.slow else [few, *([size] * 4 for size in few)]:
        for name, array in registry.arrays(base).items():
            power = 2 if name == "v" else 0 if name in ("logvar", "x") and "vae" in op.name else 1
            data[name] = (array * np.reshape(sizes, (4, 1, 1, 1)) ** power).astype(dtype)
        assert agrees(b, op, base | data, dtype, 4 * tolerance.SMALLEST[dtype]), sizes


@exact(lambda op: op.name in ARRAYS)
def test_thin_arrays(b, op, dtype):
    for shape in THIN[:0] if b.slow and op.name not in WALKS else THIN:
        assert agrees(b, op, make(op, shape, dtype, **last(op)), dtype), shape


@exact(lambda op: op.name in ARRAYS)
def test_infinite_numbers(b, op, dtype):
    """Each stays what it is, alone. Where the two slopes of Heun make NaN of it, the kernels' one sum need not."""
    base = make(op, (6, 7), dtype, **last(op))
    for example, (name, array) in enumerate(registry.arrays(base).items()):
        if (name, op.name) != ("x", "vae.bernoulli_nll_grad"):  # which is a probability
            array[example, 2], array[example, 5] = np.inf, -np.inf
    if op.name == "fused.heun_step":
        (out,) = run(b, op, base, dtype)
        assert np.array_equal(np.argwhere(~np.isfinite(out)), [[i, j] for i in range(3) for j in (2, 5)])
    else:
        assert agrees(b, op, base, dtype)


@exact(lambda op: "s" in op.takes and "abar" in op.takes)
def test_one_time_meets_one_for_each_example(b, op, dtype):
    """Whatever type of int either is."""
    base = make(op, (4, 4), dtype, **last(op, "schedule"))
    one, many = {"t": 90, "s": 40, "u": 100}, {"t": [90, 70, 80, 60], "s": [40, 0, 20, 1], "u": [100, 99, 91, 120]}
    for kind in (np.int8, np.uint64) if b.slow else (np.int8, np.uint8, np.int32, np.uint64):
        for each in {*one} & {*base}:
            times = {n: np.array(many[n], kind) if n == each else kind(t) for n, t in one.items() if n in base}
            assert agrees(b, op, base | times, dtype), (kind, each)


@on_each(lambda b: [(d,) for d in registry.dtypes(named("optim.adam_step"), b.name)], ["dtype"])
def test_adam_squares_no_gradient_alone(b, dtype):
    """g^2 is no number here, and (1 - beta2) g^2 is one."""
    op = named("optim.adam_step")
    arguments = make(op, (3, 5), dtype, **last(op))
    size = 2.0 * tolerance.LARGEST[dtype] ** 0.5
    big = {"g": np.sign(arguments["g"]) * size, "m": arguments["m"] * size, "v": 0 * arguments["v"] + size}
    assert agrees(b, op, arguments | {n: a.astype(dtype) for n, a in big.items()}, dtype)


@on_each(lambda b: [(d,) for d in registry.dtypes(named("optim.clip_by_global_norm"), b.name)], ["dtype"])
def test_norms_of_tiny_huge_and_infinite_gradients(b, dtype):
    clip, op = b.modules.optim.clip_by_global_norm, named("optim.clip_by_global_norm")
    for size in (1e-30, 1e30):  # whose squares are no float32
        grads = [np.full((2, 3), size, dtype), np.full(5, -size, dtype)]
        for max_norm in (size / 10, size, 10 * size):
            assert agrees(b, op, {"grads": grads, "max_norm": max_norm}, dtype)
    for bad, scale in ((np.nan, 1.0), (np.inf, 0.0)):
        grads = [b.send(np.array([3.0, bad], dtype)), b.send(np.array([4.0], dtype))]
        one, other = map(b.receive, clip(grads, 1.0))
        assert one[0] == 3 * scale and other[0] == 4 * scale and np.isnan(one[1]), "NaN is no norm to clip by"
