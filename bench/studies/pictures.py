"""How the studies draw: one style, images side by side, a line for each group of rows."""
import numpy as np

TIME = "time t (0 data, 1000 noise)"
LABELS = {key: f"{key} (share)" for key in ("adherence", "precision", "recall")} | {"frechet": "Frechet distance"}


def pyplot():
    """matplotlib.pyplot, drawing to memory, in the studies' one style."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({
        "font.size": 8, "axes.titlesize": 8, "axes.titlelocation": "left", "axes.linewidth": 0.6,
        "legend.frameon": False, "axes.spines.top": False, "axes.spines.right": False, "lines.markersize": 3,
        "lines.linewidth": 1.2,
    })  # fmt: skip
    return plt


def parts(size, *heights):
    """A figure of this size in inches, and its parts from top to bottom, of these relative heights."""
    figure = pyplot().figure(figsize=size, layout="constrained")
    return figure, *figure.subfigures(len(heights), 1, height_ratios=heights)


def gallery(axis, images, columns, title="", rows=(), limit=1):
    """Images side by side. images: (N, 784) in [-limit, limit], N a multiple of columns. columns: int."""
    grid = np.asarray(images).reshape(-1, columns, 28, 28).transpose(0, 2, 1, 3).reshape(-1, 28 * columns)
    axis.imshow(grid, cmap="gray", vmin=-limit, vmax=limit)
    axis.set_title(title)
    axis.set_xticks([])
    axis.set_yticks(14 + 28 * np.arange(len(rows)), rows)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)


def spread_out(images, count):
    """count of the images, evenly over them. images: (N, ...). Returns (count, ...)."""
    return np.asarray(images)[np.arange(count) * len(images) // count]


def of_each_class(images, labels, each):
    """The first few images of each of ten classes, a column a class. images: (N, ...). Returns (10 each, ...)."""
    pick = np.stack([np.flatnonzero(labels == k)[np.arange(each) % np.sum(labels == k)] for k in range(10)], axis=1)
    return images[pick.reshape(-1)]


def lines(axis, rows, group, x, y, styles, real=None):
    """A line for each group of rows. group, x, y: columns. styles: {group's name: options of `plot`}."""
    for name, style in styles.items():
        mine = [row for row in rows if row[group] == name]
        axis.plot([row[x] for row in mine], [row[y] for row in mine], **{"label": name} | style)
    if real is not None:
        axis.axhline(real, color="black", ls="--", lw=1, label="real digits")


def against_calls(axes, rows, keys, group, styles, real, x=(), y={}):
    """A panel for each of the keys against network calls, as `lines`. real: a row. x, y: of `log_ticks`, y by key."""
    for axis, key in zip(axes, keys):
        lines(axis, rows, group, "calls", key, styles, real.get(key))
        axis.set(xlabel="network calls", ylabel=LABELS.get(key, key))
        log_ticks(axis, x, y.get(key, ()))


def log_ticks(axis, x=(), y=()):
    """Logarithmic axes with these plain numbers as their ticks. x, y: numbers; none leaves the axis linear."""
    for which, ticks in (("x", x), ("y", y)):
        if ticks:
            axis.set(**{f"{which}scale": "log"})
            axis.set(**{f"{which}ticks": ticks, f"{which}ticklabels": [f"{tick:g}" for tick in ticks]})
    axis.minorticks_off()
