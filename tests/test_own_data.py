"""The whole DAG on somebody's own pictures: three modalities of three shapes; with labels by DVC and make, without them stage by stage."""

import csv
import json
import math
import os
import re
import subprocess
import sys
from html import escape

import numpy as np
import pytest
import sklearn.datasets
import yaml
from PIL import Image

from tests.project import METHODS, ROOT, clone, commit, figures_are_there, shell
from tests.test_page import Elements

NAMES = ["m1", "m2", "m3"]
SHAPES = {"m1": (1, 32, 32), "m2": (3, 32, 32), "m3": (3, 24, 36)}
FOLDERS = {"m1": ("a pencil", "png"), "m2": ("brush", "bmp"), "m3": ("crayon", "png")}
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TUPLES, TRAIN, TEST = 260, 160, 100
DATASET = "Zoë's digits & co"  # the folder's name
DISTANCE = "frechet_polymnist"
EXTRA = {"polymnist.modalities": 3, "polymnist.n_train": TRAIN, "polymnist.n_test": TEST, "evaluate.n_samples": 100, "judge.epochs": 15}
STAGES = ["polymnist", "train_judge", *(f"train_vae {name}" for name in NAMES), "encode", "fit_ebm", "fit_annealed",
          *(f"train_baseline {method}" for method in METHODS[2:]), "references", *(f"evaluate {method}" for method in METHODS)]


def pictures(i):
    """Tuple i of scikit-learn's digits by modality, uint8 (H, W) or (H, W, 3): in grey; in its own colour on black; wide, on that colour."""
    digits = sklearn.datasets.load_digits()
    ink = (digits.images[i] * 15).astype(np.uint8)  # 8, 8
    colour = np.random.default_rng(i).integers(100, 256, 3)
    paint = lambda mask, colour: (mask[..., None] / 240 * colour).astype(np.uint8)
    wide = np.pad(np.kron(ink, np.ones((3, 4), np.uint8)), [(0, 0), (2, 2)])
    return {"m1": np.kron(ink, np.ones((4, 4), np.uint8)), "m2": paint(np.kron(ink, np.ones((4, 4), np.uint8)), colour),
            "m3": paint(240 - wide, colour)}


def own_folder(where, labels):
    """FOLDER/a pencil/0000.png and so on, with labels.csv where `labels`."""
    folder = where / DATASET
    for sub, _ in FOLDERS.values():
        (folder / sub).mkdir(parents=True)
    for i in range(TUPLES):
        for name, picture in pictures(i).items():
            sub, suffix = FOLDERS[name]
            Image.fromarray(picture).save(folder / sub / f"{i:04d}.{suffix}")
    if labels:
        with open(folder / "labels.csv", "w", newline="") as opened:
            rows = csv.writer(opened)
            rows.writerows([["label", "name"], *([WORDS[k], f"{i:04d}"] for i, k in enumerate(sklearn.datasets.load_digits().target[:TUPLES]))])
    return folder


def read(folder, file):
    return json.loads((folder / file).read_text())


def every(value, path=()):
    """All (path, number or text) of nested JSON."""
    if isinstance(value, (dict, list)):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from every(part, (*path, key))
    else:
        yield path, value


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A clone with a finished run, as docs/own-data.md has it: `cluster.modalities 3`, own_data, then make with two jobs."""
    from tests.torture import TINY, set_params

    folder = clone(tmp_path_factory.mktemp("labelled"))
    assert "3 modalities, m1 to m3" in shell(folder, "python", "-m", "cluster.modalities", "3").stdout
    assert yaml.safe_load((folder / "params.yaml").read_text())["polymnist"]["modalities"] == 3
    own = own_folder(tmp_path_factory.mktemp("own"), labels=True)
    set_params(folder, {**TINY, **EXTRA, "polymnist.own_data": str(own)})
    commit(folder, "own data")
    (folder / ".dvc/tmp").mkdir(exist_ok=True)
    (folder / ".dvc/tmp/rules.mk").write_text(shell(folder, "python", "-m", "cluster.rules").stdout)
    done = shell(folder, "make", "--keep-going", "--jobs", "2", "--file", ".dvc/tmp/rules.mk")
    ran = re.findall(r"Running stage '(.*)'", done.stdout)
    assert sorted(ran) == sorted([*(stage.replace(" ", "@") for stage in STAGES), "report"])
    return folder


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory):
    """A folder in which every stage but the report has run without labels.csv, and what each printed."""
    folder = tmp_path_factory.mktemp("unlabelled")
    own = own_folder(tmp_path_factory.mktemp("own"), labels=False)
    return folder, run_stages(folder, STAGES, own)


@pytest.fixture(scope="module")
def report(unlabelled):
    """The same folder, its report made."""
    folder, _ = unlabelled
    run_stages(folder, ["report"])
    return folder


def run_stages(folder, stages, own=None):
    """Run stages in forked children of one process that has imported everything; {stage: what it printed}."""
    script = """
        import json, sys
        from pathlib import Path
        from tests import torture
        folder, stages, overrides = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
        if overrides:
            (folder / "stages").symlink_to(torture.ROOT / "stages")
            torture.set_params(folder, {**torture.TINY, **overrides})
        said = {}
        for stage in stages:
            code, said[stage] = torture.run(folder, stage)
            if code:
                sys.exit(f"{stage} ended with {code}: {said[stage]}")
        print(json.dumps(said))
    """
    overrides = {**EXTRA, "polymnist.own_data": str(own)} if own else {}
    script = "\n".join(line.removeprefix(" " * 8) for line in script.splitlines())
    done = subprocess.run([sys.executable, "-c", script, str(folder), json.dumps(stages), json.dumps(overrides)], cwd=ROOT, text=True,
                          capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1", "DEVICE": "cpu"})
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


# ---- with labels


def test_status_is_clean(labelled):
    assert "up to date" in shell(labelled, "dvc", "status").stdout


def test_the_data_are_the_pictures(labelled):
    """Every tuple is one of the folder's, whole, with its own label, and none is there twice."""
    about = read(labelled, "data/polymnist/provenance.json")
    assert about["modalities"] == NAMES and about["folders"] == [sub for sub, _ in FOLDERS.values()]
    assert (about["dataset"], about["digits"], about["classes"]) == (DATASET, "own", sorted(WORDS))
    expected = {}
    for i in range(TUPLES):
        made = pictures(i)
        key = b"".join(np.ascontiguousarray(np.atleast_3d(made[name]).transpose(2, 0, 1)).tobytes() for name in NAMES)
        expected[key] = sorted(WORDS).index(WORDS[sklearn.datasets.load_digits().target[i]])
    assert len(expected) == TUPLES
    seen = []
    for split, n in (("train", TRAIN), ("test", TEST)):
        arrays = [np.load(labelled / f"data/polymnist/{split}/{name}.npy") for name in NAMES]
        labels = np.load(labelled / f"data/polymnist/{split}/labels.npy")
        assert [array.shape for array in arrays] == [(n, *SHAPES[name]) for name in NAMES] and len(labels) == n
        assert not (labelled / f"data/polymnist/{split}/crops.npy").exists()
        for row, label in enumerate(labels):
            seen.append(b"".join(array[row].tobytes() for array in arrays))
            assert expected[seen[-1]] == label
    assert len(set(seen)) == TRAIN + TEST


def test_the_table_has_every_cell(labelled):
    table = read(labelled, "reports/table.json")
    assert table["dataset"] == DATASET and sorted(table["judges"]) == NAMES and table["samples_per_cell"] == 100
    assert all(0.5 < value <= 1 for value in table["judges"].values())  # chance is .1
    for method in METHODS:
        assert {key for key in table[method] if key[0] == "m"} == set(NAMES)
        for name in NAMES:
            cells = table[method][name]
            assert list(cells) == ["given0", "given1", "given2"]
            for key, cell in cells.items():
                assert 0 < cell[DISTANCE] < 1e6 and 0 < cell["diversity"] < 1e6
                assert ("coherence" in cell) == (key != "given0") and 0 <= cell.get("coherence", 0) <= 1
                assert ("distance_to_unimodal_vae" in cell) == (key == "given2")
        alone = table[method]["unconditional"]
        assert set(alone) == {"all_agree", "two_agree", "agreement"} and list(alone["agreement"]) == NAMES
        assert 0 <= alone["all_agree"] <= alone["two_agree"] <= 1
        assert ("energy_auroc" in table[method]) == (method in METHODS[:2])
    for reference in ("unimodal_vae", "real"):
        assert list(table[reference]) == NAMES
        assert all(set(cell) == {"coherence", DISTANCE, "diversity"} for cell in table[reference].values())
    for target in NAMES:  # real images are read, and nearer to real images than what is generated is
        assert table["real"][target]["coherence"] > 0.5
        assert table["real"][target][DISTANCE] < min(table[method][target]["given2"][DISTANCE] for method in METHODS)


def test_the_grid_has_every_subset(labelled):
    rows = read(labelled, "reports/plots/grid.json")
    subsets = {"m1": ["none", "m2", "m3", "m2+m3"], "m2": ["none", "m1", "m3", "m1+m3"], "m3": ["none", "m1", "m2", "m1+m2"]}
    assert {(r["method"], r["target"], r["observed"]) for r in rows} == {
        (method, target, observed) for method in METHODS for target in NAMES for observed in subsets[target]}
    assert len(rows) == 6 * 3 * 4
    table = read(labelled, "reports/table.json")
    for method in METHODS:
        for target in NAMES:
            for metric in ("coherence", DISTANCE):
                two = [row[metric] for row in rows if (row["method"], row["target"], row["n_observed"]) == (method, target, 1)]
                assert table[method][target]["given1"][metric] == pytest.approx(sum(two) / 2, rel=1e-4, abs=1e-6)


def test_metrics_are_few_and_flat(labelled):
    metrics, table = read(labelled, "reports/metrics.json"), read(labelled, "reports/table.json")
    assert list(metrics) == METHODS
    for method, numbers in metrics.items():
        keys = {"m2_coherence", "m2_distance", "m3_coherence", "m3_distance", "mean_coherence", "mean_distance", "all_agree"}
        assert set(numbers) == keys | ({"energy_auroc"} if method in METHODS[:2] else set())
        assert all(type(value) is float for value in numbers.values())
        assert numbers["m2_coherence"] == table[method]["m2"]["given2"]["coherence"]
        assert numbers["m3_distance"] == table[method]["m3"]["given2"][DISTANCE]


def claims_of(folder):
    return re.findall(r"^\| \d+ \| (.*?) \| (.*?) \| (.*) \|$", (folder / "reports/claims.md").read_text(), re.M)


def test_the_papers_claims_are_left_out(labelled):
    found = claims_of(labelled)
    assert len(found) == 6 and all(claim.startswith("Ours: ") for claim, *_ in found)
    assert all(verdict in ("holds", "**fails**") for _, verdict, _ in found)
    assert DATASET in (labelled / "reports/claims.md").read_text()


def test_figures(labelled):
    figures_are_there(labelled)


def shown(folder, results="results"):
    """Shapes of the sample images of every method are those of its modality, as many as there are cells."""
    for method in METHODS:
        for name in NAMES:
            cells = np.load(folder / results / method / f"cells_{name}.npy")
            assert cells.shape == (4, 5, *SHAPES[name]) and cells.dtype == np.uint8  # nothing, two of one, one of two
            assert np.load(folder / results / method / f"unconditional_{name}.npy").shape == (8, *SHAPES[name])


def test_samples_have_the_shape_of_their_modality(labelled):
    shown(labelled)
    assert np.load(labelled / "results/eb_mvae/given_rest_m3.npy").shape == (50, *SHAPES["m3"])


def page_of(folder):
    return (folder / "reports/index.html").read_text(encoding="utf-8")


def test_the_page_names_the_data_set(labelled):
    html = page_of(labelled)
    assert escape(DATASET, quote=False) in html.replace("&#x27;", "'")
    assert not re.search(r"\{\{\w+\}\}", html)
    Elements(html)  # tags match


def test_samples_from_a_picture_of_ones_own(labelled):
    """`python -m stages.sample` reads a colour picture as the grey modality has them, and writes the wide one."""
    Image.fromarray(pictures(3)["m1"]).convert("RGB").save(labelled / "mine.png")
    shell(labelled, "python", "-m", "stages.sample", "--observed", "m1=mine.png", "--target", "m3", "-n", "2", "-o", "out.png")
    with Image.open(labelled / "out.png") as image:
        assert image.size == (2 * 38 - 2, 24)
    for name in ("mine.png", "out.png"):
        (labelled / name).unlink()


# ---- without labels


def test_nothing_is_judged_without_labels(unlabelled):
    folder, said = unlabelled
    assert read(folder, "data/polymnist/provenance.json")["classes"] == []
    assert not np.load(folder / "data/polymnist/train/labels.npy").any()
    assert sorted(file.name for file in (folder / "models/judge").glob("*.safetensors")) == ["features.safetensors"]
    accuracy = read(folder, "models/judge/accuracy.json")
    assert accuracy["judges"] == {} and list(accuracy["features"]) == ["modality"]
    assert "judge m1" not in said["train_judge"]
    for name in NAMES:
        assert all("digit_accuracy" not in entry and math.isfinite(entry["elbo"]) for entry in read(folder, f"models/vae/{name}/history.json"))


def test_no_results_have_coherence_without_labels_and_all_have_distances(unlabelled):
    folder, _ = unlabelled
    for kind in ("references", *METHODS):
        results = read(folder, f"results/{kind}/results.json")
        rows = results["rows"]
        assert len(rows) == (6 if kind == "references" else 12)
        for row in rows:
            assert row["coherence"] is None and 0 < row[DISTANCE] < 1e6 and 0 < row["diversity"] < 1e6
        if kind != "references":
            assert results["unconditional"] == {}
            assert all(0 < row["distance_to_unimodal_vae"] < 1e6 for row in rows if row["n_observed"] == 2)
        assert ("energy_auroc" in results) == (kind in METHODS[:2]) and 0 <= results.get("energy_auroc", 0) <= 1
        assert not [path for path, value in every(results) if "agree" in str(path) or "coherence" in path and value is not None]


def test_every_evaluation_says_that_there_are_no_labels(unlabelled):
    for method in METHODS:
        line = unlabelled[1][f"evaluate {method}"].strip().splitlines()[-1]
        assert re.fullmatch(rf"evaluate {method}: {DISTANCE} given 1\.\. \d+\.\d+ \d+\.\d+; no labels, so no coherence", line)


def test_samples_without_labels(unlabelled):
    shown(unlabelled[0])
    assert np.load(unlabelled[0] / "results/moe/given_rest_m2.npy").shape == (25, *SHAPES["m2"])


def test_no_number_of_the_report_is_a_coherence_without_labels(report):
    table = read(report, "reports/table.json")
    assert table["judges"] == {}
    assert not [path for path, _ in every(table) if "coherence" in path or "agree" in str(path)]
    for method in METHODS:
        for name in NAMES:
            assert all(0 < table[method][name][f"given{k}"][DISTANCE] < 1e6 for k in range(3))
    assert all(set(table[reference][name]) == {DISTANCE, "diversity"} for reference in ("unimodal_vae", "real") for name in NAMES)
    for method, numbers in read(report, "reports/metrics.json").items():
        assert set(numbers) == {"m2_distance", "m3_distance", "mean_distance"} | ({"energy_auroc"} if method in METHODS[:2] else set())
    rows = read(report, "reports/plots/grid.json")
    assert len(rows) == 72 and all(row.get("coherence") is None and row[DISTANCE] > 0 for row in rows)
    assert read(report, "reports/plots/coherence.json") == []
    assert len(read(report, "reports/plots/frechet.json")) == 6 * 3 * 3


def test_claims_without_labels_are_about_distance(report):
    found = claims_of(report)
    assert len(found) == 3 and all(claim.startswith("Ours: ") for claim, *_ in found)
    assert not re.search("coherence|agree|judge", (report / "reports/claims.md").read_text(), re.I)


def test_figures_without_labels(report):
    figures_are_there(report)


def test_the_page_says_that_there_are_no_labels(report):
    html = page_of(report)
    assert escape(DATASET, quote=False) in html.replace("&#x27;", "'")
    assert not re.search(r"\{\{\w+\}\}", html)
    said = [element["text"] for element in Elements(html).of("p", "dd", "caption", "figcaption")]
    assert any(re.search("no labels|without labels", text, re.I) for text in said)


def test_no_table_of_the_page_is_about_coherence_without_labels(report):
    heads = [element["text"] for element in Elements(page_of(report)).of("th", "caption")]
    assert len(heads) > 30 and not [text for text in heads if re.search("coherence|agree", text, re.I)]
