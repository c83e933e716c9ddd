"""The benchmarks' own arithmetic, and one real measurement of a trainer; no number here depends on how fast it was."""

import json

import pytest
from torch import nn

from benchmarks import timed, workspace
from tests.project import ROOT, shell


def test_every_row_of_the_table_is_a_row_of_the_results():
    results = json.loads(workspace.RESULTS.read_text())
    page = workspace.PAGE.read_text()
    assert workspace.table(results["rows"]) in page
    for row in results["rows"]:
        assert row["ours"] > 0 and row["n"] >= 5 and row["unit"] and row["device"]
        if row["peer"]:
            assert row["ratio"] == pytest.approx(row["ours"] / row["peer"], rel=1e-3)
        if row["floor_ratio"]:
            assert 0 < row["floor_ratio"] < 1


def test_median_and_spread():
    median, spread = workspace.middle([10.0, 30.0, 20.0, 50.0, 40.0])
    assert median == 30 and spread == pytest.approx((45 - 15) / 2 / 30)


def test_an_unknown_key_is_refused(tmp_path):
    with pytest.raises(KeyError, match="params.yaml has no vae.epoch"):
        workspace.set_params(tmp_path, {"vae.epoch": 1})


def test_rows_of_the_same_name_are_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(workspace, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(workspace, "PAGE", tmp_path / "README.md")
    (tmp_path / "README.md").write_text(f"before\n{workspace.BEGIN}\nold\n{workspace.END}\nafter\n")
    row = {"name": "x", "ours": 1.23456789, "spread": 0.1, "peer": None, "ratio": None, "floor_ratio": 0.5, "n": 7, "unit": "1/s", "device": "cpu"}
    workspace.keep([{**row, "ours": 9.0}, {**row, "name": "y"}], {"a": 1})
    workspace.keep([row], {"b": 2})
    kept = json.loads((tmp_path / "results.json").read_text())
    assert [r["name"] for r in kept["rows"]] == ["x", "y"] and kept["rows"][0]["ours"] == 1.235
    assert kept["conditions"] == {"a": 1, "b": 2}
    page = (tmp_path / "README.md").read_text()
    assert page.startswith("before\n") and page.endswith("after\n") and "old" not in page and "| x | 1.235 |" in page


def test_floating_point_operations_of_a_step_are_those_of_its_layers():
    """A linear layer of 3 to 5 on 7 rows: 2 * 7 * 3 * 5 forward, as many for the weight; its input needs no gradient."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    layer, x = nn.Linear(3, 5), torch.ones(7, 3)
    with FlopCounterMode(display=False) as counter:
        layer(x).sum().backward()
    assert counter.get_total_flops() == 2 * (2 * 7 * 3 * 5)


def test_a_trainer_is_measured_for_real(tmp_path):
    workspace.set_params(tmp_path, {"polymnist.digits": "embedded", "polymnist.n_train": 200, "polymnist.n_test": 100})
    shell(tmp_path, "python", "-m", "stages.polymnist", PYTHONPATH=str(ROOT))
    short = "import benchmarks.timed as t, sys; t.SECONDS, t.WARM_UP = 0.05, 2; sys.argv = ['x', 'train_judge']; t.main()"
    found = json.loads(shell(tmp_path, "python", "-c", short, PYTHONPATH=str(ROOT)).stdout.splitlines()[-1])
    assert len(found["rates"]) == timed.WINDOWS and all(rate > 0 for rate in found["rates"])
    assert found["items"] == 128 and found["peak_mib"] > 50
    assert found["parameters"] > 500_000 and 1e9 < found["flops"] < 1e10
    assert not (tmp_path / "models").exists()
