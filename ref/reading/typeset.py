"""The equations of the docstrings, in their ASCII notation, as MathML: what is typeset is what the source says.

    x0_hat eps_hat abar_t beta_tilde      names with digits, subscripts, hats, tildes, bars; Greek by name; dx: gradient
    a b / c d                             a b over c, times d: all factors so far, over the one that follows
    sqrt(x)  e^(x)  e^-x  |x|  ||x||      roots, powers, norms
    sum_k  prod_{i=1..t}  <-  <=  ~  ..   signs
    where s = 0, else 1                   words stay words
"""
import re
from xml.sax.saxutils import escape, unescape

from ref.reading.catalogue import equations

TOKEN = re.compile(r'\s*("[^"]*"|`[^`]*`|\d+(?:\.\d+)?(?:e-?\d+)?|[A-Za-z]{3,}-[a-z]{3,}|[A-Za-z]\w*\'*'
                   r'|<-|->|<=|>=|//|\|\||\.\.|\+-|\S)')
GREEK = dict(alpha="α", beta="β", gamma="γ", eps="ε", eta="η", mu="μ", pi="π", rho="ρ", sigma="σ", phi="φ",
             inf="∞") | {"lambda": "λ"}
ACCENTS = {"hat": "^", "tilde": "~", "bar": "‾"}
WRITTEN = {"abar": "alpha_bar", "mhat": "m_hat", "vhat": "v_hat"}  # one word, with an accent in it
SIGNS = dict(zip("<- -> <= >= .. +- ~ * . - || | ^".split(), "←→≤≥…±∼··−∥∣⊕"))
LARGE = {"sum": "∑", "prod": "∏", "integral": "∫", "grad": "∇"}
MINUS, THIN = '<mo form="prefix">−</mo>', '<mspace width="0.2em"/>'
RELATIONS = set("=<>≤≥←→∼")
BREAKS = RELATIONS | set("+−±,;:…∥∣⊕")  # where the part that a fraction takes begins anew
CLOSING = {"(": ")", "[": "]", "{": "}"}
FUNCTIONS = {full_name.rsplit(".", 1)[1] for full_name in equations()} | {"input_gradient", "input_gradient_backward"}
WORDS = set("""
    above added all and as at axes before both but by clamped clipped does each else ends examples first float64 for
    from given has have in is it kink line never noise of off on one or over reaches returns row rounded same scaled
    starts steps that the times to unless where which with without zero
""".split())


def mathml(line):
    """One line of a docstring's equations as a <math> element. line: str. Raises ValueError for a bracket without its
    partner, or a / or ^ before nothing."""
    tokens, at = [], 0  # (text, spaces before, whether a space follows)
    while match := TOKEN.match(line, at):
        tokens.append((match[1], match.start(1) - at, match.end() == len(line) or line[match.end()].isspace()))
        at = match.end()
    row, rest = _sequence(tokens, 0, None)
    if rest != len(tokens):
        raise ValueError(f"{line!r}: {tokens[rest][0]!r} closes nothing")
    return f'<math display="block"><mrow>{"".join(row)}</mrow></math>'


def _sequence(tokens, i, end):
    """The elements from token i up to the token `end` (None: to the last one), and where they end."""
    row, start, fraction = [], 0, None
    while i < len(tokens):
        text, space, _ = tokens[i]
        if text == end or (text in CLOSING.values() and end is None):
            return row, i
        if text == "/" and len(row) > start:
            below, i = _factor(tokens, i + 1)
            if below.startswith(("<munder>", "<mo>∑")):  # a sum below the line takes what is summed along
                summed, i = _factor(tokens, i)
                below = f"<mrow>{below}{summed}</mrow>"
            if len(row) - 1 == start and row[-1] == fraction:  # a / b / c is a over b c
                below = f"<mrow>{under}{THIN}{below}</mrow>"
            else:
                over = _bare(row[start:])
            under = below
            fraction = f"<mfrac>{over}{_bare([under])}</mfrac>"
            row[start:] = [fraction]
            continue
        element, i = _factor(tokens, i)
        if element == "<mo>−</mo>" and (not row or _sign(row[-1]) in BREAKS):
            element = MINUS
        if space > 1 and row and not RELATIONS & {_sign(row[-1]), _sign(element)}:
            row.append('<mspace width="2em"/>')
            start = len(row)
        elif space and len(row) > start and not _sign(element):
            row.append(THIN)
        row.append(element)
        if _sign(element) in BREAKS or element.startswith("<mtext"):
            start = len(row)
    if end is not None:
        raise ValueError(f"expected {end!r} before the end of {' '.join(text for text, _, _ in tokens)!r}")
    return row, i


def _factor(tokens, i):
    """The element at token i with its arguments and powers, and where it ends."""
    if i == len(tokens):
        raise ValueError(f"nothing after the end of {' '.join(text for text, _, _ in tokens)!r}")
    element, i = _atom(tokens, i)
    while i < len(tokens) and tokens[i][1] == 0:
        text = tokens[i][0]
        if text == "^":
            minus = i + 1 < len(tokens) and tokens[i + 1][0] == "-"
            power, i = _factor(tokens, i + 1 + minus)
            element = f"<msup>{element}<mrow>{MINUS * minus}{_bare([power])}</mrow></msup>"
        elif text in ("(", "[") and element.startswith(("<mi", "<msub", "<mover", "<msup")):
            arguments, i = _atom(tokens, i)
            element = f"<mrow>{element}{arguments}</mrow>"
        elif text == "*" and element.startswith("<mi"):
            element, i = f"<msup>{element}<mo>∗</mo></msup>", i + 1
        else:
            break
    return element, i


def _atom(tokens, i):
    """The element at token i alone, a name, a number, a sign, or all of a bracket, and where it ends."""
    text, _, spaced = tokens[i]
    if text in CLOSING or text in ("|", "||") and not spaced:
        close = CLOSING.get(text, text)
        row, end = _sequence(tokens, i + 1, close)
        tall = f'<mo stretchy="{str("<mfrac" in "".join(row)).lower()}">'
        text, close = text.replace("||", "∥"), close.replace("||", "∥")
        return f"<mrow>{tall}{text}</mo>{''.join(row)}{tall}{close}</mo></mrow>", end + 1
    if text[0] in '"`':
        return f"<mtext>{escape(text[1:-1])}</mtext>", i + 1
    if text[0].isdigit():
        return f"<mn>{text}</mn>", i + 1
    if not text[0].isalpha():
        return f"<mo>{escape(SIGNS.get(text, text))}</mo>", i + 1
    if text == "sqrt" and i + 1 < len(tokens) and tokens[i + 1][0] == "(":
        row, end = _sequence(tokens, i + 2, ")")
        return f"<msqrt>{''.join(row)}</msqrt>", end + 1
    if text in WORDS or "-" in text:
        return f"<mtext>&#160;{text}&#160;</mtext>", i + 1
    below = []
    if text.endswith("_") and i + 1 < len(tokens) and tokens[i + 1][0] == "{":
        below, i = _sequence(tokens, i + 2, "}")
    head, _, index = text.rstrip("_").partition("_")
    if head in LARGE:
        below = "".join(below) or (f"<mi>{index}</mi>" if index else "")
        large = f"<mo>{LARGE[head]}</mo>"
        return (f"<munder>{large}<mrow>{below}</mrow></munder>" if below else large), i + 1
    return _name(text.rstrip("_"), below), i + 1


def _name(text, below):
    """A variable: x0_hat, abar_t, dlogvar, sigma'; `below` are the elements of a further subscript."""
    if logarithm := re.fullmatch(r"(d?)log_(.+)", text):
        return f"<mrow><mi>{logarithm[1]}log</mi>{THIN}{_name(logarithm[2], below)}</mrow>"
    whole = re.fullmatch(r"[a-z]{3,}_[a-z]{3,}", text) and not {*GREEK, *ACCENTS} & {*text.split("_")}
    if whole or text in FUNCTIONS:
        return f"<mi>{text}</mi>"
    primes = len(text) - len(text.rstrip("'"))
    head, *rest = text.rstrip("'").split("_")
    head, *accents = WRITTEN.get(head, head).split("_")
    stem, number = re.fullmatch(r"(u?int\d+|float\d+|log\d+|\w+?)(\d*)", head).groups()
    gradient = re.fullmatch(r"d([a-zA-Z]|" + "|".join(GREEK) + ")", stem)
    stem = gradient[1] if gradient else stem
    element = f"<mi>{GREEK.get(stem, stem)}</mi>"
    for accent in [*accents, *(word for word in rest if word in ACCENTS)]:
        element = f'<mover accent="true">{element}<mo>{ACCENTS[accent]}</mo></mover>'
    if gradient:
        element = f'<mrow><mi mathvariant="normal">d</mi>{element}</mrow>'
    under = [f"<mn>{number}</mn>"] * bool(number) + [f"<mi>{GREEK.get(w, w)}</mi>" for w in rest
                                                     if w not in ACCENTS] + ["".join(below)] * bool(below)
    if under:
        element = f"<msub>{element}<mrow>{'<mo>,</mo>'.join(under)}</mrow></msub>"
    return f"<msup>{element}<mo>{'′' * primes}</mo></msup>" if primes else element


def _bare(row):
    """The elements as one, without brackets that are about all of it."""
    bracket = re.fullmatch(r'<mrow><mo stretchy="\w+">\(</mo>(.*)<mo stretchy="\w+">\)</mo></mrow>',
                           row[0]) if len(row) == 1 else None
    return f"<mrow>{bracket[1] if bracket else ''.join(row)}</mrow>"


def _sign(element):
    """The sign that the element is, or ""."""
    found = re.fullmatch(r'<mo(?: form="prefix")?>([^<]*)</mo>', element)
    return unescape(found[1]) if found else ""
