"""What the report makes of other numbers of modalities, and of data without labels: its tables and few numbers."""

import itertools

import numpy as np
import pytest

from stages import report

METHODS, DISTANCE = report.METHODS, "frechet_polymnist"


def names_of(m):
    return [f"m{k + 1}" for k in range(m)]


def results_of(m, labelled):
    """Rows of every method as `evaluate` writes them, every number another; results; rows of the references."""
    names, numbers = names_of(m), iter(np.linspace(0.001, 0.999, 20000).tolist())
    rows = []
    for method, target in itertools.product(METHODS, names):
        for subset in (s for k in range(m) for s in itertools.combinations([n for n in names if n != target], k)):
            rows.append({"method": method, "target": target, "observed": "+".join(subset) or "none", "n_observed": len(subset),
                         "coherence": next(numbers) if labelled and subset else None, DISTANCE: 100 * next(numbers), "diversity": next(numbers),
                         "n_samples": 100, **({"distance_to_unimodal_vae": next(numbers)} if len(subset) == m - 1 else {}), "seed": 0})
    alone = lambda: {"all_agree": next(numbers), "agreement": {name: next(numbers) for name in names}} if labelled else {}
    results = {method: {"unconditional": alone(), **({"energy_auroc": next(numbers)} if "eb" in method else {})} for method in METHODS}
    references = [{"method": source, "target": name, "coherence": next(numbers) if labelled else None, DISTANCE: next(numbers),
                   "diversity": next(numbers), "n_samples": 100} for name in names for source in ("real", "unimodal_vae")]
    return rows, results, references


@pytest.mark.parametrize("m, expected", [(2, ("m2", "m1")), (3, ("m3", "m2")), (4, ("m4", "m3")), (5, ("m5", "m3")), (6, ("m5", "m3")), (10, ("m5", "m3"))])
def test_targets(m, expected):
    assert report.targets(names_of(m)) == expected


CASES = pytest.mark.parametrize("m, labelled", list(itertools.product((2, 3, 5), (True, False))))


@CASES
def test_the_table_is_the_mean_over_subsets(m, labelled):
    rows, results, references = results_of(m, labelled)
    table = report.tabulate(rows, results, references, DISTANCE)
    assert list(table) == [*METHODS, "real", "unimodal_vae"]
    for method, target in itertools.product(METHODS, names_of(m)):
        assert list(table[method][target]) == [f"given{k}" for k in range(m)]
        for k in range(m):
            cell, of = table[method][target][f"given{k}"], [r for r in rows if (r["method"], r["target"], r["n_observed"]) == (method, target, k)]
            expected = [DISTANCE, "diversity"] + ["coherence"] * (labelled and k > 0) + ["distance_to_unimodal_vae"] * (k == m - 1)
            assert set(cell) == set(expected)
            for key in expected:
                assert cell[key] == pytest.approx(np.mean([r[key] for r in of]), rel=1e-12)
    for method in METHODS:
        assert set(table[method]) == {*names_of(m), "unconditional", *(["energy_auroc"] if "eb" in method else [])}
        assert table[method]["unconditional"] == results[method]["unconditional"]
    for row in references:
        expected = {key: row[key] for key in ("coherence", DISTANCE, "diversity") if key != "coherence" or labelled}
        assert table[row["method"]][row["target"]] == expected


@CASES
def test_the_few_numbers(m, labelled):
    rows, results, references = results_of(m, labelled)
    table = report.tabulate(rows, results, references, DISTANCE)
    pair = {2: ("m1", "m2"), 3: ("m2", "m3"), 5: ("m3", "m5")}[m]
    metrics = {"coherence": "coherence", "distance": DISTANCE} if labelled else {"distance": DISTANCE}
    for method in METHODS:
        found = report.headline(table[method], names_of(m), DISTANCE)
        expected = {f"{target}_{key}": table[method][target][f"given{m - 1}"][metric] for target in pair for key, metric in metrics.items()}
        for key, metric in metrics.items():
            every = [table[method][name][f"given{k}"][metric] for name in names_of(m) for k in range(1, m)]
            expected[f"mean_{key}"] = pytest.approx(sum(every) / len(every), rel=1e-12)
        if labelled:
            expected["all_agree"] = results[method]["unconditional"]["all_agree"]
        if "eb" in method:
            expected["energy_auroc"] = results[method]["energy_auroc"]
        assert found == expected
        assert all(type(value) is float for value in found.values())
