"""The DAG as rules for make: the order it keeps, what a failure stops; the smoke run of test_pipeline.py runs the real thing."""

import re
import subprocess
import sys

import pytest
import yaml
from dvc.repo import Repo

from tests.project import ROOT, shell


@pytest.fixture(scope="module")
def rules():
    """The rules of this project."""
    return subprocess.run([sys.executable, "-m", "cluster.rules"], cwd=ROOT, text=True, capture_output=True, check=True).stdout


def needs_of(rules):
    """{stage: what it needs}."""
    return {name: needs.split() for name, needs in re.findall(r"^([a-z_@0-9]+):(.*)$", rules, re.M)}


def test_every_stage_has_a_rule_and_needs_what_it_reads(rules):
    found = needs_of(rules)
    assert set(found["all"]) == set(found) - {"all"} and len(found) == 23
    assert found["polymnist"] == [] and found["train_judge"] == ["polymnist"]
    assert found["fit_ebm"] == ["encode"] and set(found["train_baseline@moe"]) == {"polymnist"}
    assert {f"train_vae@m{m}" for m in range(1, 6)} < set(found["encode"])
    assert {name for name in found if name.startswith("evaluate@")} < set(found["report"])


def test_what_most_stages_wait_for_comes_first(rules):
    order = re.search("^all: (.*)$", rules, re.M)[1].split()
    assert order[:3] == ["polymnist", "train_judge", "train_vae@m1"] and order[-1] == "report"
    assert order.index("fit_annealed") < order.index("train_baseline@moe") < order.index("evaluate@eb_mvae")


def stub(rules, tmp_path, fails):
    """`make` with a program in place of dvc that notes the stages it is given, and fails for one; its exit code and the notes."""
    (tmp_path / "rules.mk").write_text(rules)
    dvc = tmp_path / "dvc"
    dvc.write_text(f'#!/bin/sh\nfor name; do :; done\n[ "$name" = "{fails}" ] && exit 1\necho "$name" >> {tmp_path}/ran\n')
    dvc.chmod(0o755)
    done = subprocess.run(["make", "--keep-going", "--jobs", "3", "--file", "rules.mk"], cwd=tmp_path, text=True, capture_output=True,
                          env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    return done, (tmp_path / "ran").read_text().split()


def test_stages_run_after_what_they_need(rules, tmp_path):
    done, ran = stub(rules, tmp_path, fails="nothing")
    assert done.returncode == 0 and len(ran) == 22 and ran[-1] == "report" and "[22 of 22] report\n" in done.stdout
    for name, needs in needs_of(rules).items():
        assert all(ran.index(need) < ran.index(name) for need in needs if name != "all")


def test_a_failed_stage_stops_only_what_depends_on_it_and_is_named(rules, tmp_path):
    done, ran = stub(rules, tmp_path, fails="train_baseline@moe")
    assert done.returncode != 0 and "train_baseline@moe] Error" in done.stderr
    assert set(needs_of(rules)) - {"all"} - set(ran) == {"train_baseline@moe", "evaluate@moe", "report"}


@pytest.fixture(scope="module")
def two_stages(tmp_path_factory):
    """A project of two stages that has run, and its dvc.lock."""
    folder = tmp_path_factory.mktemp("two")
    stage = lambda out, dep: {"cmd": f"echo ran >> {out}.log; cat {dep} > {out}", "deps": [dep], "outs": [out]}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"first": stage("b", "a"), "second": stage("c", "b")}}))
    (folder / "a").write_text("digits")
    shell(folder, "git", "init", "-q")
    shell(folder, "dvc", "init", "-q")
    shell(folder, "dvc", "repro", "-q")
    return folder, (folder / "dvc.lock").read_bytes()


def mended(folder):
    """What rules.py says, and DVC's run after it."""
    said = shell(folder, sys.executable, "-m", "cluster.rules", PYTHONPATH=str(ROOT))
    assert "first" in said.stdout
    shell(folder, "dvc", "repro", "-q")
    return said.stderr


@pytest.mark.parametrize("share", [0, 0.25, 0.5, 0.62, 0.75, 0.9, 0.98])
def test_a_torn_dvc_lock_is_made_anew_and_no_stage_runs_again(two_stages, share):
    folder, whole = two_stages
    (folder / "dvc.lock").write_bytes(whole[: int(share * len(whole))])
    assert not whole[: int(share * len(whole))].endswith(b"\n")
    refused = shell(folder, "dvc", "status", check=False).returncode != 0  # many beginnings of a YAML file are YAML
    said = mended(folder)
    assert "set aside as dvc.lock.damaged" in said and (share > 0 or refused)
    assert (folder / "dvc.lock").read_bytes() == whole
    assert "up to date" in shell(folder, "dvc", "status").stdout
    assert (folder / "b.log").read_text() == (folder / "c.log").read_text() == "ran\n"


def test_a_dvc_lock_that_another_dvc_may_be_writing_is_left_alone(two_stages):
    folder, whole = two_stages
    (folder / "dvc.lock").write_bytes(b"")
    with Repo(str(folder)) as repo, repo.lock:
        said = shell(folder, sys.executable, "-m", "cluster.rules", check=False, PYTHONPATH=str(ROOT))
    assert said.returncode == 1 and said.stderr.startswith("error: dvc.lock can't be read, and another DVC is at work")
    assert (folder / "dvc.lock").read_bytes() == b""
    mended(folder)
    assert (folder / "dvc.lock").read_bytes() == whole


@pytest.mark.parametrize("file, content, says", [
    ("params.yaml", "x: [1", "params.yaml"), ("dvc.yaml", "stages: {first: {cmd: echo, deps: [gone}", "dvc.yaml"),
    ("dvc.yaml", "stages: {first: {outs: [b]}}", "dvc.yaml")])
def test_a_mistake_in_dvc_yaml_or_params_yaml_is_one_line(tmp_path, file, content, says):
    shell(tmp_path, "git", "init", "-q")
    shell(tmp_path, "dvc", "init", "-q")
    (tmp_path / "dvc.yaml").write_text("stages:\n  first:\n    cmd: echo ${x}\n")
    (tmp_path / "params.yaml").write_text("x: 1")
    (tmp_path / file).write_text(content)
    done = shell(tmp_path, sys.executable, "-m", "cluster.rules", check=False, PYTHONPATH=str(ROOT))
    assert done.returncode == 1 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and says in done.stderr
