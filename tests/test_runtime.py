"""What a stage notices of its surroundings: edits while it runs, a parent that is gone, standard output that is full."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from stages.lib import provenance, runtime

ROOT = Path(__file__).parent.parent
DVC = """
stages:
  train_vae:
    matrix: {modality: [m1]}
    params: [threads, vae]
  train_baseline:
    matrix: {method: [poe, moe]}
    params: ["baseline.beta.${item.method}"]
  evaluate:
    foreach: {moe: {params: baseline.beta.moe}, eb_mvae: {params: ebm}}
    do:
      params: [seed, "${item.params}"]
"""
PARAMS = "threads: 1\nseed: 0\nvae: {beta: 0.1}\nebm: {steps: 4}\nbaseline: {beta: {moe: 1, poe: 2}, dim: 3}\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").write_text(DVC)
    Path("params.yaml").write_text(PARAMS)
    forget = provenance.as_started.cache_clear
    forget()
    yield tmp_path
    forget()


@pytest.mark.parametrize("stage, before, after, found", [
    ("train_vae@m1", "beta: 0.1", "beta: 0.2", ["vae"]),
    ("train_vae@m1", "threads: 1", "threads: 2", ["threads"]),
    ("train_baseline@moe", "moe: 1", "moe: 3", ["baseline.beta.moe"]),
    ("train_baseline@moe", "poe: 2", "poe: 5", []),  # another's
    ("train_vae@m1", "steps: 4", "steps: 5", []),  # no parameter of this stage
    ("train_vae@m1", "vae: {beta: 0.1}\n", "", ["vae"]),
    ("evaluate@eb_mvae", "steps: 4", "steps: 5", ["ebm"]),
    ("evaluate@moe", "steps: 4", "steps: 5", []),
    ("evaluate@moe", "moe: 1", "moe: 3", ["baseline.beta.moe"]),
    ("", "beta: 0.1", "beta: 0.2", []),  # without DVC nobody takes note
])
def test_parameters_edited_while_a_stage_ran(folder, monkeypatch, stage, before, after, found):
    monkeypatch.setenv("DVC_STAGE", stage)
    provenance.as_started()
    assert provenance.edited() == []
    Path("params.yaml").write_text(PARAMS.replace(before, after))
    assert provenance.edited() == found


@pytest.mark.parametrize("half", ["stages: {train_vae: {", "", "stages: {other: {}}"])
def test_a_dvc_yaml_half_saved_is_an_edit(folder, monkeypatch, half):
    monkeypatch.setenv("DVC_STAGE", "train_vae@m1")
    provenance.as_started()
    Path("dvc.yaml").write_text(half)
    assert provenance.edited() == ["dvc.yaml"]


def test_an_editors_lock_is_no_code(folder, monkeypatch):
    """Emacs puts a link to nowhere beside a file that is being edited."""
    monkeypatch.setattr(provenance, "__file__", str(folder / "stages/lib/provenance.py"))
    (folder / "stages/lib").mkdir(parents=True)
    (folder / "stages/a.py").write_text("1")
    (folder / "stages/.#a.py").symlink_to("someone@somewhere.1:2")
    assert list(provenance.as_started()[0]) == ["a.py"]


def test_code_edited_while_a_stage_ran(folder, monkeypatch):
    monkeypatch.setenv("DVC_STAGE", "train_vae@m1")
    code, values = provenance.as_started()
    changed = {**code, Path(runtime.__file__).relative_to(ROOT / "stages").as_posix(): "other", "lib/unused.py": "other"}  # one is loaded
    monkeypatch.setattr(provenance, "as_started", lambda: (changed, values))
    assert provenance.edited() == ["stages/lib/runtime.py"]


STAGE = """
import time
from pathlib import Path
from stages.lib import provenance, runtime
def main():
    runtime.begin("train_vae m1")
    {body}
    Path("done").write_text("1")
runtime.run(main)
"""


def start(folder, body, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DVC_STAGE": "train_vae@m1"}
    return subprocess.Popen([sys.executable, "-c", STAGE.format(body=body)], cwd=folder, env=environment, text=True,
                            stderr=subprocess.PIPE, **options)


def test_a_stage_that_was_edited_ends_with_one_line_and_2(folder):
    stage = start(folder, "Path('params.yaml').write_text(Path('params.yaml').read_text().replace('0.1', '0.3'))")
    _, text = stage.communicate()
    assert stage.returncode == 2 and re.fullmatch("error: vae: edited while this stage ran, .*; start it again\n", text)


@pytest.mark.parametrize("unbuffered, code", [("1", 2), ("", 120)])  # 120 is Python's: it tried once more as it ended
def test_standard_output_that_is_full_is_no_traceback(folder, monkeypatch, unbuffered, code):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    with open("/dev/full", "w") as full:
        stage = start(folder, "print('x', flush=True)", stdout=full)
        _, text = stage.communicate()
    assert stage.returncode == code and "error: [Errno 28] No space left" in text and "Traceback" not in text and not Path("done").exists()


def test_a_signal_when_all_is_done_is_too_late(folder):
    """Checkpoints go only when outputs are whole, and then nothing stops it half-way."""
    stage = start(folder, "runtime.at_success(lambda: (Path('now').touch(), time.sleep(1), Path('last').touch()))")
    while not Path("now").exists():
        assert stage.poll() is None
        time.sleep(0.02)
    stage.terminate()
    stage.communicate()
    assert stage.returncode == 0 and Path("last").exists()


def test_ctrl_c_while_torch_is_loading_shows_no_traceback(tmp_path):
    (tmp_path / "torch.py").write_text("import sys, time; print('loading', flush=True); time.sleep(60)")  # for as long as we need
    code = f"import os, runpy, sys; sys.path[:0] = [{str(tmp_path)!r}]; sys.argv[0] = '-m'; runpy.run_module('stages.encode', run_name='__main__')"
    stage = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert stage.stdout.readline() == "loading\n"
    stage.send_signal(signal.SIGINT)
    _, text = stage.communicate(timeout=10)
    assert stage.returncode == -signal.SIGINT and text == ""


@pytest.mark.parametrize("between", [[], ["sh", "-c", '"$@" && :', "-"], [sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:])"]],
                         ids=["nothing", "shell", "program"])
@pytest.mark.parametrize("outer", [{}, {"DVC_STAGE": "fit_ebm"}], ids=["by hand", "DVC"])
def test_who_started_it_is_noted_before_anything_is_loaded(between, outer):
    """Up to DVC, which has started what stands between, too."""
    code = "import sys, stages; assert 'torch' not in sys.modules and 'yaml' not in sys.modules; print(*stages.PARENTS)"
    process = subprocess.Popen([*between, sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True,
                               env={"PATH": os.environ["PATH"], **outer})
    said = [int(pid) for pid in process.communicate()[0].split()]
    assert process.returncode == 0 and said == (([process.pid] if between else []) + [os.getpid()] if outer else [])


@pytest.mark.parametrize("environment, expected", [
    ({}, "0 1"), ({"RANK": "3"}, "0 1"), ({"WORLD_SIZE": "4"}, "0 1"), ({"RANK": "", "WORLD_SIZE": ""}, "0 1"), ({"RANK": "0", "WORLD_SIZE": "1"}, "0 1"), ({"RANK": "3", "WORLD_SIZE": "4"}, "3 4")])
def test_a_rank_counts_only_among_several(environment, expected):
    said = subprocess.run([sys.executable, "-c", "from stages.lib import runtime; print(runtime.RANK, runtime.PROCESSES)"], cwd=ROOT,
                          env={"PATH": os.environ["PATH"], **environment}, text=True, capture_output=True, check=True).stdout
    assert said.strip() == expected


@pytest.mark.parametrize("has, precision", [({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({}, "ieee")])
def test_matmul_precision_is_what_the_processor_has_and_says_so_where_it_has_none(monkeypatch, capsys, has, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    before = torch.backends.mkldnn.matmul.fp32_precision
    with runtime.matmul_precision(torch.device("cpu"), "bf16"):
        assert torch.backends.mkldnn.matmul.fp32_precision == precision
    assert torch.backends.mkldnn.matmul.fp32_precision == before
    assert ("matmul_precision" in capsys.readouterr().err) == (precision == "ieee")
    assert runtime.describe(torch.device("cpu"), "bf16")["matmul_precision"] == precision
    with runtime.matmul_precision(torch.device("cpu"), "ieee"):
        assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
    assert capsys.readouterr().err == ""
