"""The layers a network is made of, each beside its gradient. Arrays keep their dtype: truth in float64, training in float32.

Papers
    [Backprop]     Rumelhart, Hinton, Williams, "Learning representations by back-propagating errors", 1986
    [ReLU]         Nair, Hinton, "Rectified Linear Units Improve Restricted Boltzmann Machines", 2010
    [Leaky]        Maas, Hannun, Ng, "Rectifier Nonlinearities Improve Neural Network Acoustic Models", 2013
    [SiLU]         Elfwing, Uchibe, Doya, "Sigmoid-Weighted Linear Units for Neural Network Function Approximation in Reinforcement Learning", 2018
    [Transformer]  Vaswani et al., "Attention Is All You Need", 2017
    [DL]           Goodfellow, Bengio, Courville, "Deep Learning", 2016
"""
import numpy as np


def linear(x, w, b):
    """y = x w^T + b, [Backprop] eq. 1.

    x: (..., n). w: (m, n). b: (m,).
    Returns y (..., m).
    Raises ValueError where the widths do not fit.
    """
    if x.shape[-1:] != w.shape[1:] or b.shape != w.shape[:1]:
        raise ValueError(f"expected x (..., n), w (m, n), b (m,), got x {x.shape}, w {w.shape}, b {b.shape}")
    return x @ w.T + b


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


def relu(x):
    """y = max(x, 0), [ReLU]. x: any shape. Returns y."""
    return np.maximum(x, 0)


def relu_backward(dy, x):
    """dx = dy where x > 0, else 0; at the kink x = 0 the gradient taken is 0. dy, x: one shape. Returns dx."""
    return np.where(x > 0, dy, 0)


def leaky_relu(x, slope=0.2):
    """y = x where x > 0, else slope x, [Leaky] section 2. x: any shape. slope: float, 0.01 in the paper. Returns y."""
    return np.where(np.real(x) > 0, x, slope * x)


def leaky_relu_backward(dy, x, slope=0.2):
    """dx = dy where x > 0, else slope dy, at the kink x = 0 too. dy, x: one shape. slope: as in `leaky_relu`. Returns dx."""
    return np.where(x > 0, dy, slope * dy)


def tanh(x):
    """y = tanh(x) = 2 sigmoid(2 x) - 1, [DL] section 6.3.2. x: any shape. Returns y."""
    return np.tanh(x)


def tanh_backward(dy, y):
    """dx = dy (1 - y^2). dy: upstream. y: the output of `tanh`. Returns dx."""
    return dy * (1 - y) * (1 + y)


def sigmoid(x):
    """y = 1 / (1 + e^-x), [DL] eq. 3.30, from e^-|x|, which never overflows. x: any shape. Returns y."""
    e = np.exp(np.where(np.real(x) >= 0, -x, x))
    return np.where(np.real(x) >= 0, 1, e) / (1 + e)


def sigmoid_backward(dy, y):
    """dx = dy y (1 - y), [DL] eq. 3.34. dy: upstream. y: the output of `sigmoid`. Returns dx."""
    return dy * y * (1 - y)


def silu(x):
    """y = x sigmoid(x), [SiLU] section 2. x: any shape. Returns y."""
    return x * sigmoid(x)


def silu_backward(dy, x):
    """dx = dy s (1 + x (1 - s)) with s = sigmoid(x). dy, x: one shape. Returns dx."""
    s = sigmoid(x)
    return dy * (s * (1 + x * (1 - s)))


def softplus(x):
    """y = ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|), [DL] eq. 3.31. x: any shape. Returns y."""
    positive = np.real(x) >= 0
    return np.where(positive, x, 0) + np.log1p(np.exp(np.where(positive, -x, x)))


def softplus_backward(dy, x):
    """dx = dy sigmoid(x), [DL] eq. 3.37. dy, x: one shape. Returns dx."""
    return dy * sigmoid(x)


def embedding(w, index):
    """y = w[index]: one learned row a class. w: (classes, n). index: ints of any shape (...). Returns y (..., n).

    Raises ValueError for an index outside [0, classes).
    """
    if index.size and not (0 <= index.min() and index.max() < w.shape[0]):
        raise ValueError(f"index: expected 0 <= index < {w.shape[0]}, got {index.min()} to {index.max()}")
    return w[index]


def embedding_backward(dy, w, index):
    """Gradient of `embedding` in w: the upstream rows of each class added up; a class that was not used gets 0.

    dy: (..., n). w: (classes, n). index: ints (...). Returns dw.
    """
    dw = np.zeros(w.shape, dy.dtype)
    np.add.at(dw, index.reshape(-1), dy.reshape(-1, w.shape[1]))
    return dw


def time_embedding(t, width, max_period=10000.0):
    """[Transformer] section 3.5, but sines first, then cosines, which the paper interleaves:

        y_i = sin(t f_i),  y_{i + width/2} = cos(t f_i),   f_i = max_period^(-2 i / width),  i = 0 .. width/2 - 1

    t: (B,). width: even. Returns (B, width) float64.
    Raises ValueError for an odd width.
    """
    if width % 2:
        raise ValueError(f"width: expected an even number, got {width}")
    f = max_period ** (-np.arange(width // 2) / (width // 2))
    angle = np.asarray(t, np.float64)[:, None] * f
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)


def cross_entropy(logits, labels):
    """L = mean_b(logsumexp(logits_b) - logits_{b, label_b}), [DL] eqs. 6.29 and 6.30, the largest logit taken off first.

    logits: (B, classes), B >= 1. labels: (B,) ints.
    Returns L, a float.
    Raises ValueError where the shapes do not fit or a label is outside [0, classes).
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or labels.size == 0:
        raise ValueError(f"expected logits (B, classes), labels (B,), B >= 1, got {logits.shape} and {labels.shape}")
    if not (0 <= labels.min() and labels.max() < logits.shape[1]):
        raise ValueError(f"labels: expected 0 <= label < {logits.shape[1]}, got {labels.min()} to {labels.max()}")
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.mean(np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(labels.size), labels])


def cross_entropy_backward(dloss, logits, labels):
    """dlogits = dloss (softmax(logits) - onehot(labels)) / B. dloss: float. logits, labels: as in `cross_entropy`. Returns dlogits."""
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    dlogits = e / e.sum(axis=1, keepdims=True)
    dlogits[np.arange(labels.size), labels] -= 1
    return dlogits * (dloss / labels.size)
