"""Is a peer right? Loosely, for it is compared in speed and not in accuracy; where it draws its own noise, by its
moments."""
import inspect
from functools import cached_property

import numpy as np

from kernels import tolerance
from kernels.registry import outputs
from ref import philox

LOOSE = 64  # a peer may err this many times more than a kernel
ENOUGH = 1_000_000  # of a larger output, evenly spaced elements up to this number are compared
LOSS = 0.25  # a loss of training on other examples and noise may differ by this part


def draws(op, arguments):
    """Whether the operation makes noise with these arguments. op: record. arguments: dict."""
    eta = inspect.signature(op.truth).parameters.get("eta")
    return "seed" in arguments and arguments.get("eta", eta.default if eta else 1) != 0


class Truth:
    """The truth of one call, to hold peers against. op: record. arguments: of the call, on the host."""

    def __init__(self, op, arguments, shape, expected, loose=LOOSE):
        self.op, self.arguments, self.shape, self.expected, self.loose = op, arguments, tuple(shape), expected, loose

    def check(self, result):
        """Raises ValueError that says how a peer's result is wrong. result: what it returned, in its own arrays."""
        found = [self._home(r) for r in outputs(result)]
        trained = "steps" in self.arguments
        if trained and len(found) < len(self.expected):  # the last loss, of its own examples, times and noise
            loss, want = float(np.ravel(found[-1])[-1]), float(self.expected[-1].truth[-1])
            if not abs(loss - want) <= LOSS * want:
                raise ValueError(f"its last loss is {loss:.4g}, expected {want:.4g} within {LOSS:.0%}")
        elif draws(self.op, self.arguments) and not trained:
            self._check_noise(found)
        else:
            for out, rule in zip(found, self.expected, strict=True):
                units = tolerance.error(*_thinned(out, rule))
                if not units <= self.loose:
                    raise ValueError(f"its error is {units:.3g} times the error allowed to a kernel")

    def _home(self, result):
        """A NumPy array of the data's shape, or a float."""
        half = str(getattr(result, "dtype", "")) == "torch.bfloat16"  # which NumPy does not know
        wide = result.float() if half else result
        array = wide.cpu().numpy() if hasattr(wide, "cpu") else np.asarray(wide)
        if array.ndim == 0:
            return float(array)
        return array.reshape(self.shape) if array.size == np.prod(self.shape) else array

    def _part(self, x):
        """The first examples of x as (rows, n) float64: enough of them, or all where a result depends on all. The first
        of all may be one without noise, so two at least."""
        n = int(np.prod(self.shape[1:]))
        rows = self.shape[0] if self.op.sums else max(min(self.shape[0], ENOUGH // n), 2)
        return np.asarray(x)[:rows].reshape(-1, n).astype(np.float64)

    @cached_property
    def _noise(self):
        """The truth's last output, its noise, and the standard deviation of that by row, from two seeds."""
        shape = (len(self._part(self.expected[-1].truth)), *self.shape[1:])
        first = {k: v[: shape[0]] for k, v in self.arguments.items() if k != "abar" and isinstance(v, np.ndarray)}
        first = self.arguments | first | ({"shape": shape} if "shape" in self.arguments else {})
        seeds = [first["seed"], (first["seed"] + 1) % 2**64]
        z, other_z = (self._part(philox.normal(seed, shape, first.get("stream", 0))) for seed in seeds)
        truth, other = (self._part(outputs(self.op.truth(**first | {"seed": seed}))[-1]) for seed in seeds)
        sigma = np.sum((other - truth) * (other_z - z), 1, keepdims=True) / np.sum((other_z - z) ** 2, 1, keepdims=True)
        return truth, z, sigma

    def _check_noise(self, found):
        """What is linear in its noise is solved for it: z has the moments of a standard normal and no correlation with
        the data."""
        truth, z, sigma = self._noise
        rows = np.abs(sigma[:, 0]) > 1e-3 * np.max(np.abs(sigma))
        own = (z + (self._part(found[-1]) - truth) / np.where(sigma == 0, 1, sigma))[rows]
        # moments, and six standard deviations of their estimates
        moments = {"mean": (0, 1), "variance": (1, 2), "skewness": (0, 15), "kurtosis": (3, 96)}
        bounds = {name: (np.mean(own**n), *rest) for n, (name, rest) in enumerate(moments.items(), 1)}
        for name, a in self.arguments.items():
            if isinstance(a, np.ndarray) and a.shape == self.shape:
                a = self._part(a)[rows]
                bounds[f"correlation with {name}"] = np.mean(own * a) / np.sqrt(np.mean(a**2)), 0, 1
        for name, (value, wanted, variance) in bounds.items():
            bound = 6 * np.sqrt(variance / own.size) + 1e-4
            if not abs(value - wanted) <= bound:
                raise ValueError(f"the {name} of its noise is {value:.4g}, expected {wanted} within {bound:.2g}")
        # a loss is the same multiple of the squares of its gradient as the truth's
        if isinstance(found[0], float):
            squares = [np.mean(np.square(x, dtype=np.float64)) for x in (found[-1], self.expected[-1].truth)]
            want = float(self.expected[0].truth) * squares[0] / squares[1]
            if not abs(found[0] - want) <= 1e-3 * want:
                raise ValueError(f"its loss {found[0]:.6g} is not the mean of the squares in its gradient, {want:.6g}")


def _thinned(out, rule):
    out = np.asarray(out)
    step = max(out.size // ENOUGH, 1)
    if step == 1 or out.shape != rule.truth.shape:
        return out, rule
    return out.reshape(-1)[::step], tolerance.Rule(rule.truth.reshape(-1)[::step], rule.allowed.reshape(-1)[::step])
