"""Arrays that show what rounding may change: NumPy code runs on them as usual, and each result is moved by a few units
in the last place.

What cannot be rounded is not moved: a value of few digits, and an operation whose operands and result have few. So half
of 5.0 is 2.5 in every order of the arithmetic, and what rounds it up where the truth rounds to even is wrong; a value
within a few units of a boundary may fall on either side. Sums are moved by the sizes of their terms. Which of equal
elements argsort and argmax name is left to chance.
"""
import contextlib
import functools
import math

import numpy as np

from kernels import tolerance

ULPS = 2  # by which each value is moved
POOL = np.random.default_rng(0).uniform(-1, 1, 1 << 14)
POOL = (POOL + np.copysign(1, POOL)) / 2  # none near 0
TWICE = np.concatenate([POOL, POOL])  # of which a part begins anywhere
ARITHMETIC = {np.add, np.subtract, np.multiply, np.divide}  # the result alone is rounded; elsewhere the operands, too
EXACT = {
    np.maximum, np.minimum, np.fmax, np.fmin, np.absolute, np.fabs, np.negative, np.positive, np.conjugate, np.sign,
    np.copysign, np.rint, np.floor, np.ceil, np.trunc, np.fmod, np.heaviside, np.ldexp, np.nextafter, np.spacing,
}  # fmt: skip
SUMS = {np.dot, np.vdot, np.inner, np.einsum, np.tensordot, np.convolve, np.correlate, np.kron, np.matmul, np.vecdot}
OPAQUE = {np.interp, np.cov, np.corrcoef, np.histogram, np.histogram2d, np.histogramdd, np.i0}  # they drop the class
COUNTED = ("arange", "linspace")
ASKS = {np.isnan, np.isfinite, np.fmax, np.fmin}  # who calls one of these says what becomes of NaN


@contextlib.contextmanager
def kept(noise=None):
    """Within it NumPy's functions that make a plain array of any other keep the class of `Moved`, and numbers that are
    counted belong to the run: what the truth makes of them alone may be rounded in the working dtype. noise: `Noise`,
    or None."""
    names = {"asarray": np.asanyarray, "ascontiguousarray": functools.partial(np.asanyarray, order="C"),
             "array": functools.partial(np.array, subok=True)}  # fmt: skip
    before = {name: getattr(np, name) for name in (*names, *COUNTED)}
    try:
        for name, function in names.items():
            setattr(np, name, _of_moved(before[name], function))
        for name in COUNTED if noise else ():
            setattr(np, name, lambda *given, f=before[name], **options: noise.array(f(*given, **options), True))
        yield
    finally:
        for name, function in before.items():
            setattr(np, name, function)


def _of_moved(plain, keeping):
    """plain, and of a `Moved` keeping. plain, keeping: functions of an array."""
    def chosen(*given, **options):
        return (keeping if given and isinstance(given[0], Moved) else plain)(*given, **options)

    return chosen


class Noise:
    """One run: how far values are moved, by which numbers, and what was seen of the code.

    dtype: name of the working dtype. seed: of the numbers. times: moved so many times as far. plain: whether every
    number among the arguments is a power of two, so that no function of NumPy rounds within. exact: whether operations
    that need not round are left alone; another order may round where this one does not. Seen: asked, whether the code
    asked for NaN; ordered, whether it put elements in order; calls, how many operations it called; elements, of how
    many elements in all.
    """

    def __init__(self, dtype, seed, plain=False, times=1, exact=True):
        self.exact = exact
        digits = 1 - int(np.log2(tolerance.EPS[dtype]))
        self.by, self.plain, self.at = times * ULPS * tolerance.EPS[dtype], plain, seed
        self.asked, self.ordered, self.calls, self.elements = False, False, 0, 0
        self.long = np.int64(2 ** (53 - digits // 2) - 1)  # bits of a float64 with more than half of the digits

    def short(self, x):
        """Where the elements of x have few digits. x: array of any kind. Returns a mask."""
        if x.dtype.kind == "c":
            return self.short(x.real) & self.short(x.imag)
        return (x.astype(np.float64).view(np.int64) & self.long) == 0 if x.dtype.kind == "f" else np.ones(x.shape, bool)

    def given(self, x):
        """An input of the run: moved where it has more than few digits. x: float array."""
        keep = self.short(x)
        return self.array(self.moved(x, keep), bool(keep.all()))

    def moved(self, x, keep=None, size=None):
        """x with each element moved. x: float or complex array. keep: None, or a mask of elements that stay. size: what
        is rounded, |x| without it."""
        shift = self._drawn(x.size).reshape(x.shape)
        if x.dtype.kind == "c":
            shift = shift + 1j * self._drawn(x.size).reshape(x.shape)
        with np.errstate(all="ignore"):
            there = x + shift * (self.by * (np.abs(x) if size is None else size))
        if keep is None and np.isfinite(there).all():
            return there
        return np.where(~np.isfinite(there) if keep is None else keep | ~np.isfinite(there), x, there)

    def array(self, x, few=False):
        """x as an array that is moved by whatever it passes through, if it is of floats. x: array or number. few:
        whether all of its elements have few digits."""
        if not isinstance(x, (np.ndarray, np.inexact)) or x.dtype.kind not in "fciu":
            return x
        array = np.asarray(x).view(Moved)
        array.noise, array.few = self, (few or x.dtype.kind in "iu") and self.exact
        return array

    def _drawn(self, size):
        self.at = (self.at * 1103515245 + 12345) % (1 << 31)
        first = (self.at >> 8) % POOL.size
        part = TWICE[first : first + min(size, POOL.size)]
        return part if part.size == size else np.resize(part, size)


def bare(x):
    """x without the class. x: any; a tuple or list by its parts."""
    if type(x) in (tuple, list):
        return type(x)(map(bare, x))
    return x.view(np.ndarray) if isinstance(x, Moved) else x


class Moved(np.ndarray):
    """An array of one run. What is computed from it is of the same run."""

    noise, few = None, False

    def __array_finalize__(self, of):
        self.noise, self.few = getattr(of, "noise", None), getattr(of, "few", False)

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        noise = next(x.noise for x in (*inputs, *(out or ())) if isinstance(x, Moved))
        noise.asked |= ufunc in ASKS
        own = [x.size for x in inputs if isinstance(x, Moved)]  # an operand counts as an operation
        noise.calls += 1 + len(own)
        noise.elements += (most := max([*own, *(np.size(x) for x in inputs if not isinstance(x, Moved))]))
        options = {name: bare(x) for name, x in options.items()}
        if out is not None and "where" in options:  # the elements that are left as they are
            options["out"] = tuple(np.array(bare(x)) for x in out)
        call, few = getattr(ufunc, method), _few(noise, inputs)
        if ufunc.__name__.endswith("(vectorized)"):  # of numpy.vectorize or frompyfunc: a function that may round
            return self._vectorized(noise, ufunc, method, inputs, options)
        result = call(*map(bare, inputs), **options)
        noise.elements += max(np.size(result[0] if isinstance(result, tuple) else result) - most, 0)
        if method == "at" or isinstance(result, tuple) or result.dtype.kind not in "fc":
            few = False
        elif ufunc in SUMS or (ufunc is np.add and method in ("reduce", "accumulate", "reduceat")):
            result, few = _sum(noise, call, inputs, options, result, few)
        elif ufunc not in EXACT:
            result, few = _rounded(noise, ufunc, call, inputs, options, result, few)
        if out is None:
            return tuple(map(noise.array, result)) if isinstance(result, tuple) else noise.array(result, few)
        for target, part in zip(out, result if isinstance(result, tuple) else [result]):
            bare(target)[...] = part
            if isinstance(target, Moved):
                target.few = few
        return out[0] if len(out) == 1 else out

    @staticmethod
    def _vectorized(noise, ufunc, method, inputs, options):
        """What a Python function makes of each element, its operands and its results moved."""
        def floats(x):
            return np.asarray(bare(x), np.float64) if isinstance(x, Moved) else x

        result = getattr(ufunc, method)(*(noise.moved(floats(x)) if isinstance(x, Moved) else x for x in inputs),
                                        **options)  # fmt: skip
        try:
            return noise.array(noise.moved(np.asarray(result, np.float64)))
        except (TypeError, ValueError):  # several results, or no numbers
            return result

    def __array_function__(self, function, types, given, options):
        noise = self.noise
        noise.calls += 1
        noise.elements += max((x.size for x in _floats(given)), default=0)
        if function in SUMS:
            given, bared = bare(given), {name: bare(x) for name, x in options.items()}
            noise.elements += np.size(result := function(*given, **bared))
            return noise.array(_sum(noise, function, given, bared, result, False)[0])
        if function in OPAQUE or function.__module__.startswith(("numpy.linalg", "numpy.fft")):
            noise.elements += sum(x.size * x.shape[-1] for x in _floats(given) if x.ndim > 1)  # a product of matrices
            def move(x):
                keep = noise.short(x) if noise.plain and noise.exact and isinstance(x, Moved) else None
                return noise.moved(bare(x), keep) if isinstance(x, Moved) else x

            result = function(*map(move, given), **{name: move(x) for name, x in options.items()})
        else:
            result = super().__array_function__(function, types, given, options)
        return type(result)(map(self._same_run, result)) if type(result) in (tuple, list) else self._same_run(result)

    def _same_run(self, x):
        return self.noise.array(x, self.few and bool(np.all(self.noise.short(np.asarray(bare(x))))))

    def __getitem__(self, key):
        return self.noise.array(super().__getitem__(bare(key)), self.few)

    def __setitem__(self, key, value):
        self.few = False
        super().__setitem__(bare(key), bare(value))

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def dot(self, other, out=None):
        """As `numpy.dot`. other: array. out: array or None."""
        return np.dot(self, other, out=out)


def _by_chance(name):
    """A method that orders elements, for which equal ones are in any order. name: of the method."""
    def method(self, *given, **options):
        self.noise.ordered, x = True, bare(self)
        size = np.abs(x) + np.finfo(np.float64).tiny
        return getattr(self.noise.moved(x, size=size), name)(*map(bare, given), **options)

    return method


def _in_order(name):
    """A method that orders the elements themselves. name: of the method."""
    def method(self, *given, **options):
        self.noise.ordered = True
        return getattr(np.ndarray, name)(self, *given, **options)

    return method


for _name in ("argsort", "argmax", "argmin", "argpartition"):
    setattr(Moved, _name, _by_chance(_name))
for _name in ("sort", "partition"):
    setattr(Moved, _name, _in_order(_name))


def _floats(inputs):
    return [x for x in inputs if isinstance(x, np.ndarray) and x.dtype.kind in "fc"]


def _few(noise, inputs):
    """Whether all the operands have few digits."""
    return all(x.few if isinstance(x, Moved) else bool(np.all(noise.short(np.asarray(x)))) for x in inputs)


def _sum(noise, call, inputs, options, result, few):
    """The result of a sum of products, moved by the sizes of its terms, and whether it has few digits."""
    size = call(*(np.abs(bare(x)) if isinstance(x, np.ndarray) else x for x in inputs), **options)
    result, size = np.asarray(result), np.asarray(size)
    terms = math.prod(x.size for x in _floats(inputs)) / max(result.size, 1)
    size = size * max(1, terms ** (0.5 / max(len(_floats(inputs)), 1)) / 4)  # terms that are added one by one
    keep = noise.short(result) & noise.short(size) if few else None
    return noise.moved(result, keep, size), few and bool(keep.all())


def _rounded(noise, ufunc, call, inputs, options, result, few):
    """The result of a function of elements, moved; of one that is no arithmetic, for moved operands. And whether it has
    few digits."""
    result = np.asarray(result)
    keep = noise.short(result) if few else None
    if few and ufunc is np.divide:  # else a product with the reciprocal would be rounded
        keep = keep & (np.abs(np.frexp(np.asarray(bare(inputs[-1]), np.float64))[0]) == 0.5)
    if ufunc not in ARITHMETIC:
        near = call(*(noise.moved(bare(x)) if isinstance(x, Moved) else x for x in inputs), **options)
        lost = np.isnan(near)
        lost = lost & ~np.isnan(result) if lost.any() else None
        stay = lost if keep is None else keep if lost is None else keep | lost
        result = near if stay is None else np.where(stay, result, near)
    return noise.moved(result, keep), few and bool(keep.all())
