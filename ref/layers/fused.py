"""The truth for each fused kernel of a network: literal compositions of the layers, one pass over memory when fused.
Arrays keep their dtype.

Papers
    [DiT]  Peebles, Xie, "Scalable Diffusion Models with Transformers", 2023
"""
from ref.layers.activations import silu, silu_backward
from ref.layers.conv import conv2d, conv2d_backward
from ref.layers.feed_forward import ACTIVATIONS
from ref.layers.linear import linear, linear_backward
from ref.layers.norm import adaptive_norm, adaptive_norm_backward, group_norm, group_norm_backward


def group_norm_silu(x, groups, w, b, eps):
    """y = silu(group_norm(x)), how each convolution of a U-Net begins.

    x: (B, C, ...). groups: int that divides C. w, b: (C,), or None for 1 and 0. eps: float.
    Returns y, of the shape of x. Raises as `group_norm` does.
    """
    return silu(group_norm(x, groups, w, b, eps))


def group_norm_silu_backward(dy, x, groups, w, b, eps):
    """Gradients of `group_norm_silu`. dy: as y there. x, groups, w, b, eps: as there. Returns dx, dw, db, the last two
    None where w is."""
    dz = silu_backward(dy, group_norm(x, groups, w, b, eps))
    return group_norm_backward(dz, x, groups, w, eps)


def norm_conv(x, groups, scale, shift, eps, w, b, stride=1, padding=((1, 1), (1, 1))):
    """y = w * silu(group_norm(x)) + b, a convolution that normalises what it loads.

    x: (B, C, H, W). groups: int that divides C. scale, shift: (C,), of the norm, or None for 1 and 0. eps: float.
    w: (O, C, KH, KW). b: (O,) or None. stride, padding: as in `conv2d`.
    Returns y, of the shape of the convolution. Raises as `group_norm` and `conv2d` do.
    """
    return conv2d(group_norm_silu(x, groups, scale, shift, eps), w, b, stride, padding)


def norm_conv_backward(dy, x, groups, scale, shift, eps, w, stride=1, padding=((1, 1), (1, 1))):
    """Gradients of `norm_conv`. dy: as y there. x, groups, scale, shift, eps, w, stride, padding: as there. Returns dx,
    dscale, dshift, dw, db, of which dscale and dshift are None where scale is."""
    da, dw, db = conv2d_backward(dy, group_norm_silu(x, groups, scale, shift, eps), w, stride, padding)
    return *group_norm_silu_backward(da, x, groups, scale, shift, eps), dw, db


def layer_norm_modulate(x, shift, scale, eps):
    """y = (1 + scale) x_hat + shift, `ref.layers.norm.adaptive_norm`: [DiT] section 3.2.

    x: (B, L, n). shift, scale: (B, n). eps: float.
    Returns y, of the shape of x.
    """
    return adaptive_norm(x, shift, scale, eps)


def layer_norm_modulate_backward(dy, x, scale, eps):
    """Gradients of `layer_norm_modulate`. dy: as y there. x, scale, eps: as there. Returns dx, dshift, dscale."""
    return adaptive_norm_backward(dy, x, scale, eps)


def gate_residual(x, r, gate):
    """y = x + gate r, how each branch r of a block joins the others, [DiT] section 3.2, adaLN-Zero.

    x, r: (B, L, n). gate: (B, n).
    Returns y, of the shape of x.
    """
    return x + gate[:, None] * r


def gate_residual_backward(dy, r, gate):
    """Gradients of `gate_residual`. dy: as y there. r, gate: as there. Returns dx, dr, dgate."""
    return dy, gate[:, None] * dy, (dy * r).sum(axis=1)


def linear_act(x, w, b, r, act):
    """y = act(W x + b) + r, a layer with all that may follow it.

    x: (..., n). w: (m, n). b: (m,). r: of the shape of y. act: of `ref.layers.feed_forward.ACTIVATIONS`.
    Returns y (..., m), or half as wide for "geglu". Raises as `linear` does.
    """
    return ACTIVATIONS[act][0](linear(x, w, b)) + r


def linear_act_backward(dy, x, w, b, act):
    """Gradients of `linear_act`. dy: as y there. x, w, b, act: as there. Returns dx, dw, db, dr."""
    dh = ACTIVATIONS[act][1](dy, linear(x, w, b))
    return *linear_backward(dh, x, w), dy
