"""Figures 1 to 3, the full grid, training curves, tables, claims and a page of it all -> reports/.

python -m stages.report
"""

from pathlib import Path

from tqdm import tqdm

from ebmvae import command, params
from ebmvae.core import artifacts, code
from ebmvae.data import splits
from ebmvae.evaluation import grid
from ebmvae.methods import METHODS
from ebmvae.reporting import claims, figures, page, results, seeds, tables
from ebmvae.reporting.tables import figure_targets, rounded

OUT = Path("reports")
RESULTS = Path("results")
POLYMNIST_DIGITS = {"mnist", "embedded", "imported"}  # what data the paper's claims are about


def main():
    command.parser(__doc__).parse_args()
    p = params.load()
    with command.exclusive("report"):
        report(p)


def report(p):
    """Write reports/."""
    provenance = artifacts.load_json(splits.POLYMNIST / "provenance.json")
    names = provenance["modalities"]
    measured = {m: artifacts.load_json(RESULTS / m / "results.json") for m in METHODS}
    references = artifacts.load_json(RESULTS / "references" / "results.json")
    distance = references["distance"]
    runs = runs_of_all_seeds(p, provenance, measured, references)
    table, spread = seeds.summary(runs)
    seeds_of = {m: [run["seed"] for run in runs if m in run["table"]] for m in METHODS}
    captions = caption_lines(p, provenance, measured, references, seeds_of)
    histories = tables.training_histories(names)
    draw_figures(table, spread, names, distance, histories, captions)
    save_tables(p, table, spread, names, distance, seeds_of, provenance, references, captions)
    save_plots(measured, table, spread, histories, names, distance)
    complete = [run["table"] for run in runs if set(run["table"]) == set(table)]
    papers = provenance["digits"] in POLYMNIST_DIGITS and len(names) == 5
    verdicts = claims.check(table, distance, complete, papers)
    save_text("claims.md", claims.markdown(verdicts, captions["seeds"]))
    content = page.PageContent(
        facts=page_facts(p, provenance, measured, references, seeds_of),
        names=names,
        distance=distance,
        tables=[run["table"] for run in runs],
        verdicts=verdicts,
        figures=figure_captions(names),
        rows={method: measured[method]["rows"] for method in METHODS},
        **page_images(p, provenance, measured),
    )
    save_text("index.html", page.render(content))
    holding = sum(claims.verdict(claim) == "holds" for claim in verdicts)
    print(f"report: {holding} of {len(verdicts)} claims hold; see {OUT}/index.html", flush=True)


def save_text(name, text):
    artifacts.write(OUT / name, text.encode(), checksum=False)


def save_json(name, value):
    artifacts.save_json(OUT / name, rounded(value), checksum=False)


def runs_of_all_seeds(p, provenance, measured, references):
    """This run, written to reports/seed.json, and those of other seeds that go with it."""
    table = tables.tabulate(measured, references["rows"], references["distance"])
    fingerprints = seeds.fingerprints(p, provenance["sha256"])
    run = rounded({"seed": p.seed, "fingerprints": fingerprints, "table": table})
    artifacts.save_json(OUT / "seed.json", seeds.signed(run), checksum=False)
    return seeds.gather(run)


def warnings(measured):
    """What makes the numbers unsure, as the end of a line."""
    rows = [row for method in METHODS for row in measured[method]["rows"]]
    text = ""
    if any("warning" in row for row in rows):
        text = "; fewer samples than features: distances are unreliable"
    if lost := sum(row.get("diverged", 0) for row in rows):
        text += f"; {lost} samples diverged and are left out"
    return text


def all_seeds(seeds_of):
    return sorted({seed for several in seeds_of.values() for seed in several})


def caption_lines(p, provenance, measured, references, seeds_of):
    """Where numbers come from: {"seed": of this run alone, "seeds": of means over seeds}."""
    n_samples = measured[next(iter(METHODS))]["rows"][0]["n_samples"]

    def line(which):
        return (
            f"{provenance['dataset']}; profile {p.profile}, {which}, "
            f"{provenance['n_train']} training tuples, {n_samples} samples per cell, "
            f"{references['device']}, torch {references['torch']}{warnings(measured)}"
        )

    several, this = all_seeds(seeds_of), line(f"seed {p.seed}")
    if len(several) == 1:
        return {"seed": this, "seeds": this}
    return {"seed": this, "seeds": line(f"seeds {', '.join(map(str, several))} (mean ± s.d.)")}


def draw_figures(table, spread, names, distance, histories, captions):
    """All figures as PNG and PDF. Pictures and training curves are of this run's seed alone."""
    targets = figure_targets(names)
    drawn = {
        "figure1": (figure1, (names,), "seed"),
        "figure3": (figure3, (names,), "seed"),
        "figure2": (figures.curves, (table, spread, distance, targets), "seeds"),
        "grid": (figures.curves, (table, spread, distance, names), "seeds"),
        "training": (figures.training_curves, (histories,), "seed"),
    }
    bar = tqdm(drawn.items(), "report", unit="figure", disable=None)
    for name, (draw, arguments, caption) in bar:
        figures.save(draw(*arguments), OUT / "figures" / name, captions[caption])


def figure1(names):
    """(a) training tuples, one column per modality; unconditional (b) MoPoE, (c) and (d) ours."""
    first = artifacts.load_array(RESULTS / "mopoe" / f"unconditional_{names[0]}.npy")
    titles = {"mopoe": "MoPoE", "eb_mvae": "EB-MVAE", "eb_mvae_annealed": "EB-MVAE annealed"}
    sources = [[splits.POLYMNIST / "train" / f"{name}.npy" for name in names]]
    sources += [[RESULTS / m / f"unconditional_{name}.npy" for name in names] for m in titles]
    pictures = []
    for files in sources:
        images = [artifacts.load_array(file)[: len(first)] for file in files]
        pictures.append(figures.tile(figures.side_by_side(images)))
    return figures.panels(pictures, ["training tuples", *titles.values()], names)


def figure3(names):
    """Modality 3, five per row, one digit per row.

    (a) unimodal VAE posterior samples; given the rest (b) EB-MVAE, (c) MoPoE and (d) annealed.
    """
    target = figure_targets(names)[1]
    methods = ("eb_mvae", "mopoe", "eb_mvae_annealed")
    files = [RESULTS / "references" / f"reconstructions_{target}.npy"]
    files += [RESULTS / method / f"given_rest_{target}.npy" for method in methods]
    images = [artifacts.load_array(file) for file in files]
    pictures = [figures.tile(x.reshape(-1, grid.FIGURE_COLUMNS, *x.shape[1:])) for x in images]
    rest = ", ".join(name[1:] for name in names if name != target)
    titles = [f"EB-MVAE given {rest}", f"MoPoE given {rest}", "EB-MVAE annealed"]
    return figures.panels(pictures, [f"unimodal VAE, {target}", *titles])


def figure_captions(names):
    """Figures 1 to 3 for the page: [(title, alternative text, PNG bytes)]."""
    targets = figure_targets(names)
    rest = ", ".join(name for name in names if name != targets[1])
    texts = {
        "figure1": (
            "(a) Training tuples, one column per modality; unconditional samples of (b) MoPoE, "
            "(c) EB-MVAE and (d) the annealed EB-MVAE.",
            "Four panels of small pictures, one tuple per row, one modality per column: training "
            "tuples, then unconditional samples of MoPoE, EB-MVAE and annealed EB-MVAE. How often "
            "the classes in a tuple agree is in the table of key numbers.",
        ),
        "figure2": (
            "Coherence, of data with labels, and Fréchet distance against the number observed, for "
            f"{' and '.join(targets)}; bands, with several seeds, are their standard deviation.",
            "Line plots, one line per method, dashed lines for the unimodal VAE and real images. "
            "Each point is the mean of the cells of its target in the grid below.",
        ),
        "figure3": (
            f"{targets[1]}, one class per row: (a) the unimodal VAE's reconstructions; given "
            f"{rest}: (b) EB-MVAE, (c) MoPoE and (d) the annealed EB-MVAE.",
            f"Four panels of samples of {targets[1]}, five of each class. Coherence and distance "
            "given all others are in the last rows of the grid below.",
        ),
    }
    folder = OUT / "figures"
    return [(*text, (folder / f"{name}.png").read_bytes()) for name, text in texts.items()]


def save_tables(p, table, spread, names, distance, seeds_of, provenance, references, captions):
    """table.json, metrics.json and results.md."""
    rows = artifacts.load_json(RESULTS / next(iter(METHODS)) / "results.json")["rows"]
    accuracy = artifacts.load_json("models/classifiers/accuracy.json")["classifiers"]
    head = {
        "dataset": provenance["dataset"],
        "profile": p.profile,
        "seeds": seeds_of,
        "device": references["device"],
        "torch": references["torch"],
        "matmul_precision": p.matmul_precision,
        "samples_per_cell": rows[0]["n_samples"],
        "classifiers": accuracy,
    }
    save_json("table.json", {**head, **table, "standard_deviation": spread})
    metrics = {method: tables.headline(table[method], names, distance) for method in METHODS}
    save_json("metrics.json", metrics)
    save_text("results.md", results.markdown(table, spread, names, distance, captions["seeds"]))


def save_plots(measured, table, spread, histories, names, distance):
    """Tidy rows for `dvc plots`."""
    rows = [row for method in METHODS for row in measured[method]["rows"]]
    plots = tables.plot_rows(rows, table, spread, names, distance)
    plots["training"] = [
        {"family": family, "name": name, "step": step, "value": value}
        for family, lines in histories.items()
        for name, points in lines.items()
        for step, value in points
    ]
    for name, content in plots.items():
        save_json(f"plots/{name}.json", content)


def page_facts(p, provenance, measured, references, seeds_of):
    """What the head of the page says."""
    n_samples = measured[next(iter(METHODS))]["rows"][0]["n_samples"]
    size = f"{provenance['n_train']} training tuples, {n_samples} samples per cell"
    labelled = measured[next(iter(METHODS))]["unconditional"]
    facts = {
        "Data": provenance["dataset"],
        "Profile": p.profile,
        "Seeds": ", ".join(map(str, all_seeds(seeds_of))),
        "Size": size + warnings(measured),
        "Labels": "" if labelled else "no labels, so no coherence and no agreement",
        "Device": f"{references['device']}, torch {references['torch']}",
        # A file can't tell the commit that it will be part of.
        "Code": "that of the commit that holds this file; SHA-256 of ebmvae/ and stages/ "
        f"{code.combined(('ebmvae', 'stages'))[:12]}…",
    }
    return {term: text for term, text in facts.items() if text}


def page_images(p, provenance, measured):
    """What the page shows of a few test tuples, as keyword arguments of `page.PageContent`."""
    test, names = splits.load_split("test"), provenance["modalities"]
    index = grid.test_tuples(p, len(test), "cpu")
    shown = index[grid.page_rows(test.labels[index])]
    classes = provenance.get("classes") or range(splits.n_classes(test.labels))
    numbered = enumerate(test.labels[shown].tolist(), 1)
    tuples = [str(i if len(classes) == 1 else classes[c]) for i, c in numbered]

    def load(method, kind):
        files = {name: RESULTS / method / f"{kind}_{name}.npy" for name in names}
        return {name: artifacts.load_array(file) for name, file in files.items()}

    return {
        "cells": {method: load(method, "cells") for method in METHODS},
        "real": {name: test.images[name][shown].numpy() for name in names},
        "tuples": tuples,
        "trajectories": {
            method: {**result["trajectory"], "images": load(method, "trajectory")}
            for method, result in measured.items()
            if "trajectory" in result
        },
    }


if __name__ == "__main__":
    command.run(main)
