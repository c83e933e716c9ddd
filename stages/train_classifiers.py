"""What measures: a digit classifier per modality, and the feature net of the Fréchet distance.

python -m stages.train_classifiers
"""

from pathlib import Path

import torch
from torch.nn import functional as F

from ebmvae import command, params
from ebmvae.core import artifacts, devices, random, training
from ebmvae.core.messages import UserError
from ebmvae.data import splits
from ebmvae.evaluation.classifiers import Classifier, FeatureNet

OUT = Path("models/classifiers")


def main():
    command.parser(__doc__).parse_args()
    p = params.load()
    with command.exclusive("train_classifiers"):
        run(p)


def run(p, train=training.train):
    """Train and write all of them. `train`: what trains, for benchmarks to time."""
    device = devices.setup(p.threads)
    train_split, test = (splits.load_split(split, device) for split in ("train", "test"))
    classes, names = splits.n_classes(train_split.labels), train_split.modalities
    classifiers, accuracy = {}, {}
    for name in names if classes > 1 else ():  # without labels there is nothing to classify
        classifiers[name] = train_classifier(name, train_split, classes, p, train)
        accuracy[name] = accuracy_of(classifiers[name], test.images[name], test.labels)
        print(f"classifier {name}: accuracy {accuracy[name]:.4f} on held-out images", flush=True)
    net, history = train_features(train_split, classes, p, train)
    measured = feature_accuracy(net, train_split, test, classes)
    numbers = ", ".join(f"{key} {value:.3f}" for key, value in measured.items())
    print(f"feature net, held out: {numbers}", flush=True)
    check_accuracy(accuracy, p)
    with artifacts.together():
        for name, classifier in classifiers.items():
            shape = list(train_split.images[name].shape[1:])
            about = dict(image_shape=shape, n_classes=classes)
            artifacts.save_module(OUT / f"{name}.safetensors", classifier, about)
        about = dict(
            image_shape=list(net.image_shape),
            n_classes=classes,
            n_modalities=len(names),
            feature_dim=p.classifier.feature_dim,
        )
        artifacts.save_module(OUT / "features.safetensors", net, about)
        content = {"classifiers": accuracy, "features": measured}
        artifacts.save_json(OUT / "accuracy.json", content)
        artifacts.save_json(OUT / "history.json", history)


def check_accuracy(accuracy, p):
    """Raise `UserError` where a classifier of MNIST digits reads fewer than it should."""
    is_mnist = artifacts.load_json(splits.POLYMNIST / "provenance.json")["digits"] == "mnist"
    worst, least = min(accuracy, key=accuracy.get, default=None), p.classifier.min_accuracy
    if is_mnist and accuracy[worst] < least:
        raise UserError(
            f"the classifier of {worst} reads {accuracy[worst]:.3f} of the held-out images, "
            f"classifier.min_accuracy asks for {least:g}; raise classifier.epochs or "
            "polymnist.n_train"
        )


def settings(p, epochs):
    """Of both kinds of training."""
    return training.Settings(
        batch_size=p.classifier.batch_size,
        learning_rate=p.classifier.learning_rate,
        epochs=epochs,
        lr_schedule="cosine",
    )


def train_classifier(name, split, classes, p, train, label_smoothing=0.05):
    """A classifier for one modality. It sees images shifted by up to one pixel."""
    images, labels, device = split.images[name], split.labels, split.labels.device
    with random.seeded("train_judge", p.classifier.seed, name):
        classifier = Classifier(list(images.shape[1:]), classes).to(device)
    rng = random.generator(device, "train_judge", p.classifier.seed, name)

    def loss(index, progress):
        x = splits.to_float(images[index])  # B, C, H, W
        height, width = x.shape[2:]
        down, right = torch.randint(3, (2,), generator=rng, device=device).tolist()
        x = F.pad(x, (1, 1, 1, 1), mode="reflect")
        logits = classifier(x[:, :, down : down + height, right : right + width])
        return F.cross_entropy(logits, labels[index], label_smoothing=label_smoothing), {}

    with random.seeded("dropout", p.classifier.seed, name):
        train(
            f"train_classifiers {name}",
            classifier,
            loss,
            len(images),
            settings(p, p.classifier.epochs),
            rng,
            p.model_dump(),
        )
    return classifier.eval()


@torch.no_grad()
def accuracy_of(classifier, images, labels):
    """Share of uint8 images (N, C, H, W) whose class is labels (N,)."""
    parts = zip(images.split(1000), labels.split(1000), strict=True)
    right = [classifier(splits.to_float(x)).argmax(1) == y for x, y in parts]
    return float(torch.cat(right).float().mean())


def feature_heads(net, split, extent, index, m):
    """What the heads say of image index[b] of modality m[b], the modalities mixed in a batch.

    Batch normalisation needs them mixed. Digit logits (B, classes), modality logits (B, M), and the
    error (B, 2) of the crop's (y, x), scaled to [-1, 1] by `extent` (M, 2); None without crops.
    """
    x = torch.empty(len(index), *net.image_shape, device=index.device)
    x = x.to(memory_format=torch.channels_last)
    for k, name in enumerate(split.modalities):
        x[m == k] = net.fitted(splits.to_float(split.images[name][index[m == k]]))
    digit, modality, position = net(x)
    if extent is None:
        return digit, modality, None
    target = split.crops[index, m] / extent[m] * 2 - 1
    return digit, modality, position[torch.arange(len(index), device=index.device), m] - target


def crop_extent(split):
    """The largest (y, x) of the crops of each modality, (M, 2); None without crops."""
    return None if split.crops is None else split.crops.amax(0).clamp(min=1)


def train_features(split, classes, p, train, position_weight=4.0):
    """The feature net, trained on all modalities at once, and its history."""
    names, device = split.modalities, split.labels.device
    shape, extent = splits.common_shape(split.images), crop_extent(split)
    with random.seeded("train_features", p.classifier.seed):
        net = FeatureNet(shape, classes, len(names), p.classifier.feature_dim).to(device)
    rng = random.generator(device, "train_features", p.classifier.seed)

    def loss(index, progress):
        image, m = index // len(names), index % len(names)
        digit, modality, error = feature_heads(net, split, extent, image, m)
        total = F.cross_entropy(digit, split.labels[image]) + F.cross_entropy(modality, m)
        if error is not None:
            total = total + position_weight * error.square().mean()
        return total, {}

    history = train(
        "train_classifiers features",
        net,
        loss,
        len(split) * len(names),
        settings(p, p.classifier.feature_epochs),
        rng,
        p.model_dump(),
    )
    return net.eval(), history


@torch.no_grad()
def feature_accuracy(net, split, test, classes):
    """Accuracies of the heads on test images: digit, where there are labels, modality, position."""
    device, extent = test.labels.device, crop_extent(split)
    right_digit, right_modality, errors = [], [], []
    for k in range(len(split.modalities)):
        for index in torch.arange(len(test), device=device).split(1000):
            m = torch.full_like(index, k)
            digit, modality, error = feature_heads(net, test, extent, index, m)
            right_digit.append(digit.argmax(1) == test.labels[index])
            right_modality.append(modality.argmax(1) == m)
            if error is not None:
                errors.append(error.abs().flatten())
    parts = {"digit": right_digit if classes > 1 else [], "modality": right_modality}
    parts["position_error"] = errors
    return {key: float(torch.cat(part).float().mean()) for key, part in parts.items() if part}


if __name__ == "__main__":
    command.run(main)
