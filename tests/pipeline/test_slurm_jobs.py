"""Slurm jobs without Slurm, on real DVC; on a real one: `make test-cluster`."""

import importlib.util
import json
import os
import re
import shutil
import sys
import time

import pytest
import yaml
from dvc.repo import Repo

from cluster import gather, prepare
from ebmvae.core.messages import UserError
from tests.project import ROOT, clone, commit, shell

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inside DVC


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A clone of this project with a remote."""
    folder = clone(tmp_path_factory.mktemp("submit"))
    shell(folder, "dvc", "remote", "add", "--quiet", "-d", "shared", "../remote")
    commit(folder, "remote")
    return folder


@pytest.fixture
def project(original, tmp_path, monkeypatch):
    """That clone as the working folder, put back afterwards; Slurm, if here, knows no job."""
    (tmp_path / "squeue").write_text("#!/bin/sh\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.chdir(original)
    yield original
    shell(original, "git", "checkout", "--quiet", ".")
    shell(original, "git", "clean", "--quiet", "-fd", "-e", ".venv")
    shutil.rmtree(original / ".cluster", ignore_errors=True)


def run(folder, module, *arguments):
    return shell(folder, sys.executable, "-m", f"cluster.{module}", *arguments, check=False)


def table(output):
    """{first column: {head: value}} of what `status.show` prints."""
    lines = [line for line in output.splitlines() if line.startswith("  ")]
    head, *rows = [re.split(r"\s{2,}", line.strip()) for line in lines]
    return {row[0]: dict(zip(head, row, strict=False)) for row in rows}


def refused(done):
    """The one line of an error."""
    assert done.returncode == 2 and done.stderr.startswith("error: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_a_dry_run_shows_the_jobs_and_makes_nothing(project):
    done = run(project, "submit", "--dry-run", "--profile", "paper", "--seeds", "2")
    assert done.returncode == 0, done.stderr
    assert "paper" in done.stdout and f"{project.parent}/remote" in done.stdout
    jobs = table(done.stdout)
    vae = jobs["train_vae@m2-seed1"]
    assert [vae[key] for key in ("gpus", "cpus", "memory", "minutes")] == ["1", "2", "16G", "480"]
    assert jobs["polymnist"]["after"] == "-" and not (project / ".cluster").exists()


def test_parameters_are_those_of_dvc_exp_run(project):
    text = prepare.parameters("smoke", 2)[1]
    words = re.sub("#.*", "", (ROOT / "profiles/smoke.args").read_text()).split()
    shell(project, "dvc", "exp", "run", "--queue", "-S", "seed=1", *words)
    queued = shell(project, "git", "show", "refs/exps/celery/stash:params.yaml").stdout
    shell(project, "dvc", "queue", "remove", "--all")
    assert text == queued


def test_without_a_remote(project):
    (project / ".dvc/config").write_text((ROOT / ".dvc/config").read_text())
    assert ".dvc/config" in refused(run(project, "submit", "--dry-run"))


def test_what_jobs_take_from_the_commit_has_to_be_there(project):
    for name in ("params.yaml", "stages/encode.py", "ebmvae/params.py", "tools/parallel.py"):
        with open(project / name, "a") as file:
            file.write("\n# changed\n")
        with pytest.raises(UserError, match=name):
            prepare.committed()
        shell(project, "git", "checkout", "--quiet", name)
    with open(project / "cluster/resources.yaml", "a") as file:
        file.write("\n# changed\n")
    assert prepare.committed()


def test_without_submitit_or_slurm_it_is_named(project):
    missing = "sbatch" if importlib.util.find_spec("submitit") else "cluster/requirements.txt"
    if missing == "sbatch" and shutil.which("sbatch"):
        pytest.skip("submitit and Slurm are both here")
    assert missing in refused(run(project, "submit"))


def submitted(project):
    """A run of three jobs as `cluster.submit` leaves it, on the smallest data; its folder."""
    folder = project / ".cluster/tiny"
    with Repo() as repo:
        name, settings = prepare.remote(repo)
    text = prepare.parameters("smoke", None)[0].replace("digits: auto", "digits: embedded")
    content = yaml.safe_load(text)
    content["polymnist"]["n_train"] = 100
    prepare.project(folder, prepare.committed(), {0: yaml.safe_dump(content)}, name, settings)
    jobs, after = {}, []
    stages = ("polymnist", "train_classifiers", "train_vae@m1")
    for number, stage in enumerate(stages, start=1):
        jobs[stage] = {"stage": stage, "seed": 0, "after": after, "id": str(number)}
        after = [stage]
    note = {"commit": "", "profile": "smoke", "seeds": [0], "stages": ["x"], "jobs": jobs}
    (folder / "run.json").write_text(json.dumps(note))
    return folder


def work(project, folder, stage, **env):
    """What Slurm has the job of this stage do."""
    job = folder / "jobs" / stage
    job.mkdir(parents=True)
    program = f"from cluster import job; job.run({str(job)!r}, {stage!r}, 'seed0')"
    return shell(project, sys.executable, "-c", program, check=False, **env)


def test_a_job_hands_its_stage_on_and_the_next_restores_it(project):
    """polymnist, then a stage that needs it and fails; then by hand, what gather does."""
    folder = submitted(project)
    first = work(project, folder, "polymnist")
    assert first.returncode == 0, first.stderr
    assert not list((folder / "jobs/polymnist").glob("clone-*"))
    second = work(project, folder, "train_classifiers", DEVICE="abacus")
    assert "Stage 'polymnist' is cached" in second.stdout
    assert second.returncode == 1 and "DEVICE=abacus" in second.stderr
    states = [row["state"] for row in table(run(project, "status").stdout).values()]
    assert states == ["done", "failed", "cancelled"]
    assert "train_classifiers" in refused(run(project, "gather"))
    shutil.copy(folder / "project/params.yaml", project)
    gather.restore(["polymnist"], ["polymnist"])  # from the remote: it runs nothing
    assert (project / "data/polymnist").is_dir()


def test_gather_stops_dvc_where_it_would_run_a_stage(project, monkeypatch):
    """The stage too, which is below DVC and would otherwise go on."""
    stage = {"cmd": "echo $$ > pid; exec sleep 60", "outs": ["never"]}
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"slow": stage}}))
    refuse, pid = gather.refuse_to_run, project / "pid"

    def refuse_late(lines, stages):
        """As late as the stage is running."""
        try:
            refuse(lines, stages)
        finally:
            end = time.monotonic() + 10
            while not (pid.exists() and pid.read_text()) and time.monotonic() < end:
                time.sleep(0.02)

    monkeypatch.setattr(gather, "refuse_to_run", refuse_late)
    with pytest.raises(UserError, match="slow"):
        gather.restore(["slow"], ["slow"])
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
