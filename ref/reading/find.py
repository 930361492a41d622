"""What the course, the equations and the papers say about some words, the best first, and what to type next."""
import difflib
import functools
import inspect
import math
import re
from collections import Counter

from ref.reading import catalogue, course, site

MOST = 6  # places that are listed
CLOSE = 0.8  # of 1: below, words that are spelt alike have nothing to do with each other
SMALL = set("a an and are at be between by can do does explain for from how i in into is it its of on or over so than "
            "that the their them then there this to versus vs was what when where which why with".split())  # fmt: skip
ENDS = re.compile(r"(?<=\w{4})(?:ations?|ings?|ers?|ity|ed|es|e|y|(?<!s)s)$")


def lines(words):
    """A list of lines. words: list of str. Raises LookupError where nothing has one of them."""
    said, places = " ".join(words), _listed()
    wanted = dict(zip(_stems(said), _words(said))) or {said.lower(): said}  # {without its end: as it was typed}
    known = Counter(stem for weighted, *_ in places for stem in {stem for _, stems in weighted for stem in stems})
    # A word that few places have says more
    rare = {word: math.log(1 + len(places) / n) for word in wanted
            if (n := sum(count for stem, count in known.items() if _begins(stem, word)))}
    if not rare:
        hint = _close(wanted.values()) or "`python -m ref` lists all equations"
        raise LookupError(f"nothing in the course or in an equation says {said}; {hint}")
    found = sorted(((_fit(rare, weighted), *shown) for weighted, *shown in places), key=lambda entry: -entry[0])
    missing = [typed for word, typed in wanted.items() if word not in rare]
    hint = "; ".join(filter(None, (f"nothing says {', '.join(missing)}", _close(missing), "about the rest:")))
    return [hint] * bool(missing) + [
        line for score, what, about, then in found[:MOST] if score > found[0][0] / 2
        for line in (what, f"    {about(rare)}", f"    {then}")]


def _close(words):
    """What the course says that is spelt like one of the words, as text; "" for nothing."""
    taught = {word for page in course.pages() for text in (page.title, *page.text, *sum(page.questions, ()))
              for word in _words(text)}
    near = [like for word in words for like in difflib.get_close_matches(word, taught, 3, CLOSE)]
    return f"close to it: {', '.join(near)}" if near else ""


def _begins(stem, word):
    return stem == word or len(word) > 3 and stem.startswith(word)


def _fit(rare, weighted):
    """How well a place fits. rare: {word: how much it says}. weighted: [(weight, words)] of the place."""
    weights = {word: max((weight for weight, stems in weighted if any(_begins(stem, word) for stem in stems)),
                         default=0) for word in rare}  # fmt: skip
    return sum(rare[word] * weight for word, weight in weights.items()) * sum(map(bool, weights.values())) / len(rare)


@functools.cache
def _listed():
    return list(_places())


def _places():
    """[([(weight, words)], what it is, a function from the words to what it says of them, what to type)] of each
    question, page, equation and paper."""
    for page in course.pages():
        then = f"python -m ref course --out course, then course/{page.file}"
        yield ([(5, _stems(page.title)), (2, _stems(" ".join(page.text)))], f"page {page.number}: {page.title}",
               lambda rare, page=page: _sentence(page, rare), then)
        for question, answer in page.questions:
            yield ([(6, _stems(question)), (3, _stems(answer)), (1, _stems(page.title))],
                   f"page {page.number}, question: {question}",
                   lambda rare, page=page, answer=answer: _said(page, answer), then)
    for name, f in catalogue.equations().items():
        short, doc = name.removeprefix("ref."), inspect.getdoc(f)
        first = catalogue.sentence(f)
        forward = not name.endswith("_backward")
        yield ([(5 if forward else 2, _stems(short.replace("_", " "))), (3 if forward else 1, _stems(first)),
                (1, _stems(doc))], short, lambda rare, first=first: first,
               f"python -m ref show {short}  or  python -m ref trace {short}")  # fmt: skip
    for paper in catalogue.papers():
        tag = paper[1:].partition("]")[0]
        yield ([(3, _stems(paper))], paper, lambda rare, tag=tag: site.addresses().get(tag) or "no address known",
               f"python -m ref find {tag}")


def _sentence(page, rare):
    """The sentence of the page's text that says most of the words."""
    sentences = [part for paragraph in page.text for part in re.split(r"(?<=\.)\s+(?=[A-Z])", paragraph)]
    return _said(page, max(sentences, key=lambda part: _fit(rare, [(1, _stems(part))])))


def _said(page, words):
    """The words with their figures; without them where the results of the studies are not there."""
    try:
        return course.figures(page).said(words)
    except OSError:
        return words


def _stems(text):
    """Its words without the ends that change, as British English writes them."""
    return [ENDS.sub("", re.sub(r"iz(?=[aei])", "is", word)) for word in _words(text)]


def _words(text):
    """Its words but for the small ones, in lower case."""
    return [word for word in re.findall(r"[a-z0-9]+", text.lower().replace("-", " ")) if word not in SMALL]
