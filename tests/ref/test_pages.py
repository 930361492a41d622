"""`python -m ref trace NAME --html`: typesetting, pictures and the page."""
import base64
import html
import re
import struct
import subprocess
import sys
import zlib
from xml.etree import ElementTree

import numpy as np
import pytest

from ref import examples
from ref.__main__ import main
from ref.examples import nets
from ref.nets import joint_dit, text
from ref.reading import attended, page, typeset, worked
from tests import ROOT
from tests.ref.test_reading import CHROMIUM, parsed


@pytest.mark.parametrize("line, inside", [
    ("x0_hat", '<msub><mover accent="true"><mi>x</mi><mo>^</mo></mover><mrow><mn>0</mn></mrow></msub>'),
    ("abar_t", '<msub><mover accent="true"><mi>α</mi><mo>‾</mo></mover><mrow><mi>t</mi></mrow></msub>'),
    ("a / b c", '<mfrac><mrow><mi>a</mi></mrow><mrow><mi>b</mi></mrow></mfrac><mspace width="0.2em"/><mi>c</mi>'),
    ("2 (a) / (b + c)", '<mfrac><mrow><mn>2</mn><mspace width="0.2em"/><mrow><mo stretchy="false">(</mo><mi>a</mi><mo '
                        'stretchy="false">)</mo></mrow></mrow>'
                        "<mrow><mi>b</mi><mo>+</mo><mi>c</mi></mrow></mfrac>"),
    ("a / b / c", '<mfrac><mrow><mi>a</mi></mrow><mrow><mrow><mi>b</mi><mspace '
                  'width="0.2em"/><mi>c</mi></mrow></mrow></mfrac>'),
    ("a / sum_j b_j", "<mfrac><mrow><mi>a</mi></mrow><mrow><mrow><munder><mo>∑</mo><mrow><mi>j</mi></mrow></munder>"
                      "<msub><mi>b</mi><mrow><mi>j</mi></mrow></msub></mrow></mrow></mfrac>"),
    ("e^-x", '<msup><mi>e</mi><mrow><mo form="prefix">−</mo><mrow><mi>x</mi></mrow></mrow></msup>'),
    ("sqrt(1 - a)", "<msqrt><mn>1</mn><mo>−</mo><mi>a</mi></msqrt>"),
    ("||g_i||^2", '<msup><mrow><mo stretchy="false">∥</mo><msub><mi>g</mi><mrow><mi>i</mi></mrow></msub><mo '
                  'stretchy="false">∥</mo></mrow>'
                  "<mrow><mrow><mn>2</mn></mrow></mrow></msup>"),
    ("deps = -dx", '<mrow><mi mathvariant="normal">d</mi><mi>ε</mi></mrow><mo>=</mo><mo form="prefix">−</mo><mrow><mi '
                   'mathvariant="normal">d</mi><mi>x</mi></mrow>'),
    ("c1 ^ k0", "<mo>⊕</mo>"), ("x0_from_eps(x)", "<mrow><mi>x0_from_eps</mi>"),
    ("0 where s < 1", "<mtext>&#160;where&#160;</mtext>"), ("s < 1", "<mo>&lt;</mo>"),
])
def test_the_notation_is_typeset(line, inside):
    made = typeset.mathml(line)
    ElementTree.fromstring(made)
    assert inside in made


@pytest.mark.parametrize("line", ["(a", "a)", "sqrt(a", "|a", "a_{b", "a /", "[a)"])
def test_what_does_not_close_is_no_equation(line):
    with pytest.raises(ValueError):
        typeset.mathml(line)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """{name: its page, as the command wrote it}."""
    folder = tmp_path_factory.mktemp("pages")
    for name in ("diffusion.q_sample", "samplers.heun", "gan.gradient_penalty_backward", "nets.mlp.residual"):
        assert main(["trace", name, "--html", str(folder / f"{name}.html")]) == 0
    return {path.stem: path.read_text("utf-8") for path in folder.iterdir()}


def test_a_page_needs_nothing_but_itself(made):
    assert len(made) == 4  # and no half-written file beside them
    for written in made.values():
        tree = parsed(written)
        loads = [value for element in tree.iter() for key, value in element.attrib.items()
                 if key in ("src", "href", "srcset", "data", "poster", "action")]
        assert loads and all(value.startswith("data:") for value in loads)
        assert not re.search(r"https?:|url\(|@import|<script", written)


def test_a_page_has_the_equation_the_code_the_values_and_the_pictures(made):
    tree = parsed(made["diffusion.q_sample"])
    assert "".join(tree.find(".//math").itertext()).replace(" ", "") == "xt=α‾tx0+1−α‾tε"
    code = ["".join(element.itertext()) for element in tree.findall(".//pre")]
    assert any("np.sqrt(abar_t) * x0" in line for line in code)
    assert len(tree.findall(".//img")) == 6  # two digits, as x0, as eps and as what is returned
    assert len(tree.findall(".//polyline")) == 1  # abar
    shade = next(element.get("class") for element in tree.iter("span") if element.text == "return")
    light, _, dark = tree.find(".//style").text.rpartition("@media (prefers-color-scheme: dark)")
    assert f".code .{shade} {{ color: " in light and f".code .{shade} {{ color: " in dark


def test_a_picture_is_its_array():
    """The smallest number black, the largest white; a PNG with its rows, no filter."""
    array = np.linspace(-1, 4, 30).reshape(1, 5, 6)[:, ::-1]
    picture = page.picture(array)
    png = base64.b64decode(re.search(r"base64,([^\"]+)", picture)[1])
    assert png[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">IIBB", png[16:26]) == (6, 5, 8, 0)
    rows = np.frombuffer(zlib.decompress(png[png.index(b"IDAT") + 4:png.index(b"IEND") - 8]), np.uint8).reshape(5, 7)
    assert not rows[:, 0].any() and np.array_equal(rows[:, 1:], np.rint((array[0] + 1) / 5 * 255))
    assert "black -1, white 4" in picture
    assert page.picture(np.zeros((3, 4))) == page.picture(np.full((1, 4, 4), np.nan)) == page.picture(3) == ""


def test_the_words_of_a_prompt_stand_next_to_what_is_read_of_them(capsys, monkeypatch):
    """The weights are the softmax of the queries and keys that the network keeps; another prompt has no words."""
    monkeypatch.setenv("COLUMNS", "80")
    run, _ = worked.run(joint_dit.joint_dit)
    found = attended.tables(run)
    assert [said for said, _, _ in found] == ["attention 1", "attention 2", "mean of the 2"]
    _, cache = joint_dit.joint_dit(**examples.example(joint_dit.joint_dit))
    for (_, columns, rows), block in zip(found, cache["blocks"]):
        assert columns == [*nets.PROMPTS[0].split(), "image"] and [token for token, _ in rows][-1] == "patch 1,1"
        q, k, _ = block["qkv"]
        e = np.exp(q[0] @ k[0].swapaxes(1, 2) * q.shape[3] ** -0.5)
        p = (e / e.sum(axis=2, keepdims=True)).mean(axis=0)
        want = np.column_stack([p[:, :8], p[:, 8:].sum(axis=1)])
        np.testing.assert_allclose([row for _, row in rows], want, rtol=1e-12)
    assert main(["trace", "text_encoder"]) == 0
    said = capsys.readouterr().out.split("\n")
    red = said.index("attention 1") + 3  # which sees itself and the word before it
    assert said[red - 2].split() == nets.PROMPTS[0].split() and said[red].split()[3:] == ["0.00"] * 6
    assert main(["trace", "text_encoder", "--set", "ids=[[1,2,3,4,5,6,7,8]]"]) == 0
    assert "what each token" not in capsys.readouterr().out
    assert attended.html(run).count("<table>") == 3 and "--w: 1.00" in attended.html(worked.run(text.text_encoder)[0])


def test_without_pygments_everything_works_and_says_what_is_missing(tmp_path):
    code = ("import sys; sys.modules['pygments'] = None; from ref.__main__ import main\n"
            "for words in ('', 'show guide', 'trace guide', f'trace guide --html {sys.argv[1]}'): assert "
            "main(words.split()) == 0")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "p.html")], cwd=ROOT, capture_output=True,
                          text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == 'no colours without Pygments: pip install -e ".[study]"\n'
    assert parsed((tmp_path / "p.html").read_text("utf-8")).find(".//math") is not None


def browse(folder, content, *options):
    """What a browser without a network says of a page: its console, and its document after a second. options: its."""
    (folder / "page.html").write_text(content, "utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
               "--host-resolver-rules=MAP * ~NOTFOUND",
               f"--user-data-dir={folder / 'profile'}", "--window-size=1600,1200", "--virtual-time-budget=3000",
               "--dump-dom", *options]
    done = subprocess.run([*command, (folder / "page.html").as_uri()], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stderr.split("\n") if "CONSOLE" in line], done.stdout


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_reads_the_page_wide_and_narrow_without_a_word(made, tmp_path):
    """In frames of 1400 and of 390 pixels nothing sticks out; and both checks see what is wrong with a page that is."""
    def frames(content):
        script = ("onload = () => document.title = [...document.querySelectorAll('iframe')].map("
                  "f => f.clientWidth >= f.contentDocument.documentElement.scrollWidth ? `fits ${f.clientWidth}` : "
                  "'sticks out').join()")
        srcdoc = html.escape(content, quote=True)
        return (f"<!DOCTYPE html><title></title><script>{script}</script>"
                + "".join(f'<iframe srcdoc="{srcdoc}" style="width: {width}px; border: 0"></iframe>'
                          for width in (1400, 390)))

    for name, content in made.items():
        console, document = browse(tmp_path, frames(content))
        assert console == [] and re.search(r"<title>(.*?)</title>", document)[1] == "fits 1400,fits 390", name
    wrong = content.replace("</body>", "<img src='missing.png' style='width: "
                                       "2000px'/><script>console.error('heard')</script></body>")
    console, document = browse(tmp_path, frames(wrong))
    assert any("heard" in line for line in console)
    assert re.search(r"<title>(.*?)</title>", document)[1] == "sticks out,sticks out"
