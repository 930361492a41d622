"""`python -m ref course` and `find`: the site and its links, where each equation stands, where each number is from."""
import html
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from ref import diffusion, schedules
from ref.__main__ import main
from ref.reading import catalogue, course, drawing, page, site, worked
from tests import ROOT
from tests.ref.test_pages import browse
from tests.ref.test_reading import CHROMIUM

PAGES = course.pages()
ABAR = schedules.alpha_bar(schedules.linear_betas())


class Links(HTMLParser):
    """The ids of a page, what it links to, and what it loads."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.loads, self.text = set(), [], [], []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        for key, value in attrs:
            if key == "id":
                self.ids.add(value)
            elif tag == "a" and key == "href":
                self.links.append(value)
            elif key in ("src", "href", "srcset", "data", "poster"):
                self.loads.append(value)

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """{path within the site: its `Links`}, and the folder."""
    out = tmp_path_factory.mktemp("course") / "new"
    assert main(["course", "--out", str(out)]) == 0
    return out, {path.relative_to(out).as_posix(): Links(path) for path in out.rglob("*.html")}


def test_every_link_of_the_site_leads_somewhere(built):
    """To a place of a page of the site, or to a paper; nothing is loaded from elsewhere."""
    out, pages = built
    known, followed = set(filter(None, site.addresses().values())), 0
    for path, page in pages.items():
        for link in page.links:
            if link.startswith("https:"):
                assert link in known, f"{path}: {link}"
                continue
            file, _, place = link.partition("#")
            whole = (out / path).parent.joinpath(file).resolve()
            target = whole.relative_to(out.resolve()).as_posix() if file else path
            assert target in pages and (not place or place in pages[target].ids), f"{path}: {link}"
            followed += 1
        for load in page.loads:
            assert load.startswith("data:") or (out / path).parent.joinpath(load).read_bytes()[:4] == b"\x89PNG"
    assert len(pages) > 16 + len(catalogue.equations()) and followed > 3000
    assert not [path for path in out.rglob(".*")]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_reads_the_pages_wide_and_narrow_without_a_word(built, tmp_path):
    """In frames of 1400 and of 400 pixels, with all that is folded open, nothing sticks out."""
    out, pages = built
    script = ("onload = () => { const all = [...document.querySelectorAll('iframe')];"
              "all.forEach(f => f.contentDocument.querySelectorAll('details').forEach(d => d.open = true));"
              "document.title = all.length + ' shown' + all.filter(f => f.clientWidth < "
              "f.contentDocument.documentElement.scrollWidth).map(f => ' ' + f.src) }")
    shown = [path for path in pages if "/" not in path] + ["equations/ref.nets.unet.unet_backward.html"]
    frames = "".join(f'<iframe src="{(out / path).as_uri()}" style="width: {width}px; border: 0"></iframe>'
                     for path in shown for width in (1400, 400))
    console, document = browse(tmp_path, f"<!DOCTYPE html><title></title><script>{script}</script>{frames}",
                               "--allow-file-access-from-files")
    assert console == [] and re.search(r"<title>(.*?)</title>", document)[1] == f"{2 * len(shown)} shown"


def test_every_equation_is_on_one_page_and_links_to_its_values(built):
    _, pages = built
    for name in catalogue.equations():
        on = [page.file for page in PAGES if name in pages[page.file].ids]
        assert on == [PAGES[course.place(name)[0] - 1].file], name
        assert f"equations/{name}.html" in pages[on[0]].links
    links = pages[PAGES[5].file].links
    for path in ("kernels.numba_cpu.diffusion.py", "kernels.triton_gpu.diffusion.py", "tests.ref.test_diffusion.py"):
        assert any(link.startswith(f"code/{path}.html#L") for link in links), path


def test_a_page_of_a_topic_shows_lines_next_to_values_and_the_tutorial_next_to_ours(built):
    out, pages = built
    said = (out / PAGES[4].file).read_text("utf-8")
    section = said[said.index('<section id="ref.diffusion.x0_from_eps">'):]
    lines = section[:section.index("</section>")]
    run, _ = worked.run(diffusion.x0_from_eps)
    assert lines.count('<div class="row" style="--depth: 0">') == len([row for row in page.rows(run) if row[0] == 0])
    assert page.rows(run)[-1][1] in lines and "--depth: 1" not in lines
    table = said[said.index('<table class="lines">'):said.index("</table>", said.index('<table class="lines">'))]
    assert table.count("<tr>") == len(PAGES[4].table) > 6
    assert html.escape(course.statement("ref/fused.py", "x0 = data[below(seed")) in table
    assert '<th>red</th>' in (out / PAGES[11].file).read_text("utf-8")


def test_the_pages_are_complete(built):
    _, pages = built
    assert [page.number for page in PAGES] == list(range(1, 17))
    written = {path.name for path in course.TEXTS.glob("*.md")}
    assert len(written) == len({page.file for page in PAGES}) == 16
    for page in PAGES:
        assert page.questions and page.text and (page.studies or page.images), page.number
        for _, answer in page.questions:
            assert course.FIGURE.search(answer), f"{page.number}: no number carries {answer!r}"
    studies = {path.stem for path in (ROOT / "bench/results/studies").glob("*.csv")}
    assert studies >= {study for page in PAGES for study in page.studies}


def literals(said):
    """The numbers of a text that stand in no figure, no formula and no name."""
    return re.findall(r"(?<![\w.])\d[\d.,]*", re.sub(r"`[^`]*`", "", course.FIGURE.sub("", said)))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.title)
def test_no_number_of_a_page_is_typed(page):
    """A figure that is a number and nothing else would be typed, too."""
    assert literals("in 3 of {n}") == ["3"] and not literals("`1 - t`, x_0, {3 * n:.1f}")
    figures = course.figures(page)
    for said in [*page.text, *page.table, *(answer for _, answer in page.questions)]:
        assert literals(said) == [], said
        for found in course.FIGURE.finditer(said):
            assert re.search(r"[A-Za-z]", found[1]), found[0]
        assert "nan" not in figures.said(said) and "inf " not in figures.said(said)
    assert not page.code.count("row(") or figures.read


def test_a_figure_is_the_number_of_its_csv():
    """As the CSVs have it: recall of w = 1 and 10, of the seed of the text, and the least and largest of all seeds."""
    seven = PAGES[6]
    answer = next(answer for question, answer in seven.questions if "distance within a class" in question)
    recalls, studies = [], ROOT / "bench/results/studies"
    for path in [studies / "guidance.csv", *sorted(studies.glob("seed-*/guidance.csv"))]:
        lines = path.read_text("utf-8").splitlines()
        recalls.append([float(line.split(",")[lines[0].split(",").index("recall")]) for line in (lines[1], lines[5])])
    said = [f"{x[0]:.0%} ({min(x):.0%} to {max(x):.0%})" for x in zip(*recalls)]
    sentence = f"falls from {said[0]} to {said[1]}. In brackets, the least and the largest of {len(recalls)} seeds."
    assert len(recalls) > 1 and sentence in course.figures(seven).said(answer)
    assert course.over_seeds([0.5, 0.501], ".0%") == "50%" and course.ranges([0]) == ""
    assert course.over_seeds([0.5, 0.75, 0.25], ".0%") == "50% (25% to 75%)"
    with pytest.raises(ValueError, match="expected one row"):
        course.figures(course.Page(1, "t", code='row("guidance", way="w = 3")'))
    assert course.statement("ref/fused.py", "xt = q_sample") == (
        "xt = q_sample_noise(x0, t, seed, abar, noise_stream).astype(dtype)")
    with pytest.raises(ValueError, match="expected one line that begins with 't = 2', got 0"):
        course.statement("ref/fused.py", "t = 2")


def test_the_guided_density_of_gaussians_is_the_gaussian_of_the_page():
    """Precisions add: w / s^2 + (1 - w) / S^2, against the moments of exp(guide(log p, log p(.|c), w)) on a grid."""
    known = course.figures(PAGES[6]).values
    x, bell = known["x"], known["bell"]
    for w in (1.0, 2.0, 10.0):
        p = known["guided"](w, bell(0, known["S2"]), bell(known["m"], known["s2"]))
        assert_allclose(known["variance"](p), known["spread"](w), rtol=1e-6)
        assert_allclose(p @ x / p.sum(), known["centre"](w), rtol=1e-6)
    assert_allclose(known["drawn"][0], 1, rtol=0.03)  # w = 1 is the class itself
    assert known["drawn"] == sorted(known["drawn"], reverse=True)


def test_the_bound_of_gaussian_data_is_that_of_its_likelihood():
    """With many steps the sum is the integral of the mean square error over the SNR: 1/2 log((1 + c2 SNR) / (1 + c2
    SNR_end)), whatever the schedule."""
    known = course.figures(PAGES[3]).values
    ends = np.exp([10.0, -10.0]) * known["c2"]
    exact = (np.log1p(ends[0]) - np.log1p(ends[1])) / 2
    assert_allclose(known["many"], exact, rtol=0.02)
    assert all(bound > exact for bound in (*known["few"], *known["many"]))


def test_the_picture_of_kernels_has_a_point_for_each_timed_call():
    """Without a line but for the limit; and where both axes are logarithmic, ten times is as far everywhere."""
    known = course.figures(PAGES[14]).values
    kinds = [known["picture"].count(f'<circle class="c{i}"') for i in range(4)]
    assert kinds[1] + kinds[2] == kinds[0] == kinds[3] == len(known["timed"]) > 30 and kinds[1] and kinds[2]
    assert known["picture"].count("<polyline") == 1
    svg = drawing.curves([1, 10, 100], {"a": [1, 10, 100]}, "x", "y", points=True, log="both")
    places = np.array(re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', svg), float)
    assert_allclose(places[1], (places[0] + places[2]) / 2, atol=0.1)
    assert ">1<" in svg and ">100<" in svg


def test_transition():
    """[DDPM] eq. 2: by hand, composed, and with the posterior by Bayes' rule."""
    abar = np.array([1, 0.64, 0.16])
    mean, variance = schedules.transition(np.array([[2.0, -1.0]]), 2, 1, abar)
    assert_allclose(mean, [[1.0, -0.5]])
    assert_allclose(variance, 0.75)
    xs = np.array([[0.3], [-2.0]])
    first, beta1 = schedules.transition(xs, [400, 20], [100, 0], ABAR)
    both, beta2 = schedules.transition(first, [900, 500], [400, 20], ABAR)
    whole, beta = schedules.transition(xs, [900, 500], [100, 0], ABAR)
    assert_allclose(both, whole, rtol=1e-12)
    alpha2 = ABAR[[900, 500]] / ABAR[[400, 20]]
    assert_allclose(beta2 + alpha2 * beta1, beta, rtol=1e-12)
    # 1 / posterior variance = alpha / beta + 1 / (1 - abar_s)
    _, back = diffusion.posterior(xs, xs, 900, 100, ABAR)
    _, step = schedules.transition(xs, 900, 100, ABAR)
    assert_allclose(1 / back, ABAR[900] / ABAR[100] / step + 1 / (1 - ABAR[100]), rtol=1e-10)
    with pytest.raises(ValueError, match=r"\bs\b"):
        schedules.transition(xs, 100, 400, ABAR)


def test_every_paper_that_is_cited_has_an_address_or_none_known():
    cited = {paper.partition("]")[0][1:] for paper in catalogue.papers()}
    assert cited <= set(site.addresses())
    for address in filter(None, site.addresses().values()):
        assert re.fullmatch(r"https://(arxiv\.org/abs/\d{4}\.\d{4,5}|doi\.org/10\.\S+|\S+)", address)
    assert site.words("[DDPM] eq. 4") == '<a href="https://arxiv.org/abs/2006.11239">[DDPM]</a> eq. 4'


@pytest.mark.parametrize("words, first", [
    ("mode collapse", "page 3, question: What is mode collapse"),
    ("why is the forward process fixed", "page 4, question: Why is the forward process fixed"),
    ("latent", "page 13"), ("minimax", "page 3"), ("forward", "page 4"),
    ("guidance lower diversity", "page 7, question"), ("ddim_step", "diffusion.ddim_step"),
    ("reparameterization trick", "page 2, question: Why the repar"), ("KL vs JS", "page 1, question: KL or Jensen"),
    ("FID", "page 1, question"), ("classifier-free guidance scale", "page 7"), ("posterior collapse", "page 2, q"),
    ("exposure bias", "page 5, question"), ("DDIM eta", "page 6, question"), ("Langevin", "page 8, question"),
    ("attention", "page 12, question: What does attention do in a trained"), ("Karras 2022", "[EDM] Karras"),
    ("difference between VAE and GAN", "page 1, q"),
    ("unipc step", "dpm_solver.unipc_step"), ("cross entropy", "layers.cross_entropy"),
    ("Fokker-Planck", "page 8, question: Why has"), ("Tweedie", "page 8"), ("DDIM inversion", "page 6"),
    ("BPD", "sde.bits_per_dimension"), ("mu-law", "audio.mulaw_compress"), ("perplexity", "layers.cross_entropy"),
    ("KL vanishing", "page 2, question: What is posterior"), ("epsilon prediction", "page 5, question: Noise pred"),
    ("gradient clipping", "optim.clip_by_global_norm"), ("roofline", "page 15"),
])
def test_find(words, first, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["find", *words.split()]) == 0
    said = capsys.readouterr().out
    assert any(line.startswith(first) for line in said.split("\n")[:9:3]), said
    assert "    python -m ref " in said


def test_what_finds_nothing_is_told(capsys):
    assert main(["find", "xyzzy"]) == 2
    assert "nothing in the course" in capsys.readouterr().err
    assert main(["find", "posterior", "colapse"]) == 0
    assert capsys.readouterr().out.startswith("nothing says colapse; close to it: collapse; about the rest:\n")
    assert main(["find", "colapse"]) == 2
    assert "close to it: collapse" in " ".join(capsys.readouterr().err.split())
    assert main(["find", "DPO"]) == 0  # not what begins with these letters
    assert "\n    Not in this course: training on preferences (RLHF, DPO)." in capsys.readouterr().out


@pytest.mark.parametrize("words, page, nearest", [
    ("dropout", 11, "layer_norm"), ("batch norm", 11, "group_norm"), ("SwiGLU", 11, "geglu"), ("LoRA", 13, "inpaint"),
    ("spectral norm", 3, "r1_penalty"), ("optimal transport", 9, "reflow"), ("D3PM", 5, "first_codes"),
    ("PNDM", 6, "UniPC"), ("Gumbel softmax", 2, "straight_through"),
])
def test_what_the_course_leaves_out_is_said_with_the_nearest(words, page, nearest, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    assert main(["find", *words.split()]) == 0
    lines = capsys.readouterr().out.split("\n")
    said = lines[lines.index(f"page {page}: {PAGES[page - 1].title}") + 1]
    assert said.startswith("    Not in this course: ") and nearest in said


def test_a_site_that_cannot_be_written_is_refused_before_the_work(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["course", "--out", str(tmp_path / "file")]) == 2
    assert f"--out: expected a folder, got {tmp_path / 'file'}" in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in Path(tmp_path).iterdir()] == ["file"]
