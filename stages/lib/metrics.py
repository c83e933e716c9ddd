"""Coherence, Frechet distance, diversity, and how well the energy tells matching tuples from others. Float64 NumPy."""

import numpy as np


def feature_statistics(features):
    """Mean (F,) and covariance (F, F), divided by N - 1, of features (N, F), in float64."""
    features = np.asarray(features, np.float64)
    mean = features.mean(0)
    centred = features - mean
    return mean, centred.T @ centred / (len(features) - 1)


def merge_statistics(parts):
    """Mean (F,) and covariance (F, F) of all features from those of disjoint parts of them, each (count, mean, covariance).

    Chan, Golub and LeVeque 1983: no sum of squares, so little cancels where means are large: with means of a million standard
    deviations the covariance agrees to 1e-11 with that of one pass, of 100 million to 1e-9. Of one alone it is 0.
    """
    count, mean, scatter = 0, 0.0, 0.0
    for n, its_mean, its_covariance in parts:
        difference = np.asarray(its_mean, np.float64) - mean
        scatter = scatter + (n - 1) * np.asarray(its_covariance, np.float64) + np.outer(difference, difference) * count * n / (count + n)
        mean = mean + difference * n / (count + n)
        count += n
    return mean, scatter / max(count - 1, 1)


def symmetric_sqrt(matrix):
    """Square root of a symmetric positive semi-definite matrix; rounding below zero counts as zero."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T


def frechet(mean_a, covariance_a, mean_b, covariance_b, root_b=None):
    """Frechet distance of two Gaussians (Heusel et al. 2017): |a - b|^2 + tr(A + B - 2 (B^1/2 A B^1/2)^1/2).

    The root of the symmetric product has the trace of that of AB, without complex numbers. root_b: B^1/2 where it is at
    hand, as of a reference to which many are compared.
    """
    root = symmetric_sqrt(covariance_b) if root_b is None else root_b
    values = np.linalg.eigvalsh(root @ covariance_a @ root)
    difference = mean_a - mean_b
    distance = difference @ difference + np.trace(covariance_a) + np.trace(covariance_b) - 2 * np.sqrt(values.clip(0)).sum()
    return float(max(distance, 0.0))


def coherence(predicted, labels):
    """Share of the judged digits (N,) that are the label (N,) of the observed ones."""
    return float(np.mean(np.asarray(predicted) == np.asarray(labels)))


def agreement(predicted):
    """Unconditional coherence from judged digits (N, M): the share of samples whose most frequent digit is read by all
    judges, by at least all but one, and how often each judge reads the digit that most of the others read."""
    predicted = np.asarray(predicted)
    n, modalities = predicted.shape
    classes = np.arange(predicted.max() + 1)
    votes = (predicted[:, :, None] == classes).sum(1)  # N, classes
    most = votes.max(1)
    by_modality = []
    for m in range(modalities):
        others = votes - (predicted[:, m, None] == classes)
        by_modality.append(float(np.mean(others[np.arange(n), predicted[:, m]] == others.max(1))))
    return float(np.mean(most == modalities)), float(np.mean(most >= modalities - 1)), by_modality


def diversity(features, labels):
    """Total variance of features (N, F) within a class, averaged over the classes with at least two samples.

    None where no class has two.
    """
    features, labels = np.asarray(features, np.float64), np.asarray(labels)
    groups = [features[labels == c] for c in np.unique(labels)]
    variances = [group.var(0, ddof=1).sum() for group in groups if len(group) > 1]
    return float(np.mean(variances)) if variances else None


def auroc(positive, negative):
    """Probability that a `positive` value exceeds a `negative` one, ties counting half."""
    from sklearn.metrics import roc_auc_score

    truth = np.concatenate([np.ones(len(positive)), np.zeros(len(negative))])
    return float(roc_auc_score(truth, np.concatenate([positive, negative])))
