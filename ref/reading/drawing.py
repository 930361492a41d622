"""Curves and arrows as SVG, in colours that a page gives its classes `c0`, `c1`, ...."""
from html import escape

import numpy as np

WIDTH, HEIGHT, LEFT, BELOW, TOP = 640, 300, 56, 44, 28


def curves(x, named, across, up="", points=False, log=False, loose=()):
    """Lines in one frame, with the ends of both axes and a legend.

    x: (n,). named: {legend: (n,)}, what is not finite left out. across, up: what the axes show. points: bool, whether
    each point gets a dot. log: bool, whether x is spaced by its logarithm; "both", y too. loose: legends of points
    without a line. Returns SVG, a str.
    """
    y = np.array([np.asarray(values, float) for values in named.values()])
    x, whole = np.asarray(x, float), y[np.isfinite(y)]
    low = min(whole.min(), 0) if whole.min() < whole.max() / 3 and log != "both" else whole.min()  # zero if it is near
    ends = x.min(), x.max(), low, whole.max()
    x, y = np.log(x) if log else x, np.log(y) if log == "both" else y
    scale = _scales(x.min(), x.max(), *(np.log(ends[2:]) if log == "both" else ends[2:]))
    parts = []
    for i, (name, values) in enumerate(zip(named, y)):
        places = [scale(a, b) for a, b in zip(x, values) if np.isfinite(b)]
        line = f'<polyline class="c{i}" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in places)}"/>'
        parts += [line] * (name not in loose)
        parts += [f'<circle class="c{i}" cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in places if points]
    across, up = across + ", logarithmic" * bool(log), up + ", logarithmic" * (log == "both")
    return _framed(parts, scale, named, across, up, ends)


def arrows(named, across="", up=""):
    """Arrows from the origin of one plane, true to scale. named: {legend: (x, y)}. across, up: what the axes show.
    Returns SVG, a str."""
    tips = np.array([*named.values(), (0, 0)], float)
    (left, low), (right, high) = tips.min(0), tips.max(0)
    unit = max((right - left) / (WIDTH - LEFT - 20), (high - low) / (HEIGHT - BELOW - TOP)) or 1
    scale = _scales(left, left + unit * (WIDTH - LEFT - 20), low, low + unit * (HEIGHT - BELOW - TOP))
    parts = []
    for i, (x, y) in enumerate(tips[:-1]):
        (a, b), (c, d) = scale(0, 0), scale(x, y)
        length = np.hypot(c - a, d - b) or 1
        along, over = np.array([c - a, d - b]) / length, np.array([b - d, c - a]) / length
        head = [(c, d), *(np.array([c, d]) - 12 * along + side * 5 * over for side in (1, -1))]
        parts.append(f'<polyline class="c{i}" points="{a:.1f},{b:.1f} {c:.1f},{d:.1f}"/><polygon class="c{i}" points="'
                     + " ".join(f"{p:.1f},{q:.1f}" for p, q in head) + '"/>')
    return _framed(parts, scale, named, across, up)


def _scales(left, right, low, high):
    """A function from numbers to places in the frame, which also has the ends of the axes."""
    def scale(x, y):
        return (LEFT + (WIDTH - LEFT - 20) * (x - left) / ((right - left) or 1),
                HEIGHT - BELOW - (HEIGHT - BELOW - TOP) * (y - low) / ((high - low) or 1))

    scale.ends = left, right, low, high
    return scale


def _framed(parts, scale, named, across, up, ends=None):
    """The parts within axes: numbers at the ends, what they show, the legend above. ends: of both axes, where they are
    not those of the scale."""
    left, right, low, high = ends or scale.ends
    bottom = HEIGHT - BELOW
    frame = f'<path class="axis" d="M{LEFT},{TOP}V{bottom}H{WIDTH - 20}"/>'
    texts = [(LEFT, bottom + 17, "start", f"{left:.4g}"), (WIDTH - 20, bottom + 17, "end", f"{right:.4g}"),
             ((LEFT + WIDTH) / 2, bottom + 34, "middle", across), (LEFT - 6, bottom, "end", f"{low:.3g}"),
             (LEFT - 6, TOP + 8, "end", f"{high:.3g}"), (2, TOP - 14, "start", up)]  # fmt: skip
    words = "".join(f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{escape(word)}</text>'
                    for x, y, anchor, word in texts)
    legend = "".join(f'<span class="c{i}">{escape(name)}</span> ' for i, name in enumerate(named))
    return (f'<div class="picture"><svg class="wide" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{frame}{words}'
            f'{"".join(parts)}</svg><p class="legend">{legend}</p></div>')
