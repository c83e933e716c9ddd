"""Means and deviations over seeds, and which runs may be merged."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from stages.lib import params, seeds
from stages.lib.runtime import UserError

ROOT = Path(__file__).parent.parent
METHODS = ("eb_mvae", "eb_mvae_annealed", "poe", "moe", "mopoe", "mvtcae")
EVERY = {*METHODS, "references"}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of the code, the working folder; params as a nested dict."""
    shutil.copytree(ROOT / "stages", tmp_path / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(tmp_path)
    return yaml.safe_load((ROOT / "params.yaml").read_text())


def prints(content, data="data"):
    return seeds.fingerprints(params.check(content), data, METHODS)


def changed(before, after):
    return {method for method in EVERY if before[method] != after[method]}


@pytest.mark.parametrize("section, key, value, expected", [
    ("ebm", "langevin_steps", 80, {"eb_mvae"}),
    ("annealed", "guidance", 1.5, {"eb_mvae_annealed"}),
    ("baseline", "latent_dim", 12, {"poe", "moe", "mopoe", "mvtcae"}),
    ("vae", "epochs", 1, EVERY),
    ("judge", "seed", 1, EVERY),
    ("evaluate", "n_samples", 200, EVERY),
    (None, "seed", 5, set()),
    (None, "profile", "other", set()),
])
def test_a_parameter_changes_the_fingerprints_of_what_follows_from_it(project, section, key, value, expected):
    before = prints(project)
    (project[section] if section else project)[key] = value
    assert changed(before, prints(project)) == expected


def test_a_beta_is_its_methods_own(project):
    before = prints(project)
    project["baseline"]["beta"]["moe"] = 0.7
    assert changed(before, prints(project)) == {"moe"}


def test_data_and_code_change_all_but_reporting_none(project):
    before = prints(project)
    assert changed(before, prints(project, "other data")) == EVERY
    for file in ("report.py", "sample.py", "lib/claims.py", "lib/figures.py", "lib/page.py", "lib/seeds.py"):
        (Path("stages") / file).write_text("# other\n")
    assert prints(project) == before
    Path("stages/lib/metrics.py").write_text("# other\n")
    assert changed(before, prints(project)) == EVERY


def run(seed, value, **prints):
    return {"seed": seed, "fingerprints": {"a": "same", "b": "same", "references": "same", **prints},
            "table": {name: {"m1": {"given1": {"coherence": value}}} for name in ("a", "b", "real")}}


def test_gather_takes_the_other_seeds_in_order(tmp_path):
    for name, each in {"7": run(7, 0.1), "1": run(1, 0.2), "0": run(0, 9.0)}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(seeds.signed(each)))
    assert seeds.gather(run(0, 0.3), tmp_path) == [run(0, 0.3), run(1, 0.2), run(7, 0.1)]  # this run's own seed: only itself


def test_gather_leaves_out_what_differs_and_says_so(tmp_path, capsys):
    (tmp_path / "1.json").write_text(json.dumps(seeds.signed(run(1, 0.2, a="other"))))
    (tmp_path / "2.json").write_text(json.dumps(seeds.signed(run(2, 0.2, references="other"))))
    (tmp_path / "3.json").write_text(json.dumps(seeds.signed({**run(3, 0.2), "fingerprints": {}})))
    tables = [each["table"].keys() for each in seeds.gather(run(0, 0.3), tmp_path)]
    assert tables == [{"a", "b", "real"}, {"b", "real"}, {"a", "b"}, set()]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[2].split(";")[0] for line in lines] == [
        "left out of a", "left out of references", "left out of a, b, references"]


def test_gather_refuses_a_damaged_file(tmp_path):
    (tmp_path / "1.json").write_text('{"seed": 1')
    with pytest.raises(UserError, match="1.json: not JSON"):
        seeds.gather(run(0, 0.3), tmp_path)


def test_summary_is_mean_and_sample_deviation():
    runs = [run(0, 0.1), run(1, 0.2), run(2, 0.6)]
    del runs[1]["table"]["b"]
    mean, deviation = seeds.summary(runs)
    assert mean["a"]["m1"]["given1"]["coherence"] == pytest.approx(0.3)
    assert deviation["a"]["m1"]["given1"]["coherence"] == pytest.approx(0.07**0.5)  # (.04 + .01 + .09) / 2
    assert mean["b"]["m1"]["given1"]["coherence"] == pytest.approx(0.35)
    assert deviation["b"]["m1"]["given1"]["coherence"] == pytest.approx(0.125**0.5)


def test_summary_of_one_run_is_that_run():
    assert seeds.summary([run(0, 0.25)]) == (run(0, 0.25)["table"], {})


@pytest.mark.parametrize("content", ["{}", "[]", "3", json.dumps(seeds.signed(dict(seed=1))).replace("1", "2", 1),
                                     json.dumps({"seed": 1})])
def test_gather_refuses_what_make_seeds_did_not_write(tmp_path, content):
    (tmp_path / "1.json").write_text(content)
    with pytest.raises(UserError, match="1.json: damaged, or not made by"):
        seeds.gather(run(0, 0.3), tmp_path)
