"""Further seeds: what `make seeds` does, by a stand-in for DVC; and what `report` makes of one."""

import json
import shutil

import pytest
import yaml

from ebmvae.methods import METHODS
from tests.project import ROOT, shell

DVC = """#!/bin/sh
echo "$@" >> calls
echo "$5" | sed -n 's/seed=/seed: /p' > params.yaml
"""
PYTHON = """#!/bin/sh
printf 'all:\\n\\t@! grep 3 params.yaml && cp params.yaml reports/seed.json\\n'
"""


@pytest.fixture
def project(tmp_path):
    """The Makefile, a DVC that only sets the seed, and a DAG that fails for seed 3."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    shell(tmp_path, "git", "init", "-q")
    (tmp_path / "requirements.txt").touch()
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/installed").touch()
    for name, text in (("dvc", DVC), ("python", PYTHON)):
        (tmp_path / ".venv/bin" / name).write_text(text)
        (tmp_path / ".venv/bin" / name).chmod(0o755)
    return tmp_path


def seeds_kept(folder):
    return {file.stem: file.read_text() for file in (folder / "reports/seeds").iterdir()}


def test_make_seeds_keeps_each_seed_and_goes_back(project):
    shell(project, "make", "seeds", "SEEDS=1 2", "JOBS=1")
    assert seeds_kept(project) == {"1": "seed: 1\n", "2": "seed: 2\n"}
    calls = [line.split()[-3:] for line in (project / "calls").read_text().splitlines()]
    assert calls == [["-S", f"seed={seed}", "polymnist"] for seed in (1, 2, 0)]
    assert (project / "reports/seed.json").read_text() == "seed: 0\n"


def test_make_seeds_keeps_nothing_of_a_run_that_failed(project):
    done = shell(project, "make", "seeds", "SEEDS=3", "JOBS=1", check=False)
    assert done.returncode != 0 and seeds_kept(project) == {}


def distance(table, name):
    part = table[name]["m3"]
    return part.get("given4", part)["frechet_polymnist"]


def test_the_report_has_means_and_deviations_over_seeds(finished):
    """Seed 1 of one method, over the models of seed 0; the others' numbers are the same twice."""
    before = json.loads((finished / "reports/table.json").read_text())
    params = finished / "params.yaml"
    content = yaml.safe_load(params.read_text())
    params.write_text(yaml.safe_dump({**content, "seed": 1}))
    for stage in (["references"], ["fit_ebm"], ["evaluate", "eb_mvae"], ["report"]):
        shell(finished, "python", "-m", f"stages.{stage[0]}", *stage[1:])
    other = json.loads((finished / "reports/seed.json").read_text())
    shell(finished, "git", "checkout", "-q", ".")
    shell(finished, "dvc", "checkout", "-q", "--force")
    shutil.rmtree(finished / "reports/seeds", ignore_errors=True)  # of the committed run
    (finished / "reports/seeds").mkdir()
    (finished / "reports/seeds/1.json").write_text(json.dumps(other))
    shell(finished, "dvc", "repro")
    after = json.loads((finished / "reports/table.json").read_text())
    assert after["seeds"] == dict.fromkeys(METHODS, [0, 1])
    for name in (*METHODS, "unimodal_vae", "real"):
        first, second = distance(before, name), distance(other["table"], name)
        assert (first != second) == (name in ("eb_mvae", "unimodal_vae"))
        assert distance(after, name) == pytest.approx((first + second) / 2, rel=1e-4)
        deviation = distance(after["standard_deviation"], name)
        assert deviation == pytest.approx(abs(first - second) / 2**0.5, rel=1e-3, abs=1e-4)
    assert "of 2 seeds" in (finished / "reports/claims.md").read_text()
    shell(finished, "git", "checkout", "-q", ".")
    shell(finished, "git", "clean", "-fdq", "reports")
    assert "up to date" in shell(finished, "dvc", "status").stdout
