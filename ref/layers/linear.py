"""The fully connected layer, next to its gradient. Arrays keep their dtype.

Papers
    [Backprop]  Rumelhart, Hinton, Williams, "Learning representations by back-propagating errors", 1986
"""


def linear(x, w, b=None):
    """y = x w^T + b, [Backprop] eq. 1.

    x: (..., n). w: (m, n). b: (m,), or None for 0.
    Returns y (..., m).
    Raises ValueError where the widths do not fit.
    """
    if x.shape[-1:] != w.shape[1:] or b is not None and b.shape != w.shape[:1]:
        raise ValueError(f"expected x (..., n), w (m, n), b (m,), got x {x.shape}, w {w.shape}, "
                         f"b {None if b is None else b.shape}")
    y = x @ w.T
    return y if b is None else y + b


def linear_backward(dy, x, w):
    """Gradients of `linear`:  dx = dy w,  dw = dy^T x,  db = dy, the last two summed over all leading axes.

    dy: (..., m). x: (..., n). w: (m, n).
    Returns dx, dw, db.
    Raises ValueError where the shapes do not fit.
    """
    if dy.shape != x.shape[:-1] + w.shape[:1]:
        raise ValueError(f"expected dy {x.shape[:-1] + w.shape[:1]} for x {x.shape} and w {w.shape}, got {dy.shape}")
    rows = dy.reshape(-1, w.shape[0])
    return dy @ w, rows.T @ x.reshape(-1, w.shape[1]), rows.sum(axis=0)
