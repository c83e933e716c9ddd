"""What is measured, on which tuples, and what each method generates given which modalities."""

import json
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stages import evaluate
from stages.lib import artifacts, data, evaluation, metrics, networks, noising, posteriors, sampling
from stages.lib.runtime import UserError

CPU = torch.device("cpu")


def parameters(seed=0, n_samples=10, batch_size=4, steps=5, tuples="test", posterior_scale=1.0):
    return SimpleNamespace(seed=seed, matmul_precision="ieee", evaluate=SimpleNamespace(tuples=tuples, n_samples=n_samples, batch_size=batch_size),
                           annealed=SimpleNamespace(steps=steps, guidance=2.5, guidance_below=0.6, evidence=4.0),
                           ebm=SimpleNamespace(langevin_steps=steps, step_size=0.5, noise_scale=1.0,
                                               fit=SimpleNamespace(posterior_scale=posterior_scale)),
                           fid=SimpleNamespace(inception_weights="none"))


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---- the judged tuples


def test_judged_tuples_are_distinct_and_deterministic():
    run = lambda seed, n=10: evaluation.test_tuples(parameters(seed, n), 50, CPU).tolist()
    assert len(set(run(0))) == 10 and set(run(0)) <= set(range(50))
    assert run(0) == run(0) == run(1) != list(range(10))  # seeds compare on the same tuples
    assert run(0) == run(0, 20)[:10]  # more samples keep the first ones


@pytest.mark.parametrize("n, n_test, found", [(10, 110, 10), (110, 210, 100), (110, 500, 110)])
def test_tuples_to_tune_on_are_others(n, n_test, found):
    """As many as are reported, or what is left; with those all distinct, and the same for all seeds."""
    reported = evaluation.test_tuples(parameters(n_samples=n), n_test, CPU).tolist()
    run = lambda seed: evaluation.test_tuples(parameters(seed, n, tuples="validation"), n_test, CPU).tolist()
    assert len(run(0)) == found and run(0) == run(1)
    assert len({*run(0), *reported}) == found + n


@pytest.mark.parametrize("n, n_test", [(10, 109), (1000, 1000), (100, 50)])
def test_too_few_tuples_to_tune_on(n, n_test):
    with pytest.raises(UserError, match="evaluate.tuples: validation wants 100 of the") as caught:
        evaluation.test_tuples(parameters(n_samples=n, tuples="validation"), n_test, CPU)
    assert f"of the {n_test} test tuples" in str(caught.value) and "\n" not in str(caught.value)


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


@pytest.mark.parametrize("n, expected", [(30, list(range(25))), (25, list(range(25))), (10, [*range(10), *range(10), *range(5)]), (1, [0] * 25)])
def test_figure_rows_without_labels_are_the_first_25_repeated_where_there_are_fewer(n, expected):
    assert evaluation.figure_rows(torch.zeros(n, dtype=torch.int64)).tolist() == expected


# ---- standardised latents


def aggregate(n=7):
    """Posterior means and log-variances (n, 3, 2) in float64, each coordinate in units of its own."""
    mean, logvar = (torch.randn(n, 3, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in (1, 2))
    units = torch.tensor([[0.1, 3.0], [1.0, 20.0], [5.0, 0.5]], dtype=torch.float64)
    return mean * units + 10 * units, logvar + 2 * units.log()


def test_standardised_latents_have_mean_0_and_variance_1():
    """Law of total variance: the means' variance (over n - 1) and the mean variance add up to 1 in every coordinate."""
    mean, std = data.standardised(*aggregate(), **data.standardisation(*aggregate()))
    torch.testing.assert_close(mean.mean(0), torch.zeros(3, 2, dtype=torch.float64), rtol=0, atol=1e-12)
    total = mean.square().sum(0) / 6 + std.square().mean(0)
    torch.testing.assert_close(total, torch.ones(3, 2, dtype=torch.float64), rtol=1e-12, atol=0)


def test_standardised_samples_are_those_of_the_posterior_in_other_units():
    noise = randn(7, 3, 2, seed=3).double()
    standard = data.standardisation(*aggregate())
    mean, std = data.standardised(*aggregate(), **standard)
    found = (mean + std * noise) * standard["scale"] + standard["shift"]
    torch.testing.assert_close(found, posteriors.sample(*aggregate(), noise), rtol=1e-12, atol=1e-12)


def test_standardisation_of_one_point_is_its_posterior_width():
    """All means alike: nothing but the posteriors' own variance, here 4 and 16 in turn, so 10 on average."""
    mean = torch.full((6, 3, 2), 7.0, dtype=torch.float64)
    logvar = torch.tensor([4.0, 16.0], dtype=torch.float64).log().repeat(3).view(6, 1, 1).expand_as(mean)
    standard = data.standardisation(mean, logvar)
    assert torch.equal(standard["shift"], mean[0])
    torch.testing.assert_close(standard["scale"], torch.full((3, 2), 10**0.5, dtype=torch.float64))


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


def test_without_a_judge_nothing_is_judged_and_all_else_is_the_same():
    images_of = lambda rows: rows.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    extract = lambda images: images[:, :2, 0, 0].float()
    images, predicted, found = evaluation.judge_and_extract(images_of, 23, None, extract, parameters(batch_size=5))
    assert predicted is None
    assert images[:, 0, 0, 0].tolist() == list(range(23)) and found.tolist() == [[i, i] for i in range(23)]


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


@pytest.mark.parametrize("labels", [None, torch.zeros(4, dtype=torch.int64)])  # nothing observed, or all of one class
def test_measure_of_data_without_labels_keeps_distance_and_the_diversity_of_all(labels):
    row = evaluation.measure(None, labels, FOUND, REFERENCE, "fid")
    assert row == {"coherence": None, "fid": pytest.approx(DISTANCE), "diversity": pytest.approx(131 / 3), "n_samples": 4}
    json.dumps(row, allow_nan=False)


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


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e5])
def test_what_diverged_is_left_out_and_said(bad, capsys):
    z = torch.zeros(10, 3, 4)
    z[3, 1, 2] = z[7, 0, 0] = bad
    assert evaluation.converged(z, "evaluate eb_mvae: given m1").tolist() == [0, 1, 2, 4, 5, 6, 8, 9]
    assert "WARNING: evaluate eb_mvae: given m1, 2 of 10 samples diverged" in capsys.readouterr().err


def test_what_did_not_diverge_is_all_there(capsys):
    assert evaluation.converged(torch.randn(10, 4), "x").tolist() == list(range(10))
    assert capsys.readouterr().err == ""


def test_more_than_half_diverged_is_an_error():
    z = torch.zeros(10, 4)
    z[:6] = float("nan")
    with pytest.raises(UserError, match="^x, 6 of 10 samples diverged; nothing was written. Try a smaller step_size"):
        evaluation.converged(z, "x")


# ---- what is read from files


def test_judges_and_reference_statistics_are_read_by_modality(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shape = dict(image_shape=[3, 8, 8], n_classes=10)
    saved = {name: networks.Classifier(**shape) for name in ("m1", "m2")}
    for name, judge in saved.items():
        artifacts.save_module(f"models/judge/{name}.safetensors", judge, shape)
    split = data.Split({"m1": None, "m2": None}, torch.tensor([0, 1]), None)
    judges = evaluation.load_judges(split, CPU)
    for name in saved:
        assert torch.equal(judges[name].head.weight, saved[name].head.weight)
    keys = [f"{kind}/{name}/{part}" for kind in ("real", "vae") for name in ("m1", "m2") for part in ("mean", "covariance", "root")]
    artifacts.save_tensors("results/references/statistics.safetensors",
                           {key: torch.tensor([float(i)], dtype=torch.float64) for i, key in enumerate(keys)})
    found = evaluation.reference_statistics("m2")
    assert {kind: [float(part[0]) for part in pair] for kind, pair in found.items()} == {"real": [3, 4, 5], "vae": [9, 10, 11]}
    assert found["real"][0].dtype == np.float64


def test_judges_are_none_without_labels_and_no_file_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    split = data.Split({"m1": None, "m2": None}, torch.zeros(5, dtype=torch.int64), None)
    assert evaluation.load_judges(split, CPU) == {"m1": None, "m2": None}
    with pytest.raises(UserError, match="models/judge/m1.safetensors"):
        evaluation.load_judges(data.Split(split.images, torch.tensor([0, 0, 1]), None), CPU)


def test_about_names_seed_distance_and_device_but_no_host():
    about = evaluation.about(parameters(seed=3), CPU)
    assert (about["seed"], about["distance"], about["device"]) == (3, "frechet_polymnist", "cpu")
    assert set(about) == {"seed", "distance", "device", "threads", "matmul_precision", "torch", "python"}


def test_the_page_shows_the_first_tuple_of_each_of_the_first_classes():
    labels = torch.tensor([7, 3, 3, 0, 7, 9, 1, 0, 8])
    assert evaluation.page_rows(labels).tolist() == [3, 6, 1, 0, 8]  # digits 0, 1, 3, 7, 8
    assert evaluation.page_rows(torch.tensor([2, 2])).tolist() == [0, 1]  # without labels: the first


@pytest.mark.parametrize("n, expected", [(1, [0]), (4, [0, 1, 2, 3]), (5, [0, 1, 2, 3, 4]), (40, [0, 1, 2, 3, 4])])
def test_the_page_shows_the_first_tuples_where_there_are_no_labels(n, expected):
    assert evaluation.page_rows(torch.zeros(n, dtype=torch.int64)).tolist() == expected


# ---- stage evaluate: samplers of each method, with small functions in place of the networks

NAMES, N, D = ["m1", "m2", "m3"], 12, 2
SEEDS = list(range(100, 100 + N))
INDEX = torch.tensor([5, 3, 0, 1, 2, 4, 6, 7, 8, 9, 10, 11])


def small_split():
    """Tuples of three one-pixel grey images; tuple i has class i mod 4."""
    images = {name: torch.arange(N, dtype=torch.uint8).view(N, 1, 1, 1) * 10 + m for m, name in enumerate(NAMES)}
    return data.Split(images, torch.arange(N) % 4, None)


ENERGIES = pytest.mark.parametrize("method", ["eb_mvae", "eb_mvae_annealed"])


def standardisation():
    return {"shift": randn(len(NAMES), D, seed=3), "scale": randn(len(NAMES), D, seed=4).abs() + 0.5}


class Model:
    """A joint model made of `energy`, standardised latents (n, M, d) -> (n,), in the form of either method.

    The annealed one takes all but the energy's gradient for noise, and notes what it is asked.
    """

    def __init__(self, method, energy):
        self.annealed, self.energy, self.asked = method == "eb_mvae_annealed", energy, []

    def __call__(self, z, t=None):
        assert (t is not None) == self.annealed
        if self.annealed:
            assert t.shape == z.shape[:2] and not t.any()  # the energy of clean latents
        return self.energy(z.transpose(0, 1) if self.annealed else z.view(-1, len(NAMES), D))

    def gradient(self, z):
        return torch.func.grad(lambda z: self.energy(z).sum())(z)

    def score(self, z):
        return -self.gradient(z.view(-1, len(NAMES), D)).flatten(1)

    def noise_given(self, observed, free, guidance, below, evidence):
        def estimate(z_free, t_free):
            z, t = observed.clone(), torch.zeros(observed.shape[:2])
            z[free], t[free] = z_free, t_free
            self.asked.append((z, t, guidance, below, evidence))
            return (t[..., None] * (z - guidance * self.gradient(z.transpose(0, 1)).transpose(0, 1)))[free]
        return estimate


def spread(z):
    """Low where the modalities of a tuple agree: every one pulls all others."""
    return 0.5 * (z - z.mean(1, keepdim=True)).square().sum((1, 2))


def own(z):
    """Nothing but elementwise, so the same bit for bit in every batch."""
    return z.square().sum((1, 2)) / 8


def energy_based(monkeypatch, method, energy=spread, posterior=None, standard=None, model=None, **options):
    """What `stages.evaluate.energy_based` returns for this energy, and the model it was given."""
    model = model or Model(method, energy)
    folder = {"eb_mvae": "models/ebm", "eb_mvae_annealed": "models/annealed"}[method]

    def load_module(path, *_):
        return model if str(path) == f"{folder}/joint.safetensors" else str(path)

    def load_tensors(path, *_):
        assert str(path) == f"{folder}/standardisation.safetensors"
        return standard or standardisation(), None

    monkeypatch.setattr(artifacts, "load_module", load_module)
    monkeypatch.setattr(artifacts, "load_tensors", load_tensors)
    monkeypatch.setattr(data, "load_latents", lambda *_: (*(posterior or latents()), NAMES))
    return *evaluate.energy_based(method, parameters(**options), small_split(), INDEX, CPU), model


def latents():
    """Posterior means and log-variances of all test tuples."""
    return randn(N, len(NAMES), D, seed=1), randn(N, len(NAMES), D, seed=2)


def posterior_samples():
    mean, logvar = latents()
    return posteriors.sample(mean[INDEX], logvar[INDEX], sampling.sample_noise((len(NAMES), D), SEEDS))


def test_only_the_papers_energy_is_conditioned_on_widened_posteriors(monkeypatch):
    """A sample lies posterior_scale times as far from its posterior's mean."""
    mean = latents()[0][INDEX]
    for method, scale in (("eb_mvae", 3.0), ("eb_mvae_annealed", 1.0)):
        sample, *_ = energy_based(monkeypatch, method, posterior_scale=3.0)
        torch.testing.assert_close(sample(tuple(NAMES), SEEDS), mean + scale * (posterior_samples() - mean), rtol=1e-4, atol=1e-4)


@ENERGIES
@pytest.mark.parametrize("subset", [("m1",), ("m3",), ("m1", "m3"), ("m1", "m2", "m3")])
def test_energies_hold_the_observed_posterior_samples(monkeypatch, method, subset):
    sample, *_ = energy_based(monkeypatch, method)
    z = sample(subset, SEEDS)
    assert z.shape == (N, len(NAMES), D)
    for m, name in enumerate(NAMES):
        kept = torch.isclose(z[:, m], posterior_samples()[:, m], rtol=1e-4, atol=1e-5)  # but for standardising
        assert kept.all() if name in subset else not kept.any()


def test_eb_mvae_samples_in_standardised_units(monkeypatch):
    """The lowest energy is at 0, which is the shift in the VAEs' units: without noise the chain ends there."""
    sample, *_ = energy_based(monkeypatch, "eb_mvae", lambda z: 0.5 * z.square().sum((1, 2)), steps=100)
    monkeypatch.setattr(sampling, "sample_noise", lambda shape, seeds: torch.zeros(len(seeds), *shape))
    z = sample((), SEEDS)
    torch.testing.assert_close(z, standardisation()["shift"].expand_as(z), rtol=0, atol=1e-4)


def test_annealed_samples_in_standardised_units(monkeypatch):
    """A model for which all latents are 0 takes z for noise: what is free ends at the shift, whatever is observed."""
    model = SimpleNamespace(noise_given=lambda observed, free, *_: lambda z, t: z / noising.signal_and_noise(t)[1][..., None])
    sample, *_ = energy_based(monkeypatch, "eb_mvae_annealed", model=model)
    z = sample(("m2",), SEEDS)[:, [0, 2]]
    torch.testing.assert_close(z, standardisation()["shift"][[0, 2]].expand_as(z), rtol=0, atol=1e-5)


def test_annealed_asks_its_model_in_its_own_order(monkeypatch):
    """Modalities first; levels 0 and standardised posterior samples where observed; guidance and evidence of params.yaml."""
    sample, _, _, model = energy_based(monkeypatch, "eb_mvae_annealed", batch_size=8, steps=6)
    sample(("m1", "m3"), SEEDS)
    standard, observed = standardisation(), torch.tensor([True, False, True])
    expected = ((posterior_samples() - standard["shift"]) / standard["scale"]).transpose(0, 1)  # M, N, d
    assert len(model.asked) == 2 * 6  # batches, steps
    for i, (z, t, *how) in enumerate(model.asked):
        rows = slice(0, 8) if i < 6 else slice(8, 12)
        level = torch.linspace(sampling.FIRST, sampling.LAST, 6)[i % 6]
        assert torch.equal(t, torch.where(observed, 0.0, level)[:, None].expand(3, len(SEEDS[rows])))
        torch.testing.assert_close(z[observed], expected[:, rows][observed], rtol=1e-4, atol=1e-5)
        assert how == [2.5, 0.6, 1 + 4 / 2]  # two are observed


def test_annealed_network_generates_by_its_own_noise_estimate(monkeypatch):
    """A real network: the same as the sampler by hand, modality by modality swapped to where the network wants it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = networks.Annealed(len(NAMES), D, hidden=8, states=4)
        for weight in model.parameters():
            weight.data += 0.3 * torch.randn_like(weight)
    sample, *_ = energy_based(monkeypatch, "eb_mvae_annealed", model=model, batch_size=100)
    found, standard = sample(("m2",), SEEDS), standardisation()
    free, observed = torch.tensor([True, False, True]), (posterior_samples() - standard["shift"]) / standard["scale"]
    speak = model.log_ratios
    model.log_ratios = lambda z, t: speak(z, t) * torch.where(free, 1.0, 5.0)[:, None, None]  # 1 + 4 / 1

    def by_hand(z, t):
        guidance = 2.5 if t.max() <= 0.6 else 0.0
        return torch.stack(model.noise(torch.stack(z.unbind(1)), torch.stack(t.unbind(1)), guidance).unbind(0), 1)

    expected = sampling.annealed(by_hand, observed, free, SEEDS, 5) * standard["scale"] + standard["shift"]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@ENERGIES
def test_energies_given_nothing_do_not_see_the_posteriors(monkeypatch, method):
    sample, *_ = energy_based(monkeypatch, method)
    expected = sample((), SEEDS)
    sample, *_ = energy_based(monkeypatch, method, posterior=[part + 1 for part in latents()])
    assert torch.equal(sample((), SEEDS), expected)
    assert not torch.equal(sample(("m1",), SEEDS)[:, 1:], expected[:, 1:])


@ENERGIES
def test_a_trajectory_ends_where_the_cell_does(monkeypatch, method):
    """From the observed posterior sample and noise, by the same steps, in the VAEs' units; chosen rows are those of the whole."""
    sample, *_ = energy_based(monkeypatch, method, own, steps=8)
    rows = torch.tensor([7, 2, 5])
    decoders = {name: lambda z: (z * 20 + 128)[..., None, None] / 255 for name in NAMES}  # "images" of d channels, one pixel
    images, steps = evaluate.trajectory(8, decoders, lambda watch: sample(("m1",), [SEEDS[i] for i in rows], rows, watch))
    assert steps == [0, 1, 2, 4, 8] and list(images) == [f"trajectory_{name}" for name in NAMES]
    whole = sample(("m1",), SEEDS)[rows]
    for m, (name, shown) in enumerate(zip(NAMES, images.values())):
        assert shown.shape == (5, 3, D, 1, 1) and shown.dtype == torch.uint8
        assert torch.equal(shown[-1], data.to_uint8(decoders[name](whole[:, m])))
        assert all(torch.equal(step, shown[-1]) == (name == "m1") for step in shown[:-1])  # what is observed stands still


@ENERGIES
@pytest.mark.parametrize("batch_size", [1, 5, 12, 100])
def test_energies_do_not_depend_on_the_batch_size(monkeypatch, method, batch_size):
    expected, *_ = energy_based(monkeypatch, method, own)
    found, *_ = energy_based(monkeypatch, method, own, batch_size=batch_size)
    assert torch.equal(found(("m2",), SEEDS), expected(("m2",), SEEDS))


@ENERGIES
def test_energies_decode_each_modality_with_its_own_vae(monkeypatch, method):
    _, decoders, *_ = energy_based(monkeypatch, method)
    assert decoders == {name: f"models/vae/{name}/decoder.safetensors" for name in NAMES}


@ENERGIES
@pytest.mark.parametrize("sign, expected", [(1, 1.0), (-1, 0.0), (0, 0.5)])
def test_energy_auroc(monkeypatch, method, sign, expected):
    """Latents that are the class number in every modality: the spread between modalities tells mismatched tuples."""
    mean = (torch.arange(N) % 4).float().view(N, 1, 1).expand(N, len(NAMES), D).contiguous()
    units = {"shift": torch.zeros(len(NAMES), D), "scale": torch.ones(len(NAMES), D)}
    _, _, extras, _ = energy_based(monkeypatch, method, lambda z: sign * spread(z), (mean, torch.full_like(mean, -40.0)), units)
    assert extras() == {"energy_auroc": expected}


@ENERGIES
def test_energy_auroc_is_of_standardised_latents(monkeypatch, method):
    """Each modality has its own units; in the standardised ones all agree, and only there are matching tuples told."""
    standard = standardisation()
    standard["scale"][1] *= 100  # without standardising the spread would be that of the units
    mean = (torch.arange(N) % 4).float().view(N, 1, 1) * standard["scale"] + standard["shift"]
    _, _, extras, _ = energy_based(monkeypatch, method, posterior=(mean, torch.full_like(mean, -40.0)), standard=standard)
    assert extras() == {"energy_auroc": 1.0}


@ENERGIES
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("labelled", [True, False])
def test_a_mismatched_tuple_has_one_modality_of_another_tuple(monkeypatch, method, seed, labelled):
    """Of one with another label where there are labels, else of any other; never its own, which no energy could tell."""
    split, seen = small_split(), []
    labels = split.labels if labelled else torch.zeros_like(split.labels)
    monkeypatch.setattr(sys.modules[__name__], "small_split", lambda: data.Split(split.images, labels, None))
    _, _, extras, _ = energy_based(monkeypatch, method, lambda z: seen.append(z) or spread(z), seed=seed)
    assert 0 <= extras()["energy_auroc"] <= 1
    mismatched, matching = seen
    assert matching.shape == (N, len(NAMES), D) and len(set(matching.flatten().tolist())) == N * len(NAMES) * D
    pairs, swapped = [], set()
    for i in range(N):
        different = (mismatched[i] != matching[i]).any(1).nonzero().flatten().tolist()
        assert len(different) == 1
        others = (matching[:, different[0]] == mismatched[i, different[0]]).all(1).nonzero().flatten().tolist()
        assert len(others) == 1 and others != [i]  # the latent of that modality in another tuple
        pairs.append((labels[INDEX[i]], labels[INDEX[others[0]]]))
        swapped.add(different[0])
    assert len(swapped) > 1  # not always the same modality
    assert all(own != other for own, other in pairs) == labelled


@ENERGIES
def test_energy_auroc_without_labels_tells_tuples(monkeypatch, method):
    """Latents that are the tuple's number in every modality: only a swapped one disagrees with the rest."""
    split = small_split()
    monkeypatch.setattr(sys.modules[__name__], "small_split", lambda: data.Split(split.images, torch.zeros_like(split.labels), None))
    mean = torch.arange(N).float().view(N, 1, 1).expand(N, len(NAMES), D).contiguous()
    units = {"shift": torch.zeros(len(NAMES), D), "scale": torch.ones(len(NAMES), D)}
    _, _, extras, _ = energy_based(monkeypatch, method, posterior=(mean, torch.full_like(mean, -40.0)), standard=units)
    assert extras() == {"energy_auroc": 1.0}


@ENERGIES
def test_energy_auroc_where_all_judged_tuples_are_of_one_class(monkeypatch, method):
    """As may be with few samples of a rare class: there are labels, but none to tell a mismatch by, so any other tuple is one."""
    split = small_split()
    monkeypatch.setattr(sys.modules[__name__], "small_split", lambda: data.Split(split.images, torch.full_like(split.labels, 1), None))
    mean = torch.arange(N).float().view(N, 1, 1).expand(N, len(NAMES), D).contiguous()
    units = {"shift": torch.zeros(len(NAMES), D), "scale": torch.ones(len(NAMES), D)}
    _, _, extras, _ = energy_based(monkeypatch, method, posterior=(mean, torch.full_like(mean, -40.0)), standard=units)
    assert extras() == {"energy_auroc": 1.0}


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
