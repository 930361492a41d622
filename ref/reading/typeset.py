"""The equations of the docstrings, in their ASCII notation, as MathML: what is typeset is what the source says.

    x0_hat eps_hat abar_t beta_tilde      names with digits, subscripts, hats, tildes and bars; Greek by name; dx for a gradient
    a b / c d                             a b over c, times d: a fraction takes what was multiplied so far and one factor below
    sqrt(x)  e^(x)  e^-x  |x|  ||x||      roots, powers, norms
    sum_k  prod_{i=1..t}  <-  <=  ~  ..   signs
    where s = 0, else 1                   words stay words
"""
import re
from xml.sax.saxutils import escape

from ref.reading.catalogue import equations

TOKEN = re.compile(r'\s*("[^"]*"|`[^`]*`|\d+(?:\.\d+)?(?:e-?\d+)?|[A-Za-z]{3,}-[a-z]{3,}|[A-Za-z]\w*\'*|<-|->|<=|>=|//|\|\||\.\.|\+-|\S)')
GREEK = dict(alpha="α", beta="β", gamma="γ", delta="δ", eps="ε", eta="η", lambda_="λ", mu="μ", pi="π", rho="ρ", sigma="σ", phi="φ", theta="θ", inf="∞")
GREEK["lambda"] = GREEK.pop("lambda_")
ACCENTS = {"hat": "^", "tilde": "~", "bar": "¯"}
WRITTEN = {"abar": "alpha_bar", "mhat": "m_hat", "vhat": "v_hat", "gbar": "g_bar"}  # one word, with an accent in it
SIGNS = {"<-": "←", "->": "→", "<=": "≤", ">=": "≥", "..": "…", "+-": "±", "~": "∼", "*": "·", ".": "·", "-": "−", "||": "∥", "'": "′"}
LARGE = {"sum": "∑", "prod": "∏", "integral": "∫", "grad": "∇"}
MINUS = '<mo form="prefix">−</mo>'
RELATIONS = {"=", "<", ">", "≤", "≥", "←", "→", "∼"}
BREAKS = RELATIONS | {"+", "−", "±", ",", ";", ":", "…", "∥", "∣", "⊕"}  # where the part that a fraction takes begins anew
CLOSING = {"(": ")", "[": "]", "{": "}"}
FUNCTIONS = {full_name.rsplit(".", 1)[1] for full_name in equations()} | {"input_gradient", "input_gradient_backward"}
WORDS = set("""above added all and as at axes before both but by clamped clipped does each else ends examples first float64 for from given has have in is it
    kink line never noise norm of off on one or over reaches returns row rounded same scaled starts steps that the their there these this those times to
    under unless where which with without zero""".split())  # fmt: skip


def mathml(line):
    """One line of a docstring's equations as a <math> element. line: str. Raises ValueError for a bracket without its partner."""
    tokens, at = [], 0
    while match := TOKEN.match(line, at):
        tokens.append((match[1], match.start(1) - at, match.end() == len(line) or line[match.end()].isspace()))  # text, spaces before, space after
        at = match.end()
    row, rest = sequence(tokens, 0, None)
    if rest != len(tokens):
        raise ValueError(f"{line!r}: {tokens[rest][0]!r} closes nothing")
    return f'<math display="block"><mrow>{"".join(row)}</mrow></math>'


def sequence(tokens, i, end):
    """The elements from token i up to the token `end` (None: to the last one). tokens: [(text, spaces before, whether a space follows)].
    i: int. end: str or None. Returns the elements and where they end; ValueError where `end` is not there."""
    row, start, fraction = [], 0, None
    while i < len(tokens):
        text, space, _ = tokens[i]
        if text == end or (text in CLOSING.values() and end is None):
            return row, i
        if text == "/" and len(row) > start:
            below, i = factor(tokens, i + 1)
            if below.startswith(("<munder>", "<mo>∑")):  # a sum below the line takes what is summed along
                summed, i = factor(tokens, i)
                below = f"<mrow>{below}{summed}</mrow>"
            if len(row) - 1 == start and row[-1] == fraction:  # a / b / c is a over b c
                below = f'<mrow>{under}<mspace width="0.2em"/>{below}</mrow>'
            else:
                over = bare(row[start:])
            under = below
            fraction = f"<mfrac>{over}{bare([under])}</mfrac>"
            row[start:] = [fraction]
            continue
        element, i = factor(tokens, i)
        if element == "<mo>−</mo>" and (not row or sign(row[-1]) in BREAKS):
            element = MINUS
        if space > 1 and row and sign(row[-1]) not in RELATIONS and sign(element) not in RELATIONS:
            row.append('<mspace width="2em"/>')
            start = len(row)
        elif space and len(row) > start and not sign(element):
            row.append('<mspace width="0.2em"/>')
        row.append(element)
        if sign(element) in BREAKS or element.startswith("<mtext"):
            start = len(row)
    if end is not None:
        raise ValueError(f"expected {end!r} before the end of {' '.join(text for text, _, _ in tokens)!r}")
    return row, i


def factor(tokens, i):
    """The element at token i with its arguments and powers. tokens, i: as in `sequence`. Returns it and where it ends."""
    if i == len(tokens):
        raise ValueError(f"nothing after the end of {' '.join(text for text, _, _ in tokens)!r}")
    element, i = atom(tokens, i)
    while i < len(tokens) and tokens[i][1] == 0 and (tokens[i][0] == "^" or tokens[i][0] in ("(", "[", "*") and element.startswith(("<mi", "<msub", "<mover", "<msup"))):
        if tokens[i][0] == "*":
            element, i = f"<msup>{element}<mo>∗</mo></msup>", i + 1
        elif tokens[i][0] == "^":
            minus = tokens[i + 1][0] == "-"
            power, i = factor(tokens, i + 1 + minus)
            element = f"<msup>{element}<mrow>{MINUS * minus}{bare([power])}</mrow></msup>"
        else:
            arguments, i = atom(tokens, i)
            element = f"<mrow>{element}{arguments}</mrow>"
    return element, i


def atom(tokens, i):
    """The element at token i alone: a name, a number, a sign, or all of a bracket. tokens, i: as in `sequence`. Returns it and where it ends."""
    text, _, spaced = tokens[i]
    if text in CLOSING or text in ("|", "||") and not spaced:
        close = CLOSING.get(text, text)
        row, end = sequence(tokens, i + 1, close)
        tall = f'<mo stretchy="{str("<mfrac" in "".join(row)).lower()}">'
        return f"<mrow>{tall}{text.replace('||', '∥')}</mo>{''.join(row)}{tall}{close.replace('||', '∥')}</mo></mrow>", end + 1
    if text[0] in '"`':
        return f"<mtext>{escape(text[1:-1])}</mtext>", i + 1
    if text[0].isdigit():
        return f"<mn>{text}</mn>", i + 1
    if text == "sqrt" and i + 1 < len(tokens) and tokens[i + 1][0] == "(":
        row, end = sequence(tokens, i + 2, ")")
        return f"<msqrt>{''.join(row)}</msqrt>", end + 1
    if text[0].isalpha():
        base = text.rstrip("_")
        below = None
        if text.endswith("_") and i + 1 < len(tokens) and tokens[i + 1][0] == "{":
            below, i = sequence(tokens, i + 2, "}")
        head, _, index = base.partition("_")
        if head in LARGE:
            below = below or ([f"<mi>{index}</mi>"] if index else None)
            large = f"<mo>{LARGE[head]}</mo>"
            return (f"<munder>{large}<mrow>{''.join(below)}</mrow></munder>" if below else large), i + 1
        if text in WORDS or "-" in text:
            return f"<mtext>&#160;{text}&#160;</mtext>", i + 1
        return name(base, below), i + 1
    if text == "^":
        return "<mo>⊕</mo>", i + 1
    if text == "|":
        return "<mo>∣</mo>", i + 1
    return f"<mo>{escape(SIGNS.get(text, text))}</mo>", i + 1


def name(text, below=None):
    """A variable's name as an element: x0_hat, abar_t, dlogvar, sigma'. text: str. below: elements of a further subscript, or None."""
    if text in FUNCTIONS:
        return f"<mi>{text}</mi>"
    if logarithm := re.fullmatch(r"(d?)log_(.+)", text):
        return f'<mrow><mi>{logarithm[1]}log</mi><mspace width="0.2em"/>{name(logarithm[2], below)}</mrow>'
    if re.fullmatch(r"[a-z]{3,}_[a-z]{3,}", text) and not any(part in GREEK or part in ACCENTS for part in text.split("_")):
        return f"<mi>{text}</mi>"
    primes = len(text) - len(text.rstrip("'"))
    words = WRITTEN.get(text.rstrip("'").split("_")[0], text.rstrip("'").split("_")[0]).split("_") + text.rstrip("'").split("_")[1:]
    head, accents, subscripts = words[0], [w for w in words[1:] if w in ACCENTS], [w for w in words[1:] if w not in ACCENTS]
    digits = re.fullmatch(r"([A-Za-z]+?)(\d+)", head) if not re.match(r"u?int\d|float\d|log\d", head) else None
    stem, number = digits.groups() if digits else (head, "")
    gradient = re.fullmatch(r"d([a-zA-Z]|" + "|".join(GREEK) + ")", stem)
    stem = gradient[1] if gradient else stem
    element = f"<mi>{GREEK.get(stem, stem)}</mi>"
    for accent in accents:
        element = f'<mover accent="true">{element}<mo>{ACCENTS[accent]}</mo></mover>'
    if gradient:
        element = f'<mrow><mi mathvariant="normal">d</mi>{element}</mrow>'
    under = ([f"<mn>{number}</mn>"] if number else []) + [f"<mi>{GREEK.get(w, w)}</mi>" for w in subscripts] + (["".join(below)] if below else [])
    if under:
        element = f"<msub>{element}<mrow>{'<mo>,</mo>'.join(under)}</mrow></msub>"
    return f"<msup>{element}<mo>{'′' * primes}</mo></msup>" if primes else element


def bare(row):
    """The elements as one, without brackets that are about all of it. row: list of elements."""
    if len(row) == 1 and (inside := re.fullmatch(r'<mrow><mo stretchy="\w+">\(</mo>(.*)<mo stretchy="\w+">\)</mo></mrow>', row[0])):
        return f"<mrow>{inside[1]}</mrow>"
    return f"<mrow>{''.join(row)}</mrow>"


def sign(element):
    """The sign that the element is, or "". element: str."""
    found = re.fullmatch(r'<mo(?: form="prefix")?>(.*)</mo>', element)
    return found[1].replace("&lt;", "<").replace("&gt;", ">") if found and "<" not in found[1] else ""
