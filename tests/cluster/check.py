"""The smoke profile on a real Slurm, with faults, against a serial run: `make test-cluster`.

Three trainings are hit once they have a checkpoint: one killed, one told that its time is up, one's
node set down. In the end dvc.lock and every output have to equal those of `dvc exp run` in another
clone. pytest does not collect this file, for its name.
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

KILLED, TIMED_OUT = "train_classifiers", "train_vae@m1-seed0"
NODE_DOWN = "train_baseline@mopoe-seed0"
ENDED = ("done", "failed", "lost", "cancelled")
LIMIT = 1800  # seconds


def main():
    begun = time.monotonic()
    folder = tempfile.mkdtemp(prefix="test-cluster-")  # removed only where all went well
    with slurm(Path(folder) / "slurm"):
        print(f"{seconds(begun)}: Slurm is up")
        serial, ours = project(Path(folder) / "serial"), project(Path(folder) / "ours")
        shell(ours, "dvc", "remote", "add", "--quiet", "-d", "shared", f"{folder}/remote")
        submit = [sys.executable, "-m", "cluster.submit", "--profile", "smoke"]
        shell(ours, *submit, CHECKPOINT_SECONDS="0.2")
        run = status.find(ours / ".cluster")
        print(f"{seconds(begun)}: submitted {len(status.read(run)['jobs'])} jobs")
        faults(run)
        jobs = ended(run)
        print(shell(ours, sys.executable, "-m", "cluster.status").stdout, end="")
        print(f"{seconds(begun)}: all jobs have ended")
        print(shell(ours, sys.executable, "-m", "cluster.gather").stdout.splitlines()[-1])
        print(f"{seconds(begun)}: gathered")
        assert "up to date" in shell(ours, "dvc", "status").stdout
        for name in (KILLED, TIMED_OUT, NODE_DOWN):
            log = Path(jobs[name]["log"]).read_text().splitlines()
            resumed = [line for line in log if "going on from step" in line]
            print(f"{name}: {jobs[name]['starts']} starts; {resumed[-1:]}")
            assert jobs[name]["starts"] >= 2 and resumed
        shell(serial, "dvc", "exp", "run", *smoke_args())
        print(f"{seconds(begun)}: serial run")
        n_files = equal(serial, ours)
        print(f"{seconds(begun)}: {n_files} files, dvc.lock among them, equal the serial run's")
    shutil.rmtree(folder)


def equal(one, other):
    """How many files a run makes; all that `one` has are the same in `other`."""
    paths = [path for name in MADE for path in (one / name, *(one / name).rglob("*"))]
    files = sorted(path.relative_to(one) for path in paths if path.is_file())
    missing = [str(file) for file in files if not (other / file).exists()]
    assert len(files) > 100 and not missing, missing
    different = [str(f) for f in files if (one / f).read_bytes() != (other / f).read_bytes()]
    assert not different, different
    return len(files)


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
            queue = subprocess.run(["squeue", "--noheader"], capture_output=True, text=True).stdout
            if not queue.strip():
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
    """Hit each of the three trainings as soon as it has a checkpoint.

    The node that is set down is back after 15 seconds.
    """
    ids = {name: entry["id"] for name, entry in status.read(run)["jobs"].items()}
    down = {}  # node: when it comes back
    left = {
        # Without .0 Slurm takes it for cancelling.
        KILLED: lambda: sh("scancel", "--signal=KILL", f"{ids[KILLED]}.0"),
        # What Slurm sends before the time is up.
        TIMED_OUT: lambda: sh("scancel", "--signal=USR2", ids[TIMED_OUT]),
        NODE_DOWN: lambda: down.update({node_of(ids[NODE_DOWN]): time.monotonic() + 15}),
    }
    end = time.monotonic() + LIMIT
    while left or down:
        for name in list(left):
            if list((run / "jobs" / name / "checkpoints").glob("*.checkpoint")):
                left.pop(name)()
                print(f"hit: {name}", flush=True)
        for node in [node for node, back in down.items() if time.monotonic() > back]:
            sh("scontrol", "update", f"NodeName={node}", "State=RESUME")
            down.pop(node)
            print(f"{node} was down", flush=True)
        jobs = status.states(run)
        missed = [name for name in left if jobs[name]["state"] == "done"]
        late = time.monotonic() > end
        assert not missed and not late, f"never seen with a checkpoint: {', '.join(left)}"
        time.sleep(0.05)


def node_of(job):
    """The node of `job`, set down."""
    node = sh("squeue", "--noheader", "--format", "%N", "--job", job).strip()
    sh("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
    return node


def ended(run):
    """The jobs' states, once all have ended."""
    end = time.monotonic() + LIMIT
    while True:
        jobs = status.states(run)
        if all(entry["state"] in ENDED for entry in jobs.values()):
            return jobs
        assert time.monotonic() < end, jobs
        time.sleep(1)


def sh(*command):
    """What `command`, which has to succeed, prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def seconds(begun):
    """The time since `begun`, as text."""
    return f"{time.monotonic() - begun:.0f} s"


if __name__ == "__main__":
    os.environ["PATH"] = f"{BIN}:{os.environ['PATH']}"
    main()
