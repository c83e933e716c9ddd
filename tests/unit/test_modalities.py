"""Another number of modalities: what becomes of the real dvc.yaml and params.yaml."""

import shutil
import sys

import pytest
import yaml

from ebmvae import params
from ebmvae.core.messages import UserError
from tests.project import ROOT
from tools import modalities

DVC, PARAMS = (ROOT / "dvc.yaml").read_text(), (ROOT / "params.yaml").read_text()
NUMBERS = (2, 3, 4, 7, 10)


def names(m):
    return [f"m{k}" for k in range(1, m + 1)]


def rest(text):
    """The lines of dvc.yaml that name no modality: comments, order and blanks too."""
    marks = ("models/vae/m", "modality: [")
    return [line for line in text.splitlines() if not any(mark in line for mark in marks)]


def test_five_are_what_is_there():
    assert modalities.stages_for(DVC, 5) == DVC
    assert modalities.parameters_for(PARAMS, 5) == PARAMS


@pytest.mark.parametrize("m", NUMBERS)
def test_every_list_has_all_modalities_and_nothing_else_changes(m):
    text = modalities.stages_for(DVC, m)
    content = yaml.safe_load(text)
    assert content["stages"]["train_vae"]["matrix"] == {"modality": names(m)}
    before = modalities.modalities_in(yaml.safe_load(DVC))
    assert modalities.modalities_in(content) == [names(m)] * len(before) and len(before) > 1
    assert DVC.count("models/vae/m1\n") == text.count(f"models/vae/m{m}\n") == len(before) - 1
    assert rest(text) == rest(DVC)


@pytest.mark.parametrize("m", NUMBERS)
def test_parameters_change_by_that_number_alone(m):
    text = modalities.parameters_for(PARAMS, m)
    pairs = zip(PARAMS.splitlines(), text.splitlines(), strict=True)
    changed = [new for old, new in pairs if old != new]
    assert len(changed) == 1 and changed[0].startswith(f"  modalities: {m} ") and "#" in changed[0]
    assert params.check(yaml.safe_load(text)).polymnist.modalities == m


@pytest.mark.parametrize("numbers", [[3], [2, 10, 3], [10, 2, 7]])
def test_back_to_five_gives_the_same_text(numbers):
    stages, parameters = DVC, PARAMS
    for m in [*numbers, 5]:
        stages = modalities.stages_for(stages, m)
        parameters = modalities.parameters_for(parameters, m)
    assert (stages, parameters) == (DVC, PARAMS)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "stages: [\n",
        DVC.replace("modality: [", "modality:  ["),
        DVC.replace("models/vae/m1\n", "models/vae/x1\n"),
        DVC.replace("models/vae/m2\n", "models/vae/m2  # the second\n", 1),
    ],
    ids=["empty", "no YAML", "another matrix", "another name", "a comment amid a list"],
)
def test_a_dvc_yaml_of_somebody_else(text):
    with pytest.raises(UserError, match="dvc.yaml"):
        modalities.stages_for(text, 3)


@pytest.mark.parametrize("text", ["", PARAMS.replace("  modalities: 5", "  m: 5"), PARAMS + PARAMS])
def test_a_params_yaml_of_somebody_else(text):
    with pytest.raises(UserError, match="polymnist.modalities"):
        modalities.parameters_for(text, 3)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Calls the command in a folder with the two files; returns what it left in each."""
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["modalities", *arguments])
        modalities.main()
        return [(tmp_path / name).read_text() for name in ("dvc.yaml", "params.yaml")]

    return call


def test_the_command_writes_both(run, tmp_path):
    assert run("3") == [modalities.stages_for(DVC, 3), modalities.parameters_for(PARAMS, 3)]
    assert run("5") == [DVC, PARAMS] and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("number", ["1", "-3", "11"])
def test_a_number_that_is_not_possible(run, tmp_path, number):
    with pytest.raises(UserError, match=number):
        run(number)
    assert (tmp_path / "dvc.yaml").read_text() == DVC


@pytest.mark.parametrize("text", [None, "polymnist: {modalities: 5}\n"], ids=["missing", "other"])
def test_neither_file_changes_where_one_is_not_as_it_should_be(run, tmp_path, text):
    (tmp_path / "params.yaml").unlink()
    if text:
        (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(UserError, match="params.yaml"):
        run("3")
    assert (tmp_path / "dvc.yaml").read_text() == DVC
