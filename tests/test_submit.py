"""Slurm jobs without Slurm: what would be submitted, what status says, what gather refuses. On a real one: `make test-cluster`."""

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml
from dvc.repo import Repo

from cluster import job, prepare, status, submit
from stages.lib.runtime import UserError
from tests.project import ROOT, clone, commit, shell


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A clone of this project with a remote."""
    folder = clone(tmp_path_factory.mktemp("submit"))
    shell(folder, "dvc", "remote", "add", "--quiet", "-d", "shared", "../remote")
    commit(folder, "remote")
    return folder


@pytest.fixture
def project(original, tmp_path, monkeypatch):
    """That clone as the working folder, put back afterwards; Slurm, where there is one, knows no job."""
    (tmp_path / "squeue").write_text("#!/bin/sh\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.chdir(original)
    yield original
    shell(original, "git", "checkout", "--quiet", ".")
    shell(original, "git", "clean", "--quiet", "-fd", "-e", ".venv")
    shutil.rmtree(original / ".cluster", ignore_errors=True)


def run(folder, module, *arguments, **env):
    return shell(folder, sys.executable, "-m", f"cluster.{module}", *arguments, check=False, **env)


def table(output):
    """{first column: the others} of what `status.show` prints, less its head."""
    rows = [re.split(r"\s{2,}", line.strip()) for line in output.splitlines() if line.startswith("  ")]
    return {first: dict(zip(rows[0][1:], others)) for first, *others in rows[1:]}


def refused(done):
    """The one line of an error."""
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


# ---- what would be submitted


def test_a_dry_run_shows_a_job_a_stage_and_makes_nothing(project):
    done = run(project, "submit", "--dry-run", "--profile", "smoke")
    assert done.returncode == 0, done.stderr
    assert re.match(rf"smoke-[0-9a-f]{{7}}: 21 jobs, profile smoke, seeds 0; remote shared \({project.parent}/remote\); in ", done.stdout)
    jobs = table(done.stdout)
    assert jobs["polymnist"] == {"gpus": "0", "cpus": "1", "memory": "4G", "minutes": "30", "after": "-"}
    assert jobs["encode-seed0"]["after"].split(", ") == [f"train_vae@m{m}-seed0" for m in range(1, 6)]
    assert jobs["evaluate@moe-seed0"]["after"] == "references-seed0, train_baseline@moe-seed0"
    assert "report" not in jobs and not (project / ".cluster").exists()
    order = list(jobs)
    assert all(order.index(need) < order.index(name) for name, each in jobs.items() for need in each["after"].split(", ") if need != "-")


def test_seeds_share_what_does_not_depend_on_them(project):
    done = run(project, "submit", "--dry-run", "--profile", "paper", "--seeds", "3", "--stages", "train_vae@m2", "train_baseline")
    jobs = table(done.stdout)
    assert set(jobs) == {"polymnist", "train_judge"} | {
        f"{stage}-seed{seed}" for seed in range(3)
        for stage in ("train_vae@m2", *(f"train_baseline@{m}" for m in ("poe", "moe", "mopoe", "mvtcae")))}
    assert jobs["train_vae@m2-seed2"] == {"gpus": "1", "cpus": "2", "memory": "16G", "minutes": "480", "after": "train_judge"}


def test_parameters_are_those_of_dvc_exp_run(project):
    text = prepare.parameters("smoke", 2)[1]
    shell(project, "dvc", "exp", "run", "--queue", "-S", "seed=1", *re.sub("#.*", "", (ROOT / "profiles/smoke.args").read_text()).split())
    queued = shell(project, "git", "show", "refs/exps/celery/stash:params.yaml").stdout
    shell(project, "dvc", "queue", "remove", "--all")
    assert yaml.safe_load(queued) == yaml.safe_load(text) and text == queued


@pytest.mark.parametrize("section", yaml.safe_load((ROOT / "cluster/resources.yaml").read_text()))
def test_resources_are_complete(section):
    names = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].keys() - {"report"}
    assert set(submit.resources(section, names)) == names == set(yaml.safe_load((ROOT / "cluster/resources.yaml").read_text())[section])


# ---- what is wrong


@pytest.mark.parametrize("arguments, says", [
    (["--profile", "huge"], "--profile huge: no such file in profiles/; known are default, medium,"),
    (["--stages", "report"], "--stages report: no such stage for Slurm; known are polymnist,"),
    (["--seeds", "0"], "--seeds 0: how many, 1 or more"),
])
def test_wrong_arguments(project, arguments, says):
    assert says in refused(run(project, "submit", "--dry-run", *arguments))


def test_no_remote(project):
    (project / ".dvc/config").write_text((ROOT / ".dvc/config").read_text())
    assert ".dvc/config: no default remote" in refused(run(project, "submit", "--dry-run"))


@pytest.mark.parametrize("file, old, new, says", [
    ("params.yaml", "seed: 0 ", "seed: 1 ", "params.yaml: differs from the commit that jobs would work on; commit it"),
    ("cluster/resources.yaml", "memory: 4G, minutes: 30", "memory: lots, minutes: 30", "default.encode.memory = lots should be such as"),
    ("cluster/resources.yaml", "gpus: 0, cpus: 1, memory: 4G, minutes: 30", "gpus: 0", "default.encode should give gpus, cpus, memory,"),
    ("cluster/resources.yaml", "default:", "default: {", "cluster/resources.yaml: can't be read"),
    ("profiles/smoke.args", "judge.epochs=1", "judge.epochs=-1", "params.yaml: judge.epochs = -1 should be"),
    ("profiles/smoke.args", "judge.epochs", "judge.epoch", "profiles/smoke.args: Could not override 'judge.epoch'"),
    ("stages/encode.py", '"""', '"""  ', "stages/encode.py: differs from the commit"),
])
def test_wrong_files(project, file, old, new, says):
    text = (project / file).read_text()
    assert old in text
    (project / file).write_text(text.replace(old, new))
    assert says in refused(run(project, "submit", "--dry-run", "--profile", "smoke"))


def test_folders_that_are_in_no_clone(project):
    (project / "pictures").mkdir()
    (project / "params.yaml").write_text((project / "params.yaml").read_text().replace("backgrounds: builtin", "backgrounds: pictures"))
    commit(project, "backgrounds")
    try:
        assert "polymnist.backgrounds = pictures is not in git" in refused(run(project, "submit", "--dry-run"))
    finally:
        shell(project, "git", "reset", "--quiet", "--hard", "HEAD~")


@pytest.mark.skipif(bool(importlib.util.find_spec("submitit") and shutil.which("sbatch")), reason="submitit and Slurm are both here: nothing is missing that submit could name")
def test_without_submitit_or_slurm(project):
    line = refused(run(project, "submit"))
    assert ("sbatch is missing" if importlib.util.find_spec("submitit") else "pip install -r cluster/requirements.txt") in line


# ---- what a job does: for real, but by hand


def test_a_job_hands_its_stage_on_and_the_next_restores_it(project, tmp_path):
    """polymnist, then a stage that needs it and fails; the state files and what `cluster.status` and `cluster.gather` say."""
    folder = project / ".cluster/tiny"
    with Repo() as repo:
        name, settings = prepare.remote(repo)
    text = prepare.parameters("smoke", None)[0].replace("n_train: 2000", "n_train: 100").replace("digits: auto", "digits: embedded")
    prepare.project(folder, prepare.committed(), {0: text}, name, settings)
    jobs = {"polymnist": {"stage": "polymnist", "seed": 0, "after": [], "id": "1"},
            "train_judge": {"stage": "train_judge", "seed": 0, "after": ["polymnist"], "id": "2"},
            "train_vae@m1-seed0": {"stage": "train_vae@m1", "seed": 0, "after": ["train_judge"], "id": "3"}}
    (folder / "run.json").write_text(json.dumps({"commit": "", "profile": "smoke", "seeds": [0], "stages": [], "jobs": jobs}))
    out = {}
    for stage, device in (("polymnist", "cpu"), ("train_judge", "abacus")):
        (folder / "jobs" / stage).mkdir(parents=True)
        program = f"from cluster import job; job.run({str(folder / 'jobs' / stage)!r}, {stage!r}, 'seed0')"
        out[stage] = shell(project, sys.executable, "-c", program, check=False, DEVICE=device)
    assert out["polymnist"].returncode == 0, out["polymnist"].stderr
    assert not list((folder / "jobs/polymnist").glob("clone-*"))
    assert "Stage 'polymnist' is cached - skipping run, checking out outputs" in out["train_judge"].stdout
    assert out["train_judge"].returncode == 1 and "DEVICE=abacus" in out["train_judge"].stderr
    shown = table(run(project, "status").stdout)
    assert [each["state"] for each in shown.values()] == ["done", "failed", "cancelled"]
    (folder / "jobs/train_judge/2_0_log.out").write_text("")
    line = refused(run(project, "gather"))
    assert "tiny: 2 of 3 jobs are not done; train_judge failed, its log is .cluster/tiny/jobs/train_judge/2_0_log.out" in line


def test_a_command_that_is_told_to_stop_is_waited_for(tmp_path):
    """As submitit does it: `stop` in a handler of SIGUSR2, which does not end the command itself."""
    program = tmp_path / "stage.py"
    program.write_text("import signal, sys, time\ndef stop(*_):\n    time.sleep(.5); open('kept', 'w'); sys.exit(130)\n"
                       "signal.signal(signal.SIGINT, stop)\nopen('up', 'w')\ntime.sleep(60)\n")
    parent = ("import os, signal, sys\nfrom cluster import job\ndef handle(*_):\n    job.stop()\n    sys.exit(7)\n"
              "signal.signal(signal.SIGUSR2, handle)\n"
              "from pathlib import Path\njob.command(Path('.'), 0, sys.executable, 'stage.py')")
    process = subprocess.Popen([sys.executable, "-c", parent], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    while not (tmp_path / "up").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR2)
    assert process.wait(20) == 7 and (tmp_path / "kept").exists()


# ---- what status makes of squeue and state files


@pytest.mark.parametrize("queued, noted, state", [
    (("PENDING", "", "Dependency"), None, "waiting"),
    (("PENDING", "", "Resources"), None, "waiting (Resources)"),
    (("PENDING", "", "BeginTime"), "running", "waiting (BeginTime)"),
    (("RUNNING", "n1", "None"), "running", "running"),
    (("COMPLETING", "n1", "None"), "done", "done"),
    (None, "done", "done"),
    (None, "failed", "failed"),
    (None, "running", "lost"),
    (None, None, "cancelled"),
])
def test_states(tmp_path, monkeypatch, queued, noted, state):
    monkeypatch.setattr(status, "squeue", lambda ids: {"7": queued} if queued else {})
    (tmp_path / "jobs/a").mkdir(parents=True)
    (tmp_path / "run.json").write_text(json.dumps({"jobs": {"a": {"stage": "a", "seed": 0, "after": [], "id": "7"}}}))
    if noted:
        job.note(tmp_path / "jobs/a", noted, time.time() - 60)
    found = status.states(tmp_path)["a"]
    assert found["state"] == state and found["minutes"] == ("1.0" if noted else "")


def test_runs_are_found_and_missed_by_name(tmp_path):
    for k, name in enumerate(("b-1", "a-2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text("{")
        os.utime(tmp_path / name / "run.json", (k, k))
    assert status.find(tmp_path).name == "a-2" and status.find(tmp_path, "b-1").name == "b-1"
    with pytest.raises(UserError, match="no run c; there are b-1, a-2"):
        status.find(tmp_path, "c")
    with pytest.raises(UserError, match="run.json: can't be read"):
        status.read(tmp_path / "a-2")


def test_pins_are_exact():
    lines = [line for line in (ROOT / "cluster/requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines and all(re.fullmatch(r"[a-z-]+==[0-9.]+", line) for line in lines)
