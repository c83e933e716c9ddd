"""The list of methods against the files that can't import it: dvc.yaml and params.yaml."""

import importlib
from pathlib import Path

import yaml

from ebmvae.methods import BASELINES, ENERGIES, METHODS, REFERENCES

ROOT = Path(__file__).parents[2]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def test_dvc_evaluates_these_methods():
    items = STAGES["evaluate"]["foreach"]
    assert list(items) == list(METHODS) == [*ENERGIES, *BASELINES]
    assert STAGES["train_baseline"]["matrix"]["method"] == list(BASELINES)
    for method, item in items.items():
        entry = METHODS[method]
        assert (item["model"], item["params"]) == (entry.models, entry.params)
        assert item["code"] == entry.code[1]


def test_every_module_has_what_its_kind_wants():
    wanted = {"energy": "load sample energy widen steps", "baseline": "draw loss sample"}
    for entry in METHODS.values():
        module = importlib.import_module(entry.module)
        assert all(callable(getattr(module, name)) for name in wanted[entry.kind].split())
        assert Path(module.__file__).is_relative_to(ROOT / entry.code[1])
        assert (ROOT / entry.code[0]).is_file()


def test_labels_and_colours_are_told_apart():
    entries = [*METHODS.values(), *REFERENCES.values()]
    assert len({entry.label for entry in entries}) == len(entries)
    assert len({entry.colour for entry in entries}) == len(entries)
