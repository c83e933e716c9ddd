"""Coherence, Fréchet distance, diversity, and the energy's AUROC. Float64 NumPy."""

import numpy as np


def feature_statistics(features):
    """Mean (F,) and covariance (F, F), divided by N - 1, of features (N, F), in float64."""
    features = np.asarray(features, np.float64)
    mean = features.mean(0)
    centred = features - mean
    return mean, centred.T @ centred / (len(features) - 1)


def symmetric_sqrt(matrix):
    """Root of a symmetric positive semi-definite matrix; rounding below zero counts as zero."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T


def frechet(mean_a, covariance_a, mean_b, covariance_b, root_b=None):
    """Fréchet distance of two Gaussians (Heusel et al. 2017).

    |a - b|^2 + tr(A + B - 2 (B^1/2 A B^1/2)^1/2): the root of the symmetric product has the trace
    of that of AB, without complex numbers. root_b: B^1/2 where it is at hand, as of a reference.
    """
    root = symmetric_sqrt(covariance_b) if root_b is None else root_b
    values = np.linalg.eigvalsh(root @ covariance_a @ root)
    difference = mean_a - mean_b
    traces = np.trace(covariance_a) + np.trace(covariance_b)
    distance = difference @ difference + traces - 2 * np.sqrt(values.clip(0)).sum()
    return float(max(distance, 0.0))


def coherence(predicted, labels):
    """Share of the predicted digits (N,) that are the label (N,) of the observed ones."""
    return float(np.mean(np.asarray(predicted) == np.asarray(labels)))


def agreement(predicted):
    """Unconditional coherence, from predicted digits (N, M).

    The share of samples in which all classifiers read the same digit; and how often each of them
    reads the digit that most of the others read, a list of M.
    """
    predicted = np.asarray(predicted)
    n, modalities = predicted.shape
    classes = np.arange(predicted.max() + 1)
    votes = (predicted[:, :, None] == classes).sum(1)  # N, classes
    by_modality = []
    for m in range(modalities):
        others = votes - (predicted[:, m, None] == classes)
        agrees = others[np.arange(n), predicted[:, m]] == others.max(1)
        by_modality.append(float(np.mean(agrees)))
    return float(np.mean(votes.max(1) == modalities)), by_modality


def diversity(features, labels):
    """Total variance of features (N, F) within a class, averaged over classes of two or more.

    None where no class has two samples.
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
