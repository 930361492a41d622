"""The operations of sound. `audio.wavenet_generate` has its truth in `ref.nets.wavenet`.

A code is right or wrong, and all later ones depend on it: no rule of rounding fits. So what rounding would decide is
not drawn, and the rule is equality. The codes are chosen first; the truth, in float64 and at all places at once, gives
the probabilities that each then has. Each u lies in its code's interval of the cumulated probabilities, MARGIN from one
end of it, the lower or the upper. A kernel whose cumulated probabilities err by less than MARGIN returns these codes; a
larger error at any place goes past that end in one case of two, and the code is another.
"""
import numpy as np

from kernels.ops.record import Op, mapped
from ref import philox
from ref.nets import wavenet

MARGIN = {"float32": 1e-4, "float64": 1e-10}  # of 30 layers NumPy in float32 errs by 1e-6
NETS = {  # classes, channels, skip, layers, cycle
    "one layer": (5, 3, 2, 1, 1), "all of one size": (3, 3, 3, 3, 3), "dilations to 8": (11, 6, 9, 5, 4),
    "two cycles": (7, 4, 5, 6, 3), "256 classes": (256, 32, 64, 2, 2),
}  # fmt: skip
LARGE = 256, 32, 64, 30, 10  # of [WaveNet]
SHAPES = (1, 1), (3, 3), (2, 9), (1, 20), (2, 12)
MOST = 3, 48  # a larger shape is taken modulo it, since the truth takes a millisecond for each place


def parameters(classes, channels, skip, layers, dtype):
    """Numbers everywhere, so that nothing can be left out, whose logits are about as large at any depth. classes,
    channels, skip, layers: as in `wavenet_init`. dtype: name."""
    streams = iter(range(10**6))

    def some(path, a):
        fan_in = a[0].size * (layers if "skip" in path else 1)
        size = 0.3 if a.ndim == 1 else 1.0 if "embed" in path else fan_in**-0.5
        return (size * philox.normal(11, a.shape, next(streams))).astype(dtype)

    return mapped(some, wavenet.wavenet_init(0, classes, channels, skip, layers))


def intervals(params, codes, cycle):
    """The probability of every code at each place, (B, classes, N), and where the intervals of the codes begin and end,
    (B, N) each. params, codes, cycle: as in `wavenet`."""
    logits, _ = wavenet.wavenet(params, codes, cycle)
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    high, own = (np.take_along_axis(a, codes[:, None], axis=1)[:, 0] for a in (np.cumsum(p, axis=1), p))
    return p, high - own, high


def sound(rng, shape, dtype, values, net="256 classes", most=MOST):
    """An input maker. shape: (B, N), taken modulo `most`; of another rank the last two axes. net: of NETS, or sizes
    like there. rng, dtype: as in `kernels.ops.inputs.usual`. values: unused."""
    shape = tuple(1 + (n - 1) % m for n, m in zip((1, *shape)[-2:], most))
    *sizes, cycle = NETS.get(net, net)
    params, margin = parameters(*sizes, dtype), MARGIN[dtype]
    wide = mapped(lambda _, a: a.astype(np.float64), params)
    codes = rng.integers(sizes[0], size=shape)
    p, low, high = intervals(wide, codes, cycle)
    while np.any(narrow := high - low < 4 * margin):  # the likeliest code at the first such place of an example
        (rows,) = np.nonzero(narrow.any(axis=1))
        first = narrow[rows].argmax(axis=1)
        codes[rows, first] = p[rows, :, first].argmax(axis=1)
        p, low, high = intervals(wide, codes, cycle)
    u = np.where(rng.integers(2, size=shape), low + margin, high - margin)
    return {"params": params, "u": u.astype(dtype), "cycle": cycle}


def flops(params, u, cycle):
    """Of a call: a multiply-add for each weight and place. params, u, cycle: as in `wavenet_generate`."""
    sizes = []
    mapped(lambda path, a: sizes.append(a.size * (a.ndim == 3)), params)
    return 2 * u.size * sum(sizes)


OPS = [
    Op(
        wavenet.wavenet_generate, make=sound, scale=lambda u, **_: 0 * u, options={"net": tuple(NETS)}, writes=0,
        settings=("cycle",), exact=("params", "u"), examples=("u",), empty=False, values=("normal",), shapes=SHAPES,
        large=((3, 48),), cases=16, flops=flops,
        bench={"30 layers of 32": {"shape": (1, 500), "net": LARGE, "most": (1, 500)}},
    ),
]  # fmt: skip
