"""The attention weights between the tokens of a prompt, next to its words, in a trace of a model that reads it."""
from html import escape

import numpy as np

from ref.reading import trace

ATTENTION = f"{trace.MATH}layers/attention.py"
SAID = ("attention weights of the first prompt, averaged over heads: how much each token (row) attends to each word "
        "(column), and to all patches of the image. These networks are small and untrained; those of a trained one: "
        "`python -m bench.studies.prompt PROMPT --attention`")


def tables(run):
    """[(caption, names of the columns, [(token, its weights)])] of each attention over the tokens of a run, and of
    their mean; [] where the run has no prompt. One column holds the sum over the keys that are not words. run: from
    `worked.run`."""
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
    # The words, and the sum over all others: (queries, words + 1)
    named = [(caption, np.hstack([p[:, :len(words)], p[:, len(words):].sum(1, keepdims=True)])) for caption, p in named]
    columns = [*words, "image"][:len(words) + bool(others)]
    return [(caption, columns, [(token, row[:len(columns)]) for token, row in zip(tokens, p)]) for caption, p in named]


def lines(run):
    """The tables as text, a list of lines. run: from `worked.run`."""
    out = []
    for caption, columns, rows in tables(run):
        first, widths = max(len(token) for token, _ in rows), [max(5, len(name)) for name in columns]
        written = [("", columns), *((token, [f"{x:.2f}" for x in row]) for token, row in rows)]
        out += ["", caption, *(" ".join([f"    {head:<{first}}", *(f"{cell:>{w}}" for cell, w in zip(cells, widths))])
                            for head, cells in written)]  # fmt: skip
    return ["", SAID, *out] if out else []


def html(run):
    """The tables as HTML, each cell as dark as its weight. run: from `worked.run`."""
    parts = []
    for caption, columns, rows in tables(run):
        lined = "".join(f"<tr><th>{escape(token)}</th>" + "".join(
            f'<td style="--w: {x:.2f}">{x:.2f}</td>' for x in row) + "</tr>" for token, row in rows)
        heads = "".join(f"<th>{escape(name)}</th>" for name in ["", *columns])
        parts.append(f'<div class="reads"><table><caption>{caption}</caption><tr>{heads}</tr>{lined}</table></div>')
    return f'<p class="text">{SAID[0].upper()}{SAID[1:]}.</p>{"".join(parts)}' if parts else ""
