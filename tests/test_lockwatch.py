"""What outlives DVC and mends what DVC was killed while writing: dvc.lock and its own rwlock."""

import fcntl
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from voluptuous import Invalid

from stages.lib import lockwatch
from tests.project import ROOT, shell

STAGE = """
import sys
from pathlib import Path
from stages.lib import runtime
def main():
    runtime.begin(sys.argv[1])
    with open(f"{sys.argv[1]}.log", "a") as log:
        log.write("ran ")
    Path(sys.argv[1]).write_text("of " + Path(sys.argv[2]).read_text())
runtime.run(main)
"""
# DVC itself, but for its second dvc.lock: of that it writes a share, and is gone by SIGKILL.
KILLED = """
import io, os, signal, sys
from dvc.cli import main
from dvc.utils.serialize import _yaml
write, written = _yaml._dump, []
def killed(data, stream):
    text = io.StringIO()
    write(data, text)
    written.append(1)
    if len(written) < 2:
        return stream.write(text.getvalue())
    stream.write(text.getvalue()[:int({share} * len(text.getvalue()))])
    stream.flush()
    os.kill(os.getpid(), signal.SIGKILL)
_yaml._dump = killed
sys.exit(main(["repro", "-q"]))
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Two stages that begin as ours do, run; and their dvc.lock."""
    folder = tmp_path_factory.mktemp("watched")
    (folder / "stage.py").write_text(STAGE)
    stage = lambda out, dep: {"cmd": f"python stage.py {out} {dep}", "deps": [dep], "params": ["x"], "outs": [out]}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"first": stage("b", "a"), "second": stage("c", "b")}}))
    (folder / "params.yaml").write_text("x: {y: null, z: [1, 2]}\n")
    (folder / "a").write_text("digits")
    shell(folder, "git", "init", "-q")
    shell(folder, "dvc", "init", "-q")
    shell(folder, "dvc", "repro", "-q", PYTHONPATH=str(ROOT))
    return folder, (folder / "dvc.lock").read_text()


def soon(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def watched(folder):
    return list((folder / ".dvc/tmp").glob("lockwatch-*"))


@pytest.mark.parametrize("interpreter", ["/bin/sh", "/bin/bash"])  # the first may stay between DVC and the stage, the second doesn't
@pytest.mark.parametrize("share", [0, 0.4, 0.9])
def test_a_plain_dvc_repro_goes_on_after_a_kill_amid_dvc_lock(project, share, interpreter):
    folder, whole = project
    for name in ("dvc.lock", "b", "c", "b.log", "c.log", "dvc.lock.damaged"):
        (folder / name).unlink(missing_ok=True)
    (folder / "a").write_text(f"digits {share} {interpreter}")  # nothing of it is in the run cache
    done = shell(folder, sys.executable, "-c", KILLED.format(share=share), check=False, PYTHONPATH=str(ROOT), SHELL=interpreter)
    assert done.returncode == -9
    shell(folder, "dvc", "repro", "-q", PYTHONPATH=str(ROOT))  # at once
    assert not lockwatch.whole((folder / "dvc.lock.damaged").read_text())
    assert (folder / "b.log").read_text() == (folder / "c.log").read_text() == "ran "
    assert "up to date" in shell(folder, "dvc", "status").stdout
    soon(lambda: not watched(folder))


def test_a_beginning_that_passes_for_whole_is_one_that_dvc_reads(project):
    _, whole = project
    passed = [end for end in range(len(whole) + 1) if lockwatch.whole(whole[:end])]
    for end in passed:
        COMPILED_LOCKFILE_SCHEMA(yaml.safe_load(whole[:end]))
    assert passed[-1] == len(whole) and 1 < len(passed) < whole.count("\n")
    with pytest.raises(Invalid):  # the schema is one that refuses
        COMPILED_LOCKFILE_SCHEMA(yaml.safe_load(whole[: whole.index("    deps:") + len("    deps:\n")]))
    assert lockwatch.whole((ROOT / "dvc.lock").read_text())


@pytest.mark.parametrize("text", ["", "schema: '2.0'\n", "schema: '2.0'\nstages:\n", "schema: '1.0'\nstages: {}\n", "a: [\n", "- a\n", "\0\n"])
def test_what_is_not_whole(text):
    assert not lockwatch.whole(text)


def watch_one_that_is_gone(folder):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    return subprocess.Popen([sys.executable, "-m", "stages.lib.lockwatch", str(gone.pid)], cwd=folder, env={"PYTHONPATH": str(ROOT)})


def test_what_another_dvc_is_writing_is_left_alone(project):
    folder, whole = project
    lock = folder / "dvc.lock"
    lock.write_text(whole[:50])
    (folder / "dvc.lock.damaged").unlink(missing_ok=True)
    with open(folder / ".dvc/tmp/lock", "a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        process = watch_one_that_is_gone(folder)
        time.sleep(1)
        assert process.poll() is None
        lock.write_text(whole)
    assert process.wait(10) == 0
    assert lock.read_text() == whole and not (folder / "dvc.lock.damaged").exists()


def test_dvcs_rwlock_is_mended_too(project):
    folder, _ = project
    rwlock = folder / ".dvc/tmp/rwlock"
    rwlock.write_text('{"write": {')
    assert shell(folder, "dvc", "repro", "-q", "-f", check=False, PYTHONPATH=str(ROOT)).returncode != 0  # DVC refuses it
    assert watch_one_that_is_gone(folder).wait(10) == 0
    shell(folder, "dvc", "repro", "-q", "-f", PYTHONPATH=str(ROOT))
    assert Path(f"{rwlock}.damaged").exists()
