"""What the course and the equations say about some words, the best first, and what to type next."""
import inspect
import re

from ref.reading import catalogue, course

MOST = 12  # places that are listed
SMALL = set("a an and are at be by can do does for from how i in into is it its of on or over so than that the their "
            "them then there this to vs was what when where which why with you".split())  # fmt: skip


def lines(words):
    """A list of lines. words: list of str. Raises LookupError where nothing has one of them."""
    wanted = _stems(" ".join(words)) or [word.lower() for word in words]
    found = [(*_fit(wanted, weighted), *shown) for weighted, *shown in _places()]
    best = sorted((entry for entry in found if entry[0]), key=lambda entry: (-entry[0], -entry[1]))
    if not best:
        raise LookupError(f"nothing in the course or in an equation says {' '.join(words)}; `python -m ref` lists all")
    most = best[0][0]
    kept = [entry for entry in best if entry[0] == most][:MOST]
    return [line for _, _, what, about, then in kept for line in (what, f"    {about}", f"    {then}")]


def _fit(wanted, weighted):
    """How many of the words are there, and how much they weigh. weighted: [(weight, words)]."""
    weights = [max((weight for weight, stems in weighted if any(stem.startswith(word) for stem in stems)), default=0)
               for word in wanted]  # fmt: skip
    return sum(weight > 0 for weight in weights), sum(weights)


def _places():
    """[([(weight, words)], what it is, what it says, what to type)] of each question, page and equation."""
    for page in course.pages():
        body, about = _stems(" ".join(page.text)), f"{page.text[0].partition('. ')[0]}."
        then = f"python -m ref course --out course, then course/{page.file}"
        yield [(5, _stems(page.title)), (2, body)], f"page {page.number}: {page.title}", about, then
        for question, answer in page.questions:
            yield ([(6, _stems(question)), (3, _stems(answer)), (1, _stems(page.title))],
                   f"page {page.number}, question: {question}", _first(course.figures(page).said, answer), then)
    for name, f in catalogue.equations().items():
        short, first = name.removeprefix("ref."), catalogue.sentence(f)
        yield ([(5, _stems(short.replace("_", " "))), (3, _stems(first)), (1, _stems(inspect.getdoc(f)))],
               short, first, f"python -m ref show {short}")


def _first(said, answer):
    """The answer with its figures; without them where the results of the studies are not there."""
    try:
        return said(answer)
    except OSError:
        return answer


def _stems(text):
    """Its words but for the small ones, without the ends that change: lower case."""
    found = re.findall(r"[a-z0-9]+", text.lower().replace("-", " "))
    return [re.sub(r"(?<=\w{4})(?:s|ed|ing)$", "", word) for word in found if word not in SMALL]
