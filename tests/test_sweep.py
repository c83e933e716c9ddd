"""The sweep with a program in place of dvc that answers as DVC does (its words are those of a real run); the real thing is `make sweep`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
DVC = """#!{python}
import sys
from pathlib import Path
words = " ".join(sys.argv[1:])
calls = Path("calls"); calls.write_text((calls.read_text() if calls.exists() else "") + words + "\\n")
if words == "status":
    print({status!r})
elif words.startswith("exp run --queue"):
    print("Queueing with overrides ...\\nQueued experiment 'freed-mime' for future execution.\\nQueued experiment 'boned-yolk' for future execution.")
elif words == "queue status":
    done = calls.read_text().count("queue status") > 1
    print("Task     Name        Created    Status\\n8a2e01f  freed-mime  08:24 AM   " + ("Success" if done else "Running"))
    print("eb84c1a  boned-yolk  08:24 AM   " + ({end!r} if done else "Queued") + "\\n\\nWorker status: 1 active, 0 idle")
elif words.startswith("exp show"):
    print("Experiment,rev,eb_mvae.m3_coherence,eb_mvae.m3_distance,eb_mvae.mean_coherence,eb_mvae.mean_distance,ebm.langevin_steps,ebm.step_size")
    print(",workspace,.9,1,.9,1,40,0.45\\nfreed-mime,8a,0.5,300,0.4,400,20,0.3\\nboned-yolk,eb,0.6,200,0.5,350,10,0.3")
"""


def sweep(folder, *arguments, status="Data and pipelines are up to date.", end="Success"):
    program = folder / "bin" / "dvc"
    program.parent.mkdir()
    program.write_text(DVC.format(python=sys.executable, status=status, end=end))
    program.chmod(0o755)
    return subprocess.run([sys.executable, "-m", "cluster.sweep", *arguments], cwd=folder, text=True, capture_output=True,
                          env={**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)})


def test_points_are_queued_run_gathered_and_drawn(tmp_path):
    done = sweep(tmp_path, "--steps", "10,20", "--step-size", "0.3", "--jobs", "3")
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[:3] == ["status", "exp run --queue -S ebm.langevin_steps=10,20 -S ebm.step_size=0.3", "queue start --jobs 3"]
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0][:3] == ["sweep:", "2", "points,"]
    assert lines[2:4] == [["boned-yolk", "10", "0.3", "0.6", "200", "0.5", "350"], ["freed-mime", "20", "0.3", "0.5", "300", "0.4", "400"]]
    with Image.open(tmp_path / "dvc_plots/sweep.png") as image:
        assert image.size == (880, 550) and len(image.convert("L").getcolors(65536)) > 20


@pytest.mark.parametrize("options, says", [
    ({"status": "train_vae@m1:\n\tchanged deps"}, "`dvc status` is not clean: `make repro` first"),
    ({"end": "Failed"}, "boned-yolk failed; `dvc queue logs boned-yolk` shows why"),
])
def test_what_is_wrong_is_one_line(tmp_path, options, says):
    done = sweep(tmp_path, **options)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and says in done.stderr
    assert not (tmp_path / "dvc_plots").exists()
