"""Coherence, Frechet distance and the rest: closed forms and tables made by hand."""

import math
import warnings

import numpy as np
import pytest

from stages.lib import metrics


def statistics(dim, seed):
    """Mean and full-rank covariance of random features."""
    rng = np.random.default_rng(seed)
    return metrics.feature_statistics(rng.normal(size=(5 * dim, dim)) @ rng.normal(size=(dim, dim)) + rng.normal(size=dim))


def rotation(dim, seed):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))[0]


# ---- feature statistics


def test_feature_statistics_are_numpys():
    features = np.random.default_rng(0).normal(size=(20, 4))
    mean, covariance = metrics.feature_statistics(features)
    np.testing.assert_allclose(mean, features.mean(0), rtol=1e-14)
    np.testing.assert_allclose(covariance, np.cov(features, rowvar=False), rtol=1e-12, atol=1e-14)


def test_feature_statistics_of_float32_sum_in_float64():
    """Three values around 10,000: in float32 the variance of 1e-6 would be lost."""
    features = np.float32([[4096.0], [4096.0 + 2**-11], [4096.0 - 2**-11]])
    mean, covariance = metrics.feature_statistics(features)
    assert mean.dtype == covariance.dtype == np.float64
    assert mean[0] == 4096.0
    assert covariance[0, 0] == 2.0**-22


# ---- Frechet distance


@pytest.mark.parametrize("dim", [1, 5, 32])
def test_frechet_to_itself_is_zero(dim):
    x = statistics(dim, 0)
    assert metrics.frechet(*x, *x) == pytest.approx(0, abs=1e-10 * np.trace(x[1]))


def test_frechet_of_a_singular_covariance_to_itself_is_zero():
    mean, covariance = metrics.feature_statistics(np.random.default_rng(0).normal(size=(4, 30)))
    assert metrics.frechet(mean, covariance, mean, covariance) == pytest.approx(0, abs=1e-5)


def test_frechet_is_symmetric():
    a, b = statistics(12, 0), statistics(12, 1)
    assert metrics.frechet(*a, *b) == pytest.approx(metrics.frechet(*b, *a), rel=1e-10)
    assert metrics.frechet(*a, *b) > 1


def test_frechet_is_invariant_under_rotation():
    a, b, turn = statistics(12, 0), statistics(12, 1), rotation(12, 2)
    rotated = [(turn @ mean, turn @ covariance @ turn.T) for mean, covariance in (a, b)]
    assert metrics.frechet(*rotated[0], *rotated[1]) == pytest.approx(metrics.frechet(*a, *b), rel=1e-10)


def test_frechet_of_diagonal_covariances():
    rng = np.random.default_rng(0)
    a, b, mean_a, mean_b = rng.uniform(0.1, 5, (4, 9))
    expected = ((mean_a - mean_b) ** 2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    assert metrics.frechet(mean_a, np.diag(a), mean_b, np.diag(b)) == pytest.approx(expected, rel=1e-12)


def test_frechet_by_a_root_at_hand_is_the_same():
    a, b = statistics(8, 0), statistics(8, 1)
    assert metrics.frechet(*a, *b, metrics.symmetric_sqrt(b[1])) == metrics.frechet(*a, *b)


def test_frechet_of_equal_covariances_is_the_squared_shift():
    mean, covariance = statistics(6, 0)
    shift = np.arange(6.0)
    assert metrics.frechet(mean, covariance, mean + shift, covariance) == pytest.approx((shift**2).sum(), rel=1e-9)


@pytest.mark.parametrize("dim", [2, 16, 64])
def test_frechet_agrees_with_clean_fid(dim):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # clean-fid calls what SciPy is about to remove
        from cleanfid.fid import frechet_distance

        a, b = statistics(dim, 0), statistics(dim, 1)
        expected = frechet_distance(*a, *b)
    assert metrics.frechet(*a, *b) == pytest.approx(expected, rel=1e-9)


def test_symmetric_sqrt_squares_to_its_matrix():
    _, covariance = statistics(8, 0)
    root = metrics.symmetric_sqrt(covariance)
    np.testing.assert_allclose(root @ root, covariance, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(root, root.T, rtol=0, atol=1e-12)


# ---- coherence


def test_coherence_of_true_copies_is_one():
    labels = np.arange(50) % 10
    assert metrics.coherence(labels, labels) == 1.0
    assert metrics.coherence((labels + 1) % 10, labels) == 0.0


def test_coherence_is_the_share_of_hits():
    assert metrics.coherence([1, 2, 3, 4], [1, 2, 3, 5]) == 0.75


def test_coherence_of_shuffled_labels_is_chance():
    n, chance = 20000, 0.1
    labels = np.arange(n) % 10
    found = metrics.coherence(np.random.default_rng(0).permutation(labels), labels)
    assert abs(found - chance) < 4 * math.sqrt(chance * (1 - chance) / n)


# ---- agreement


def test_agreement_of_a_table():
    every, most, by_modality = metrics.agreement(np.array([
        [7, 7, 7, 7, 7],    # all
        [2, 2, 2, 2, 9],    # all but m5
        [2, 3, 2, 2, 2],    # all but m2
        [1, 1, 1, 4, 4]]))  # three against two
    assert every == 1 / 4
    assert most == 3 / 4
    assert by_modality == [1.0, 0.75, 1.0, 0.75, 0.5]  # row 4: m1's others are 1, 1, 4, 4, a tie, which counts


def test_agreement_of_everyone_and_of_no_one():
    same = np.repeat(np.arange(10)[:, None], 5, 1)
    assert metrics.agreement(same) == (1.0, 1.0, [1.0] * 5)
    every, most, _ = metrics.agreement([[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]])
    assert (every, most) == (0.0, 0.0)


def test_agreement_of_two_modalities():
    every, most, by_modality = metrics.agreement([[3, 3], [3, 5]])
    assert (every, most, by_modality) == (0.5, 1.0, [0.5, 0.5])


# ---- diversity


def test_diversity_is_the_variance_within_classes():
    features = [[0.0, 0.0], [2.0, 0.0], [10.0, 1.0], [10.0, 5.0], [99.0, 99.0]]
    labels = [0, 0, 1, 1, 2]  # variances 2 and 0, 0 and 8; the one sample of class 2 has none
    assert metrics.diversity(features, labels) == 5.0


def test_diversity_does_not_see_the_distance_between_classes():
    features, labels = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 4
    moved = features + 100 * labels[:, None]
    assert metrics.diversity(moved, labels) == pytest.approx(metrics.diversity(features, labels), rel=1e-9)


def test_diversity_of_copies_is_zero():
    assert metrics.diversity(np.ones((10, 3)), np.arange(10) % 2) == 0.0


# ---- auroc


@pytest.mark.parametrize("positive, negative, expected", [
    ([3, 4], [1, 2], 1.0), ([1, 2], [3, 4], 0.0), ([1, 1], [1, 1], 0.5), ([2, 0], [1, 1], 0.5), ([2, 3], [1, 2, 4], 3.5 / 6)])
def test_auroc_is_the_share_of_ordered_pairs(positive, negative, expected):
    assert metrics.auroc(np.array(positive), np.array(negative)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("shards", [2, 8, 1000])
@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_statistics_of_shards_merge_to_those_of_all(shards, shift):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2003, 12)) @ rng.normal(size=(12, 12)) + shift
    cuts = sorted(rng.choice(np.arange(1, 2003), shards - 1, replace=False))
    parts = [(len(part), *(metrics.feature_statistics(part) if len(part) > 1 else (part[0], 0.0))) for part in np.split(features, cuts)]
    mean, covariance = metrics.feature_statistics(features)
    merged_mean, merged_covariance = metrics.merge_statistics(parts)
    assert np.abs(merged_mean - mean).max() < 1e-10 * np.abs(mean).max()
    assert np.abs(merged_covariance - covariance).max() < 1e-10 * np.abs(covariance).max()
    assert min(len(part) for part in np.split(features, cuts)) == 1 or shards < 1000


def test_statistics_of_shards_merge_where_scales_differ_by_eight_orders():
    """Every entry to 1e-10 of its two standard deviations, not only of the largest; first a shard of one, then one of two."""
    scale = np.logspace(-4, 4, 16)
    features = (np.random.default_rng(1).normal(size=(4001, 16)) + 1e4) * scale
    parts = [(len(part), *(metrics.feature_statistics(part) if len(part) > 1 else (part[0], 0.0)))
             for part in np.split(features, [1, 3, 50, 1000, 1001, 2500, 4000])]
    mean, covariance = metrics.feature_statistics(features)
    merged_mean, merged_covariance = metrics.merge_statistics(parts)
    np.testing.assert_allclose(merged_mean, mean, rtol=1e-10)
    deviations = np.sqrt(np.diag(covariance))
    assert (np.abs(merged_covariance - covariance) / np.outer(deviations, deviations)).max() < 1e-10


def test_merged_statistics_of_one_are_itself():
    mean, covariance = metrics.merge_statistics([(1, np.array([3.0, 4.0]), 0.0)])
    assert mean.tolist() == [3, 4] and covariance.tolist() == [[0, 0], [0, 0]]
