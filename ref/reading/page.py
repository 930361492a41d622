"""A trace as one page that needs nothing else: equations as MathML, code, values, and pictures of what is shaped like
an image."""
import base64
import functools
import inspect
import struct
import zlib
from html import escape
from pathlib import Path

import numpy as np

from ref.reading import attended, catalogue, text, trace, typeset

PICTURES = 8  # of one array, at most


@functools.cache
def style():
    """The style of all pages, CSS."""
    return (Path(__file__).parent / "pages" / "style.css").read_text("utf-8") + text.shades()


def page(function, run, differences, above="", lines=None):
    """The page, a str. function: of `ref`. run: from `trace.record`. differences: from
    `gradients.finite_differences`, or []. above: HTML, over its title. lines: of `rows`, where they are there
    already."""
    name = catalogue.full(function)
    equations = "".join(map(typeset.mathml,
                            catalogue.formulas(function))) or f"<p>{escape(catalogue.sentence(function))}</p>"
    place = " · ".join(filter(None, (catalogue.paper(function), catalogue.where(function))))
    parts = [
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/><meta name="viewport" '
        'content="width=device-width, initial-scale=1"/>',
        f'<link rel="icon" href="data:,"/><title>{name}</title><style>{style()}</style></head><body>',
        f"{above}<h1>{name}</h1>",
        f'<p class="where">{escape(place)}</p>',
        f'<div class="equations">{equations}</div><details><summary>The '
        f'docstring</summary><pre>{escape(inspect.getdoc(function))}</pre></details>',
        f'<h2>Given</h2>{given(run)}<h2>Line by line</h2>',
    ]
    parts += [row for _, row in lines or rows(run)]
    parts.append(attended.html(run))
    if differences:
        parts.append("<h2>Gradients, each next to the central difference of sum(upstream * what the forward "
                     "returns)</h2>")
    for gradient in differences:
        first, second, apart = text.compared(*gradient)
        parts.append(f'<div class="row"><div class="made"><b>{escape(gradient[0])}</b> {first}</div><div '
                     f'class="made">{second} <small>{apart}</small></div></div>')
    cited = "".join(f"<p>{escape(paper)}</p>" for paper in catalogue.cited(function))
    return "\n".join([*parts, f"<h2>Papers</h2>{cited}" if cited else "", "</body></html>\n"])


def given(run):
    """What a run was given, HTML. run: from `trace.record`."""
    return f'<div class="given">{_made(run.given.items())}</div>'


def rows(run):
    """[(how many calls deep, HTML)] of the lines of a run, each next to the values that it made. run: from
    `trace.record`."""
    colour, made = text.colouring(page=True), []
    for depth, line, source, mark, values in trace.rows(run):
        code = "\n".join(f"<i>{line + i}</i>{part}"
                         for i, part in enumerate(colour(source).split("\n"))) if line else f"<em>{source}</em>"
        made.append((depth, f'<div class="row" style="--depth: {depth}"><pre class="code">{code}</pre>'
                            f"{_made(values, mark)}</div>"))
    return made


def _made(named, mark=""):
    """Values with their pictures; None says that there is nothing new."""
    shown = [f"<div>{mark}<b>{escape(name)}</b> {escape(words)}{picture(value)}</div>"
             for name, words, value in text.visible(named or [])]
    return f'<div class="made">{"<small>unchanged</small>" if named is None else "".join(shown)}</div>'


def picture(value):
    """Images of an array (B, H, W), (B, N, H, W) with H, W >= 3, or (B, n n) with n >= 12, the smallest number black
    and the largest white; a curve of one (n,), n >= 16; nothing of other things. value: anything."""
    numbers = isinstance(value, np.ndarray) and value.dtype.kind in "fb" and value.size
    if not numbers or not np.all(np.isfinite(value)):
        return ""
    side = int(np.sqrt(value.shape[-1])) if value.ndim else 0
    if value.ndim == 2 and side >= 12 and side**2 == value.shape[1]:
        value = value.reshape(-1, side, side)
    curve = value.ndim == 1 and value.size >= 16
    if not curve and (value.ndim < 3 or min(value.shape[-2:]) < 3):
        return ""
    value = value.astype(np.float64)
    low, high = value.min(), value.max()
    scaled = (value - low) / (high - low if high > low else 1)
    if curve:
        points = " ".join(f"{200 * i / (value.size - 1):.4g},{2 + 56 * (1 - scaled[i]):.4g}"
                          for i in np.linspace(0, value.size - 1, 101).astype(int))
        title = f"<title>{low:.4g} to {high:.4g}</title>"
        return f'<br/><svg viewBox="0 0 200 60" role="img">{title}<polyline points="{points}"/></svg>'
    images = np.rint(scaled.reshape(-1, *value.shape[-2:])[:PICTURES] * 255).astype(np.uint8)
    tags = "".join(f'<img alt="" src="data:image/png;base64,{base64.b64encode(png(image)).decode()}"/>'
                   for image in images)
    return f"<br/>{tags}<br/><small>black {low:.4g}, white {high:.4g}</small>"


def png(image):
    """The bytes of a PNG file. image: (H, W) uint8."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    lines = b"".join(b"\0" + row.tobytes() for row in image)
    head = struct.pack(">IIBBBBB", image.shape[1], image.shape[0], 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines, 9)) + chunk(b"IEND", b"")
