"""The course as a folder of pages that need no network: a page for each topic, a page of line-by-line values for each
equation, the source that they link to, and the pictures of the studies."""
import functools
import html
import inspect
import re
from pathlib import Path

from ref import command
from ref.reading import attended, catalogue, course, page, text, trace, typeset, worked

ADDRESSES = course.TEXTS / "papers.txt"
SIZE = 1 << 26  # bytes that the site may take


def build(out, progress=lambda done, total: None):
    """Write the site. out: folder, made where it is not there. progress: called with (done, total) after each equation.

    Raises OSError, before the work, where it cannot be written or the results of the studies are not there.
    """
    out = Path(out)
    if not (course.RESULTS / "studies").is_dir():
        raise OSError(f"the course needs the results of the studies, and there is no folder {course.RESULTS}/studies; "
                      f"run it in a checkout of the whole project")
    if out.exists() and not out.is_dir():
        raise OSError(f"--out: expected a folder, got {out}")
    for folder in (out, out / "equations", out / "code", out / "studies"):
        folder.mkdir(parents=True, exist_ok=True)
    if reason := command.why_unwritable(out / "index.html", SIZE):
        raise OSError(f"--out: {reason}")
    # each worked example runs once: for the page of its equation, and for its section on the page of the topic
    equations, sections, linked = catalogue.equations(), {}, {}
    for n, (name, function) in enumerate(equations.items(), 1):
        ran = _ran(name, function)
        lines, topic = page.rows(ran), _topic_of(name)
        above = f'<p><a href="../{topic.file}#{name}">{topic.number}. {html.escape(topic.title)}</a></p>'
        _write(out / "equations" / f"{name}.html", page.page(function, ran, [], above, lines))
        sections.setdefault(topic, []).append(_equation(name, function, ran, lines, linked))
        progress(n, len(equations))
    for topic in course.pages():
        _write(out / topic.file, _topic(topic, sections.get(topic, [])))
        for picture in [f"studies/{study}.png" for study in topic.studies] + topic.images:
            command.write(out / "studies" / Path(picture).name, (course.RESULTS / picture).read_bytes())
    _write(out / "index.html", _index())
    for path in linked:
        _write(out / "code" / f"{path.replace('/', '.')}.html", _code(path))


def _write(path, content):
    command.write(path, content.encode())


def _ran(name, function):
    """The worked example of one equation, traced; of a gradient without its finite differences."""
    if name.endswith("_backward"):
        return trace.record(function, worked.backward_example(function, {})[3])
    return worked.run(function)[0]


def _topic_of(name):
    return course.pages()[course.place(name)[0] - 1]


def _framed(title, body):
    """A whole page. title: text. body: HTML."""
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/><meta name="viewport" '
            f'content="width=device-width, initial-scale=1"/><link rel="icon" href="data:,"/>'
            f"<title>{html.escape(title)}</title><style>{page.style()}</style></head><body>\n{body}\n</body></html>\n")


def _index():
    """The list of topics, each with its equations."""
    rows = []
    for topic in course.pages():
        names = [name for name in catalogue.equations() if _topic_of(name) is topic and not name.endswith("_backward")]
        links = " ".join(f'<a href="{topic.file}#{name}">{name.rpartition(".")[2]}</a>' for name in names)
        rows.append(f'<h2><a href="{topic.file}">{topic.number}. {html.escape(topic.title)}</a></h2>'
                    f"<p>{words(topic.text[0])}</p><details><summary>{len(names)} equations</summary>"
                    f'<p class="names">{links}</p></details>')
    return _framed("Generative models, equation by equation",
                   "<h1>Generative models, equation by equation</h1>" + "\n".join(rows))


def _topic(topic, sections):
    """The page of one topic. sections: HTML of its equations."""
    figures = course.figures(topic)
    parts = [_around(topic), f"<h1>{topic.number}. {html.escape(topic.title)}</h1>"]
    for paragraph in topic.text:
        caption = paragraph.startswith("Figure: ")
        parts += [figures.values.get("picture", "")] * caption
        parts.append(f'<p class="{"caption" if caption else "text"}">{words(figures.said(paragraph))}</p>')
    parts.append(_table(topic, figures))
    if topic.questions:
        parts.append("<h2>Questions</h2>")
    for question, answer in topic.questions:
        parts.append(f'<details class="question"><summary>{words(question)}</summary>'
                     f"<p>{words(figures.said(answer))}</p></details>")
    parts += [_study(name) for name in topic.studies]
    parts += [f'<h2>Picture: {Path(name).stem}</h2><img class="study" alt="{name}" src="studies/{name}"/>'
              for name in topic.images]  # fmt: skip
    return _framed(topic.title, "\n".join([*parts, "<h2>Equations</h2>", *sections, _around(topic)]))


def _table(topic, figures):
    """The table of a topic, its first line the heads; "" without one."""
    rows = [[figures.said(cell.strip()) for cell in line.split(" | ")] for line in topic.table]
    lined = [f"<tr><td><code>{html.escape(left)}</code></td><td><code>{html.escape(right)}</code></td>"
             f"<td>{words(said)}</td></tr>" for left, right, said in rows[1:]]  # fmt: skip
    heads = "".join(f"<th>{words(head)}</th>" for head in rows[0]) if rows else ""
    return f'<h2>Line for line</h2><table class="lines"><tr>{heads}</tr>{"".join(lined)}</table>' if rows else ""


def _around(topic):
    """Links to the page before, the list, and the page after."""
    topics = course.pages()
    before, after = topics[:topic.number - 1][-1:], topics[topic.number:][:1]
    links = [*(f'<a href="{other.file}">← {html.escape(other.title)}</a>' for other in before),
             '<a href="index.html">all pages</a>',
             *(f'<a href="{other.file}">{html.escape(other.title)} →</a>' for other in after)]  # fmt: skip
    return f"<nav>{' · '.join(links)}</nav>"


def _study(name):
    """A study: its picture and its figures."""
    said = (course.RESULTS / "studies" / f"{name}.txt").read_text("utf-8")
    return (f'<h2>Study: {name}</h2><p class="where">python -m bench.studies {name}</p><img class="study" '
            f'alt="the study {name}" src="studies/{name}.png"/><details><summary>Its figures</summary>'
            f'<pre class="wide">{html.escape(said)}</pre></details>')


def _equation(name, function, ran, lines, linked):
    """The section of one equation: typeset, with its paper, what it needs, its lines next to the values of its worked
    example, its source, and where its name lives. ran: its trace. lines: of `page.rows`."""
    short = name.removeprefix("ref.")
    equations = "".join(map(typeset.mathml, catalogue.formulas(function)))
    source, first = inspect.getsourcelines(function)
    needed = [f'<a href="{_topic_of(other).file}#{other}">{other.removeprefix("ref.")}</a>'
              for other in catalogue.needs(function)]
    places = [_place(*line.split("  ", 1), linked) for line in catalogue.elsewhere(function)]
    forward, cited = name.removesuffix("_backward"), words(catalogue.paper(function))
    cited = re.sub(r"^gradient of (.*)", rf'gradient of <a href="#{forward}">\1</a>', cited)
    paper = " · ".join(filter(None, (cited, _place(catalogue.where(function), "", linked))))
    listed = "".join(f"<li>{place}</li>" for place in places)
    return "\n".join([
        f'<section id="{name}"><h3>{short}</h3><p class="where">{paper}</p>',
        f'<div class="equations">{equations}</div>' if equations else "",
        f"<p>{words(catalogue.sentence(function))}</p>" if not equations else "",
        f"<p>After {', '.join(needed)}</p>" if needed else "",
        f'<details><summary>Line by line, on a worked example</summary>{page.given(ran)}'
        f'{"".join(row for depth, row in lines if depth == 0)}{attended.html(ran)}'
        f'<p><a href="equations/{name}.html">The same, with all calls inside</a></p></details>',
        f'<details><summary>Source</summary><pre class="code wide">'
        f'{text.colouring(page=True)("".join(source).rstrip())}</pre></details>',
        f"<details><summary>Kernels and tests</summary><ul>{listed}</ul></details>" if places else "", "</section>",
    ])


def _place(place, what, linked):
    """A link to a line of a file. place: "file:line". what: the name there. linked: {path: None}, to which it adds."""
    path, _, line = place.partition(":")
    linked[path] = None
    return f'<a href="code/{path.replace("/", ".")}.html#L{line}">{place}</a> {html.escape(what)}'


def _code(path):
    """The page of a file of source, with its lines numbered."""
    lines = (catalogue.ROOT / path).read_text("utf-8").rstrip().split("\n")
    numbered = "\n".join(f'<span id="L{n}"><i>{n}</i>{html.escape(line)}</span>' for n, line in enumerate(lines, 1))
    return _framed(path, f'<p><a href="../index.html">all pages</a></p><h1>{path}</h1>'
                         f'<pre class="file">{numbered}</pre>')


# --- words ------------------------------------------------------------------------------------------------------------


@functools.cache
def addresses():
    """{tag of a paper: its address, or ""} from `ADDRESSES`."""
    found = {}
    for line in ADDRESSES.read_text("utf-8").split("\n"):
        if line and not line.startswith("#"):
            tag, place = line.split(" ")
            kind = "" if "://" in place else "https://doi.org/" if place.startswith("10.") else "https://arxiv.org/abs/"
            found[tag] = "" if place == "-" else f"{kind}{place}"
    return found


def words(said):
    """A sentence as HTML: `code` that names an equation links to it, [TAG] to its paper. said: str."""
    said = re.sub(r"`([^`]+)`", lambda found: _named(html.unescape(found[1])), html.escape(said, quote=False))
    return re.sub(r"\[([^\]\s<]+)\]", _cited, said)


def _named(name):
    try:
        full = catalogue.find(name)
    except LookupError:
        return f"<code>{html.escape(name)}</code>"
    return f'<a href="{_topic_of(full).file}#{full}"><code>{name}</code></a>'


def _cited(found):
    address = addresses().get(found[1])
    return f'<a href="{address}">{found[0]}</a>' if address else found[0]
