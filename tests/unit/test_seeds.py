"""Means and deviations over seeds, and which runs may be merged."""

import copy
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from dvc.repo import Repo

from ebmvae.core import code
from ebmvae.core.messages import UserError
from ebmvae.methods import METHODS
from ebmvae.reporting import seeds

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inside DVC
ROOT = Path(__file__).parents[2]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())


def fingerprints(content, data="data"):
    return seeds.fingerprints(SimpleNamespace(model_dump=lambda: content), data)


# ---- fingerprints against dvc.yaml


@pytest.fixture(scope="module")
def upstream():
    """{method: (code, parameters) that its evaluation and all before it depend on}, by DVC."""
    with Repo(str(ROOT)) as repo:
        stages = {stage.name: stage for stage in repo.index.stages}
    makers = {out.def_path: name for name, stage in stages.items() for out in stage.outs}

    def closure(name):
        paths = {dep.def_path for dep in stages[name].deps}
        return {name}.union(*(closure(makers[path]) for path in paths & makers.keys()))

    def depends(name):
        deps = [dep for stage in closure(name) for dep in stages[stage].deps]
        paths = {dep.def_path for dep in deps}
        params = {key for dep in deps if dep.def_path == "params.yaml" for key in dep.params}
        return [p for p in paths if p.startswith(("ebmvae", "stages"))], params - {"seed"}

    everything = {method: depends(f"evaluate@{method}") for method in METHODS}
    return {**everything, "references": depends("references")}


def test_code_of_the_fingerprints_is_that_of_the_stages(upstream):
    for method, entry in METHODS.items():
        expected = code.digests(upstream[method][0])
        assert code.digests((*seeds.SHARED_CODE, *entry.code)) == expected, method


def test_a_parameter_changes_the_fingerprints_of_what_follows_from_it(upstream, monkeypatch):
    """Every parameter by itself, against what the stages declare."""
    monkeypatch.setattr(code, "digests", list)
    before = fingerprints(PARAMS)

    def check(part, path):
        for key in part:
            name, content = ".".join([*path, key]), copy.deepcopy(PARAMS)
            if isinstance(part[key], dict):
                check(part[key], [*path, key])
                continue
            place = content
            for section in path:
                place = place[section]
            place[key] = "another"
            after = fingerprints(content)
            for method, (_, declared) in upstream.items():
                depends = any(f"{name}.".startswith(f"{other}.") for other in declared)
                assert (after[method] != before[method]) == depends, (method, name)

    check(PARAMS, [])


def test_data_and_code_change_all_fingerprints_but_reporting_none(tmp_path, monkeypatch):
    for folder in ("ebmvae", "stages"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    monkeypatch.setattr(code, "ROOT", tmp_path)
    before = fingerprints(PARAMS)
    assert not before.items() & fingerprints(PARAMS, "other data").items()
    for file in ("stages/report.py", "stages/sample.py", "ebmvae/reporting/claims.py"):
        (tmp_path / file).write_text("# other\n")
    assert fingerprints(PARAMS) == before
    (tmp_path / "ebmvae/evaluation/metrics.py").write_text("# other\n")
    assert not before.items() & fingerprints(PARAMS).items()


# ---- runs


def run(seed, value, **changed):
    prints = {"a": "same", "b": "same", "references": "same", **changed}
    table = {name: {"m1": {"given1": {"coherence": value}}} for name in ("a", "b", "real")}
    return {"seed": seed, "fingerprints": prints, "table": table}


def keep(folder, *runs):
    for part in runs:
        (folder / f"{part['seed']}.json").write_text(json.dumps(seeds.signed(part)))


def test_gather_takes_the_other_seeds_in_order(tmp_path):
    """And of its own seed only this run."""
    keep(tmp_path, run(7, 0.1), run(1, 0.2), run(0, 9.0))
    assert seeds.gather(run(0, 0.3), tmp_path) == [run(0, 0.3), run(1, 0.2), run(7, 0.1)]


def test_gather_leaves_out_what_differs_with_a_line(tmp_path, capsys):
    keep(tmp_path, run(1, 0.2, a="other"), run(2, 0.2, references="other"))
    keep(tmp_path, {**run(3, 0.2), "fingerprints": {}})
    tables = [set(part["table"]) for part in seeds.gather(run(0, 0.3), tmp_path)]
    assert tables == [{"a", "b", "real"}, {"b", "real"}, {"a", "b"}, set()]
    lines = capsys.readouterr().err.splitlines()
    missing = [line.split("left out of ")[1].split(";")[0] for line in lines]
    assert missing == ["a", "references", "a, b, references"]


SIGNED = json.dumps(seeds.signed({"seed": 1}))


@pytest.mark.parametrize(
    "content", ['{"seed": 1', "{}", "3", '{"seed": 1}', SIGNED.replace("1", "2", 1)]
)
def test_gather_refuses_what_make_seeds_did_not_write(tmp_path, content):
    (tmp_path / "1.json").write_text(content)
    with pytest.raises(UserError, match="1.json: (damaged, or not made by|not JSON)"):
        seeds.gather(run(0, 0.3), tmp_path)


def test_summary_is_mean_and_sample_deviation():
    runs = [run(0, 0.1), run(1, 0.2), run(2, 0.6)]
    del runs[1]["table"]["b"]

    def number(table, name):
        return table[name]["m1"]["given1"]["coherence"]

    mean, deviation = seeds.summary(runs)
    assert [number(mean, name) for name in "ab"] == pytest.approx([0.3, 0.35])
    variances = [0.07, 0.125]  # (.04 + .01 + .09) / 2 and 2 * .0625
    assert [number(deviation, name) ** 2 for name in "ab"] == pytest.approx(variances)
    assert seeds.summary(runs[:1]) == (runs[0]["table"], {})
