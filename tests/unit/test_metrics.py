"""Coherence, Fréchet distance and the rest: closed forms and tables made by hand."""

import math
import warnings

import numpy as np
import pytest

from ebmvae.evaluation import metrics


def statistics(size, seed):
    """Mean and full-rank covariance of random features."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(5 * size, size)) @ rng.normal(size=(size, size))
    return metrics.feature_statistics(mixed + rng.normal(size=size))


# ---- feature statistics


def test_feature_statistics_of_float32_sum_in_float64():
    """Three values around 4096: in float32 their variance of 2^-22 would be lost."""
    features = np.float32([[4096.0], [4096.0 + 2**-11], [4096.0 - 2**-11]])
    mean, covariance = metrics.feature_statistics(features)
    assert mean.dtype == covariance.dtype == np.float64
    assert (mean[0], covariance[0, 0]) == (4096.0, 2.0**-22)


# ---- Fréchet distance


def test_frechet_to_itself_is_zero():
    for size in (1, 32):
        x = statistics(size, 0)
        assert metrics.frechet(*x, *x) == pytest.approx(0, abs=1e-10 * np.trace(x[1]))
    singular = metrics.feature_statistics(np.random.default_rng(0).normal(size=(4, 30)))
    assert metrics.frechet(*singular, *singular) == pytest.approx(0, abs=1e-5)


def test_frechet_is_symmetric():
    a, b = statistics(12, 0), statistics(12, 1)
    assert metrics.frechet(*a, *b) == pytest.approx(metrics.frechet(*b, *a), rel=1e-10)
    assert metrics.frechet(*a, *b) > 1


def test_frechet_is_invariant_under_rotation():
    a, b = statistics(12, 0), statistics(12, 1)
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(12, 12)))[0]
    rotated = [(turn @ mean, turn @ covariance @ turn.T) for mean, covariance in (a, b)]
    expected = pytest.approx(metrics.frechet(*a, *b), rel=1e-10)
    assert metrics.frechet(*rotated[0], *rotated[1]) == expected


def test_frechet_of_diagonal_covariances():
    a, b, mean_a, mean_b = np.random.default_rng(0).uniform(0.1, 5, (4, 9))
    expected = ((mean_a - mean_b) ** 2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    distance = metrics.frechet(mean_a, np.diag(a), mean_b, np.diag(b))
    assert distance == pytest.approx(expected, rel=1e-12)


def test_frechet_of_equal_covariances_is_the_squared_shift():
    mean, covariance = statistics(6, 0)
    shift = np.arange(6.0)
    distance = metrics.frechet(mean, covariance, mean + shift, covariance)
    assert distance == pytest.approx((shift**2).sum(), rel=1e-9)


@pytest.mark.parametrize("size", [2, 64])
def test_frechet_agrees_with_clean_fid(size):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # clean-fid calls what SciPy is about to remove
        from cleanfid.fid import frechet_distance

        a, b = statistics(size, 0), statistics(size, 1)
        expected = frechet_distance(*a, *b)
    assert metrics.frechet(*a, *b) == pytest.approx(expected, rel=1e-9)


def test_symmetric_sqrt_squares_to_its_matrix():
    _, covariance = statistics(8, 0)
    root = metrics.symmetric_sqrt(covariance)  # of B, as references have it at hand
    b = statistics(8, 1)
    assert metrics.frechet(*b, _, covariance, root) == metrics.frechet(*b, _, covariance)
    np.testing.assert_allclose(root @ root, covariance, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(root, root.T, rtol=0, atol=1e-12)


# ---- coherence and agreement


def test_coherence_is_the_share_of_hits():
    labels = np.arange(50) % 10
    assert metrics.coherence(labels, labels) == 1.0  # true copies
    assert metrics.coherence((labels + 1) % 10, labels) == 0.0
    assert metrics.coherence([1, 2, 3, 4], [1, 2, 3, 5]) == 0.75


def test_coherence_of_shuffled_labels_is_chance():
    n, chance = 20000, 0.1
    labels = np.arange(n) % 10
    coherence = metrics.coherence(np.random.default_rng(0).permutation(labels), labels)
    assert abs(coherence - chance) < 4 * math.sqrt(chance * (1 - chance) / n)


def test_agreement_of_a_table():
    table = [
        [7, 7, 7, 7, 7],  # all
        [2, 2, 2, 2, 9],  # all but m5
        [2, 3, 2, 2, 2],  # all but m2
        [1, 1, 1, 4, 4],  # m1's others are 1, 1, 4, 4, a tie, which counts
    ]
    assert metrics.agreement(table) == (1 / 4, [1.0, 0.75, 1.0, 0.75, 0.5])
    assert metrics.agreement([[3, 3], [3, 5]]) == (0.5, [0.5, 0.5])  # of two modalities


def test_agreement_of_all_and_of_none():
    same = np.repeat(np.arange(10)[:, None], 5, 1)
    assert metrics.agreement(same) == (1.0, [1.0] * 5)
    assert metrics.agreement([[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]])[0] == 0.0


# ---- diversity and AUROC


def test_diversity_is_the_variance_within_classes():
    features = [[0.0, 0.0], [2.0, 0.0], [10.0, 1.0], [10.0, 5.0], [99.0, 99.0]]
    labels = [0, 0, 1, 1, 2]  # variances 2 and 0, 0 and 8; the one sample of class 2 has none
    assert metrics.diversity(features, labels) == 5.0
    assert metrics.diversity(features[3:], labels[3:]) is None


def test_diversity_does_not_see_the_distance_between_classes():
    features, labels = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 4
    diversity = metrics.diversity(features, labels)
    assert metrics.diversity(features + 100 * labels[:, None], labels) == pytest.approx(diversity)
    assert metrics.diversity(np.ones((10, 3)), np.arange(10) % 2) == 0.0  # of copies


@pytest.mark.parametrize(
    "positive, negative, expected",
    [([3, 4], [1, 2], 1), ([1, 2], [3, 4], 0), ([2, 0], [1, 1], 0.5), ([2, 3], [1, 2, 4], 3.5 / 6)],
)
def test_auroc_is_the_share_of_ordered_pairs(positive, negative, expected):
    assert metrics.auroc(np.array(positive), np.array(negative)) == pytest.approx(expected)
