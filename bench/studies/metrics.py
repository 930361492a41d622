"""How good samples of digits are: adherence to the label, distance of the distributions, precision and recall, spread,
sharpness.

Frechet distance, precision and recall compare two clouds of features, the last hidden layer of the judge
(`bench.studies.classifier`, trained on held-out digits). They depend on the number of points, so compare each with the
same figure for as many real digits.
"""
import numpy as np

from bench.studies import classifier, data

COLUMNS = {
    "adherence": "share of samples that the classifier takes for the requested digit",
    "frechet": "squared Frechet distance to real digits, in the classifier's hidden layer",
    "precision": "share of samples within the manifold of real digits",
    "recall": "share of real digits within the manifold of the samples",
}


def references(count, seed=0):
    """The judge's parameters, and two halves of real digits that it was not trained on, (images, labels), classes even
    in each: to compare with, and to stand for perfect samples. count: in a half, a multiple of 10, at most 1,870."""
    (images, labels), held_out = data.load()
    each = [np.flatnonzero(labels == k) for k in range(10)]
    most = min(len(where) for where in each) // 2 * 10
    if count % 10 or not 10 <= count <= most:
        raise ValueError(f"count: expected a multiple of 10 from 10 to {most}, got {count}")
    halves = [np.concatenate([where[half::2][: count // 10] for where in each]) for half in (0, 1)]
    return classifier.train(*held_out, seed=seed), *((images[half], labels[half]) for half in halves)


def judged(judge, real, images, labels):
    """The four figures of samples, as COLUMNS says. judge, real: from `references`. labels: (N,), requested."""
    there, here = features(judge, real[0]), features(judge, images)
    figures = classifier.accuracy(judge, images, labels), frechet(there, here), *precision_recall(there, here)
    return dict(zip(COLUMNS, figures))


def features(judge, images):
    """The last hidden layer of the judge, (N, width) float64. judge: from `references`."""
    return classifier.hidden(judge, np.asarray(images, np.float32)).astype(np.float64)


def frechet(a, b):
    """[FID] eq. 6, between the Gaussians with the means and covariances of two clouds:

        |m_a - m_b|^2 + tr(C_a) + tr(C_b) - 2 tr((C_a^(1/2) C_b C_a^(1/2))^(1/2))

    a: (N, D). b: (M, D). N, M >= 2. Returns a float, squared, >= 0 up to rounding. Raises ValueError where the shapes
    do not fit.
    """
    a, b = _clouds(a, b, least=2)
    cov_a, cov_b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    product = np.linalg.eigvalsh(root @ cov_b @ root)
    shift = np.sum((a.mean(axis=0) - b.mean(axis=0)) ** 2)
    return float(shift + np.trace(cov_a) + np.trace(cov_b) - 2 * np.sum(np.sqrt(np.maximum(product, 0))))


def precision_recall(real, made, k=3):
    """[PR] eqs. 1 and 2: the share of made points in the real manifold, and of real points in the made one. A manifold
    is the balls about its points that reach to their k-th nearest neighbour in it."""
    real, made = _clouds(real, made, least=k + 1)
    between = _distances(real, made)
    radius = [np.partition(_distances(x, x), k, axis=1)[:, k] for x in (real, made)]  # entry 0 is the point itself
    precision = np.any(between <= radius[0][:, None], axis=0).mean()
    recall = np.any(between <= radius[1][None, :], axis=1).mean()
    return float(precision), float(recall)


def spread(images, labels):
    """Mean distance |a - b| / sqrt(D) between two samples of the same requested digit, over pairs and then classes."""
    means = []
    for label in np.unique(labels):
        x = np.asarray(images, np.float64)[labels == label]
        if len(x) < 2:
            raise ValueError(f"labels: expected each at least twice, got one of {label}")
        means.append(np.sqrt(_distances(x, x)).sum() / (len(x) * (len(x) - 1) * np.sqrt(x.shape[1])))
    return float(np.mean(means))


def sharpness(images):
    """Mean gradient energy: the mean square of the differences to the right and down, added. Specks count as edges."""
    if np.ndim(images) != 2 or np.shape(images)[1] != 784 or len(images) == 0:
        raise ValueError(f"images: expected shape (N, 784) with N >= 1, got {np.shape(images)}")
    x = np.asarray(images, np.float64).reshape(-1, 28, 28)
    return float(sum(np.mean(np.diff(x, axis=axis) ** 2) for axis in (1, 2)))


def _distances(a, b):
    """Squared distances, (N, M)."""
    squared = np.sum(a**2, axis=1)[:, None] - 2 * a @ b.T + np.sum(b**2, axis=1)
    if a is b:
        np.fill_diagonal(squared, 0)
    return np.maximum(squared, 0)


def _clouds(a, b, least):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < least:
        raise ValueError(f"expected shapes (N, D) and (M, D) with at least {least} rows, got {a.shape} and {b.shape}")
    return a, b
