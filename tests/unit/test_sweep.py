"""The sweep, with a function in place of dvc that answers as DVC does. For real: `make sweep`."""

import sys

import pytest
from matplotlib import rc_context
from PIL import Image

from ebmvae.core.messages import UserError
from tools import sweep

QUEUED = """Queueing with overrides ...
Queued experiment 'freed-mime' for future execution.
Queued experiment 'boned-yolk' for future execution.
"""
STATUS = """Task     Name        Created    Status
8a2e01f  freed-mime  08:24 AM   {}
eb84c1a  boned-yolk  08:24 AM   {}

Worker status: 1 active, 0 idle
"""
METRICS = ",".join(f"eb_mvae.{metric}" for metric in sweep.SHOWN)
SHOWN = f"""Experiment,rev,{METRICS},ebm.langevin_steps,ebm.step_size
,workspace,.9,1,.9,1,40,0.45
freed-mime,8a,0.5,300,0.4,400,20,0.3
boned-yolk,eb,0.6,200,0.5,350,10,0.3
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Calls the command with DVC's answers; returns the calls of DVC."""

    def call(*arguments, clean="Data and pipelines are up to date.", end="Success"):
        calls = []
        states = iter([("Running", "Queued"), ("Success", "Running"), ("Success", end)])

        def dvc(*words):
            calls.append(" ".join(words))
            answers = {"status": clean, "exp run": QUEUED, "exp show": SHOWN, "queue start": ""}
            if words == ("queue", "status"):
                return STATUS.format(*next(states))
            return answers[" ".join(words[:2])]

        monkeypatch.setattr(sweep, "dvc", dvc)
        monkeypatch.setattr(sweep.time, "sleep", float)
        monkeypatch.setattr(sys, "argv", ["sweep", *arguments])
        sweep.main()
        return calls

    monkeypatch.chdir(tmp_path)
    return call


def test_points_are_queued_run_gathered_and_drawn(run, tmp_path, capsys):
    calls = run("--steps", "10,20", "--step-size", "0.3", "--jobs", "3")
    queue = "exp run --queue -S ebm.langevin_steps=10,20 -S ebm.step_size=0.3"
    assert calls[:3] == ["status", queue, "queue start --jobs 3"]
    assert calls.count("queue status") == 3
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["boned-yolk", "10", "0.3", "0.6", "200", "0.5", "350"] in rows
    with Image.open(tmp_path / "dvc_plots/sweep.png") as image:
        assert image.size == (880, 550) and len(image.convert("L").getcolors(65536)) > 20


def test_the_picture_is_the_same_whatever_a_users_matplotlibrc_says(run, tmp_path):
    pictures = []
    for settings in ({}, {"text.usetex": True, "font.size": 20, "savefig.bbox": "tight"}):
        with rc_context(settings):
            run()
        pictures.append((tmp_path / "dvc_plots/sweep.png").read_bytes())
    assert pictures[0] == pictures[1]


@pytest.mark.parametrize(
    "answers, named",
    [({"clean": "train_vae@m1:\n\tchanged deps"}, "dvc status"), ({"end": "Failed"}, "boned-yolk")],
)
def test_what_is_wrong_is_named(run, tmp_path, answers, named):
    with pytest.raises(UserError, match=named):
        run(**answers)
    assert not list(tmp_path.iterdir())


def test_a_missing_metric_is_named(run, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "SHOWN", SHOWN.replace("m3_distance", "m3_d"))
    with pytest.raises(UserError, match="eb_mvae.m3_distance"):
        run()
