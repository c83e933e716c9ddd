"""Subsets of modalities: what may be observed."""

from itertools import combinations

import torch

from ebmvae.core import random
from ebmvae.core.messages import say


def subsets(items, size=None):
    """All non-empty subsets of `items` as tuples, smaller ones first; with `size` only those."""
    sizes = range(1, len(items) + 1) if size is None else [size]
    return [subset for k in sizes for subset in combinations(items, k)]


def subset_name(subset):
    """("m1", "m4") -> "m1+m4"; the empty subset is "none"."""
    return "+".join(subset) or "none"


def observed_subsets(names, max_subsets):
    """What the grid conditions on: nothing, then all subsets of 1 to M - 1 modalities.

    Of more than `max_subsets` of one size, that many are drawn at random, the same ones in every
    call.
    """
    chosen = [()]
    for size in range(1, len(names)):
        all_of_size = subsets(names, size)
        if len(all_of_size) > max_subsets:
            rng = random.generator("cpu", "subsets", size)
            rows = torch.randperm(len(all_of_size), generator=rng)[:max_subsets].sort().values
            say(f"{len(rows)} of {len(all_of_size)} subsets of size {size}, drawn at random")
            all_of_size = [all_of_size[row] for row in rows.tolist()]
        chosen += all_of_size
    return chosen
