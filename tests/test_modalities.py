"""Another number of modalities: what `python -m cluster.modalities` makes of the real dvc.yaml and params.yaml, and who checks it."""

import shutil
import sys

import pytest
import yaml

from cluster import modalities
from stages import polymnist
from stages.lib import params
from stages.lib.runtime import UserError
from tests.project import ROOT, shell

DVC, PARAMS = (ROOT / "dvc.yaml").read_text(), (ROOT / "params.yaml").read_text()


def names(m):
    return [f"m{k}" for k in range(1, m + 1)]


def lists_of_vaes(value):
    """Every list of dependencies on VAEs in dvc.yaml, in order: [["m1", "m2", ...], ...]."""
    stages = value["stages"]
    deps = [(stage.get("do") or stage)["deps"] for stage in stages.values()]
    found = [[dep.removeprefix("models/vae/") for dep in each if dep.startswith("models/vae/")] for each in deps]
    return [each for each in found if each]


# ---- the texts


def test_five_are_what_is_there():
    assert modalities.stages_for(DVC, 5) == DVC
    assert modalities.parameters_for(PARAMS, 5) == PARAMS


@pytest.mark.parametrize("m", range(2, 11))
def test_every_list_has_all_modalities(m):
    value = yaml.safe_load(modalities.stages_for(DVC, m))
    assert value["stages"]["train_vae"]["matrix"] == {"modality": names(m)}
    assert lists_of_vaes(value) == [names(m)] * 4  # encode, references, evaluate, report


@pytest.mark.parametrize("m", range(2, 11))
def test_nothing_else_changes(m):
    before, after = yaml.safe_load(DVC), yaml.safe_load(modalities.stages_for(DVC, m))
    for value in (before, after):
        del value["stages"]["train_vae"]["matrix"]
        for stage in value["stages"].values():
            part = stage.get("do") or stage
            part["deps"] = [dep for dep in part["deps"] if not dep.startswith("models/vae/")]
    assert after == before
    other = lambda text: [line for line in text.splitlines() if "models/vae/m" not in line and "modality: [" not in line]
    assert other(modalities.stages_for(DVC, m)) == other(DVC)  # comments, order and blanks too


@pytest.mark.parametrize("m", range(2, 11))
def test_parameters_change_by_that_number_alone(m):
    before, after = yaml.safe_load(PARAMS), yaml.safe_load(modalities.parameters_for(PARAMS, m))
    assert after["polymnist"].pop("modalities") == m and before["polymnist"].pop("modalities") == 5
    assert after == before
    changed = [new for old, new in zip(PARAMS.splitlines(), modalities.parameters_for(PARAMS, m).splitlines(), strict=True) if old != new]
    assert len(changed) == (m != 5) and all(line.startswith(f"  modalities: {m} ") and "#" in line for line in changed)
    params.check(yaml.safe_load(modalities.parameters_for(PARAMS, m)))


@pytest.mark.parametrize("way", [[3], [10], [2, 10, 3], [10, 2, 7]])
def test_back_to_five_gives_the_same_text(way):
    stages, parameters = DVC, PARAMS
    for m in [*way, 5]:
        stages, parameters = modalities.stages_for(stages, m), modalities.parameters_for(parameters, m)
    assert (stages, parameters) == (DVC, PARAMS)


@pytest.mark.parametrize("text", ["", "stages: {}\n", DVC.replace("modality: [", "modalities: ["), DVC.replace("models/vae/m1", "models/vae/x1"),
                                  DVC + DVC])
def test_a_dvc_yaml_of_somebody_else(text):
    with pytest.raises(UserError, match="dvc.yaml is not as this program knows it; `git checkout dvc.yaml`"):
        modalities.stages_for(text, 3)


@pytest.mark.parametrize("text", ["", PARAMS.replace("  modalities: 5", "  modality: 5"), PARAMS + PARAMS, PARAMS.replace("modalities: 5", "modalities: five")])
def test_a_params_yaml_of_somebody_else(text):
    with pytest.raises(UserError, match="params.yaml has no polymnist.modalities; `git checkout params.yaml`"):
        modalities.parameters_for(text, 3)


# ---- the command


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the two files, as the current one."""
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["modalities", *arguments])
    modalities.main()


@pytest.mark.parametrize("m", [2, 3, 5, 10])
def test_the_command_writes_both_and_nothing_else(folder, monkeypatch, capsys, m):
    before = files(folder)
    command(monkeypatch, str(m))
    assert files(folder) == {"dvc.yaml": modalities.stages_for(DVC, m).encode(), "params.yaml": modalities.parameters_for(PARAMS, m).encode()}
    assert capsys.readouterr().out == f"dvc.yaml and params.yaml: {m} modalities, m1 to m{m}; `make repro` runs them\n"
    polymnist.same_modalities(m)
    command(monkeypatch, "5")
    assert files(folder) == before


@pytest.mark.parametrize("number", ["1", "0", "-3", "11", "100"])
def test_a_number_that_is_not_possible(folder, monkeypatch, number):
    before = files(folder)
    with pytest.raises(UserError, match=f"^{number} modalities: 2 to 10 are possible$"):
        command(monkeypatch, number)
    assert files(folder) == before


@pytest.mark.parametrize("arguments", [["three"], ["2.5"], [], ["3", "4"]])
def test_no_number(folder, monkeypatch, capsys, arguments):
    before = files(folder)
    with pytest.raises(SystemExit) as caught:
        command(monkeypatch, *arguments)
    assert caught.value.code == 2 and "usage:" in capsys.readouterr().err
    assert files(folder) == before


def test_neither_file_changes_where_one_is_not_as_it_should_be(folder, monkeypatch):
    (folder / "params.yaml").write_text("polymnist: {modalities: 5}\n")
    before = files(folder)
    with pytest.raises(UserError, match="params.yaml"):
        command(monkeypatch, "3")
    assert files(folder) == before


@pytest.mark.parametrize("name", ["dvc.yaml", "params.yaml"])
def test_a_missing_file_is_named(folder, monkeypatch, name):
    (folder / name).unlink()
    before = files(folder)
    with pytest.raises(UserError, match=name):
        command(monkeypatch, "3")
    assert files(folder) == before


def test_a_wrong_number_is_one_line_and_exit_code_2(folder):
    done = shell(ROOT, sys.executable, "-m", "cluster.modalities", "1", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: 1 modalities: 2 to 10 are possible\n")
    assert ((ROOT / "dvc.yaml").read_text(), (ROOT / "params.yaml").read_text()) == (DVC, PARAMS)


# ---- the check in stage polymnist


@pytest.mark.parametrize("m", [2, 4, 10])
def test_a_number_that_is_not_dvc_yamls(folder, m):
    polymnist.same_modalities(5)
    with pytest.raises(UserError) as caught:
        polymnist.same_modalities(m)
    assert str(caught.value) == f"polymnist.modalities = {m}, but dvc.yaml has stages for 5; `python -m cluster.modalities {m}` sets both"


def test_without_dvc_yaml_any_number_goes(folder):
    (folder / "dvc.yaml").unlink()
    for m in range(2, 11):
        polymnist.same_modalities(m)


def test_the_stage_makes_nothing_for_another_number(folder, monkeypatch):
    """It ends before it makes a tuple: the VAEs of modalities that dvc.yaml lacks would never be trained."""
    (folder / "params.yaml").write_text(modalities.parameters_for(PARAMS, 3))
    monkeypatch.setattr(sys, "argv", ["polymnist"])
    monkeypatch.setattr(polymnist.runtime, "begin", lambda *_: None)
    with pytest.raises(UserError, match="^polymnist.modalities = 3, but dvc.yaml has stages for 5"):
        polymnist.main()
    assert not (folder / "data").exists()


@pytest.mark.parametrize("m", [2, 3, 10])
def test_dvc_sees_a_vae_a_modality_and_nobody_reads_another(folder, monkeypatch, m):
    """By DVC's own reading of the file: the stages, and what each depends on."""
    from dvc.repo import Repo

    command(monkeypatch, str(m))
    shell(folder, "dvc", "init", "--no-scm", "-q")
    with Repo(str(folder)) as repo:
        stages = {stage.addressing: {dep.def_path for dep in stage.deps} for stage in repo.index.stages}
    assert sorted(name for name in stages if name.startswith("train_vae@")) == sorted(f"train_vae@{name}" for name in names(m))
    vaes = {f"models/vae/{name}" for name in names(m)}
    readers = {name: deps for name, deps in stages.items() if any(dep.startswith("models/vae/") for dep in deps)}
    assert set(readers) == {"encode", "references", "report", *(name for name in stages if name.startswith("evaluate@"))}
    assert all({dep for dep in deps if dep.startswith("models/vae/")} == vaes for deps in readers.values())
