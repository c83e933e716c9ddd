"""The whole DAG on somebody's own pictures: three modalities of three shapes.

Once with labels and once without. All stages of dvc.yaml run in its order, as forked children of
one process, which saves their imports. Then `dvc commit` has to find all that they should make.
"""

import csv
import json
import re
from concurrent.futures import ThreadPoolExecutor
from html import escape

import numpy as np
import pytest
import sklearn.datasets
import yaml
from dvc.repo import Repo
from PIL import Image

from ebmvae.methods import ENERGIES, METHODS, REFERENCES
from tests.project import clone, commit, figures_are_there, shell
from tools import parallel

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inside DVC
SHAPES = {"m1": (1, 32, 32), "m2": (3, 32, 32), "m3": (3, 24, 36)}
FOLDERS = {"m1": ("a pencil", "png"), "m2": ("brush", "bmp"), "m3": ("crayon", "png")}
NAMES = list(SHAPES)
SUBSETS = {
    "m1": ["none", "m2", "m3", "m2+m3"],
    "m2": ["none", "m1", "m3", "m1+m3"],
    "m3": ["none", "m1", "m2", "m1+m2"],
}
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TUPLES, TRAIN, TEST = 260, 160, 100
DATASET = "Zoë's digits & co"  # the folder's name
DISTANCE = "frechet_polymnist"
TINY = {
    "polymnist": {"n_train": TRAIN, "n_test": TEST},
    "classifier": {"epochs": 6, "batch_size": 32, "feature_epochs": 1, "feature_dim": 16},
    "vae": {"latent_dim": 16, "epochs": 1, "batch_size": 8},
    "ebm": {"langevin_steps": 10},
    "annealed": {"steps": 10},
    "baseline": {"latent_dim": 16},
    "evaluate": {"n_samples": 100},
}
TINY_FITS = {
    "ebm": {"steps": 60, "hidden": 32},
    "annealed": {"steps": 30, "infonce_steps": 30, "hidden": 32, "batch_size": 64},
}
RUNNER = """
import importlib, json, os, sys
import torch._dynamo  # every optimiser would import it
from ebmvae import command
stages = json.loads(sys.argv[1])
mains = {module: importlib.import_module(module).main for module, *_ in stages}
for module, *arguments in stages:
    child = os.fork()
    if not child:
        sys.argv = [module, *arguments]
        command.run(mains[module])
        sys.stdout.flush()
        os._exit(0)  # no second is lost on taking Python down
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        sys.exit(f"{module} {arguments} failed")
"""


def digits():
    return sklearn.datasets.load_digits()


def pictures(image, i):
    """Tuple i, {modality: uint8 (H, W) or (H, W, 3)}: grey; coloured on black; wide on colour."""
    ink = (image * 15).astype(np.uint8)  # 8, 8
    colour = np.random.default_rng(i).integers(100, 256, 3)
    large = np.kron(ink, np.ones((4, 4), np.uint8))
    wide = np.pad(np.kron(ink, np.ones((3, 4), np.uint8)), [(0, 0), (2, 2)])
    masks = {"m2": large, "m3": 240 - wide}
    painted = {name: mask[..., None] / 240 * colour for name, mask in masks.items()}
    return {"m1": large, **{name: pixels.astype(np.uint8) for name, pixels in painted.items()}}


def own_folder(where, labels):
    """FOLDER/a pencil/0000.png and so on, with labels.csv where `labels`."""
    folder = where / DATASET
    for subfolder, _ in FOLDERS.values():
        (folder / subfolder).mkdir(parents=True)
    for i, image in enumerate(digits().images[:TUPLES]):
        for name, picture in pictures(image, i).items():
            subfolder, suffix = FOLDERS[name]
            Image.fromarray(picture).save(folder / subfolder / f"{i:04d}.{suffix}")
    if labels:
        rows = [[WORDS[k], f"{i:04d}"] for i, k in enumerate(digits().target[:TUPLES])]
        with open(folder / "labels.csv", "w", newline="") as opened:
            csv.writer(opened).writerows([["label", "name"], *rows])
    return folder


def set_params(folder, own):
    file = folder / "params.yaml"
    values = yaml.safe_load(file.read_text())
    for section, changes in TINY.items():
        values[section].update(changes)
    for section, changes in TINY_FITS.items():
        values[section]["fit"].update(changes)
    values["polymnist"]["own_data"] = str(own)
    file.write_text(yaml.safe_dump(values))


def stages_of(folder):
    """[[module, argument], ...] of all stages of dvc.yaml in an order in which DVC may run them."""
    with Repo(str(folder)) as repo:
        commands = {stage.addressing: stage.cmd for stage in repo.index.stages}
        return [commands[name].split()[2:] for name in parallel.dag(repo)]


def prepared(where, labels):
    """A clone in `where`, with what docs/own-data.md tells to do before a run."""
    folder = clone(where / "clone")
    shell(folder, "python", "-m", "tools.modalities", "3")
    set_params(folder, own_folder(where, labels))
    commit(folder, "own data")
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two clones after all stages, run side by side: with labels and without."""
    folders = [prepared(tmp_path_factory.mktemp("run"), labels) for labels in (True, False)]
    stages = stages_of(folders[0])
    assert len(stages) == 20
    words = "python", "-c", RUNNER, json.dumps(stages)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda folder: shell(folder, *words), folders))
    return folders


@pytest.fixture
def labelled(runs):
    return runs[0]


@pytest.fixture
def unlabelled(runs):
    return runs[1]


def read(folder, file):
    return json.loads((folder / file).read_text())


def leaves(value, path=()):
    """All (path, number or text) of nested JSON."""
    if isinstance(value, (dict, list)):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(part, (*path, key))
    else:
        yield path, value


def about_labels(value):
    """Paths in nested JSON that can't be known without labels, and have a value."""
    words = ("coherence", "agree", "digit_accuracy")
    paths = [path for path, leaf in leaves(value) if leaf is not None]
    return [path for path in paths if any(word in str(path) for word in words)]


# ---- with labels


def test_dvc_has_nothing_to_add(labelled):
    """Every dependency, parameter and output of dvc.yaml for three modalities is there."""
    shell(labelled, "dvc", "commit", "--force", "--quiet")
    assert "up to date" in shell(labelled, "dvc", "status").stdout


def test_the_data_are_the_pictures(labelled):
    """Every tuple is one of the folder's, whole, with its own label, and none is there twice."""
    about = read(labelled, "data/polymnist/provenance.json")
    assert about["modalities"] == NAMES
    assert about["folders"] == [subfolder for subfolder, _ in FOLDERS.values()]
    assert (about["dataset"], about["classes"]) == (DATASET, sorted(WORDS))
    expected, tuples = {}, []
    for i, image in enumerate(digits().images[:TUPLES]):
        parts = [np.atleast_3d(part).transpose(2, 0, 1) for part in pictures(image, i).values()]
        key = b"".join(part.tobytes() for part in parts)
        expected[key] = sorted(WORDS).index(WORDS[digits().target[i]])
    for split, n in (("train", TRAIN), ("test", TEST)):
        where = labelled / "data/polymnist" / split
        arrays = [np.load(where / f"{name}.npy") for name in NAMES]
        assert [array.shape for array in arrays] == [(n, *SHAPES[name]) for name in NAMES]
        labels = np.load(where / "labels.npy")
        for row in range(n):
            tuples.append(b"".join(array[row].tobytes() for array in arrays))
            assert expected[tuples[-1]] == labels[row]
    assert len(set(tuples)) == TRAIN + TEST


def test_the_table_has_every_cell(labelled):
    table = read(labelled, "reports/table.json")
    assert table["dataset"] == DATASET and list(table["classifiers"]) == NAMES
    assert all(0.5 < value <= 1 for value in table["classifiers"].values())  # chance is .1
    for method in METHODS:
        for name in NAMES:
            cells = table[method][name]
            assert list(cells) == ["given0", "given1", "given2"]
            for key, cell in cells.items():
                assert 0 < cell[DISTANCE] < 1e6 and 0 < cell["diversity"] < 1e6
                assert ("coherence" in cell) == (key != "given0")
                assert 0 <= cell.get("coherence", 0) <= 1
                assert ("distance_to_unimodal_vae" in cell) == (key == "given2")
        assert list(table[method]["unconditional"]["agreement"]) == NAMES
        assert ("energy_auroc" in table[method]) == (method in ENERGIES)
    for reference in REFERENCES:
        for name in NAMES:
            assert set(table[reference][name]) == {"coherence", DISTANCE, "diversity"}
    for target in NAMES:  # real images are read, and nearer to real images than generated ones
        assert table["real"][target]["coherence"] > 0.5
        generated = [table[method][target]["given2"][DISTANCE] for method in METHODS]
        assert table["real"][target][DISTANCE] < min(generated)


def test_the_grid_has_every_subset(labelled):
    rows = read(labelled, "reports/plots/grid.json")
    cells = [(row["method"], row["target"], row["observed"]) for row in rows]
    wanted = [(name, subset) for name in NAMES for subset in SUBSETS[name]]
    assert sorted(cells) == sorted((method, *cell) for method in METHODS for cell in wanted)


def claims_of(folder):
    text = (folder / "reports/claims.md").read_text()
    assert DATASET in text
    return re.findall(r"^\| \d+ \| (.*?) \|", text, re.M)


def test_the_papers_claims_are_left_out(labelled):
    claims = claims_of(labelled)
    assert len(claims) == 6 and all(claim.startswith("Ours: ") for claim in claims)


def test_samples_have_the_shape_of_their_modality(labelled, unlabelled):
    for folder in (labelled, unlabelled):
        figures_are_there(folder)
        for method in METHODS:
            for name, shape in SHAPES.items():
                results = folder / "results" / method
                cells = np.load(results / f"cells_{name}.npy")  # of four subsets, of five tuples
                assert cells.shape == (4, 5, *shape) and cells.dtype == np.uint8
                assert np.load(results / f"unconditional_{name}.npy").shape == (8, *shape)


def test_samples_from_a_picture_of_ones_own(labelled):
    """`stages.sample` reads a colour picture as the grey modality has them; the target is wide."""
    Image.fromarray(pictures(digits().images[3], 3)["m1"]).convert("RGB").save(labelled / "me.png")
    words = "python -m stages.sample --observed m1=me.png --target m3 -n 2 -o out.png"
    shell(labelled, *words.split())
    with Image.open(labelled / "out.png") as image:
        assert image.size == (2 * 38 - 2, 24)


# ---- without labels


def test_nothing_is_classified_without_labels(unlabelled):
    assert read(unlabelled, "data/polymnist/provenance.json")["classes"] == []
    assert not np.load(unlabelled / "data/polymnist/train/labels.npy").any()
    files = (unlabelled / "models/classifiers").glob("*.safetensors")
    assert [file.name for file in files] == ["features.safetensors"]
    assert read(unlabelled, "models/classifiers/accuracy.json")["classifiers"] == {}
    for name in NAMES:
        history = read(unlabelled, f"models/vae/{name}/history.json")
        assert history and not about_labels(history)


def test_no_number_is_about_labels_and_all_distances_are_there(unlabelled):
    for kind in ("references", *METHODS):
        results = read(unlabelled, f"results/{kind}/results.json")
        assert not about_labels(results)
        assert len(results["rows"]) == (6 if kind == "references" else 12)
        assert all(0 < row[DISTANCE] < 1e6 for row in results["rows"])
        assert ("energy_auroc" in results) == (kind in ENERGIES)
    table = read(unlabelled, "reports/table.json")
    assert table["classifiers"] == {} and not about_labels(table)
    for file in ("metrics", "plots/grid", "plots/frechet", "plots/coherence"):
        assert not about_labels(read(unlabelled, f"reports/{file}.json"))
    assert len(read(unlabelled, "reports/plots/frechet.json")) == len(METHODS) * 3 * 3


def test_claims_without_labels_are_about_distance(unlabelled):
    claims = claims_of(unlabelled)
    assert len(claims) == 3 and not re.search("coherence|agree|classifier", str(claims), re.I)


def test_the_page_names_the_data_and_says_that_there_are_no_labels(labelled, unlabelled):
    for folder in (labelled, unlabelled):
        html = (folder / "reports/index.html").read_text(encoding="utf-8")
        assert escape(DATASET, quote=False) in re.sub("&#(x27|39);", "'", html)
        assert ("no labels" in html) == (folder == unlabelled)
    heads = re.findall(r"<(th|caption)\b[^>]*>(.*?)</\1>", html, re.S)
    assert len(heads) > 30
    assert not [text for _, text in heads if re.search("coherence|agree", text, re.I)]
