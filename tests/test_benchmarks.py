"""The benchmarks' own arithmetic, and one real measurement of a trainer; no number here depends on how fast it was."""

import json

import pytest
import torch
from torch import nn

from benchmarks import scaling, throughput, timed, workspace
from stages.lib import objectives
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


def test_numbers_of_the_table_are_without_exponents():
    assert [workspace.number(value) for value in (0.12345, 638.71, 1005.0, 30890.0)] == ["0.1235", "638.7", "1,005", "30,890"]


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
    layer, x = nn.Linear(3, 5), torch.ones(7, 3)
    with timed.Operations() as counted:
        layer(x).sum().backward()
    assert counted.found == {"convolution": 0, "product": 2 * (2 * 7 * 3 * 5)}


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_operations_are_counted_alike_with_and_without_gradients(mode):
    """A 3x3 convolution of stride 2 from 2 to 4 channels gives 4x4 pixels on 8x8 ones; the linear layer has 64 inputs."""
    net, x = nn.Sequential(nn.Conv2d(2, 4, 3, 2, 1), nn.Flatten(), nn.Linear(64, 5)), torch.ones(3, 2, 8, 8)
    with mode(), timed.Operations() as counted:
        net(x)
    assert counted.found == {"convolution": 2 * 3 * 4 * 4 * 4 * 2 * 9, "product": 2 * 3 * 64 * 5}


def test_operations_are_counted_where_a_loss_takes_gradients():
    """A linear score of 3 on 7 rows: v' grad S is one more product with its weight; each product of the loss has two behind it."""
    layer, z = nn.Linear(3, 3, bias=False), torch.ones(7, 3)
    one = 2 * 7 * 3 * 3
    with timed.Operations() as counted:
        objectives.score_matching_sliced(layer, z, torch.ones_like(z)).backward()
    assert counted.found["convolution"] == 0 and 4 * one <= counted.found["product"] <= 6 * one
    with timed.Operations() as counted:
        objectives.score_matching_exact(layer, z).backward()
    assert counted.found["product"] > 4 * one  # three rows of the Jacobian, and the score


def test_floor_adds_operations_and_the_passes_of_adam():
    rates = {"convolution": 100.0, "product": 1000.0, "copy": 64.0}
    assert throughput.floor({"convolution": 50, "product": 500}, 0, rates) == pytest.approx(0.5 + 0.5)
    assert throughput.floor({"convolution": 0, "product": 0}, 4, rates) == pytest.approx(8 * 4 * 4 / 64)


def test_a_row_compares_its_rate_with_the_floor_and_a_grid_its_seconds():
    rates = {"convolution": 100.0, "product": 1000.0, "copy": 64.0}
    step = {"rates": [9.0, 10.0, 10.0, 10.0, 11.0], "items": 4, "flops": {"convolution": 10, "product": 0}, "parameters": 0,
            "peak_mib": 70.0}
    found = throughput.row("x", "images/s", step, rates, "cpu")
    assert found["ours"] == 10 and found["n"] == 5  # four items in 0.4 s, of which operations take 0.1
    assert found["floor_ratio"] == pytest.approx(0.25)
    found = throughput.row("x", "s", {**step, "seconds": 0.5}, rates, "cpu")
    assert found["ours"] == 0.5 and found["floor_ratio"] == pytest.approx(0.2)


def test_exponent_of_a_power_law():
    sizes = [2, 5, 10, 20]
    assert scaling.exponent(sizes, [3 * size**1.7 for size in sizes]) == pytest.approx(1.7)
    assert scaling.exponent(sizes, [None, 5.0, 10.0, None]) == pytest.approx(1)
    assert scaling.exponent(sizes, [1.0, None, None, None]) is None


def test_the_table_of_growth_is_what_was_measured():
    """Seconds as M^2 and as the data, memory as both; one stage found no memory at the largest M."""
    sizes = [*((m, 1) for m in scaling.MODALITIES), *((scaling.USUAL, k) for k in scaling.TIMES_THE_DATA[1:])]
    rows = [{"name": name, "modalities": m, "data": k, "seconds": m**2 * k / 10, "peak_mib": 100.0 * m * k}
            for m, k in sizes for name in ("a", "b")]
    rows[scaling.MODALITIES.index(20) * 2 + 1].update(seconds=None, peak_mib=None)
    lines = scaling.table(rows).splitlines()
    assert "| a | 0.4 / 200 | 2.5 / 500 | 10.0 / 1,000 | 40.0 / 2,000 | M^2.00 / M^1.00 |" in lines
    assert "| b | 0.4 / 200 | 2.5 / 500 | 10.0 / 1,000 | over 8 GiB | M^2.00 / M^1.00 |" in lines
    assert lines.count("| a | 2.5 / 500 | 5.0 / 1,000 | 10.0 / 2,000 | n^1.00 / n^1.00 |") == 1


def test_the_table_and_plot_of_growth_are_there():
    rows = json.loads(scaling.RESULTS.read_text())["rows"]
    assert scaling.table(rows) in workspace.PAGE.read_text() and scaling.PICTURE.exists()


def test_a_trainer_is_measured_for_real(tmp_path):
    workspace.set_params(tmp_path, {"polymnist.digits": "embedded", "polymnist.n_train": 200, "polymnist.n_test": 100})
    shell(tmp_path, "python", "-m", "stages.polymnist", PYTHONPATH=str(ROOT))
    short = "import benchmarks.timed as t, sys; t.SECONDS, t.WARM_UP = 0.05, 2; sys.argv = ['x', 'train_judge']; t.main()"
    found = json.loads(shell(tmp_path, "python", "-c", short, PYTHONPATH=str(ROOT)).stdout.splitlines()[-1])
    assert len(found["rates"]) == timed.WINDOWS and all(rate > 0 for rate in found["rates"])
    assert found["items"] == 128 and found["peak_mib"] > 50
    assert found["parameters"] > 500_000 and 1e9 < sum(found["flops"].values()) < 1e10
    assert not (tmp_path / "models").exists()
