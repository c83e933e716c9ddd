"""What tests of the whole project share: temporary clones, and commands in them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
METHODS = ["eb_mvae", "eb_mvae_annealed", "poe", "moe", "mopoe", "mvtcae"]
MADE = ["data", "models", "latents", "results", "reports", "dvc.lock"]


def shell(folder, *command, check=True, **env):
    """Run a command in `folder` with this environment's programs first; returns the finished process."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={
        **os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1", "DEVICE": "cpu", **env})
    if check and done.returncode:
        pytest.fail(f"{command} ended with {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done


def clone(folder):
    """A fresh repository with the files git tracks here or would, and this environment as its .venv."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / ".git").exists() or shell(folder, "git", "init", "-q", "-b", "main")
    commit(folder, "start")
    return folder


def commit(folder, message):
    shell(folder, "git", "add", "-A", ":!.venv")
    shell(folder, "git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", message)


def smoke_args():
    args = re.sub("#.*", "", (ROOT / "profiles" / "smoke.args").read_text()).split()
    return args if os.environ.get("MNIST_DIR") else [*args, "-S", "polymnist.digits=embedded"]


def figures_are_there(folder):
    """The five figures are pictures of the right width, not empty, and each has its PDF."""
    for name in ("figure1", "figure2", "figure3", "grid", "training"):
        with Image.open(folder / f"reports/figures/{name}.png") as image:
            assert 600 < image.width < 900
            assert len(image.convert("L").getcolors(256 * 256)) > 20  # not an empty canvas
        assert (folder / f"reports/figures/{name}.pdf").read_bytes().startswith(b"%PDF")
