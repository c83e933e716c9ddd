"""What would be submitted to Slurm: jobs, seeds, resources, and how a refusal ends."""

import json
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import yaml
from dvc.repo import Repo

from cluster import prepare, submit
from ebmvae.core.messages import UserError
from ebmvae.methods import BASELINES
from tests.project import ROOT

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inside DVC
RESOURCES = (ROOT / "cluster/resources.yaml").read_text()


@pytest.fixture
def repo(monkeypatch):
    """This project, by DVC's reading of it."""
    monkeypatch.chdir(ROOT)  # DVC names stages as seen from here
    with Repo() as repo:
        yield repo


# ---- the jobs


def test_one_job_per_stage_after_those_it_needs(repo):
    jobs = submit.plan(repo, [0], [])
    names = list(jobs)
    assert names[0] == "polymnist" and "report" not in {entry["stage"] for entry in jobs.values()}
    assert jobs["encode-seed0"]["after"] == [f"train_vae@m{m}-seed0" for m in range(1, 6)]
    for name, entry in jobs.items():
        assert all(names.index(other) < names.index(name) for other in entry["after"])
    after = jobs["evaluate@moe-seed0"]["after"]
    assert set(after) == {"references-seed0", "train_baseline@moe-seed0"}  # and no older ones


def test_seeds_share_what_does_not_depend_on_them(repo):
    jobs = submit.plan(repo, [0, 1, 2], [])
    shared = {name for name, entry in jobs.items() if name == entry["stage"]}
    assert shared == {"polymnist", "train_classifiers"}
    assert len(jobs) == len(shared) + 3 * len({entry["stage"] for entry in jobs.values()} - shared)
    encode = jobs["encode-seed2"]
    assert encode["seed"] == 2 and all(name.endswith("-seed2") for name in encode["after"])


def test_stages_that_are_named_come_with_what_they_need(repo):
    jobs = submit.plan(repo, [0], ["encode", "train_baseline"])
    vaes = {f"train_vae@m{m}" for m in range(1, 6)}
    baselines = {f"train_baseline@{method}" for method in BASELINES}
    first = {"polymnist", "train_classifiers", "encode"}
    assert {entry["stage"] for entry in jobs.values()} == first | vaes | baselines
    with pytest.raises(UserError, match="report"):
        submit.plan(repo, [0], ["report"])


# ---- resources.yaml


@pytest.mark.parametrize("section", yaml.safe_load(RESOURCES))
def test_resources_are_complete(section, monkeypatch):
    monkeypatch.chdir(ROOT)
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].keys() - {"report"}
    assert set(submit.resources(section, stages)) == stages
    assert set(yaml.safe_load(RESOURCES)[section]) == stages


@pytest.mark.parametrize(
    "old, new, named",
    [
        ("memory: 4G, minutes: 30", "memory: lots, minutes: 30", "polymnist.memory"),
        ("cpus: 1, memory: 4G", "cpus: 0, memory: 4G", "polymnist.cpus"),
        ("gpus: 0, cpus: 1", "gpus: true, cpus: 1", "polymnist.gpus"),
        ("memory: 4G, minutes: 30", "memory: 4G", "polymnist"),
        ("default:", "default: {", "cluster/resources.yaml"),
    ],
)
def test_wrong_resources_are_named(tmp_path, monkeypatch, old, new, named):
    assert old in RESOURCES
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster/resources.yaml").write_text(RESOURCES.replace(old, new))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=named):
        submit.resources("smoke", {"polymnist"})


# ---- parameters of a profile


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the parameters and a profile, as the current one; git knows none of it."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles/small.args").write_text("-S vae.epochs=1  # a comment\n-S threads=2\n")
    monkeypatch.setattr(prepare, "git", lambda *_: "")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_profile_and_seeds_change_nothing_else(folder):
    before = yaml.safe_load((folder / "params.yaml").read_text())
    texts = prepare.parameters("small", 2)
    assert list(texts) == [0, 1]
    vae = {**before["vae"], "epochs": 1}
    assert yaml.safe_load(texts[1]) == {**before, "seed": 1, "threads": 2, "vae": vae}
    assert yaml.safe_load((folder / "params.yaml").read_text()) == before
    assert list(prepare.parameters("default", None)) == [before["seed"]]


@pytest.mark.parametrize("profile, seeds, named", [("huge", 1, "huge"), ("small", 0, "--seeds")])
def test_wrong_arguments_are_named(folder, profile, seeds, named):
    with pytest.raises(UserError, match=named):
        prepare.parameters(profile, seeds)


@pytest.mark.parametrize("argument, named", [("vae.epoch=1", "small.args"), ("seed=-1", "seed")])
def test_a_wrong_profile_is_named(folder, argument, named):
    (folder / "profiles/small.args").write_text(f"-S {argument}")
    with pytest.raises(UserError, match=named):
        prepare.parameters("small", None)


def test_a_folder_that_is_in_no_clone_is_named(folder):
    (folder / "pictures").mkdir()
    (folder / "profiles/small.args").write_text("-S polymnist.backgrounds=pictures")
    with pytest.raises(UserError, match="polymnist.backgrounds"):
        prepare.parameters("small", 1)
    absolute = f"-S polymnist.backgrounds={folder}/pictures"
    (folder / "profiles/small.args").write_text(absolute)
    assert 0 in prepare.parameters("small", 1)


# ---- sending


@pytest.mark.parametrize("refused", [None, "b"])
def test_a_refusal_cancels_those_before_it(tmp_path, monkeypatch, refused):
    def send_one(executor, run, name, jobs, need, partition):
        assert all("id" in jobs[other] for other in jobs[name]["after"])
        if name == refused:
            raise UserError(name)
        return name.upper()  # Slurm's number

    cancelled = []
    commands = SimpleNamespace(run=lambda words, **_: cancelled.extend(words))
    monkeypatch.setattr(submit, "send_one", send_one)
    monkeypatch.setattr(submit, "subprocess", commands)
    monkeypatch.setenv("MNIST_DIR", str(tmp_path))
    jobs = {name: {"stage": name, "after": after} for name, after in (("a", []), ("b", ["a"]))}
    with pytest.raises(UserError, match="b") if refused else nullcontext():
        submit.send(None, tmp_path, {"jobs": jobs}, {"a": {}, "b": {}}, None)
    file = tmp_path / "run.json"
    if refused:
        assert cancelled == ["scancel", "A"] and not file.exists()
    else:
        entries = json.loads(file.read_text())["jobs"].values()
        assert [entry["id"] for entry in entries] == ["A", "B"] and not cancelled
