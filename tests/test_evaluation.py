"""What is measured, on which tuples, and what each method generates given which modalities."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stages import evaluate
from stages.lib import artifacts, data, evaluation, metrics, networks, posteriors, sampling

CPU = torch.device("cpu")


def parameters(seed=0, n_samples=10, batch_size=4, steps=5):
    return SimpleNamespace(seed=seed, evaluate=SimpleNamespace(n_samples=n_samples, batch_size=batch_size),
                           ebm=SimpleNamespace(langevin_steps=steps, step_size=0.5, noise_scale=1.0),
                           fid=SimpleNamespace(inception_weights="none"))


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---- the judged tuples


def test_judged_tuples_are_distinct_and_deterministic():
    run = lambda seed, n=10: evaluation.test_tuples(parameters(seed, n), 50, CPU).tolist()
    assert len(set(run(0))) == 10 and set(run(0)) <= set(range(50))
    assert run(0) == run(0) != run(1)
    assert run(0) == run(0, 20)[:10]  # more samples keep the first ones


@pytest.mark.parametrize("n_test", [1, 9, 10])
def test_judged_tuples_are_at_most_all_of_them(n_test):
    assert sorted(evaluation.test_tuples(parameters(), n_test, CPU).tolist()) == list(range(n_test))


def test_judged_tuples_leave_the_global_generator_alone():
    state = torch.random.get_rng_state()
    evaluation.test_tuples(parameters(), 50, CPU)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_figure_rows_are_the_first_five_of_each_class_repeated_where_scarce():
    labels = torch.tensor([2, 0, 2, 0, 2, 2, 2, 2, 0, 7])
    assert evaluation.figure_rows(labels).tolist() == [1, 3, 8, 1, 3, 0, 2, 4, 5, 6, 9, 9, 9, 9, 9]


# ---- one pass over images


def test_judge_and_extract_decodes_each_image_once():
    """Image i holds i, the judge reads i mod 10, the feature is i: everything comes back in order."""
    asked, n = [], 23

    def images_of(rows):
        asked.extend(rows.tolist())
        return rows.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)

    judge = lambda x: torch.nn.functional.one_hot((x[:, 0, 0, 0] * 255).round().long() % 10, 10)
    extract = lambda images: images[:, :2, 0, 0].float()
    images, predicted, found = evaluation.judge_and_extract(images_of, n, judge, extract, parameters(batch_size=5))
    assert asked == list(range(n))
    assert images.shape == (n, 3, 2, 2) and images[:, 0, 0, 0].tolist() == list(range(n))
    assert predicted.tolist() == [i % 10 for i in range(n)]
    assert found.dtype == np.float64 and found.tolist() == [[i, i] for i in range(n)]


def test_judges_see_what_a_png_would_hold():
    seen = []
    judge = lambda x: seen.append(x) or torch.zeros(len(x), 10)
    levels = torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1)
    evaluation.judge_and_extract(lambda rows: levels[rows], 256, judge, lambda x: x.flatten(1).float(), parameters())
    assert torch.equal(torch.cat(seen), data.to_float(levels))
    assert torch.equal(data.to_uint8(torch.cat(seen)), levels)


def test_features_of_keeps_the_order():
    images = torch.arange(7, dtype=torch.uint8).view(-1, 1, 1, 1)
    found = evaluation.features_of(images, lambda x: x.flatten(1).float(), parameters(batch_size=3))
    assert found.dtype == np.float64 and found.ravel().tolist() == list(range(7))


# ---- the numbers of a cell

FOUND = np.array([[0.0], [2.0], [10.0], [14.0]])  # mean 6.5, variance 131/3
REFERENCE = np.array([5.5]), np.array([[4.0]])
DISTANCE = 1 + (math.sqrt(131 / 3) - 2) ** 2


def test_measure():
    row = evaluation.measure(np.array([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1]), FOUND, REFERENCE, "fid")
    assert row == {"coherence": 0.75, "fid": pytest.approx(DISTANCE), "diversity": 5.0, "n_samples": 4}


def test_measure_without_labels_has_no_coherence_and_groups_by_what_was_judged():
    row = evaluation.measure(np.array([0, 1, 1, 1]), None, FOUND, REFERENCE, "frechet_polymnist")
    assert row == {"coherence": None, "frechet_polymnist": pytest.approx(DISTANCE),
                   "diversity": pytest.approx(112 / 3), "n_samples": 4}


@pytest.mark.parametrize("dim, warned", [(3, False), (4, True), (9, True)])
def test_measure_warns_of_a_singular_covariance(dim, warned):
    found, labels = np.random.default_rng(0).normal(size=(4, dim)), torch.tensor([0, 0, 1, 1])
    row = evaluation.measure(labels.numpy(), labels, found, (np.zeros(dim), np.eye(dim)), "fid")
    assert ("warning" in row) == warned
    if warned:
        assert row["warning"].startswith(f"4 samples for {dim} features")


def test_measure_of_the_reference_itself():
    found, labels = np.random.default_rng(0).normal(size=(50, 4)), torch.arange(50) % 10
    row = evaluation.measure(labels.numpy(), labels, found, metrics.feature_statistics(found), "fid")
    assert row["coherence"] == 1.0 and row["fid"] == pytest.approx(0, abs=1e-10)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_measure_of_one_sample_a_class_can_be_saved():
    """evaluate.n_samples = 2 is allowed, and its two digits mostly differ: no class then has a variance."""
    row = evaluation.measure(np.array([0, 1]), torch.tensor([0, 1]), FOUND[:2], REFERENCE, "fid")
    json.dumps(row, allow_nan=False)


# ---- what is read from files


def test_judges_and_reference_statistics_are_read_by_modality(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shape = dict(image_shape=[3, 8, 8], n_classes=10)
    saved = {name: networks.Classifier(**shape) for name in ("m1", "m2")}
    for name, judge in saved.items():
        artifacts.save_module(f"models/judge/{name}.safetensors", judge, shape)
    judges = evaluation.load_judges(["m1", "m2"], CPU)
    for name in saved:
        assert torch.equal(judges[name].head.weight, saved[name].head.weight)
    keys = [f"{kind}/{name}/{part}" for kind in ("real", "vae") for name in ("m1", "m2") for part in ("mean", "covariance")]
    artifacts.save_tensors("results/references/statistics.safetensors",
                           {key: torch.tensor([float(i)], dtype=torch.float64) for i, key in enumerate(keys)})
    found = evaluation.reference_statistics("m2")
    assert {kind: [float(part[0]) for part in pair] for kind, pair in found.items()} == {"real": [2, 3], "vae": [6, 7]}
    assert found["real"][0].dtype == np.float64


def test_about_names_seed_distance_and_device_but_no_host():
    about = evaluation.about(parameters(seed=3), CPU)
    assert (about["seed"], about["distance"], about["device"]) == (3, "frechet_polymnist", "cpu")
    assert set(about) == {"seed", "distance", "device", "threads", "torch", "python"}


# ---- stage evaluate: samplers of each method, with small functions in place of the networks

NAMES, N, D = ["m1", "m2", "m3"], 12, 2
SEEDS = list(range(100, 100 + N))
INDEX = torch.tensor([5, 3, 0, 1, 2, 4, 6, 7, 8, 9, 10, 11])


def small_split():
    """Tuples of three one-pixel grey images; tuple i has class i mod 4."""
    images = {name: torch.arange(N, dtype=torch.uint8).view(N, 1, 1, 1) * 10 + m for m, name in enumerate(NAMES)}
    return data.Split(images, torch.arange(N) % 4, None)


def eb_mvae(monkeypatch, energy=None, posterior=None, **options):
    """The EB-MVAE of `stages.evaluate` with this energy, and what it returns."""
    energy = energy or (lambda z: 0.5 * (z - z.mean(1, keepdim=True)).square().sum(1))
    energy.score = lambda z: -torch.func.grad(lambda z: energy(z).sum())(z)
    standard = {"shift": randn(len(NAMES), D, seed=3), "scale": randn(len(NAMES), D, seed=4).abs() + 0.5}
    monkeypatch.setattr(artifacts, "load_module", lambda path, *_: energy if "ebm" in str(path) else str(path))
    monkeypatch.setattr(artifacts, "load_tensors", lambda *_: (standard, None))
    monkeypatch.setattr(data, "load_latents", lambda *_: (*(posterior or latents()), NAMES))
    return evaluate.eb_mvae("eb_mvae", parameters(**options), small_split(), INDEX, CPU), standard


def latents():
    """Posterior means and log-variances of all test tuples."""
    return randn(N, len(NAMES), D, seed=1), randn(N, len(NAMES), D, seed=2)


def posterior_samples():
    mean, logvar = latents()
    return posteriors.sample(mean[INDEX], logvar[INDEX], sampling.sample_noise((len(NAMES), D), SEEDS))


@pytest.mark.parametrize("subset", [("m1",), ("m3",), ("m1", "m3"), ("m1", "m2", "m3")])
def test_eb_mvae_holds_the_observed_posterior_samples(monkeypatch, subset):
    (sample, _, _), _ = eb_mvae(monkeypatch)
    z = sample(subset, SEEDS)
    assert z.shape == (N, len(NAMES), D)
    for m, name in enumerate(NAMES):
        kept = torch.isclose(z[:, m], posterior_samples()[:, m], rtol=1e-4, atol=1e-5)  # but for standardising
        assert kept.all() if name in subset else not kept.any()


def test_eb_mvae_samples_in_standardised_units(monkeypatch):
    """The lowest energy is at 0, which is the shift in the VAEs' units: without noise the chain ends there."""
    (sample, _, _), standard = eb_mvae(monkeypatch, lambda z: 0.5 * z.square().sum(1), steps=100)
    monkeypatch.setattr(sampling, "sample_noise", lambda shape, seeds: torch.zeros(len(seeds), *shape))
    z = sample((), SEEDS)
    torch.testing.assert_close(z, standard["shift"].expand_as(z), rtol=0, atol=1e-4)


def test_eb_mvae_given_nothing_does_not_see_the_posteriors(monkeypatch):
    (sample, _, _), _ = eb_mvae(monkeypatch)
    expected = sample((), SEEDS)
    (sample, _, _), _ = eb_mvae(monkeypatch, posterior=[part + 1 for part in latents()])
    assert torch.equal(sample((), SEEDS), expected)
    assert not torch.equal(sample(("m1",), SEEDS)[:, 1:], expected[:, 1:])


@pytest.mark.parametrize("batch_size", [1, 5, 12, 100])
def test_eb_mvae_does_not_depend_on_the_batch_size(monkeypatch, batch_size):
    (expected, _, _), _ = eb_mvae(monkeypatch, lambda z: z.square().sum(1) / 2)
    (found, _, _), _ = eb_mvae(monkeypatch, lambda z: z.square().sum(1) / 2, batch_size=batch_size)
    assert torch.equal(found(("m2",), SEEDS), expected(("m2",), SEEDS))


def test_eb_mvae_decodes_each_modality_with_its_own_vae(monkeypatch):
    (_, decoders, _), _ = eb_mvae(monkeypatch)
    assert decoders == {name: f"models/vae/{name}/decoder.safetensors" for name in NAMES}


@pytest.mark.parametrize("sign, expected", [(1, 1.0), (-1, 0.0), (0, 0.5)])
def test_energy_auroc(monkeypatch, sign, expected):
    """Latents that are the class number in every modality: the spread between modalities tells mismatched tuples."""
    mean = (torch.arange(N) % 4).float().view(N, 1, 1).expand(N, len(NAMES), D).contiguous()
    energy = lambda z: sign * z.view(-1, len(NAMES), D).var(1).sum(1)
    (_, _, extras), standard = eb_mvae(monkeypatch, energy, (mean, torch.full_like(mean, -40.0)))
    standard["shift"], standard["scale"] = torch.zeros(len(NAMES), D), torch.ones(len(NAMES), D)
    assert extras() == {"energy_auroc": expected}


def baseline(monkeypatch, method):
    """The sampler of a joint-posterior VAE, and its experts mean, logvar (M, N, D)."""

    def encoder(m):
        return lambda x: (torch.cat([x.flatten(1) + m, -x.flatten(1)], 1), torch.cat([x.flatten(1) - m, 0 * x.flatten(1)], 1))

    def load(path, *_):
        *_, name, part = path.with_suffix("").parts
        return encoder(NAMES.index(name)) if part == "encoder" else str(path)

    monkeypatch.setattr(artifacts, "load_module", load)
    sample, decoders, extras = evaluate.baseline(method, parameters(), small_split(), INDEX, CPU)
    assert decoders == {name: f"models/baseline/{method}/{name}/decoder.safetensors" for name in NAMES}
    assert extras() == {}
    split = small_split()
    experts = [encoder(m)(split.images[name][INDEX].float() / 255) for m, name in enumerate(NAMES)]
    mean, logvar = (torch.stack(part) for part in zip(*experts))
    return sample, mean, logvar


def noise():
    return sampling.sample_noise((D,), SEEDS)


METHODS = pytest.mark.parametrize("method", ["poe", "moe", "mopoe", "mvtcae"])


@METHODS
def test_baselines_given_nothing_sample_the_prior(monkeypatch, method):
    sample, _, _ = baseline(monkeypatch, method)
    assert torch.equal(sample((), SEEDS), noise())


@METHODS
@pytest.mark.parametrize("subset", [("m2",), ("m1", "m3"), ("m1", "m2", "m3")])
def test_baselines_sample_the_product_or_an_observed_expert(monkeypatch, method, subset):
    sample, mean, logvar = baseline(monkeypatch, method)
    chosen, found = [NAMES.index(name) for name in subset], sample(subset, SEEDS)
    if method == "moe":
        options = torch.stack([posteriors.sample(mean[m], logvar[m], noise()) for m in chosen])
        hits = torch.isclose(found, options).all(2)  # experts, N
        assert (hits.sum(0) == 1).all()  # each sample is one expert's
        assert hits.any(1).all()  # each expert has some
    else:
        product = posteriors.product(mean[chosen], logvar[chosen], prior=method == "poe")
        torch.testing.assert_close(found, posteriors.sample(*product, noise()))


@METHODS
def test_baselines_do_not_see_what_is_not_observed(monkeypatch, method):
    """The posterior given m1 is made from m1 alone: other images of m2 and m3 change nothing."""
    sample, _, _ = baseline(monkeypatch, method)
    expected = sample(("m1",), SEEDS)
    split = small_split()
    other = data.Split({"m1": split.images["m1"], "m2": split.images["m2"] + 50, "m3": split.images["m3"] + 50},
                       split.labels, None)
    sample, _, _ = evaluate.baseline(method, parameters(), other, INDEX, CPU)
    assert torch.equal(sample(("m1",), SEEDS), expected)
