"""Digit classifiers, one a modality, that judge coherence; and the feature net of the offline Frechet distance.

    python -m stages.train_judge
"""

import argparse
from pathlib import Path

import torch
from torch.nn import functional as F

from stages.lib import artifacts, data, networks, params, runtime, training
from stages.lib.runtime import UserError

OUT = Path("models/judge")


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    p = params.load()
    runtime.begin("train_judge")
    device = runtime.setup(p.threads)
    train, test = (data.load_split(split, device) for split in ("train", "test"))
    mnist = artifacts.load_json(data.POLYMNIST / "provenance.json")["digits"] == "mnist"
    classes = data.n_classes(train.labels)

    accuracy, judges = {}, {}
    for name, images in train.images.items() if classes > 1 else ():  # without labels there is nothing to judge
        judges[name], accuracy[name] = train_judge(name, images, train.labels, test, classes, p, device)
        print(f"judge {name}: {accuracy[name]:.4f} of the held-out images read correctly", flush=True)
    net, heads, history = train_features(train, test, classes, p, device)
    print("feature net, held out: " + ", ".join(f"{k} {v:.3f}" for k, v in heads.items()), flush=True)
    worst, least = min(accuracy, key=accuracy.get, default=None), p.judge.least_accuracy
    if mnist and accuracy[worst] < least:
        raise UserError(f"the judge of {worst} reads {accuracy[worst]:.3f} of the held-out images, judge.least_accuracy "
                        f"asks for {least:g}; raise judge.epochs or polymnist.n_train")
    about = lambda shape: dict(image_shape=list(shape), n_classes=classes)
    with artifacts.together():
        for name, judge in judges.items():
            artifacts.save_module(OUT / f"{name}.safetensors", judge, about(train.images[name].shape[1:]))
        artifacts.save_module(OUT / "features.safetensors", net, dict(
            **about(data.common_shape(train.images)), n_modalities=len(train.modalities), feature_dim=p.judge.feature_dim))
        artifacts.save_json(OUT / "accuracy.json", {"judges": accuracy, "features": heads})
        artifacts.save_json(OUT / "history.json", history)


def train_judge(name, images, labels, test, classes, p, device):
    """A classifier for one modality and its accuracy on the test images."""
    with runtime.seeded("train_judge", p.judge.seed, name):
        judge = networks.Classifier(list(images.shape[1:]), classes).to(device)
    rng = runtime.generator(device, "train_judge", p.judge.seed, name)

    def loss(index, progress):
        x = data.to_float(images[index])  # B, C, H, W
        height, width = x.shape[2:]
        down, right = torch.randint(3, (2,), generator=rng, device=device).tolist()
        x = F.pad(x, (1, 1, 1, 1), mode="reflect")[:, :, down : down + height, right : right + width]  # shift by <= 1
        logits = judge(x)
        return F.cross_entropy(logits, labels[index], label_smoothing=0.05), {}

    with runtime.seeded("dropout", p.judge.seed, name):
        training.train(f"judge {name}", judge, loss, len(images), batch_size=p.judge.batch_size,
                       epochs=p.judge.epochs, learning_rate=p.judge.learning_rate, lr_schedule="cosine", generator=rng)
    judge.eval()
    with torch.no_grad():
        right = [judge(data.to_float(x)).argmax(1) == y
                 for x, y in zip(test.images[name].split(1000), test.labels.split(1000))]
    return judge, float(torch.cat(right).float().mean())


def train_features(train, test, classes, p, device):
    """The feature net, trained on all modalities at once; its accuracies on held-out images, and the history.

    Position is the crop's (y, x) in its background, scaled to [-1, 1]; images without crops leave that head alone.
    """
    names, n = train.modalities, len(train)
    shape = data.common_shape(train.images)
    with runtime.seeded("train_features", p.judge.seed):
        net = networks.FeatureNet(shape, classes, len(names), p.judge.feature_dim).to(device)
    rng = runtime.generator(device, "train_features", p.judge.seed)
    extent = None if train.crops is None else train.crops.amax(0).clamp(min=1)  # M, 2

    def heads(split, index, m):
        """Digit logits (B, classes), modality logits (B, M) and position error (B, 2) of images index[b] of modality
        m[b]; the modalities stand mixed in a batch, as batch normalisation needs them."""
        x = torch.empty(len(index), *shape, device=device).to(memory_format=torch.channels_last)
        for k, name in enumerate(names):
            x[m == k] = net.fitted(data.to_float(split.images[name][index[m == k]]))
        digit, modality, position = net(x)
        if extent is None:
            return digit, modality, None
        target = split.crops[index, m] / extent[m] * 2 - 1
        return digit, modality, position[torch.arange(len(index), device=device), m] - target

    def loss(index, progress):
        image, m = index // len(names), index % len(names)
        digit, modality, error = heads(train, image, m)
        total = F.cross_entropy(digit, train.labels[image]) + F.cross_entropy(modality, m)
        return total if error is None else total + 4 * error.square().mean(), {}

    history = training.train("feature net", net, loss, n * len(names), batch_size=p.judge.batch_size,
                             epochs=p.judge.feature_epochs, learning_rate=p.judge.learning_rate,
                             lr_schedule="cosine", generator=rng)
    net.eval()
    with torch.no_grad():
        parts = [(m, index, *heads(test, index, torch.full_like(index, m))) for m in range(len(names))
                 for index in torch.arange(len(test), device=device).split(1000)]
    mean = lambda values: float(torch.cat(values).float().mean())
    measured = {"modality": mean([modality.argmax(1) == m for m, _, _, modality, _ in parts])}
    if classes > 1:
        measured = {"digit": mean([digit.argmax(1) == test.labels[index] for _, index, digit, _, _ in parts]), **measured}
    if extent is not None:
        measured["position_error"] = mean([error.abs().flatten() for *_, error in parts])
    return net, measured, history


if __name__ == "__main__":
    runtime.run(main)
