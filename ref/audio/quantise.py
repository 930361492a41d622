"""Vector quantisation in stages, and which gradient it has: each stage quantises what those before it have left.

Everything here is float64. x (B, D) are B vectors; codebooks (K, V, D) have K stages of V entries; codes (K, B) are
ints; quantised (K, B, D) are the entries that each stage picked. A codebook that holds the zero vector never makes a
residual longer; `fixed` keeps the first entries of a codebook, such as that one, where they are.

The gradient of a pick is 0 or does not exist, so a choice stands for it. Here it is: the straight-through gradient
once, over the sum of the stages; the commitment loss of each stage, with the entries stopped. What is stopped is an
argument of its own, so that each `_backward` is a plain derivative.

Papers
    [VQ-VAE]       van den Oord, Vinyals, Kavukcuoglu, "Neural Discrete Representation Learning", 2017
    [SoundStream]  Zeghidour et al., "SoundStream: An End-to-End Neural Audio Codec", 2021
    [STE]          Bengio, Leonard, Courville, "Estimating or Propagating Gradients Through Stochastic Neurons", 2013
    [Lloyd]        Lloyd, "Least Squares Quantization in PCM", 1982
"""
import numpy as np

from ref.shapes import classes, integer, number, same_shape, shaped


def nearest_code(x, codebook):
    """The nearest entry, [VQ-VAE] eq. 1:  argmin_v |x - e_v|^2, the first of equally near ones. x: (B, D). codebook:
    (V, D). Returns codes (B,) int64. Raises ValueError where shapes do not fit, or a number is NaN or infinite."""
    x = shaped(x, "x", "B", "D")
    codebook = shaped(codebook, "codebook", "V", x.shape[1])
    if len(codebook) == 0:
        raise ValueError(f"codebook: expected at least one entry, got shape {codebook.shape}")
    for name, array in (("x", x), ("codebook", codebook)):
        if not np.isfinite(array).all():
            raise ValueError(f"{name}: expected finite numbers, got {array}")
    distance = (codebook**2).sum(axis=1) - 2 * x @ codebook.T  # (B, V), less |x|^2
    return distance.argmin(axis=1)


def residual_quantise(x, codebooks):
    """Quantisation in stages, [SoundStream] algorithm 1:

        c_k = argmin_v |r_k - e_{k,v}|^2,   q_k = e_{k,c_k},   r_{k+1} = r_k - q_k,   r_0 = x

    x is near sum_k q_k.

    x: (B, D). codebooks: (K, V, D).
    Returns codes (K, B) int64, quantised (K, B, D) float64.
    Raises ValueError where shapes do not fit.
    """
    x = shaped(x, "x", "B", "D")
    codebooks = shaped(codebooks, "codebooks", "K", "V", x.shape[1])
    codes, quantised, r = np.zeros((len(codebooks), len(x)), np.int64), np.zeros((len(codebooks), *x.shape)), x
    for k, codebook in enumerate(codebooks):
        codes[k] = nearest_code(r, codebook)
        quantised[k] = codebook[codes[k]]
        r = r - quantised[k]
    return codes, quantised


def residual_decode(codes, codebooks):
    """The vector that the codes of all stages stand for, [SoundStream] section III-C:  sum_k e_{k,c_k}.

    codes: (K, B) ints; fewer stages than there are codebooks are the first ones. codebooks: (K, V, D).
    Returns q (B, D) float64.
    Raises ValueError where shapes do not fit or a code is none, TypeError for what are no ints.
    """
    codes, codebooks = _codes(codes, codebooks)
    return codebooks[np.arange(len(codes))[:, None], codes].sum(axis=0)


def residual_decode_backward(dq, codes, codebooks):
    """Gradient of `residual_decode`: each entry gets the gradients of the vectors that it stands in. dq: (B, D). codes,
    codebooks: as there. Returns dcodebooks (K, V, D) float64. Raises as it does."""
    codes, codebooks = _codes(codes, codebooks)
    dq = shaped(dq, "dq", codes.shape[1], codebooks.shape[2])
    dcodebooks = np.zeros(codebooks.shape)
    np.add.at(dcodebooks, (np.arange(len(codes))[:, None], codes), dq)
    return dcodebooks


def straight_through(x, q, stopped):
    """z = q + (x - sg(x)), [STE] section 4 and [VQ-VAE] section 3.2: the value of q, bit for bit, and the gradient of
    x. Over the stages of `residual_quantise` it is taken once, with the sum for q: once in each stage would count the
    gradient K times.

    x: (B, D). q: (B, D), a constant. stopped: sg(x), which is x itself, as a constant.
    Returns z (B, D) float64.
    Raises ValueError where shapes differ.
    """
    x, q, stopped = same_shape(x=x, q=q, stopped=stopped)
    return q + (x - stopped)


def straight_through_backward(dz):
    """dx = dz. dz: as z in `straight_through`. Returns dx float64."""
    return np.array(dz, np.float64)


def commitment_loss(x, quantised):
    """L = sum_k mean |r_k - sg(q_k)|^2,  r_k = x - sum_{j<k} sg(q_j), [VQ-VAE] eq. 3's last term at each stage of
    [SoundStream]: the entries are stopped in the residuals, too, so that every stage pulls x to where it is quantised.

    x: (B, D). quantised: (K, B, D), constants, from `residual_quantise`.
    Returns L, a float.
    Raises ValueError where shapes do not fit or are empty.
    """
    left = _left(*_stages(x, quantised))
    return (left * left).sum() / left[0].size


def commitment_loss_backward(dL, x, quantised):
    """dx = dL sum_k 2 (r_k - q_k) / (B D). With residuals that hold the straight-through gradient, stages 2 and on
    would give 0. dL: float. x, quantised: as in `commitment_loss`. Returns dx (B, D) float64. Raises as it does."""
    left = _left(*_stages(x, quantised))
    return 2 * number(dL, "dL") * left.sum(axis=0) / left[0].size


def codebook_loss(codebooks, codes, x, quantised):
    """L = sum_k mean |sg(r_k) - e_{k,c_k}|^2, [VQ-VAE] eq. 3's second term at each stage: it moves the entries to what
    they stand for, and nothing else.

    codebooks: (K, V, D). codes: (K, B) ints. x: (B, D). quantised: (K, B, D), the entries that the residuals were made
    with; both are constants.
    Returns L, a float.
    Raises ValueError where shapes do not fit or a code is none, TypeError for codes that are no ints.
    """
    off = _off(codebooks, codes, x, quantised)[0]
    return (off * off).sum() / off[0].size


def codebook_loss_backward(dL, codebooks, codes, x, quantised):
    """de_{k,v} = dL sum over the vectors with c_k = v of 2 (e_{k,v} - r_k) / (B D). dL: float. codebooks, codes, x,
    quantised: as in `codebook_loss`. Returns dcodebooks (K, V, D) float64. Raises as it does."""
    off, codes, codebooks = _off(codebooks, codes, x, quantised)
    dcodebooks = np.zeros(codebooks.shape)
    np.add.at(dcodebooks, (np.arange(len(codes))[:, None], codes), 2 * number(dL, "dL") * off / off[0].size)
    return dcodebooks


def kmeans_step(x, codebook, fixed=0):
    """[Lloyd] section II: each entry goes to the mean of the vectors that it is nearest to; one without any stays. The
    mean of |x - e|^2 never grows.

    x: (B, D). codebook: (V, D). fixed: int, the number of first entries that stay.
    Returns codebook (V, D) float64.
    Raises ValueError where shapes do not fit.
    """
    codes, codebook = nearest_code(x, codebook), shaped(codebook, "codebook", "V", "D")
    count, total = _sums(x, codes, len(codebook))
    moved = (count > 0) & (np.arange(len(codebook)) >= integer(fixed, "fixed"))
    return np.where(moved[:, None], total / np.maximum(count, 1)[:, None], codebook)


def moving_average_codebook(count, total, x, codes, decay=0.99):
    """The codebook as a moving average, [VQ-VAE] eqs. 6 to 8 (appendix A.1), e_v = total_v / count_v:

        count_v <- decay count_v + (1 - decay) n_v,   total_v <- decay total_v + (1 - decay) sum of the x with code v

    count: (V,). total: (V, D). x: (B, D). codes: (B,) ints. decay: float in [0, 1].
    Returns count (V,), total (V, D), float64.
    Raises ValueError where shapes do not fit, a code is none or decay is outside.
    """
    count, x, decay = shaped(count, "count", "V"), shaped(x, "x", "B", "D"), number(decay, "decay")
    total = shaped(total, "total", len(count), x.shape[1])
    if not 0 <= decay <= 1:
        raise ValueError(f"decay: expected a number in [0, 1], got {decay}")
    if np.shape(codes) != (len(x),):
        raise ValueError(f"codes: expected shape ({len(x)},), got {np.shape(codes)}")
    n, added = _sums(x, classes(codes, len(count), "codes"), len(count))
    return decay * count + (1 - decay) * n, decay * total + (1 - decay) * added


def replace_dead(codebook, count, x, index, least=1.0, fixed=0):
    """Entries that are used less than `least` times become vectors of the data, [SoundStream] section III-C.

    codebook: (V, D). count: (V,), how often each is used. x: (B, D). index: (V,) ints, the vector for each entry.
    least: float. fixed: int, the number of first entries that stay.
    Returns codebook (V, D) float64.
    Raises ValueError where shapes do not fit or an index is none, TypeError for what are no ints.
    """
    codebook, least = shaped(codebook, "codebook", "V", "D"), number(least, "least")
    V, D = codebook.shape
    count, x = shaped(count, "count", V), shaped(x, "x", "B", D)
    if np.isnan(count).any() or np.isnan(least):
        raise ValueError(f"count, least: expected numbers, got {count} and {least}")
    if np.shape(index) != (V,):
        raise ValueError(f"index: expected shape ({V},), got {np.shape(index)}")
    dead = (count < least) & (np.arange(V) >= integer(fixed, "fixed"))
    return np.where(dead[:, None], x[classes(index, len(x), "index")], codebook)


def _sums(x, codes, V):
    """How many vectors have each code, (V,), and their sums, (V, D)."""
    total = np.zeros((V, np.shape(x)[1]))
    np.add.at(total, codes, np.asarray(x, np.float64))
    return np.bincount(codes, minlength=V).astype(np.float64), total


def _stages(x, quantised):
    x = shaped(x, "x", "B", "D")
    quantised = shaped(quantised, "quantised", "K", *x.shape)
    if not quantised.size:
        raise ValueError(f"quantised: expected at least one element, got shape {quantised.shape}")
    return x, quantised


def _left(x, quantised):
    """r_k - q_k of each stage, (K, B, D)."""
    return x - np.cumsum(quantised, axis=0)


def _codes(codes, codebooks):
    codebooks = shaped(codebooks, "codebooks", "K", "V", "D")
    codes = classes(codes, codebooks.shape[1], "codes")
    if codes.ndim != 2 or not 1 <= len(codes) <= len(codebooks):
        raise ValueError(f"codes: expected shape (K, B) with K of 1 to {len(codebooks)}, got {codes.shape}")
    return codes, codebooks


def _off(codebooks, codes, x, quantised):
    """e - r of each stage, (K, B, D); codes and codebooks."""
    x, quantised = _stages(x, quantised)
    codes, codebooks = _codes(codes, codebooks)
    if codes.shape != quantised.shape[:2] or codebooks.shape[2] != x.shape[1]:
        raise ValueError(f"codes, codebooks: expected codes {quantised.shape[:2]} and entries of {x.shape[1]}, got "
                         f"{codes.shape} and {codebooks.shape[2]}")
    r = _left(x, quantised) + quantised
    return codebooks[np.arange(len(codes))[:, None], codes] - r, codes, codebooks
