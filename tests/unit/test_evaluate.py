"""Stage evaluate on tiny networks: the grid, trajectories, mismatched tuples, every sampler."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import one_hot

from ebmvae.core import random
from ebmvae.data import splits
from ebmvae.ebm import langevin
from ebmvae.evaluation import fitted, grid
from ebmvae.methods import BASELINES
from ebmvae.vae import experts
from stages import evaluate

CPU, NAMES = torch.device("cpu"), ["m1", "m2", "m3"]


def parameters(**changes):
    chosen = SimpleNamespace(max_subsets=64, batch_size=5)
    return SimpleNamespace(seed=0, evaluate=chosen, **changes)


# ---- the grid, where a latent is a class and the images show it

N = 2000
LABELS = torch.arange(N) % 10
SEEDS = list(range(N))


def decode(z):
    """Latents (n, 1) -> images (n, 1, 2, 2) of ten times the latent, as uint8 has it."""
    return (z * 10 / 255).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)


def classify(x):
    return one_hot((x[:, 0, 0, 0] * 25.5).round().long(), 10)


def extract(images):
    return images[:, 0, 0].float()[:, :1]


def latents(classes):
    """The same class in every modality, (n, M, 1)."""
    return classes.float().view(-1, 1, 1).repeat(1, len(NAMES), 1)


@pytest.fixture
def grid_of(monkeypatch):
    """Calls run_grid for a function draw; the VAE's features lie 3 from the real ones."""
    mean, *spread = grid.statistics(10 * LABELS[:, None].numpy())
    references = {"real": (mean, *spread), "vae": (mean + 3, *spread)}
    monkeypatch.setattr(grid, "reference_statistics", lambda name: references)
    ruler = grid.Ruler(dict.fromkeys(NAMES, classify), extract, "frechet_polymnist", 1500)

    def run(draw, callback=None):
        sampler = evaluate.Sampler(draw, dict.fromkeys(NAMES, decode), {})
        return evaluate.run_grid("poe", sampler, ruler, LABELS, SEEDS, parameters(), callback)

    return run


def test_true_copies_are_coherent_and_at_no_distance(grid_of):
    calls = []
    rows, predicted, pictures = grid_of(lambda *call: calls.append(call) or latents(LABELS))
    assert [len(subset) for subset, _ in calls] == [0, 1, 1, 1, 2, 2, 2]
    assert all(seeds == SEEDS for _, seeds in calls)  # the same noise in every cell
    cells = {(row["observed"], row["target"]): row for row in rows}
    assert len(cells) == len(rows) == 3 + 3 * 2 + 3
    for (observed, target), row in cells.items():
        assert target not in observed and row["n_samples"] == N and "diverged" not in row
        assert row["coherence"] == (None if observed == "none" else 1.0)
        assert row["frechet_polymnist"] == pytest.approx(0, abs=1e-9) and row["diversity"] == 0
        if row["n_observed"] == 2:
            assert row["distance_to_unimodal_vae"] == pytest.approx(9)
        else:
            assert "distance_to_unimodal_vae" not in row
    predicted["m3"][:500] = 10  # another class in a quarter of the samples
    agreement = evaluate.agreement(predicted)
    assert agreement == {"all_agree": 0.75, "agreement": {"m1": 1.0, "m2": 1.0, "m3": 0.75}}
    assert pictures["unconditional_m2"][:, 0, 0, 0].tolist() == list(range(0, 80, 10))
    five = [10 * label for label in range(10) for _ in range(5)]
    assert pictures["given_rest_m3"][:, 0, 0, 0].tolist() == five
    assert pictures["cells_m1"][..., 0, 0, 0].tolist() == [[0, 10, 20, 30, 40]] * 4


def test_shuffled_classes_are_coherent_by_chance(grid_of):
    def draw(subset, seeds):
        order = torch.randperm(N, generator=random.generator("cpu", subset))
        return latents(LABELS[order])

    rows, *_ = grid_of(draw)
    bound = 4 * math.sqrt(0.1 * 0.9 / N)
    assert all(abs(row["coherence"] - 0.1) < bound for row in rows if row["n_observed"])


def test_diverged_samples_are_left_out_of_their_cell(grid_of, capsys):
    """Rows 0 and 3, given m1; on the page each is replaced by the next, and none elsewhere."""
    seen = []

    def draw(subset, seeds):
        z = latents(LABELS)
        if subset == ("m1",):
            z[[0, 3], 2] = torch.tensor([[float("nan")], [1e6]])
        return z

    rows, _, pictures = grid_of(draw, lambda *call: seen.append(call))
    assert "given m1, 2 of 2000 samples diverged" in capsys.readouterr().err
    for row in rows:
        lost = 2 if row["observed"] == "m1" else 0
        assert (row.get("diverged", 0), row["n_samples"]) == (lost, N - lost)
        assert row["coherence"] in (None, 1.0)
    usual, replaced = [0, 10, 20, 30, 40], [10, 10, 20, 40, 40]
    cells = pictures["cells_m2"][..., 0, 0, 0].tolist()  # given nothing, m1, m3, m1+m3
    assert cells == [usual, replaced, usual, usual]
    assert seen[:3] == [((), 3 * N), (("m1",), 2 * (N - 2)), (("m2",), 2 * N)]


def test_a_trajectory_shows_shares_of_the_steps():
    """Step k shows 10 k in all but the observed modality; a state that is NaN is shown as 0."""

    def draw(subset, seeds, rows, callback):
        assert (list(subset), seeds) == (["m1"], [107, 102])
        for step in range(9):
            z = torch.full((len(rows), 3, 1), float(step))
            z[:, 0] = 25
            z[0, 2] = float("nan")
            callback(step, z)

    sampler = evaluate.Sampler(draw, dict.fromkeys(NAMES, decode), {}, steps=8)
    seeds = list(range(100, 112))
    images, about = evaluate.trajectory(sampler, NAMES, seeds, torch.tensor([7, 2]))
    assert about == {"observed": "m1", "steps": [0, 1, 2, 4, 8]}
    shown = {name: array[..., 0, 0, 0].tolist() for name, array in images.items()}
    assert shown == {
        "trajectory_m1": [[250, 250]] * 5,
        "trajectory_m2": [[k, k] for k in (0, 10, 20, 40, 80)],
        "trajectory_m3": [[0, k] for k in (0, 10, 20, 40, 80)],
    }


# ---- mismatched tuples


@pytest.mark.parametrize("classes", [4, 1])
def test_a_mismatched_tuple_has_one_modality_of_another(classes):
    """Of a tuple of another class, where there are classes; never its own."""
    z, labels = torch.randn(40, 3, 2, generator=torch.Generator()), torch.arange(40) % classes
    swapped, other_class = set(), []
    mismatched = evaluate.swap_one(z, labels, torch.Generator().manual_seed(1))
    for i in range(40):
        (m,) = (mismatched[i] != z[i]).any(1).nonzero().flatten().tolist()
        (other,) = (z[:, m] == mismatched[i, m]).all(1).nonzero().flatten().tolist()
        assert other != i
        other_class.append(bool(labels[other] != labels[i]))
        swapped.add(m)
    assert swapped == {0, 1, 2} and all(other_class) == (classes > 1)


# ---- the samplers

FEW, D = 12, 2
INDEX = torch.tensor([5, 3, 0, 1, 2, 4, 6, 7, 8, 9, 10, 11])
FEW_SEEDS = list(range(100, 100 + FEW))


def randn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def spread(z):
    """An energy that is low where the modalities of a tuple agree."""
    return 0.5 * (z - z.mean(1, keepdim=True)).square().sum((1, 2))


class Energy:
    """A joint model of any function of standardised latents."""

    def __init__(self, energy):
        self.energy = energy

    def __call__(self, z):
        return self.energy(z)

    def score(self, z):
        z = z.detach().requires_grad_()
        return -torch.autograd.grad(self.energy(z).sum(), z)[0]


@pytest.fixture
def energy_of(monkeypatch):
    """Calls energy_sampler with an energy of this function and posteriors of almost no width."""
    units = {"shift": randn(3, D, seed=3), "scale": 1 + 100 * randn(3, D, seed=4).abs()}
    options = SimpleNamespace(langevin_steps=8, step_size=0.5, noise_scale=1.0)
    options.fit = SimpleNamespace(posterior_scale=1.0)

    def build(energy, standardised, labels):
        mean = standardised * units["scale"] + units["shift"]
        whole = fitted.FittedEnergy(NAMES, Energy(energy), langevin, units, options, "fit")
        stored = mean, torch.full_like(mean, -40), NAMES
        monkeypatch.setattr(fitted, "load", lambda *_: whole)
        monkeypatch.setattr(evaluate, "load_networks", lambda *_: {})
        monkeypatch.setattr(evaluate.latents, "load_latents", lambda *_: stored)
        split = splits.Split(dict.fromkeys(NAMES), labels, None)
        return evaluate.energy_sampler("eb_mvae", parameters(), split, INDEX, CPU), mean[INDEX]

    return build


CLASSES, ONE_CLASS = torch.arange(FEW) % 4, torch.ones(FEW, dtype=torch.int64)


@pytest.mark.parametrize(
    "labels, values, sign, expected",
    [
        *((CLASSES, CLASSES, sign, auroc) for sign, auroc in ((1, 1.0), (-1, 0.0), (0, 0.5))),
        (ONE_CLASS, torch.arange(FEW), 1, 1.0),  # without labels: against any other tuple
    ],
)
def test_auroc_is_of_mismatched_tuples(energy_of, labels, values, sign, expected):
    """Standardised latents that are one value in every modality, whatever the VAEs' units are."""
    mean = values.float().view(-1, 1, 1).repeat(1, 3, D)
    sampler, _ = energy_of(lambda z: sign * spread(z).round(decimals=3), mean, labels)
    assert sampler.further == {"energy_auroc": expected, "fit": "fit"} and sampler.steps == 8


def test_chosen_rows_of_an_energy_are_those_of_the_whole(energy_of):
    """Held: the posterior sample of the test tuple, in the VAEs' units; the order is INDEX."""
    mean, rows, states = randn(FEW, 3, D, seed=1), [7, 2, 5], []
    sampler, expected = energy_of(lambda z: z.square().sum((1, 2)) / 8, mean, CLASSES)
    whole = sampler.draw(("m1",), FEW_SEEDS)
    torch.testing.assert_close(whole[:, 0], expected[:, 0], rtol=1e-4, atol=1e-4)
    assert not torch.isclose(whole[:, 1:], expected[:, 1:]).any()
    seeds = [FEW_SEEDS[i] for i in rows]
    part = sampler.draw(("m1",), seeds, torch.tensor(rows), lambda step, z: states.append(z))
    assert torch.equal(part, whole[rows]) and torch.equal(states[-1], part) and len(states) == 9


def baseline(monkeypatch, method, m2=1):
    """The draws of a baseline, and its experts (M, n, D): plain functions of one-pixel images."""
    pixels = torch.arange(FEW, dtype=torch.uint8).view(-1, 1, 1, 1) * 20
    images = {"m1": pixels, "m2": pixels * m2, "m3": pixels}

    def encoder(m):
        def encode(x):
            x = x.flatten(1)
            return torch.cat([x + m, -x], 1), torch.cat([x - m, 0 * x], 1)

        return encode

    def load_networks(folder, names, part, device):
        assert folder == f"models/baseline/{method}"
        return {name: encoder(m) for m, name in enumerate(names)}

    monkeypatch.setattr(evaluate, "load_networks", load_networks)
    split = splits.Split(images, CLASSES, None)
    draw = evaluate.baseline_sampler(method, parameters(), split, INDEX, CPU).draw
    parts = [encoder(m)(splits.to_float(x[INDEX])) for m, x in enumerate(images.values())]
    return draw, *(torch.stack(part) for part in zip(*parts, strict=True))


@pytest.mark.parametrize("method", BASELINES)
def test_baselines_sample_the_prior_the_product_or_an_expert(monkeypatch, method):
    """Always with the same noise; what is not observed is not seen."""
    draw, mean, logvar = baseline(monkeypatch, method)
    eps = random.normal_per_sample((D,), FEW_SEEDS)
    assert torch.equal(draw((), FEW_SEEDS), eps[:, None].expand(-1, 3, -1))
    z = draw(("m1", "m3"), FEW_SEEDS)
    assert torch.equal(z[:, 0], z[:, 1]) and torch.equal(z[:, 0], z[:, 2])  # one joint latent
    if method == "moe":
        options = torch.stack([experts.sample(mean[m], logvar[m], eps) for m in (0, 2)])
        hits = torch.isclose(z[:, 0], options).all(2)  # experts, n
        assert (hits.sum(0) == 1).all() and hits.any(1).all()
    else:
        product = experts.product(mean[[0, 2]], logvar[[0, 2]], prior=method == "poe")
        torch.testing.assert_close(z[:, 0], experts.sample(*product, eps))
    other, *_ = baseline(monkeypatch, method, m2=0)
    assert torch.equal(other(("m1", "m3"), FEW_SEEDS), z)
    rows = torch.tensor([7, 2])
    torch.testing.assert_close(draw(("m1",), [107, 102], rows), draw(("m1",), FEW_SEEDS)[rows])
