"""Figures 1 to 3, the full grid, training curves, plot data, metrics.json, the paper's claims and a page of it all -> reports/.

    python -m stages.report
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from stages.lib import artifacts, claims, data, evaluation, figures, page, params, runtime, seeds

OUT = Path("reports")
RESULTS = Path("results")
METHODS = ("eb_mvae", "eb_mvae_annealed", "poe", "moe", "mopoe", "mvtcae")
REFERENCES = ("unimodal_vae", "real")
PAPERS = {"mnist", "embedded", "imported"}  # what data the paper's claims are about: PolyMNIST, of any digits


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    p = params.load()
    runtime.begin("report")
    provenance = artifacts.load_json(data.POLYMNIST / "provenance.json")
    names = provenance["modalities"]
    results = {method: artifacts.load_json(RESULTS / method / "results.json") for method in METHODS}
    references = artifacts.load_json(RESULTS / "references" / "results.json")
    distance = references["distance"]
    rows = [row for method in METHODS for row in results[method]["rows"]]
    run = rounded({"seed": p.seed, "fingerprints": seeds.fingerprints(p, provenance["sha256"], METHODS),
                   "table": tabulate(rows, results, references["rows"], distance)})
    artifacts.save_json(OUT / "seed.json", seeds.signed(run), checksum=False)
    runs = seeds.gather(run)
    table, spread = seeds.summary(runs)
    of = {method: [each["seed"] for each in runs if method in each["table"]] for method in METHODS}
    several = sorted({seed for found in of.values() for seed in found})
    unsure = "; fewer samples than features: distances are unreliable" if any("warning" in row for row in rows) else ""
    if lost := sum(row.get("diverged", 0) for row in rows):
        unsure += f"; {lost} samples diverged and are left out"
    about = lambda which: (f"{provenance['dataset']}; profile {p.profile}, {which}, {provenance['n_train']} training tuples, "
                           f"{rows[0]['n_samples']} samples a cell, {references['device']}, torch {references['torch']}{unsure}")
    shown = about(f"seed {p.seed}")  # pictures and training curves are this run's alone
    caption = shown if len(several) == 1 else about(f"seeds {', '.join(map(str, several))} (mean ± s.d.)")
    labelled, histories = "coherence" in table[METHODS[0]][names[0]]["given1"], training_histories(names)
    draw = {"figure1": lambda: figure1(names), "figure3": lambda: figure3(names),
            "figure2": lambda: figures.curves(table, spread, METHODS, distance, targets(names), REFERENCES),
            "grid": lambda: figures.curves(table, spread, METHODS, distance, names, REFERENCES),
            "training": lambda: figures.training_curves(histories)}
    for name, figure in tqdm(draw.items(), "report", unit="figure", disable=not sys.stderr.isatty()):
        figures.save(figure(), OUT / "figures" / name, caption if name in ("figure2", "grid") else shown)

    artifacts.save_json(OUT / "table.json", rounded({
        "dataset": provenance["dataset"], "profile": p.profile, "seeds": of, "device": references["device"],
        "torch": references["torch"], "samples_per_cell": rows[0]["n_samples"],
        "judges": artifacts.load_json("models/judge/accuracy.json")["judges"], **table, "standard_deviation": spread}), checksum=False)
    artifacts.save_json(OUT / "metrics.json", rounded({method: headline(table[method], names, distance) for method in METHODS}), checksum=False)
    verdicts = claims.check(table, distance, [each["table"] for each in runs if set(each["table"]) == set(table)],
                            papers=provenance["digits"] in PAPERS and len(names) == 5)
    artifacts.write(OUT / "claims.md", claims.markdown(verdicts, caption).encode(), checksum=False)
    facts = {"Data": provenance["dataset"], "Profile": p.profile, "Seeds": ", ".join(map(str, several)),
             "Size": f"{provenance['n_train']} training tuples, {rows[0]['n_samples']} samples a cell{unsure}",
             **({} if labelled else {"Labels": "no labels, so no coherence and no agreement"}),
             "Device": f"{references['device']}, torch {references['torch']}", "Code": code()}
    whole = page.page(facts, names, METHODS, REFERENCES, distance, runs, verdicts, captioned(names),
                      {method: results[method]["rows"] for method in METHODS}, *samples(p, provenance, results))
    artifacts.write(OUT / "index.html", whole.encode(), checksum=False)
    save_plots(rows, table, spread, histories, names, distance)
    print(f"report: {sum(claims.verdict(v) == 'holds' for v in verdicts)} of {len(verdicts)} claims hold; see {OUT}/index.html", flush=True)


def tabulate(rows, results, reference_rows, distance):
    """{method: {target: {given0: {...}, given1: ...}, "unconditional": ...}}: means over the observed subsets of a size."""
    columns = ["coherence", distance, "diversity", "distance_to_unimodal_vae"]
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
        table.setdefault(row["method"], {})[row["target"]] = {key: row[key] for key in columns[:3] if row[key] is not None}
    return table


def targets(names):
    """The two modalities that Figure 2 shows, m5 and m3 as in the paper where there are as many; the second is Figure 3's."""
    return ("m5", "m3") if "m5" in names else tuple(names[:-3:-1])


def headline(table, names, distance):
    """The few numbers of one method that one looks at first, flat, for `dvc metrics` and `dvc exp show`."""
    steps = [f"given{k}" for k in range(1, len(names))]
    metrics = {key: metric for key, metric in (("coherence", "coherence"), ("distance", distance)) if metric in table[names[0]][steps[0]]}
    found = {f"{target}_{key}": table[target][steps[-1]][metric] for target in sorted(targets(names)) for key, metric in metrics.items()}
    for key, metric in metrics.items():
        found[f"mean_{key}"] = sum(table[name][step][metric] for name in names for step in steps) / len(names) / len(steps)
    found.update({key: table["unconditional"][key] for key in ("all_agree",) if key in table["unconditional"]})
    return {**found, **({"energy_auroc": table["energy_auroc"]} if "energy_auroc" in table else {})}


def figure1(names):
    """(a) training tuples, a column a modality; unconditional (b) MoPoE, (c) EB-MVAE and (d) annealed EB-MVAE."""
    pictures = []
    for source in ("train", "mopoe", "eb_mvae", "eb_mvae_annealed"):
        load = lambda name: artifacts.load_array(
            data.POLYMNIST / "train" / f"{name}.npy" if source == "train" else RESULTS / source / f"unconditional_{name}.npy")
        rows = len(artifacts.load_array(RESULTS / "mopoe" / f"unconditional_{names[0]}.npy"))
        pictures.append(figures.tile(figures.alike([load(name)[:rows] for name in names])))
    return figures.panels(pictures, ["training tuples", "MoPoE", "EB-MVAE", "EB-MVAE annealed"], names)


def figure3(names):
    """Modality 3, five a row, a digit a row: (a) unimodal VAE posterior samples; given the rest (b) EB-MVAE, (c) MoPoE
    and (d) annealed EB-MVAE."""
    target = targets(names)[1]
    files = [RESULTS / "references" / f"reconstructions_{target}.npy",
             *(RESULTS / method / f"given_rest_{target}.npy" for method in ("eb_mvae", "mopoe", "eb_mvae_annealed"))]
    images = [artifacts.load_array(file) for file in files]
    pictures = [figures.tile(i.reshape(-1, 5, *i.shape[1:])) for i in images]
    rest = ", ".join(name[1:] for name in names if name != target)
    return figures.panels(pictures, [f"unimodal VAE, {target}", f"EB-MVAE given {rest}", f"MoPoE given {rest}", "EB-MVAE annealed"])


def captioned(names):
    """Figures 1 to 3 for the page: [(title, alternative text, PNG bytes)]."""
    target = targets(names)[1]
    rest = ", ".join(name for name in names if name != target)
    told = {
        "figure1": ("(a) Training tuples, a column a modality; unconditional samples of (b) MoPoE, (c) EB-MVAE and (d) the annealed "
                    "EB-MVAE.", "Four panels of small pictures, a tuple a row and a modality a column: training tuples, then what "
                    "MoPoE, EB-MVAE and annealed EB-MVAE draw given nothing. How often the classes in a tuple agree is in the table "
                    "of key numbers."),
        "figure2": (f"Coherence, of data with labels, and Fréchet distance against the number observed, for {' and '.join(targets(names))}; "
                    "bands, with several seeds, are their standard deviation.", "Line plots, a line a method, dashed lines for the "
                    "unimodal VAE and real images. Each point is the mean of the cells of its target in the grid below."),
        "figure3": (f"{target}, a class a row: (a) the unimodal VAE's reconstructions; given {rest}: (b) EB-MVAE, (c) MoPoE and (d) the "
                    "annealed EB-MVAE.", f"Four panels of samples of {target}, five of each class. Coherence and distance given all "
                    "others are in the last rows of the grid below."),
    }
    return [(*texts, (OUT / "figures" / f"{name}.png").read_bytes()) for name, texts in told.items()]


def samples(p, provenance, results):
    """What the page shows of a few test tuples: samples of every cell, the real images, what to call them, the samplers' way."""
    test, names = data.load_split("test"), provenance["modalities"]
    index = evaluation.test_tuples(p, len(test), "cpu")
    shown = index[evaluation.page_rows(test.labels[index])]
    classes = provenance.get("classes") or range(data.n_classes(test.labels))
    tuples = [str(i if len(classes) == 1 else classes[c]) for i, c in enumerate(test.labels[shown].tolist(), 1)]
    load = lambda method, kind: {name: artifacts.load_array(RESULTS / method / f"{kind}_{name}.npy") for name in names}
    ways = {method: {**of["trajectory"], "images": load(method, "trajectory")} for method, of in results.items() if "trajectory" in of}
    return ({method: load(method, "cells") for method in METHODS}, {name: test.images[name][shown].numpy() for name in names},
            tuples, ways)


def code():
    """What code this is, for the page: a file can't tell the commit it will be part of."""
    files = {file.as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(Path("stages").rglob("*.py")) if file.is_file()}
    digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    return f"that of the commit that holds this file; SHA-256 of stages/**/*.py {digest[:12]}…"


def training_histories(names):
    """Training curves as {title: {name: [(step, value), ...]}}."""
    read = lambda path, key: [(entry["step"], entry[key]) for entry in artifacts.load_json(Path("models") / path / "history.json")]
    labelled = "digit_accuracy" in artifacts.load_json(Path("models/vae") / names[0] / "history.json")[0]
    vaes = ("unimodal VAEs: digits read off reconstructions", "digit_accuracy") if labelled else ("unimodal VAEs: held-out ELBO", "elbo")
    return {vaes[0]: {n: read(f"vae/{n}", vaes[1]) for n in names},
            "baselines: held-out loss": {m: read(f"baseline/{m}", "held_out") for m in METHODS[2:]},
            "EB-MVAE: held-out score matching": {"eb_mvae": read("ebm", "held_out")},
            "annealed: held-out loss": {"eb_mvae_annealed": read("annealed", "held_out")}}


def save_plots(rows, table, spread, histories, names, distance):
    """Tidy JSON rows for `dvc plots`: values are numbers, one observation a row; low and high are a standard deviation away."""
    def band(method, target, key, metric):
        value, off = table[method][target][key][metric], spread.get(method, {}).get(target, {}).get(key, {}).get(metric, 0)
        return {"value": value, "low": value - off, "high": value + off}

    save = lambda name, value: artifacts.save_json(OUT / "plots" / f"{name}.json", rounded(value), checksum=False)
    columns = ["method", "target", "observed", "n_observed", "coherence", distance, "n_samples", "seed"]
    save("grid", [{key: row[key] for key in columns} for row in rows])
    for name, metric in (("coherence", "coherence"), ("frechet", distance)):
        save(name, [{"method": method, "target": target, "n_observed": int(key[5:]), "metric": metric,
                     **band(method, target, key, metric)}
                    for method in METHODS for target in names for key, cell in table[method][target].items() if metric in cell])
    save("training", [{"family": family, "name": name, "step": step, "value": value}
                      for family, lines in histories.items() for name, points in lines.items() for step, value in points])


def rounded(value):
    """Numbers to six significant digits, so that files read well and diff well."""
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


if __name__ == "__main__":
    runtime.run(main)
