"""Options of the check command that change what is asked of a function: --strict, --inplace, --large."""
import functools
import sys

import numpy as np
import pytest

from kernels import __main__ as command
from kernels import registry
from kernels.check import assert_right, check, draw, large
from kernels.check.adapter import Usage, find
from kernels.numba_cpu import optim
from tests.check.wrong import Q

MINE = '''
import numpy as np
from kernels.numba_cpu import optim
from kernels.numba_cpu.diffusion import q_sample
def lerp(avg, p, decay):
    return avg + avg.dtype.type(1 - decay) * (p - avg)
def average(avg, p, decay):
    optim.ema_step(avg, p, decay, out=avg)
def adam(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay):
    optim.adam_step(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay, out=(p, m, v))
def adam_of_g(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay):
    adam(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay)
    g[...] = 0
def adam_of_two(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay):
    p[...], m[...], _ = optim.adam_step(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay)
def new(avg, p, decay):
    return optim.ema_step(avg, p, decay)
def over_p(avg, p, decay):
    p[...] = optim.ema_step(avg, p, decay)
'''


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine_too.py").write_text(MINE, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine_too", raising=False)


def run(op, function, *words):
    own = "" if function.startswith("tests") else "mine_too:"
    return command.main(["check", op, "--against", f"{own}{function}", *words, "--examples", "40", "--seconds", "0"])


def test_less_accurate_is_exit_status_0_and_strictly_1(mine, capsys):
    assert run("ema_step", "lerp") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert out.startswith("RIGHT, LESS ACCURATE: lerp") and "would mend it decay avg + (1 - decay) p in place of" in out
    assert run("ema_step", "lerp", "--strict") == 1
    assert capsys.readouterr().out.startswith("RIGHT, LESS ACCURATE: lerp")
    assert run("ema_step", "new", "--strict") == 0
    with pytest.raises(AssertionError, match="LESS ACCURATE"):
        assert_right(lambda avg, p, decay: avg + avg.dtype.type(1 - decay) * (p - avg), "ema_step", strict=True)


@pytest.mark.parametrize("op, function, words, kind", [
    ("adam_step", "adam", ["--inplace"], ""), ("adam_step", "adam", ["--inplace", "p,m,v"], ""),
    ("ema_step", "average", ["--inplace"], ""), ("ema_step", "over_p", ["--inplace", "p"], ""),
    ("adam_step", "adam_of_g", ["--inplace"], "WRITES ITS INPUTS"), ("adam_step", "adam", [], "WRITES ITS INPUTS"),
    ("adam_step", "adam_of_two", ["--inplace"], "WRONG VALUES"), ("ema_step", "new", ["--inplace"], "WRONG VALUES"),
    ("adam_step", "adam", ["--inplace", "m,p,v"], "WRONG VALUES"), ("ema_step", "over_p", [], "WRITES ITS INPUTS"),
    ("adam_step", "adam", ["--inplace", "p,m"], "W"),
])  # fmt: skip
def test_a_function_may_write_over_the_arguments_that_are_named_and_no_others(mine, capsys, op, function, words, kind):
    assert run(op, function, *words) == bool(kind)
    assert capsys.readouterr().out.startswith(kind or "RIGHT")


@pytest.mark.parametrize("op, names", [("adam_step", ("lr",)), ("adam_step", ("nosuch",)), ("q_sample", True)])
def test_inplace_names_arrays_of_the_operation(op, names):
    function = optim.adam_step if op == "adam_step" else Q
    with pytest.raises(Usage, match="--inplace"):
        check(function, op, inplace=names)


def test_large_tries_arrays_that_are_not_tried_without_it(monkeypatch, capsys):
    """2^31 elements stand for 2^20 here."""
    monkeypatch.setattr(large, "CACHE", 1 << 20)
    monkeypatch.setattr(draw, "SECONDS", 0.5)  # of looking for a smaller case
    monkeypatch.setattr(large, "HUGE", 1 << 20)
    for words, status in (([], 0), (["--large"], 1)):
        assert run("q_sample", "tests.check.test_options:past_a_million", "--dtype", "float32", *words) == status
        assert capsys.readouterr().out.startswith("WRONG VALUES" if status else "RIGHT")


def past_a_million(x0, t, eps, abar):
    out = np.array(Q(x0, t, eps, abar))
    out.reshape(-1)[1 << 20 :] = 0
    return out


@pytest.mark.parametrize("least, how", [(1 << 16, np.ravel), (1 << 16, np.asarray), (1 << 18, np.ravel)])
def test_a_fault_in_large_arrays_is_found_without_options(monkeypatch, least, how):
    """After 2^16 elements; after 2^16 rows; beyond a cache, for which a small one stands."""
    monkeypatch.setattr(large, "CACHE", 1 << 21)
    monkeypatch.setattr(draw, "SECONDS", 0.5)  # of looking for a smaller case

    def tail(x0, t, eps, abar):
        out = np.array(Q(x0, t, eps, abar))
        how(out)[least:] = 0
        return out

    verdict = check(tail, "q_sample", dtype="float32", examples=5)
    assert verdict.kind == "wrong values", str(verdict)


@pytest.mark.parametrize("name, least, size", [
    ("eps_loss", 1 << 20, lambda a: a["eps"].size), ("q_sample_noise", 1 << 20, lambda a: a["x0"].size),
    ("normal", 1 << 17, lambda a: np.prod(a["shape"])),
])  # fmt: skip
def test_so_is_one_where_an_element_depends_on_its_place_or_on_all_others(monkeypatch, name, least, size):
    monkeypatch.setattr(draw, "SECONDS", 0.5)
    kernel = registry.kernel(find(name), "numpy_cpu")

    @functools.wraps(kernel)
    def doubled(**arguments):
        out = kernel(**arguments)
        return 2 * out if size(arguments) > least else out

    verdict = check(doubled, name, dtype="float32", examples=5)
    assert verdict.kind == "wrong values", str(verdict)
