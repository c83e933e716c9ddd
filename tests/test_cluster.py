"""The DAG as rules for make: the order it keeps, what a failure stops; the smoke run of test_pipeline.py runs the real thing."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


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
    assert done.returncode == 0 and len(ran) == 22 and ran[-1] == "report"
    for name, needs in needs_of(rules).items():
        assert all(ran.index(need) < ran.index(name) for need in needs if name != "all")


def test_a_failed_stage_stops_only_what_depends_on_it_and_is_named(rules, tmp_path):
    done, ran = stub(rules, tmp_path, fails="train_baseline@moe")
    assert done.returncode != 0 and "train_baseline@moe] Error" in done.stderr
    assert set(needs_of(rules)) - {"all"} - set(ran) == {"train_baseline@moe", "evaluate@moe", "report"}
