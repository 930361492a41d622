"""`python -m ref`: the reading order, the source, the trace of every equation and its page."""
import ast
import importlib
import re
import shutil
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from ref import diffusion, examples
from ref.__main__ import main
from ref.examples import base
from ref.reading import catalogue, course, page, text, trace, worked
from tests import ROOT

EQUATIONS = catalogue.equations()
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    """No line of most tests is folded."""
    monkeypatch.setenv("COLUMNS", "200")


def output(capsys, *words, status=0):
    """What `python -m ref` with these words prints, after a check of its exit status: stdout, or stderr where that is
    not 0."""
    assert main(words) == status
    said = capsys.readouterr()
    return said.err if status else said.out


def squeezed(said):
    return re.sub(r"[ \n]+", " ", said)


def parsed(made):
    """The page as a tree, by a parser that forgives nothing."""
    return ElementTree.fromstring(made.removeprefix("<!DOCTYPE html>\n"))


def test_every_public_function_of_the_math_is_an_equation():
    no_math = {"reading", "examples", "__main__.py", "command.py", "shapes.py", "tree.py", "folder.py", "config.py",
               "vocabulary.py"}
    written = {f"{'.'.join(path.relative_to(ROOT).with_suffix('').parts)}.{node.name}"
               for path in (ROOT / "ref").rglob("*.py") if not no_math & {*path.relative_to(ROOT).parts}
               for node in ast.parse(path.read_text("utf-8")).body if isinstance(node,
                                                                          ast.FunctionDef) and node.name[0] != "_"}
    exported = {re.sub(r"^(ref\.(?:layers|samplers|scene|audio))\.\w+", r"\1", name) for name in written}
    assert set(EQUATIONS) == exported and len(written) > 150


@pytest.mark.parametrize("name", EQUATIONS)
def test_every_equation_traces(name):
    """On its worked example, to what it returns untraced; its gradients are near their finite differences; its page is
    well formed."""
    function = EQUATIONS[name]
    run, differences = worked.run(function)
    assert run.name == function.__name__ and run.steps and not isinstance(run.returned, Exception), run.returned
    arguments = dict(run.given)
    if not any(callable(leaf) for _, leaf in trace.leaves("", list(arguments.values()))):
        assert trace.same(function(**arguments), run.returned)
    assert len(differences) >= name.endswith("_backward")
    for row, gradient, difference, _ in differences:
        np.testing.assert_allclose(difference, gradient, rtol=1e-7, atol=1e-8 * max(1, np.abs(gradient).max()),
                                   err_msg=row)
    lines = "\n".join(text.traced(function, run, differences))
    assert str(run.steps[0].line) in lines and ("apart at most" in lines) == bool(differences)
    tree = parsed(page.page(function, run, differences))
    assert len(tree.findall(".//math")) == len(catalogue.formulas(function))


def test_an_argument_without_an_example_is_told():
    def scaled(x0, unheard_of):
        return x0 * unheard_of

    with pytest.raises(LookupError, match=r"\bunheard_of\b"):
        examples.example(scaled)


def test_no_table_has_an_entry_for_what_is_not_there():
    for path in sorted((ROOT / "ref/examples").glob("*.py")):
        if path.stem not in ("__init__", "base"):
            tables = importlib.import_module(f"ref.examples.{path.stem}")
            assert {f"ref.{path.stem}.{name}" for name in getattr(tables, "FUNCTIONS", {})} <= set(EQUATIONS)


def test_q_sample_by_hand(capsys):
    """abar_1 = 0.64: 0.8 x0 + 0.6 eps = (0.8 + 0.3, -1.6 + 0.6, 0.4 - 0.6), whose squares add to 2.25: std = sqrt(0.75
    - 1/900) = 0.8654."""
    words = [word for pair in ("x0=[[1,-2,0.5]]", "eps=[[0.5,1,-1]]", "t=1", "abar=[1,0.64,0.36]")
             for word in ("--set", pair)]
    said = squeezed(output(capsys, "trace", "q_sample", *words))
    assert "abar_t = at(abar, t, x0, \"t\") abar_t 0.64" in said
    assert "* eps -> (1, 3) float64 1.1 -1 -0.2 mean -0.03333 std 0.8654" in said


def test_ddim_step_by_hand(capsys):
    """abar = 0.36 to 0.64: x0_hat = (1 - 0.8 / 2) / 0.6 = 1; sigma = 1/2 sqrt(0.36 / 0.64) sqrt(1 - 0.36 / 0.64) =
    0.375 0.661438 = 0.248039; x_s = 0.8 + sqrt(0.36 - sigma^2) / 2 + 2 sigma = 0.8 + 0.273159 + 0.496078."""
    words = [word for pair in ("xt=[[1]]", "eps_hat=[[0.5]]", "z=[[2]]", "t=2", "s=1", "eta=0.5", "abar=[1,0.64,0.36]")
             for word in ("--set", pair)]
    said = squeezed(output(capsys, "trace", "ddim_step", *words))
    assert re.search(r"(\w+) = x0_from_eps\(xt, eps_hat, t, abar\) \1 \(1, 1\) float64 1 mean 1 std 0", said)
    assert " 0.248 " in said and " 0.5463 " in said
    assert " -> (1, 1) float64 1.569 mean 1.569 std 0" in said
    # the call, inside; what only checks is not gone into
    assert re.search(r"x0_from_eps \d+ xt, eps = same_shape\(xt=xt, eps=eps\) unchanged", said)


def test_eps_loss_backward_by_hand(capsys):
    """2 (eps_hat - eps) / N = (2 (3 - 1) / 2, 2 (0 - 2) / 2), beside the finite difference of the loss."""
    said = squeezed(output(capsys, "trace", "eps_loss_backward", "--set", "eps_hat=[[3,0]]", "--set", "eps=[[1,2]]"))
    assert "deps_hat (1, 2) float64 2 -2 mean 0 std 2" in said
    assert re.search(r"deps_hat 2 -2 difference 2 -2 \d\.\de-\d\d apart at most, in all 2 deps -2 2 difference -2 2 ",
                     said)


def test_a_finite_difference_that_would_leave_the_domain_is_left_out(capsys):
    """bernoulli_nll takes x in [0, 1]: no step to both sides of 0."""
    said = squeezed(output(capsys, "trace", "bernoulli_nll_backward", "--set", "logits=[[2,1]]", "--set", "x=[[0,0.5]]",
                           "--set", "dnll=[1]"))
    assert re.search(r"dx -2 -1 difference nan -1 \S+ apart at most, in 1 of 2 elements", said)


def test_philox_gives_its_published_words(capsys):
    """Counter 0 and key 0, as Random123's known answers have them."""
    assert "-> (1, 4) uint32 0x6627e8d5 0xe169c58d 0xbc57ac4c 0x9b00dbd8" in squeezed(output(capsys, "trace",
                                                                                             "philox4x32"))


def test_what_a_function_refuses_is_shown_up_to_there(capsys):
    assert main(["trace", "q_sample", "--set", "t=5000"]) == 2
    said = capsys.readouterr()
    assert "abar_t = at(abar, t, x0" in said.out and "return" not in said.out
    assert said.err == "error: q_sample raised ValueError: t: expected 0 <= t <= T = 1000, got 5000 to 5000\n"


def test_the_trace_that_ran_before_is_back_after():
    def before(frame, event, value):
        return None

    was = sys.gettrace()
    sys.settrace(before)
    try:
        worked.run(diffusion.q_sample, {"t": 5000})
        after = sys.gettrace()
    finally:
        sys.settrace(was)
    assert after is before


def test_one_setting_moves_what_follows_from_it():
    early, late = (examples.example(diffusion.ddim_step, {"t": t}) for t in (10, 900))
    assert early["s"] == 5 and late["s"] == 450
    np.testing.assert_allclose(late["xt"], diffusion.q_sample(base.digits(), 900, late["eps_hat"] / 0.9, late["abar"]),
                               rtol=1e-12)
    assert np.abs(early["xt"] - base.digits()).mean() < 0.1 < np.abs(late["xt"] - base.digits()).mean()


def test_the_list_names_each_equation_once_after_what_it_needs(capsys):
    said = output(capsys)
    rows = [line.split() for line in said.split("\n") if re.match(r" *\d+  \w+\.", line)]
    names = [row[1] for row in rows]
    assert [f"ref.{name}" for name in names] == list(EQUATIONS) and len(set(names)) == len(names)
    place = {name: (course.place(name)[0], n) for n, name in enumerate(EQUATIONS)}
    assert list(place.values()) == sorted(place.values())
    for name, f in EQUATIONS.items():  # on one page
        assert all(place[needed] < place[name] for needed in catalogue.needs(f)
                   if place[needed][0] == place[name][0]), name
    for row in rows:
        path, line = row[2].split(":")
        assert (ROOT / path).read_text("utf-8").split("\n")[int(line) - 1].startswith(f"def {row[1].split('.')[-1]}(")
    headings = re.findall(r"^(\d+)\. (.+)$", said, flags=re.M)
    assert headings == [(str(page.number), page.title) for page in course.pages()]
    first = [next(n for n, name in enumerate(names) if name.startswith(module))
             for module in ("vae", "gan", "schedules", "diffusion", "samplers", "guidance")]
    assert first == sorted(first)
    assert "[DDIM] eq. 12   after diffusion.x0_from_eps, diffusion.ddim_step_x0" in said
    assert "[DDPM] eq. 4\n       x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) eps\n" in said


@pytest.mark.parametrize("name, cited, formulas", [
    ("diffusion.posterior", "[DDPM] eqs. 6 and 7", 2), ("schedules.alpha_bar", "[DDPM] below eq. 3", 1),
    ("gan.least_squares_generator_loss", "[LSGAN] eq. 2", 1),
    ("diffusion.q_sample_backward", "gradient of q_sample", 1), ("layers.relu", "[ReLU]", 1),
    ("edm.scalings", "[EDM] eq. 7", 5), ("edm.sigma_at", "", 0),
    ("gan.gradient_penalty", "[WGAN-GP] eq. 3", 1), ("fused.mlp_train", "[DDPM] algorithm 1", 2),
])
def test_the_paper_and_the_equations_are_read_from_the_docstring(name, cited, formulas):
    assert catalogue.paper(EQUATIONS[f"ref.{name}"]) == cited
    assert len(catalogue.formulas(EQUATIONS[f"ref.{name}"])) == formulas


def test_show_has_the_source_and_where_else_the_name_lives(capsys):
    said = output(capsys, "show", "ddim_step")
    source = (ROOT / "ref/diffusion.py").read_text("utf-8").split("\n")
    at = source.index("def ddim_step(xt, eps_hat, t, s, z, eta, abar, clip=None):")
    assert f"{at + 1:>4}  {source[at]}\n" in said
    assert "    sigma  = eta sqrt((1 - abar_s) / (1 - abar_t)) sqrt(1 - abar_t / abar_s)\n" in said
    places = re.findall(r"^    (\S+):(\d+)  (\S+)$", said, flags=re.M)
    assert {("kernels/numba_cpu/diffusion.py", "ddim_step"), ("kernels/triton_gpu/diffusion.py", "ddim_step"),
            ("kernels/ops/diffusion.py", "diffusion.ddim_step"),
            ("tests/ref/test_diffusion.py", "test_one_step_by_hand")} <= {(file, what) for file, _, what in places}
    assert all(what in (ROOT / file).read_text("utf-8").split("\n")[int(line) - 1] for file, line, what in places)


def test_a_terminal_gets_colours_and_a_pipe_does_not(capsys, monkeypatch):
    assert "\x1b[" not in output(capsys, "show", "q_sample")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert "\x1b[" in output(capsys, "show", "q_sample")


@pytest.mark.parametrize("words, told", [
    (["show", "interpolate"], "interpolate is in 2 modules: gan.interpolate, flow.interpolate. Say which"),
    (["trace", "ddim_stp"], "no equation of ref is called ddim_stp; close to it: diffusion.ddim_step"),
    (["show", "xyzzy"], "no equation of ref is called xyzzy; `python -m ref` lists them"),
    (["show", "diffusion.guide"], "no equation of ref is called diffusion.guide; close to it: guidance.guide"),
    (["trace", "q_sample", "--set", "q=1"], "--set q=1: expected NAME=VALUE with a name out of x0, t, eps, abar"),
    (["trace", "q_sample", "--set", "t"], "--set t: expected NAME=VALUE"),
    (["trace", "q_sample", "--set", "t=early"], "--set t=early: expected a number, a list or None for t, got 'early'"),
    (["trace", "q_sample", "--set", "x0=[[1],[2,3]]"],
     "--set x0=[[1],[2,3]]: expected a number, a list or None for x0, got '[[1],[2,3]]'"),
    (["trace", "samplers.ddim", "--set", "model=1"], "--set model=1: model is a function, which no text can stand for"),
    (["trace", "q_sample", "--set", "t=1", "--set", "t=2"], "--set t=2: expected t once"),
    *[(["trace", "q_sample", "--set", f"{n}={x}"], f"--set {n}={x}: expected a number, a list or None for {n}")
      for n, x in {"t": "True", "x0": "1j", "eps": "{}", "abar": "['a']"}.items()],
    *[(["trace", name, "--set", f"{n}=0"], f"--set {n}=0: expected values that fit")
      for name, n in {"mlp_sample": "xT", "edm.heun_step": "sigma"}.items()],
    (["trace", "q_sample", "--set", "t=0.5"], "q_sample raised TypeError: t: expected ints"),
    (["trace", "q_sample", "--html", "nowhere/page.html"], "cannot write nowhere/page.html: there is no folder"),
    (["trace", "q_sample", "--html", f"{__file__}/page.html"], f"--html: cannot write {__file__}/page.html: "),
])
def test_what_cannot_be_done_is_told(capsys, words, told):
    assert told in output(capsys, *words, status=2)


def test_a_reader_that_has_seen_enough_is_no_error():
    command = subprocess.Popen([sys.executable, "-m", "ref"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    command.stdout.close()  # before anything was written
    assert command.stderr.read() == b"" and command.wait(timeout=60) == 0
    command.stderr.close()


def test_names_are_found_with_and_without_their_module():
    for name in ("ddim_step", "diffusion.ddim_step", "ref.diffusion.ddim_step"):
        assert catalogue.find(name) == "ref.diffusion.ddim_step"
    assert catalogue.find("flow.interpolate") == "ref.flow.interpolate"
