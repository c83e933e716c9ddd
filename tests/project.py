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
MADE = ["data", "models", "latents", "results", "reports", "dvc.lock"]
SMALLER = ("polymnist.n_train=600", "vae.batch_size=8")  # than the smoke profile


def environment(**more):
    """This process's, with its programs first, one thread and no GPU."""
    path = f"{BIN}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "DEVICE": "cpu", **more}


def shell(folder, *command, check=True, **env):
    """Run a command in `folder`, by default to success; returns the finished process."""
    env = environment(**env)
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=env)
    if check and done.returncode:
        output = f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        pytest.fail(f"{command} ended with {done.returncode}:\n{output}")
    return done


def clone(folder):
    """A fresh repository with the files git tracks here or would, and this environment as .venv."""
    listed = shell(ROOT, "git", "ls-files", "-co", "--exclude-standard", "-z").stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    venv = folder / ".venv"
    venv.mkdir()
    for part in Path(sys.prefix).iterdir():
        (venv / part.name).symlink_to(part)
    (venv / "installed").unlink(missing_ok=True)
    (venv / "installed").touch()  # so that make installs nothing
    shell(folder, "git", "init", "-q", "-b", "main")
    commit(folder, "start")
    return folder


def commit(folder, message):
    shell(folder, "git", "add", "-A")
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    shell(folder, "git", *who, "commit", "-qm", message)


def smoke_args():
    """The smoke profile's arguments for `dvc exp run`, and what makes it smaller still."""
    settings = re.sub("#.*", "", (ROOT / "profiles/smoke.args").read_text()).split()
    digits = () if os.environ.get("MNIST_DIR") else ("polymnist.digits=embedded",)
    return [*settings, *(word for value in (*SMALLER, *digits) for word in ("-S", value))]


def contents(folder, *paths):
    """Every file below these paths, {path: bytes}."""
    files = (file for path in paths for file in sorted((folder / path).rglob("*")))
    return {str(file.relative_to(folder)): file.read_bytes() for file in files if file.is_file()}


def figures_are_there(folder):
    """The five figures are pictures of the right width, not empty, and each has its PDF."""
    for name in ("figure1", "figure2", "figure3", "grid", "training"):
        with Image.open(folder / f"reports/figures/{name}.png") as image:
            assert 600 < image.width < 900
            assert len(image.convert("L").getcolors(256 * 256)) > 20  # not an empty canvas
        assert (folder / f"reports/figures/{name}.pdf").read_bytes().startswith(b"%PDF")
