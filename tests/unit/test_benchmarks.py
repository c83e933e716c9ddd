"""The benchmarks' own arithmetic, and one small training that is timed.

No number here depends on how fast it was.
"""

import json
import os
from types import SimpleNamespace

import pytest
import torch
from matplotlib import rc_context
from torch import nn

from benchmarks import scaling, temperature, throughput, timed, workspace
from ebmvae.core import random, training


def test_cores_where_a_process_can_and_can_not_tell(monkeypatch):
    if hasattr(os, "sched_getaffinity"):
        assert workspace.cores() == len(os.sched_getaffinity(0))
        monkeypatch.delattr(os, "sched_getaffinity")  # macOS
    for count, cores in ((3, 3), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda count=count: count)
        assert workspace.cores() == cores


def test_median_and_spread():
    median, spread = workspace.middle([10.0, 30.0, 20.0, 50.0, 40.0])
    assert median == 30 and spread == pytest.approx((45 - 15) / 2 / 30)


def test_rows_of_a_program_are_replaced_and_those_of_the_other_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(workspace, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(workspace, "PAGE", tmp_path / "README.md")
    (tmp_path / "README.md").write_text(f"before\n{workspace.BEGIN}\nold\n{workspace.END}\nafter\n")
    row = {"spread": 0.1, "ratio": None, "floor_ratio": 0.5, "n": 7, "unit": "1/s", "device": "cpu"}
    row |= {"name": "x", "ours": 1.23456789, "peer": None}
    workspace.keep("throughput", [{**row, "name": "gone"}], {"a": 1})
    workspace.keep("peers", [{**row, "name": "y", "peer": 2.0}], {"b": 2})
    workspace.keep("throughput", [row], {"a": 3})
    content = json.loads((tmp_path / "results.json").read_text())
    assert [(row["name"], row["ours"]) for row in content["rows"]] == [("y", 1.235), ("x", 1.235)]
    assert content["conditions"] == {"throughput": {"a": 3}, "peers": {"b": 2}}
    page = (tmp_path / "README.md").read_text()
    assert page.startswith("before\n") and page.endswith("after\n") and "old" not in page
    assert "| x | 1.235 | ± 10% | 1/s |  |  | 50% |  | 7 | cpu |" in page


# ---- operations


def test_operations_of_a_step_are_those_of_its_layers():
    """A linear layer of 3 to 5 on 7 rows forward, and as many operations for its weight."""
    layer, x = nn.Linear(3, 5), torch.ones(7, 3)
    with timed.Operations() as operations:
        layer(x).sum().backward()
    assert operations.counts == {"convolution": 0, "product": 2 * (2 * 7 * 3 * 5)}


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
def test_operations_are_counted_alike_with_and_without_gradients(mode):
    """2 to 4 channels, stride 2: 4x4 pixels on 8x8 ones; then 64 inputs of a linear layer."""
    net = nn.Sequential(nn.Conv2d(2, 4, 3, 2, 1), nn.Flatten(), nn.Linear(64, 5))
    with mode(), timed.Operations() as operations:
        net(torch.ones(3, 2, 8, 8))
    expected = {"convolution": 2 * 3 * 4 * 4 * 4 * 2 * 9, "product": 2 * 3 * 64 * 5}
    assert operations.counts == expected


RATES = {"convolution": 100.0, "product": 1000.0, "copy": 64.0}


def test_floor_adds_operations_and_the_passes_of_adam():
    assert throughput.floor({"convolution": 50, "product": 500}, 0, RATES) == pytest.approx(1)
    nothing = {"convolution": 0, "product": 0}
    assert throughput.floor(nothing, 4, RATES) == pytest.approx(8 * 4 * 4 / 64)


def test_a_row_compares_its_rate_with_the_floor_and_a_grid_its_seconds():
    """Four items in 0.4 s, of which operations take 0.1."""
    cost = {"rates": [9.0, 10.0, 10.0, 10.0, 11.0], "items": 4, "parameters": 0, "peak_mib": 70.0}
    cost["flops"] = {"convolution": 10, "product": 0}
    row = throughput.row("x", "images/s", cost, RATES, "cpu")
    assert (row["ours"], row["n"], row["floor_ratio"]) == (10, 5, pytest.approx(0.25))
    row = throughput.row("x", "s", {**cost, "seconds": 0.5}, RATES, "cpu")
    assert (row["ours"], row["floor_ratio"]) == (0.5, pytest.approx(0.2))


# ---- growth and temperature


def test_exponent_of_a_power_law():
    sizes = [2, 5, 10, 20]
    assert scaling.exponent(sizes, [3 * size**1.7 for size in sizes]) == pytest.approx(1.7)
    assert scaling.exponent(sizes, [None, 5.0, 10.0, None]) == pytest.approx(1)
    assert scaling.exponent(sizes, [1.0, None, None, None]) is None


def test_the_table_of_growth():
    """Seconds as M^2 and as the data, memory as both; at the largest M memory did not suffice."""
    sizes = [(m, 1) for m in (2, 5, 20)] + [(scaling.USUAL, k) for k in (2, 4)]
    rows = [
        {
            "name": "a",
            "modalities": m,
            "data": k,
            "seconds": m**2 * k / 10,
            "peak_mib": 100.0 * m * k,
        }
        for m, k in sizes
    ]
    rows[2].update(seconds=None, peak_mib=None)
    lines = scaling.table(rows).splitlines()
    assert lines[2] == "| a | 0.4 / 200 | 2.5 / 500 | over 8 GiB | M^2.00 / M^1.00 |"
    assert lines[-1] == "| a | 2.5 / 500 | 5.0 / 1,000 | 10.0 / 2,000 | n^1.00 / n^1.00 |"


def test_the_picture_of_growth_is_the_same_whatever_a_users_matplotlibrc_says(tmp_path):
    sizes = [(2, 1), (scaling.USUAL, 1), (scaling.USUAL, 2)]
    rows = [
        {"name": "a", "modalities": m, "data": k, "seconds": float(m * k), "peak_mib": 100.0 * m}
        for m, k in sizes
    ]
    for name, settings in (("a", {}), ("b", {"text.usetex": True, "font.size": 20})):
        with rc_context(settings):
            scaling.draw(rows, tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_temperatures_multiply_the_noise(capsys):
    mean, logvar = torch.ones(2, 3, 1), torch.zeros(2, 3, 1)
    draws = [temperature.drawing("moe", ["a", "b"], mean, logvar, tau) for tau in (0, 0.5)]
    eps, seeds = random.normal_per_sample((1,), [1, 2, 3]), [1, 2, 3]
    assert torch.equal(draws[0](("b",), seeds), torch.ones(3, 2, 1))
    assert torch.equal(draws[1](("b",), seeds)[:, 0], 1 + 0.5 * eps)
    rows = [
        {"target": "a", "n_observed": k, "coherence": c, "fid": 100 * c}
        for k, c in ((0, 0.1), (1, 0.5), (1, 0.7), (2, 0.9))
    ]
    cells = temperature.means(rows, "fid")
    assert cells["a", 1] == pytest.approx((0.6, 60)) and cells["a", 2] == (0.9, 90)
    temperature.show("x", cells, {("a", 1): (0.6, 0), ("a", 2): (0.95, 0)})
    line = "x: coherence 0.600 0.900; distance 60 90; as coherent as annealed in 1 of 2 cells: "
    assert capsys.readouterr().out == line + "a given 1\n"


# ---- one training


def test_one_training_of_a_stage_is_timed_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(timed, "SECONDS", 0.02)
    monkeypatch.setattr(timed.params, "load", lambda: "parameters")
    layer, rng, trained = nn.Linear(3, 5), torch.Generator().manual_seed(0), []

    def loss(index, progress):
        return layer(torch.ones(len(index), 3)).square().sum(), {}

    def run(argument, p, train):
        assert (argument, p) == ("m1", "parameters")
        settings = training.Settings(batch_size=7, learning_rate=1e-3, epochs=2)
        for name in ("stage first", "stage second", "stage third"):
            trained.append(name)
            train(name, layer, loss, 20, settings, rng, {}, None)

    args = SimpleNamespace(stage="stage", argument=["m1"], training="stage second")
    cost = timed.time_steps(SimpleNamespace(run=run), args)
    assert trained == ["stage first", "stage second"]  # the stage ends once it is measured
    assert len(cost["rates"]) == timed.WINDOWS and min(cost["rates"]) > 0
    assert (cost["items"], cost["parameters"]) == (7, 20) and cost["peak_mib"] > 50
    assert cost["flops"] == {"convolution": 0, "product": 2 * (2 * 7 * 3 * 5)}
    assert not list((tmp_path / ".checkpoints").iterdir())
