"""What `references` and `evaluate` share: test tuples, one pass over images, a cell's numbers."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ebmvae.core import artifacts, devices, random
from ebmvae.core.messages import UserError, say
from ebmvae.data.splits import n_classes
from ebmvae.evaluation import features, metrics
from ebmvae.evaluation.classifiers import Classifier

FIGURE_COLUMNS = 5  # samples per digit in Figure 3
PAGE_COLUMNS = 5  # tuples whose samples the report page shows in every cell
LARGEST = 100.0  # latents beyond are no sample of anything: the VAEs' lie within 10 of 0
STATISTICS = ("mean", "covariance", "root")  # of features; the root is that of the covariance


@dataclass(frozen=True)
class Ruler:
    """What measures a cell."""

    classifiers: dict[str, torch.nn.Module | None]  # by modality; None for data without labels
    extract: Callable  # uint8 images (B, C, H, W) -> features (B, F)
    distance: str  # name of the Fréchet distance in these features
    batch_size: int


def load_ruler(p, split, device) -> Ruler:
    """The `Ruler` for the modalities of `split`."""
    labelled = n_classes(split.labels) > 1
    classifiers = {
        name: artifacts.load_module(f"models/classifiers/{name}.safetensors", Classifier, device)
        if labelled
        else None
        for name in split.modalities
    }
    extract = features.extractor(p, device)
    return Ruler(classifiers, extract, features.distance_name(p), p.evaluate.batch_size)


def test_tuples(p, n_test, device):
    """Indices (n,) of the test tuples that every cell is measured on, the same for all seeds.

    With evaluate.tuples `validation` they are others: what was tuned on them has not seen those
    that are reported. Raises `UserError` where none are left for validation.
    """
    n = min(p.evaluate.n_samples, n_test)
    order = torch.randperm(n_test, generator=random.generator("cpu", "test tuples"))
    if p.evaluate.tuples == "test":
        return order[:n].to(device)
    if n_test - n < 100:
        raise UserError(
            f"evaluate.tuples: validation wants 100 of the {n_test} test tuples besides the "
            f"evaluate.n_samples: {n} that are reported; raise polymnist.n_test or lower "
            "evaluate.n_samples"
        )
    return order[n : 2 * n].to(device)


def converged(z, what):
    """Rows (k,) of latents (n, M, d) that are finite and of sane size; the others are left out.

    A line on stderr says how many. Raises `UserError` where that is more than half.
    """
    size = z.abs().flatten(1).amax(1)
    kept = torch.nonzero(size < LARGEST).flatten()  # NaN is not less either
    lost = len(z) - len(kept)
    if lost:
        line = f"{what}, {lost} of {len(z)} samples diverged"
        if 2 * lost > len(z):
            raise UserError(
                f"{line}; nothing was written. Try a smaller step_size or guidance_scale, "
                "or a longer fit"
            )
        say(f"WARNING: {line} and are left out of this cell")
    return kept


def figure_rows(labels):
    """Rows of the test tuples shown in Figure 3: five per class, class by class.

    Repeated where a class has fewer; without labels the first 25.
    """
    if len(labels.unique()) == 1:
        return torch.arange(FIGURE_COLUMNS**2, device=labels.device) % len(labels)
    by_class = [torch.nonzero(labels == c).flatten() for c in labels.unique()]
    columns = torch.arange(FIGURE_COLUMNS, device=labels.device)
    return torch.cat([rows[columns % len(rows)] for rows in by_class])


def page_rows(labels):
    """Rows of the test tuples that the page shows in every cell: the first of some classes."""
    if len(labels.unique()) == 1:
        return torch.arange(min(PAGE_COLUMNS, len(labels)), device=labels.device)
    firsts = [torch.nonzero(labels == c).flatten()[0] for c in labels.unique()]
    return torch.stack(firsts)[:PAGE_COLUMNS]


@torch.no_grad()
def look_at(images_of, n, classifier, ruler: Ruler):
    """One pass over n images, never decoded twice: predicted classes and features.

    images_of(rows) returns the uint8 images of int64 rows. Returns images uint8 (n, C, H, W),
    predicted classes (n,) or None without a classifier, and features (n, F) float64. The classifier
    sees what a PNG of a sample would hold.
    """
    images, predicted, extracted = [], [], []
    for rows in torch.arange(n).split(ruler.batch_size):
        images.append(images_of(rows))
        # On the CPU: Apple's GPUs have no float64.
        extracted.append(ruler.extract(images[-1]).cpu().double())
        if classifier:
            predicted.append(classifier(images[-1].float() / 255).argmax(1))
    predicted = torch.cat(predicted).cpu().numpy() if classifier else None
    return torch.cat(images), predicted, torch.cat(extracted).numpy()


def measure(predicted, labels, extracted, reference, distance):
    """The numbers of a cell: coherence, Fréchet distance to the reference, diversity, n_samples.

    labels: int64 (N,), or None where nothing is observed; predicted: classes (N,), or None without
    labels at all: either leaves coherence out. extracted: features (N, F); reference: its
    STATISTICS. With fewer samples than features the covariance is singular: the row says so.
    """
    labels = None if labels is None else labels.cpu().numpy()
    known = labels is not None and predicted is not None
    if labels is not None:
        groups = labels
    else:
        groups = predicted if predicted is not None else np.zeros(len(extracted))
    row = {
        "coherence": metrics.coherence(predicted, labels) if known else None,
        distance: metrics.frechet(*metrics.feature_statistics(extracted), *reference),
        "diversity": metrics.diversity(extracted, groups),
        "n_samples": len(extracted),
    }
    if len(extracted) <= extracted.shape[1]:
        n, size = extracted.shape
        row["warning"] = f"{n} samples for {size} features: the covariance is singular"
    return row


def statistics(extracted):
    """The STATISTICS of features (N, F)."""
    mean, covariance = metrics.feature_statistics(extracted)
    return mean, covariance, metrics.symmetric_sqrt(covariance)


def reference_statistics(name):
    """{"real", "vae"}: the STATISTICS, float64, of modality `name`'s test images and its VAE's."""
    tensors, _ = artifacts.load_tensors("results/references/statistics.safetensors")
    return {
        kind: tuple(tensors[f"{kind}/{name}/{part}"].numpy() for part in STATISTICS)
        for kind in ("real", "vae")
    }


def about(p, device):
    """Seed, distance, device and precision, saved beside every result."""
    return {"seed": p.seed, "distance": features.distance_name(p), **devices.describe(device)}
