"""The smoke profile on a real Slurm, with faults, against a serial run: `make test-cluster`; not collected by pytest, for its name.

Three trainings are hit once they have a checkpoint: one killed, one told that its time is up, one's node set down. In the end
dvc.lock and every output have to equal those of `dvc exp run` in another clone.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cluster import status
from tests.project import BIN, MADE, ROOT, clone, commit, shell, smoke_args

KILLED, TIMED_OUT, NODE_DOWN = "train_judge", "train_vae@m1-seed0", "train_baseline@mopoe-seed0"
LIMIT = 1800  # seconds


def main():
    begun = time.monotonic()
    folder = tempfile.mkdtemp(prefix="test-cluster-")  # removed only where all went well
    with slurm(Path(folder) / "slurm"):
        print(f"{seconds(begun)}: Slurm is up")
        serial, ours = project(Path(folder) / "serial"), project(Path(folder) / "ours")
        shell(ours, "dvc", "remote", "add", "--quiet", "-d", "shared", f"{folder}/remote")
        shell(ours, sys.executable, "-m", "cluster.submit", "--profile", "smoke", CHECKPOINT_SECONDS="0.2")
        run = status.find(ours / ".cluster")
        print(f"{seconds(begun)}: submitted {len(status.read(run)['jobs'])} jobs")
        faults(run)
        jobs = wait(run, lambda jobs: all(each["state"] in ("done", "failed", "lost", "cancelled") for each in jobs.values()))
        print(shell(ours, sys.executable, "-m", "cluster.status").stdout, end="")
        print(f"{seconds(begun)}: all jobs have ended")
        print(shell(ours, sys.executable, "-m", "cluster.gather").stdout.splitlines()[-1])
        print(f"{seconds(begun)}: gathered")
        assert "up to date" in shell(ours, "dvc", "status").stdout
        for name in (KILLED, TIMED_OUT, NODE_DOWN):
            went_on = [line for line in Path(jobs[name]["log"]).read_text().splitlines() if "going on from step" in line]
            print(f"{name}: {jobs[name]['starts']} starts; {went_on[-1:]}")
            assert jobs[name]["starts"] >= 2 and went_on
        shell(serial, "dvc", "exp", "run", *smoke_args())
        print(f"{seconds(begun)}: serial run")
        files = sorted(f.relative_to(serial) for made in MADE for f in [serial / made, *(serial / made).rglob("*")] if f.is_file())
        different = [str(f) for f in files if not (ours / f).exists() or (serial / f).read_bytes() != (ours / f).read_bytes()]
        assert len(files) > 100 and different == [], different
        print(f"{seconds(begun)}: {len(files)} files, dvc.lock among them, equal those of the serial run")
    shutil.rmtree(folder)


@contextlib.contextmanager
def slurm(folder):
    """The real Slurm, its files in `folder`; stopped at the end."""
    script = ROOT / "tests/cluster/slurm.sh"
    folder.parent.chmod(0o755)  # munge wants its socket to be seen by all
    try:
        subprocess.run([script, "start", folder], check=True)
        os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
        yield
    finally:
        subprocess.run(["scancel", "--user", "root"], check=False)
        for _ in range(60):  # a daemon that is gone ends no job
            if not subprocess.run(["squeue", "--noheader"], capture_output=True, text=True).stdout.strip():
                break
            time.sleep(0.5)
        subprocess.run([script, "stop", folder], check=False)


def project(folder):
    """A clone of this project with its smoke profile as `smoke_args` has it."""
    folder.mkdir()
    clone(folder)
    for key, value in (("user.name", "t"), ("user.email", "t@example.org")):
        shell(folder, "git", "config", key, value)
    (folder / "profiles/smoke.args").write_text(" ".join(smoke_args()) + "\n")
    commit(folder, "smoke profile")
    return folder


def faults(run):
    """Hit each of the three trainings as soon as it has a checkpoint; the node that is set down is back after 15 seconds."""
    ids = {name: each["id"] for name, each in status.read(run)["jobs"].items()}
    left = {KILLED: lambda: sh("scancel", "--signal=KILL", f"{ids[KILLED]}.0"),  # without .0 Slurm takes it for cancelling
            TIMED_OUT: lambda: sh("scancel", "--signal=USR2", ids[TIMED_OUT]),  # what Slurm sends before the time is up
            NODE_DOWN: lambda: down.update({node_of(ids[NODE_DOWN]): time.monotonic() + 15})}
    end, down = time.monotonic() + LIMIT, {}
    while left or down:
        for name in list(left):
            if list((run / "jobs" / name / "checkpoints").glob("*.checkpoint")):
                left.pop(name)()
                print(f"hit: {name}", flush=True)
        for node in [node for node, back in down.items() if time.monotonic() > back]:
            sh("scontrol", "update", f"NodeName={node}", "State=RESUME")
            down.pop(node)
            print(f"{node} was down", flush=True)
        missed = [name for name, each in status.states(run).items() if name in left and each["state"] == "done"]
        assert not missed and time.monotonic() < end, f"never seen with a checkpoint: {', '.join(left)}"
        time.sleep(0.05)


def node_of(job):
    """The node of `job`, set down."""
    node = sh("squeue", "--noheader", "--format", "%N", "--job", job).strip()
    sh("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
    return node


def wait(run, ended):
    """The jobs' states, once `ended` says so of them."""
    end = time.monotonic() + LIMIT
    while not ended(jobs := status.states(run)):
        assert time.monotonic() < end, jobs
        time.sleep(1)
    return jobs


def sh(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def seconds(begun):
    return f"{time.monotonic() - begun:.0f} s"


if __name__ == "__main__":
    os.environ["PATH"] = f"{BIN}:{os.environ['PATH']}"
    main()
