"""What `references` and `evaluate` share: the judged test tuples, one pass over images, the numbers of a cell."""

import numpy as np
import torch

from stages.lib import artifacts, data, features, metrics, networks, runtime
from stages.lib.runtime import UserError

FIGURE_COLUMNS = 5  # samples a digit in Figure 3
PAGE_COLUMNS = 5  # tuples whose samples the report page shows in every cell
LARGEST = 100.0  # latents beyond are no sample of anything: the VAEs' lie within 10 of 0
PARTS = ("mean", "covariance", "root")  # of a reference's features; the root is that of the covariance


def load_judges(split, device):
    """The digit classifier of each modality of `split` by its name; None for each where the data have no labels."""
    if data.n_classes(split.labels) == 1:
        return dict.fromkeys(split.modalities)
    return {name: artifacts.load_module(f"models/judge/{name}.safetensors", networks.Classifier, device)
            for name in split.modalities}


def test_tuples(p, n_test, device):
    """Indices (n,) of the test tuples that every cell of every method is measured on, the same for all seeds.

    With evaluate.tuples `validation` they are others: what was tuned on them has not seen those that are reported.
    Raises `UserError` where none are left for validation.
    """
    n = min(p.evaluate.n_samples, n_test)
    order = torch.randperm(n_test, generator=runtime.generator("cpu", "test tuples"))
    if p.evaluate.tuples == "test":
        return order[:n].to(device)
    if n_test - n < 100:
        raise UserError(f"evaluate.tuples: validation wants 100 of the {n_test} test tuples besides the evaluate.n_samples: {n} "
                        "that are reported; raise polymnist.n_test or lower evaluate.n_samples")
    return order[n : 2 * n].to(device)


def converged(z, what):
    """Rows (k,) of latents (n, ...) that are finite and of sane size; what diverged is said and left out, not averaged in.

    Raises `UserError` where that is more than half of them.
    """
    size = z.abs().flatten(1).amax(1)
    kept = torch.nonzero(size < LARGEST).flatten()  # NaN is not less either
    if len(kept) < len(z):
        line = f"{what}, {len(z) - len(kept)} of {len(z)} samples diverged"
        if 2 * len(kept) < len(z):
            raise UserError(f"{line}; nothing was written. Try a smaller step_size or guidance, or a longer fit")
        runtime.say(f"WARNING: {line} and are left out of this cell")
    return kept


def figure_rows(labels):
    """Rows of the judged tuples shown in Figure 3: five of each class, class by class, repeated where a class has fewer.

    Without labels the first 25.
    """
    if len(labels.unique()) == 1:
        return torch.arange(FIGURE_COLUMNS**2, device=labels.device) % len(labels)
    by_class = [torch.nonzero(labels == c).flatten() for c in labels.unique()]
    return torch.cat([rows[torch.arange(FIGURE_COLUMNS, device=rows.device) % len(rows)] for rows in by_class])


def page_rows(labels):
    """Rows of the judged tuples shown in every cell of the report page: the first of each of the first classes."""
    if len(labels.unique()) == 1:
        return torch.arange(min(PAGE_COLUMNS, len(labels)), device=labels.device)
    return torch.stack([torch.nonzero(labels == c).flatten()[0] for c in labels.unique()])[:PAGE_COLUMNS]


@torch.no_grad()
def features_of(images, extract, p):
    """Features (N, F) float64 of uint8 images (N, C, H, W)."""
    return torch.cat([extract(x).double() for x in images.split(p.evaluate.batch_size)]).cpu().numpy()


@torch.no_grad()
def judge_and_extract(images_of, n, judge, extract, p):
    """One pass over n images, never decoded twice: uint8 images (n, C, H, W), judged digits (n,), features (n, F).

    `images_of(rows)` returns the uint8 images of int64 rows. Judges see what a PNG of a sample would hold. Where `judge` is
    None so are the judged digits.
    """
    images, predicted, found = [], [], []
    for rows in torch.arange(n).split(p.evaluate.batch_size):
        images.append(images_of(rows))
        predicted.append(judge(images[-1].float() / 255).argmax(1) if judge else None)
        found.append(extract(images[-1]).double())
    return torch.cat(images), torch.cat(predicted).cpu().numpy() if judge else None, torch.cat(found).cpu().numpy()


def measure(predicted, labels, found, reference, distance):
    """The numbers of one cell: coherence, Frechet distance to the reference (its PARTS), diversity, n_samples.

    `labels` None (nothing observed) or `predicted` None (no labels at all) leaves coherence out. With fewer samples than features the covariance is singular:
    the row then says so.
    """
    labels = None if labels is None else labels.cpu().numpy()
    row = {"coherence": None if labels is None or predicted is None else metrics.coherence(predicted, labels),
           distance: metrics.frechet(*metrics.feature_statistics(found), *reference),
           "diversity": metrics.diversity(found, next((each for each in (labels, predicted) if each is not None), np.zeros(len(found)))),
           "n_samples": len(found)}
    if len(found) <= found.shape[1]:
        row["warning"] = f"{len(found)} samples for {found.shape[1]} features: the covariance is singular"
    return row


def reference_statistics(name):
    """Mean, covariance and its root (float64) of the features of modality `name`'s real test images, and of its VAE's."""
    tensors, _ = artifacts.load_tensors("results/references/statistics.safetensors")
    return {kind: tuple(tensors[f"{kind}/{name}/{part}"].numpy() for part in PARTS) for kind in ("real", "vae")}


def statistics(found):
    """The PARTS of features (N, F)."""
    mean, covariance = metrics.feature_statistics(found)
    return mean, covariance, metrics.symmetric_sqrt(covariance)


def about(p, device, precision="ieee"):
    """Seed, distance, device and the precision of matrix products, saved beside every result."""
    return {"seed": p.seed, "distance": features.distance_name(p), **runtime.describe(device, precision)}
