"""The parallel runner on real DVC: a small project of two stages, torn in many places."""

import shutil
import sys

import pytest
import yaml
from dvc.repo import Repo

from ebmvae.core.messages import UserError
from tests.project import ROOT, commit, shell
from tools import modalities, parallel

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inside DVC


def stage(out, dep):
    command = f"echo ran >> {out}.log; cat {dep} > {out}"
    return {"cmd": command, "deps": [dep], "params": ["x"], "outs": [out]}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Two stages, run and committed, then run again on other data; with the newer dvc.lock."""
    folder = tmp_path_factory.mktemp("two")
    stages = {"first": stage("b", "a"), "second": stage("c", "b")}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    (folder / "params.yaml").write_text("x: {y: null, z: [1, 2]}\n")
    (folder / ".gitignore").write_text("*.log\n.dvc/tmp\n")
    shell(folder, "git", "init", "-q")
    shell(folder, "dvc", "init", "-q")
    for data in ("old", "new"):
        (folder / "a").write_text(data)
        shell(folder, "dvc", "repro", "-q")
        if data == "old":
            commit(folder, "run")
    return folder, (folder / "dvc.lock").read_bytes()


@pytest.fixture
def whole(project, monkeypatch):
    """The project as the working folder, its files put back afterwards; the bytes of dvc.lock."""
    folder, lock = project
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["parallel"])
    kept = {name: (folder / name).read_bytes() for name in ("dvc.yaml", "params.yaml")}
    yield lock
    for name, content in {**kept, "dvc.lock": lock}.items():
        (folder / name).write_bytes(content)


def runner(folder):
    return shell(folder, sys.executable, "-m", "tools.parallel", check=False, PYTHONPATH=str(ROOT))


def restored(folder):
    """`dvc repro`, which has to restore both stages on the new data and run none again."""
    (folder / "c").unlink(missing_ok=True)
    shell(folder, "dvc", "repro", "-q")
    assert (folder / "c").read_text() == "new"
    assert (folder / "b.log").read_text() == (folder / "c.log").read_text() == "ran\nran\n"
    assert "up to date" in shell(folder, "dvc", "status").stdout


@pytest.mark.parametrize("share", [0, 0.25, 0.5, 0.75, 0.98])
def test_a_torn_dvc_lock_is_refused_with_the_remedy(project, whole, share):
    folder, _ = project
    torn = whole[: int(share * len(whole))]
    (folder / "dvc.lock").write_bytes(torn)
    done = runner(folder)
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: dvc.lock") and "`git checkout dvc.lock`" in done.stderr
    assert (folder / "dvc.lock").read_bytes() == torn


def test_the_remedy_runs_no_stage_again(project, whole):
    folder, _ = project
    (folder / "dvc.lock").write_bytes(whole[: len(whole) // 2])
    shell(folder, "git", "checkout", "dvc.lock")
    assert (folder / "dvc.lock").read_bytes() != whole
    done = runner(folder)
    assert done.returncode == 0 and "second: first" in done.stdout
    restored(folder)
    assert (folder / "dvc.lock").read_bytes() == whole


def test_a_beginning_that_is_not_refused_does_no_harm(project, whole):
    folder, _ = project
    ends = []
    with Repo() as repo:
        for end in range(len(whole)):
            (folder / "dvc.lock").write_bytes(whole[:end])
            if not parallel.damage(repo):
                ends.append(end)
    assert all(whole[end - 1 : end] == b"\n" for end in ends) and 0 < len(ends) < whole.count(b"\n")
    for end in (ends[0], ends[-1]):
        (folder / "dvc.lock").write_bytes(whole[:end])
        restored(folder)


@pytest.mark.parametrize(
    "content", [b"\0\n", b"\xff\xfe\n", b"- a\n", b"schema: '1.0'\n", b"a: [\n"]
)
def test_other_damage(whole, content):
    with open("dvc.lock", "wb") as file:
        file.write(content)
    with pytest.raises(UserError, match="git checkout dvc.lock"):
        parallel.main()


def test_a_dvc_lock_that_another_dvc_may_be_writing_is_not_called_damaged(project, whole):
    folder, _ = project
    (folder / "dvc.lock").write_bytes(whole[:50])
    with Repo(str(folder)) as repo, repo.lock, pytest.raises(UserError) as caught:
        parallel.main()
    assert "git checkout" not in str(caught.value)


@pytest.mark.parametrize(
    "file, content, named",
    [
        ("params.yaml", "x: {y: 1}\nz: [1}", "params.yaml.*line 2"),
        ("dvc.yaml", "stages: {first: {cmd: echo, deps: [gone}", "dvc.yaml.*line 1"),
        ("dvc.yaml", "stages: {first: {outs: [b]}}", "dvc.yaml"),
        ("dvc.yaml", "stages: {first: {cmd: 'echo ${y}'}}", "dvc.yaml"),
    ],
)
def test_a_mistake_in_dvc_yaml_or_params_yaml_is_one_line(whole, file, content, named):
    with open(file, "w") as opened:
        opened.write(content)
    with pytest.raises(UserError, match=named):
        parallel.main()


def test_a_folder_without_a_project_is_one_line(tmp_path):
    done = runner(tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("m", [2, 10])
def test_dvc_sees_one_vae_per_modality_and_nobody_reads_another(tmp_path, monkeypatch, m):
    """tools.modalities, by DVC's own reading of what it wrote."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    text = modalities.stages_for((ROOT / "dvc.yaml").read_text(), m)
    (tmp_path / "dvc.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    Repo.init(no_scm=True).close()
    with Repo() as repo:
        deps = {s.addressing: {dep.def_path for dep in s.deps} for s in repo.index.stages}
    vaes = {f"models/vae/m{k + 1}" for k in range(m)}
    made = {name.split("@")[1] for name in deps if name.startswith("train_vae@")}
    assert {f"models/vae/{name}" for name in made} == vaes
    read = {name: {path for path in deps[name] if path.startswith("models/vae/")} for name in deps}
    readers = {name for name in read if read[name]}
    assert {"encode", "references", "report"} < readers
    assert all(read[name] == vaes for name in readers)
