"""The tables of a run: for other numbers of modalities, and without labels."""

import itertools

import numpy as np
import pytest

from ebmvae.evaluation.subsets import subset_name
from ebmvae.methods import ENERGIES, METHODS, REFERENCES
from ebmvae.reporting import tables

DISTANCE = "frechet_polymnist"
CASES = pytest.mark.parametrize("m, labelled", [*itertools.product((2, 5), (True, False))])


def names_of(m):
    return [f"m{k + 1}" for k in range(m)]


def results_of(m, labelled):
    """Results as `evaluate` writes them, and rows of the references; no number stands twice."""
    names, numbers = names_of(m), iter(np.linspace(0.001, 0.999, 20000).tolist())
    results = {}
    for method in METHODS:
        results[method] = {"rows": [], "unconditional": {}}
        for target in names:
            others = [name for name in names if name != target]
            for subset in (s for k in range(m) for s in itertools.combinations(others, k)):
                row = {"method": method, "target": target, "observed": subset_name(subset)}
                row |= {"n_observed": len(subset), DISTANCE: next(numbers)}
                row |= {"coherence": next(numbers) if labelled and subset else None}
                row |= {"diversity": next(numbers), "n_samples": 100, "seed": 0}
                if len(subset) == m - 1:
                    row["distance_to_unimodal_vae"] = next(numbers)
                results[method]["rows"].append(row)
        if labelled:
            results[method]["unconditional"] = {"all_agree": next(numbers)}
        if method in ENERGIES:
            results[method]["energy_auroc"] = next(numbers)
    references = [
        {"method": method, "target": name, DISTANCE: next(numbers), "diversity": next(numbers)}
        | {"coherence": next(numbers) if labelled else None}
        for name, method in itertools.product(names, REFERENCES)
    ]
    return results, references


def table_of(m, labelled):
    return tables.tabulate(*results_of(m, labelled), DISTANCE)


@CASES
def test_cells_are_means_over_subsets(m, labelled):
    results, references = results_of(m, labelled)
    table = table_of(m, labelled)
    assert set(table) == {*METHODS, *REFERENCES}
    for method, target, k in itertools.product(METHODS, names_of(m), range(m)):
        rows = [
            row
            for row in results[method]["rows"]
            if (row["target"], row["n_observed"]) == (target, k)
        ]
        keys = [DISTANCE, "diversity"] + ["coherence"] * (labelled and k > 0)
        keys += ["distance_to_unimodal_vae"] * (k == m - 1)
        expected = {key: pytest.approx(np.mean([row[key] for row in rows])) for key in keys}
        assert table[method][target][f"given{k}"] == expected
    for method in METHODS:
        single = {"unconditional"} | ({"energy_auroc"} if method in ENERGIES else set())
        assert set(table[method]) == {*names_of(m), *single}
        assert all(table[method][key] == results[method][key] for key in single)
    for row in references:
        keys = (DISTANCE, "diversity") + ("coherence",) * labelled
        assert table[row["method"]][row["target"]] == {key: row[key] for key in keys}


@CASES
def test_the_headline(m, labelled):
    table, pair = table_of(m, labelled), tables.figure_targets(names_of(m))
    assert pair == {2: ("m2", "m1"), 5: ("m5", "m3")}[m]  # at five as in the paper
    metrics = {"coherence": "coherence"} if labelled else {}
    metrics["distance"] = DISTANCE
    for method, part in table.items():
        if method in REFERENCES:
            continue
        expected = {"energy_auroc": part["energy_auroc"]} if method in ENERGIES else {}
        expected |= part["unconditional"]
        for key, metric in metrics.items():
            expected |= {f"{t}_{key}": part[t][f"given{m - 1}"][metric] for t in pair}
            cells = [part[name][f"given{k}"] for name in names_of(m) for k in range(1, m)]
            expected[f"mean_{key}"] = pytest.approx(np.mean([c[metric] for c in cells]))
        assert tables.headline(part, names_of(m), DISTANCE) == expected


@CASES
def test_rows_of_plots_hold_values_and_a_deviation_to_each_side(m, labelled):
    results, _ = results_of(m, labelled)
    table, rows = table_of(m, labelled), [row for r in results.values() for row in r["rows"]]
    spread = {"poe": {"m1": {"given1": {DISTANCE: 0.5}}}}
    plots = tables.plot_rows(rows, table, spread, names_of(m), DISTANCE)
    assert len(plots["grid"]) == len(rows)
    sizes = len(plots["coherence"]), len(plots["frechet"])
    cells = len(METHODS) * m
    assert sizes == (cells * (m - 1) * labelled, cells * m)
    for row in plots["frechet"]:
        where = row["method"], row["target"], row["n_observed"]
        value = table[where[0]][where[1]][f"given{where[2]}"][DISTANCE]
        off = 0.5 if where == ("poe", "m1", 1) else 0
        assert (row["low"], row["value"], row["high"]) == (value - off, value, value + off)
