"""`dvc exp run --temp` on real DVC: a copy of the project, without what git does not track."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.project import clone, shell

OFFLINE = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy")}
SMALL = ("-S", "polymnist.n_train=100", "-S", "polymnist.n_test=100")


@pytest.fixture
def project(tmp_path):
    folder = clone(tmp_path)
    shell(folder, "git", "config", "user.name", "t")
    shell(folder, "git", "config", "user.email", "t@example.org")
    return folder


def experiment(folder, *words, check=True):
    """The data stage alone, as an experiment without internet; the finished process."""
    command = ("dvc", "exp", "run", *SMALL, *words, "polymnist")
    return shell(folder, *command, check=check, MNIST_DIR="", **OFFLINE)


def digits_in(folder):
    return json.loads((folder / "data/polymnist/provenance.json").read_text())["digits"]


def cached_digits(folder):
    """polymnist.digits of every run of the data stage in the run cache."""
    entries = (folder / ".dvc/cache/runs").glob("*/*/*")
    lines = [line for entry in entries for line in entry.read_text().splitlines()]
    return {line.split()[1] for line in lines if "digits:" in line}


def test_digits_fall_back_in_the_project_only_and_never_as_auto(project):
    done = experiment(project, "--temp", check=False)
    assert done.returncode and "polymnist.digits=embedded" in done.stderr
    assert not (project / ".dvc/cache/runs").exists()
    experiment(project)
    assert digits_in(project) == "embedded" and cached_digits(project) == {"embedded"}


def test_mnist_in_data_raw_is_used_in_a_copy(project):
    if not os.environ.get("MNIST_DIR"):
        pytest.skip("MNIST_DIR is not set: no real MNIST files to read")
    experiment(project)  # first without
    shutil.copytree(os.environ["MNIST_DIR"], project / "data/raw")
    shell(project, "git", "checkout", "-q", ".")
    experiment(project, "--temp")
    assert cached_digits(project) == {"embedded", "auto"}
    assert "is cached" in experiment(project).stdout
    assert digits_in(project) == "mnist"


def test_untracked_pictures_are_found_from_a_copy(project):
    with open(project / ".git/info/exclude", "a") as file:
        file.write("my_data\n")
    rng = np.random.default_rng(0)
    for m in range(5):
        (project / f"my_data/{m}").mkdir(parents=True)
        for k in range(200):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(project / f"my_data/{m}/{k:03d}.png")
    experiment(project, "--temp", "-S", "polymnist.own_data=my_data")
    assert "is cached" in experiment(project, "-S", "polymnist.own_data=my_data").stdout
    assert digits_in(project) == "own"
