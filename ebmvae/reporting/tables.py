"""The numbers of a run, as tables: {method: {target: {"given1": {metric: value}}}}."""

import pandas as pd

from ebmvae.core import artifacts
from ebmvae.methods import METHODS


def rounded(value):
    """Numbers to six significant digits, so that files read well and diff well."""
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def tabulate(results, reference_rows, distance):
    """Means over the observed subsets of a size, by method, target and "given0", "given1", ...

    results: {method: its results.json}. A method also has "unconditional", an energy
    "energy_auroc"; a reference has its numbers by target.
    """
    columns = ["coherence", distance, "diversity", "distance_to_unimodal_vae"]
    rows = [row for method in METHODS for row in results[method]["rows"]]
    frame = pd.DataFrame(rows).astype({column: float for column in columns})
    means = frame.groupby(["method", "target", "n_observed"])[columns].mean()
    table = {method: {} for method in METHODS}
    for (method, target, size), cell in means.iterrows():
        table[method].setdefault(target, {})[f"given{size}"] = cell.dropna().to_dict()
    for method in METHODS:
        table[method]["unconditional"] = results[method]["unconditional"]
        if "energy_auroc" in results[method]:
            table[method]["energy_auroc"] = results[method]["energy_auroc"]
    for row in reference_rows:
        numbers = {key: row[key] for key in columns[:3] if row[key] is not None}
        table.setdefault(row["method"], {})[row["target"]] = numbers
    return table


def figure_targets(names):
    """The two modalities of Figure 2; the second is Figure 3's.

    m5 and m3 as in the paper, where there are as many; else the last two.
    """
    return ("m5", "m3") if "m5" in names else tuple(names[:-3:-1])


def headline(table, names, distance):
    """A method's few numbers to look at first, flat, for `dvc metrics` and `dvc exp show`."""
    steps = [f"given{k}" for k in range(1, len(names))]
    first = table[names[0]][steps[0]]
    metrics = {
        key: metric
        for key, metric in (("coherence", "coherence"), ("distance", distance))
        if metric in first
    }
    numbers = {
        f"{target}_{key}": table[target][steps[-1]][metric]
        for target in sorted(figure_targets(names))
        for key, metric in metrics.items()
    }
    for key, metric in metrics.items():
        values = [table[name][step][metric] for name in names for step in steps]
        numbers[f"mean_{key}"] = sum(values) / len(values)
    if "all_agree" in table["unconditional"]:
        numbers["all_agree"] = table["unconditional"]["all_agree"]
    if "energy_auroc" in table:
        numbers["energy_auroc"] = table["energy_auroc"]
    return numbers


def plot_rows(rows, table, spread, names, distance):
    """Tidy rows for `dvc plots`: {"grid": rows, "coherence": rows, "frechet": rows}.

    Values are numbers, one observation per row; low and high are a standard deviation away.
    """
    columns = ["method", "target", "observed", "n_observed", "coherence", distance]
    columns += ["n_samples", "seed"]
    plots = {"grid": [{key: row[key] for key in columns} for row in rows]}
    for name, metric in (("coherence", "coherence"), ("frechet", distance)):
        plots[name] = []
        for method in METHODS:
            for target in names:
                for key, cell in table[method][target].items():
                    if metric in cell:
                        deviations = spread.get(method, {}).get(target, {}).get(key, {})
                        off = deviations.get(metric, 0)
                        head = {"method": method, "target": target, "n_observed": int(key[5:])}
                        band = {"low": cell[metric] - off, "high": cell[metric] + off}
                        value = {"metric": metric, "value": cell[metric], **band}
                        plots[name].append({**head, **value})
    return plots


def training_histories(names):
    """Training curves as {title: {name: [(step, value), ...]}}."""

    def read(folder, key):
        history = artifacts.load_json(f"{folder}/history.json")
        return [(entry["step"], entry[key]) for entry in history]

    first = artifacts.load_json(f"models/vae/{names[0]}/history.json")[0]
    title, key = "unimodal VAEs: held-out ELBO", "elbo"
    if "digit_accuracy" in first:
        title, key = "unimodal VAEs: digits read off reconstructions", "digit_accuracy"
    histories = {title: {name: read(f"models/vae/{name}", key) for name in names}}
    histories["baselines: held-out loss"] = {
        method: read(entry.models, "held_out")
        for method, entry in METHODS.items()
        if entry.kind == "baseline"
    }
    for method, entry in METHODS.items():
        if entry.kind == "energy":
            lines = {method: read(entry.models, "held_out")}
            histories[f"{entry.label}: held-out loss"] = lines
    return histories
