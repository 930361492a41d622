"""What each token of a prompt's model reads of the others, in the attention of a trace, next to the words."""
from html import escape

import numpy as np

from ref.reading import trace

ATTENTION = f"{trace.MATH}layers/attention.py"
SAID = ("what each token (row) reads of each word (column): weights of attention, of the first prompt, mean over "
        "heads. Nothing trained these small networks; `python -m bench.studies.prompt PROMPT --attention` draws the "
        "trained one")


def tables(run):
    """[(caption, names of the columns, [(token, its weights)])] of each attention over the tokens of a run, and their
    mean; the keys that are no words add up in one column. run: from `worked.run`; [] for one without a prompt."""
    words, others = run.tokens
    tokens, found = [*words, *others], []

    def visit(called):
        of_tokens = called.name == "_weights" and called.place[0] == ATTENTION
        if of_tokens and called.returned.shape[2:] == (len(tokens), len(tokens)):
            found.append(called.returned[0].mean(axis=0))  # (queries, keys)
        for step in called.steps:
            for inner in step.calls:
                visit(inner)

    if tokens:
        visit(run)
    named = [(f"attention {n}", weights) for n, weights in enumerate(found, 1)]
    if len(found) > 1:
        named.append((f"mean of the {len(found)}", np.mean(found, axis=0)))
    read = [(said, np.hstack([p[:, :len(words)], p[:, len(words):].sum(1, keepdims=True)])) for said, p in named]
    columns = [*words, "image"][:len(words) + bool(others)]
    return [(said, columns, [(token, row[:len(columns)]) for token, row in zip(tokens, p)]) for said, p in read]


def lines(run):
    """The tables as text, a list of lines. run: from `worked.run`."""
    out = []
    for said, columns, rows in tables(run):
        first, widths = max(len(token) for token, _ in rows), [max(5, len(name)) for name in columns]
        written = [("", columns), *((token, [f"{x:.2f}" for x in row]) for token, row in rows)]
        out += ["", said, *(" ".join([f"    {head:<{first}}", *(f"{cell:>{w}}" for cell, w in zip(cells, widths))])
                            for head, cells in written)]  # fmt: skip
    return ["", SAID, *out] if out else []


def html(run):
    """The tables as HTML, each cell as dark as its weight. run: from `worked.run`."""
    parts = []
    for said, columns, rows in tables(run):
        lined = "".join(f"<tr><th>{escape(token)}</th>" + "".join(
            f'<td style="--w: {x:.2f}">{x:.2f}</td>' for x in row) + "</tr>" for token, row in rows)
        heads = "".join(f"<th>{escape(name)}</th>" for name in ["", *columns])
        parts.append(f'<div class="reads"><table><caption>{said}</caption><tr>{heads}</tr>{lined}</table></div>')
    return f'<p class="text">{SAID[0].upper()}{SAID[1:]}.</p>{"".join(parts)}' if parts else ""
