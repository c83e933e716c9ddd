"""The results in README.md: a table of known numbers, with and without deviations."""

import json
import sys

import pytest

from ebmvae.core.messages import UserError
from ebmvae.methods import METHODS
from tools import readme

ABOUT = {"dataset": "PolyMNIST (digits)", "profile": "default", "device": "cpu"}


def cell(coherence, distance, metric="frechet_polymnist"):
    return {"coherence": coherence, metric: distance}


def results(shift=0.0, metric="frechet_polymnist"):
    """Numbers of one method on m1 to m3: given 1, coherence .1 .2 .3 and distance 400 + `shift`."""
    table = {"unconditional": {"all_agree": 0.456}, "energy_auroc": 0.9}
    for k in (1, 2, 3):
        one, most = cell(k / 10, 400 + shift, metric), cell(0.5 + k / 10, 1000 * k + shift, metric)
        table[f"m{k}"] = {"given0": {metric: 1.0}, "given1": one, "given2": most}
    return table


def table(seeds, **methods):
    runs = {method: seeds for method in methods}
    rest = {"samples_per_cell": 1000, "seeds": runs, "standard_deviation": {}}
    return {**ABOUT, **rest, **methods, "real": {"m1": cell(1, 0)}}


def parse(text):
    """(The sentence, {head: column}) of a block; the first column is that of the methods."""
    sentence, blank, *lines = text.splitlines()
    rows = [[part.strip() for part in line.strip("|").split("|")] for line in lines]
    assert blank == "" and all(set(part) <= set("-: ") for part in rows[1])
    return sentence, {head: column for head, *column in zip(rows[0], *rows[2:], strict=True)}


def test_means_are_over_targets():
    sentence, columns = parse(readme.block(table([0], poe=results())))
    label, *values = (column[0] for column in columns.values())
    assert label == METHODS["poe"].label
    assert values == [".200", ".700", "400", "2000", ".456"]
    for part in ("PolyMNIST (digits)", "default", "seed 0", "cpu", "1,000"):
        assert part in sentence


def test_a_deviation_over_seeds_stands_beside_what_has_one():
    content = table([0, 1, 2], poe=results())
    content["standard_deviation"] = {"poe": {"unconditional": {"all_agree": 0.012}}}
    sentence, columns = parse(readme.block(content))
    assert columns["all agree"] == [".456 ± .012"] and "seed 0, 1, 2" in sentence


def test_methods_stand_in_their_order():
    _, columns = parse(readme.block(table([0], poe=results(), eb_mvae=results(shift=60))))
    assert columns["method"] == [METHODS["eb_mvae"].label, METHODS["poe"].label]
    assert columns["distance given 2"] == ["2060", "2000"]


def test_inception_distances_are_called_fid():
    _, columns = parse(readme.block(table([0], poe=results(metric="fid"))))
    assert "FID given 2" in columns and not any("distance" in head for head in columns)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Calls the command in a folder with a README.md of this text; returns the text afterwards."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/table.json").write_text(json.dumps(table([0], poe=results())))

    def call(text, *arguments):
        (tmp_path / "README.md").write_text(text)
        monkeypatch.setattr(sys, "argv", ["readme", *arguments])
        readme.main()
        return (tmp_path / "README.md").read_text()

    return call


def test_only_what_is_between_the_marks_is_written(run):
    head, tail = f"# Title\n\n{readme.BEGIN}\n", f"{readme.END}\n\nMore.\n"
    filled = run(head + "old numbers\n" + tail)
    assert filled == head + readme.block(table([0], poe=results())) + tail
    assert run(filled) == run(filled, "--check") == filled


def test_check_writes_nothing_and_fails(run, tmp_path):
    old = f"{readme.BEGIN}\nold\n{readme.END}\n"
    with pytest.raises(SystemExit) as caught:
        run(old, "--check")
    assert "README.md" in caught.value.code and (tmp_path / "README.md").read_text() == old


@pytest.mark.parametrize("marks", [(), ("BEGIN",), ("END", "BEGIN"), ("BEGIN", "END", "BEGIN")])
def test_marks_that_are_not_there_once(run, marks):
    with pytest.raises(UserError, match="README.md"):
        run("\n".join(getattr(readme, mark) for mark in marks))
