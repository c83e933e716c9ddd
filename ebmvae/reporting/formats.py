"""Numbers and names as text, alike on the page and in results.md."""

from ebmvae.methods import METHODS, REFERENCES
from ebmvae.reporting.figures import METRIC_LABELS

MISSING = "–"


def share(value: float) -> str:
    """A number from 0 to 1: .865"""
    return f"{value:.3f}".removeprefix("0")


def amount(value: float) -> str:
    """A distance or a variance: 203, 8.3"""
    return f"{value:.{1 if value < 99.95 else 0}f}"


def label(key: str) -> str:
    """The label of a method, a reference or a metric; `key` itself where it is none of these."""
    if key in METHODS or key in REFERENCES:
        return {**METHODS, **REFERENCES}[key].label
    return METRIC_LABELS.get(key, key)


def short_label(key: str) -> str:
    """The label without what stands in brackets."""
    return label(key).split(" (")[0]
