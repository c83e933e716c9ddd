"""The DAG as rules for make: the order, and what a failure stops. On real DVC: tests/pipeline."""

import re
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import Mock

import cleanfid.downloads_helper
import networkx
import pytest
from dvc.repo import Repo

from benchmarks.workspace import set_params
from ebmvae.core.messages import UserError
from tests.project import ROOT, shell
from tools import modalities, parallel

# z <- y <- x, z <- b; a alone
TOY = {"a": [], "b": ["z"], "x": ["y"], "y": ["z"], "z": []}
ORDER = ["z", "y", "a", "b", "x"]


@pytest.fixture
def repo():
    """What `dag` reads of a DVC project: its graph, from a stage to those it depends on."""
    stages = {name: Mock(addressing=name) for name in TOY}
    graph = networkx.DiGraph()
    graph.add_nodes_from(stages.values())
    graph.add_edges_from((stages[name], stages[need]) for name in TOY for need in TOY[name])
    return Mock(index=Mock(graph=graph))


def test_the_longest_chain_comes_first(repo):
    assert parallel.dag(repo) == TOY and list(parallel.dag(repo)) == ORDER


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inside DVC
def test_the_real_dag(monkeypatch):
    monkeypatch.chdir(ROOT)  # DVC names stages as seen from here
    with Repo() as real:
        dag = parallel.dag(real)
    order = list(dag)
    assert order[0] == "polymnist" and order[-1] == "report"
    assert all(order.index(need) < order.index(name) for name in dag for need in dag[name])
    assert {f"train_vae@m{m}" for m in range(1, 6)} < set(dag["encode"])
    assert dag["fit_ebm"] == ["encode"] and dag["train_classifiers"] == ["polymnist"]
    assert {name for name in dag if name.startswith("evaluate")} < set(dag["report"])
    assert order.index("fit_annealed") < order.index("train_baseline@moe")


def make(repo, folder, fails=""):
    """`make` with a dvc that notes its stage and fails for one: the process, stages in order."""
    (folder / "rules.mk").write_text(parallel.rules(repo))
    words = 'for name; do :; done\n[ "$name" = "{}" ] && exit 1\necho "$*" >> {}/calls\n'
    (folder / "dvc").write_text("#!/bin/sh\n" + words.format(fails, folder))
    (folder / "dvc").chmod(0o755)
    command = ["make", "--keep-going", "--jobs", "3", "--file", "rules.mk"]
    env = {"PATH": f"{folder}:/usr/bin:/bin"}
    done = subprocess.run(command, cwd=folder, env=env, text=True, capture_output=True)
    calls = (folder / "calls").read_text().splitlines()
    begin = "--wait-for-lock repro --single-item "
    assert all(call.startswith(begin) for call in calls)
    return done, [call.removeprefix(begin) for call in calls]


def test_stages_run_after_what_they_need(repo, tmp_path):
    done, ran = make(repo, tmp_path)
    assert done.returncode == 0 and sorted(ran) == sorted(TOY)
    assert all(ran.index(need) < ran.index(name) for name in TOY for need in TOY[name])
    assert [f"[{k} of 5]" in done.stdout for k in range(1, 6)] == [True] * 5


def test_a_failed_stage_stops_only_what_depends_on_it_and_is_named(repo, tmp_path):
    done, ran = make(repo, tmp_path, fails="y")
    assert done.returncode != 0 and "y] Error" in done.stderr
    assert set(ran) == {"a", "b", "z"}


@pytest.mark.parametrize("listed, holds", [(5, True), (4, False), (0, True)])
def test_another_number_of_modalities_in_dvc_yaml_is_refused(monkeypatch, listed, holds):
    monkeypatch.chdir(ROOT)  # params.yaml has 5
    stages = [Mock(addressing=f"train_vae@m{m + 1}") for m in range(listed)]
    with nullcontext() if holds else pytest.raises(UserError, match=r"polymnist\.modalities"):
        parallel.refuse_other_modalities(Mock(index=Mock(stages=stages)))


@pytest.mark.parametrize("weights", ["none", "gone.pt", "other.pt", "download"])
def test_inceptions_weights_are_looked_for_before_any_training(tmp_path, monkeypatch, weights):
    def no_route(folder):
        raise OSError("no route")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cleanfid.downloads_helper, "check_download_inception", no_route)
    set_params(tmp_path, {"fid.inception_weights": weights})
    (tmp_path / "other.pt").write_bytes(b"other weights")
    holds = weights == "none"
    with nullcontext() if holds else pytest.raises(UserError, match=r"fid\.inception_weights"):
        parallel.refuse_missing_inception(Mock(index=Mock(stages=[Mock(addressing="references")])))


def test_a_project_without_references_needs_no_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # without parameters
    parallel.refuse_missing_inception(Mock(index=Mock(stages=[Mock(addressing="first")])))


# ---- merge conflicts


@pytest.fixture
def conflicted(tmp_path, monkeypatch):
    """Makes a conflict in `file` by `git merge`, between "ours" and "theirs" in its first line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["parallel"])

    def git(*words, **options):
        who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        shell(tmp_path, "git", *who, *words, **options)

    def conflict(file):
        Path(file).parent.mkdir(exist_ok=True)
        rest = (ROOT / file).read_text()
        git("init", "-q", "-b", "ours")
        for branch, text in (("ours", ""), ("theirs", "# theirs\n"), ("ours", "# ours\n")):
            git("checkout", "-q", *(["-b"] if branch == "theirs" else []), branch, check=False)
            Path(file).write_text(text + rest)
            git("add", file)
            git("commit", "-qm", branch)
        git("merge", "-q", "theirs", check=False)
        assert "<<<<<<<" in Path(file).read_text()
        return rest

    return conflict


@pytest.mark.parametrize("side", ["--ours", "--theirs"])
def test_a_conflict_in_dvc_lock_is_no_damage_and_its_remedy_works(conflicted, side, tmp_path):
    rest = conflicted("dvc.lock")
    with pytest.raises(UserError, match="^dvc.lock: line 1 .* conflict") as caught:
        parallel.main()
    words = str(caught.value)
    assert "damage" not in words and "make repro" in words and "--theirs" in words
    for command in re.findall("`(git .*?)`", words):
        shell(tmp_path, *command.replace("--ours", side).split())
    assert Path("dvc.lock").read_text() == f"# {side[2:]}\n{rest}"
    assert not shell(tmp_path, "git", "diff", "--name-only", "--diff-filter=U").stdout
    parallel.refuse_conflicts()


def test_a_conflict_in_dvc_lock_that_was_committed(conflicted, tmp_path):
    """`git checkout --ours` would leave it as it is."""
    conflicted("dvc.lock")
    shell(tmp_path, "git", "add", "dvc.lock")
    with pytest.raises(UserError, match="^dvc.lock: line 1 .* conflict.*`git checkout COMMIT"):
        parallel.main()
    shell(tmp_path, "git", "checkout", "theirs", "dvc.lock")
    parallel.refuse_conflicts()


@pytest.mark.parametrize("file", ["dvc.yaml", "params.yaml", ".dvc/config"])
def test_a_conflict_in_another_file_of_dvcs_is_named(conflicted, file, tmp_path):
    conflicted(file)
    with pytest.raises(UserError, match=f"^{file}: line 1 .* conflict.*`git add {file}`"):
        parallel.main()


@pytest.mark.parametrize("file", ["dvc.yaml", "params.yaml"])
def test_modalities_are_not_rewritten_in_a_conflict(conflicted, file, monkeypatch):
    for name in {"dvc.yaml", "params.yaml"} - {file}:
        shutil.copy(ROOT / name, name)
    conflicted(file)
    before = Path(file).read_bytes()
    monkeypatch.setattr(sys, "argv", ["modalities", "3"])
    with pytest.raises(UserError, match=f"^{file}: .* conflict"):
        modalities.main()
    assert Path(file).read_bytes() == before
