"""PolyMNIST: tuples of pictures that share a digit and nothing else (paper, section 4)."""

import numpy as np

from ebmvae.core.messages import UserError
from ebmvae.sources.digits import SIDE


def make_tuples(images, labels, writers, backgrounds, n, rng):
    """n tuples from digit images (K, 28, 28) uint8 with labels (K,) and writers (K,).

    Modality m is a digit over a random crop of background m, inverted where the digit is > 128
    (Sutter et al. 2021). The digits of a tuple have one class and different writers. Returns
    images: M arrays uint8 (n, 3, 28, 28); labels int64 (n,); crops int64 (n, M, 2), the (y, x) of
    each crop. Raises `UserError` where a class has fewer than M writers.
    """
    order = np.resize(rng.permutation(len(labels)), n)  # classes as frequent as among the digits
    tuple_labels = labels[order].astype(np.int64)
    source = _pick_digits(tuple_labels, labels, writers, len(backgrounds), rng)
    crops, out = np.empty((n, len(backgrounds), 2), np.int64), []
    for m, background in enumerate(backgrounds):
        height, width, _ = background.shape
        y = rng.integers(height - SIDE + 1, size=n)
        x = rng.integers(width - SIDE + 1, size=n)
        crops[:, m] = np.stack([y, x], 1)
        # y, x, 3, 28, 28
        windows = np.lib.stride_tricks.sliding_window_view(background, (SIDE, SIDE), (0, 1))
        crop = windows[y, x]  # n, 3, 28, 28
        ink = images[source[:, m]][:, None] > 128  # n, 1, 28, 28
        out.append(np.ascontiguousarray(np.where(ink, 255 - crop, crop)))
    return out, tuple_labels, crops


def _pick_digits(tuple_labels, labels, writers, modalities, rng):
    """Indices (n, M) of digits: those of a tuple are of its class, by different writers."""
    source = np.empty((len(tuple_labels), modalities), np.int64)
    for c in np.unique(tuple_labels):
        rows, pool = np.flatnonzero(tuple_labels == c), np.flatnonzero(labels == c)
        if len(np.unique(writers[pool])) < modalities:
            raise UserError(f"polymnist: digit {c} has fewer than {modalities} writers")
        columns = [np.resize(rng.permutation(pool), len(rows)) for _ in range(modalities)]
        pick = np.stack(columns, 1)
        # Draw anew where a writer is twice in a tuple.
        while len(again := np.flatnonzero(_repeats(writers[pick]))):
            pick[again] = rng.choice(pool, (len(again), modalities))
        source[rows] = pick
    return source


def _repeats(writers):
    """Whether a row of `writers` (n, M) holds one twice, (n,)."""
    return [len(set(row)) < len(row) for row in writers.tolist()]
