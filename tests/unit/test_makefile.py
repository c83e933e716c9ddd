"""What make looks at before it installs anything, and how many stages it starts at once."""

import shutil
import sys

import pytest

from benchmarks import workspace
from tests.project import ROOT, shell

TARGETS = ("repro", "test", "check", "smoke", ".venv/installed")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """As a zip of the repository leaves it: without .git, not below a repository either."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    for name in ("GIT_DIR", "MAKEFLAGS", "MAKELEVEL", "JOBS"):  # `make check` sets some
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "zip").mkdir()
    for file in ("Makefile", "requirements.txt"):
        shutil.copy(ROOT / file, tmp_path / "zip")
    return tmp_path / "zip"


def script(folder, name, text):
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)
    return folder / name


def install(folder, *target, **env):
    """make with a Python that is too old: stderr, whether Python was asked for its version."""
    python = script(folder, "python", "echo >> called; exit 1")
    done = shell(folder, "make", f"PYTHON={python}", *target, check=False, **env)
    assert done.returncode == 2 and not (folder / ".venv").exists()
    return done.stderr, (folder / "called").exists()


def assert_refused(folder, *target, **env):
    """One line, its remedy, and then make's own; before Python was looked at."""
    err, called = install(folder, *target, **env)
    line, makes = err.splitlines()
    assert line.startswith("error: ") and "git repository" in line and "git init" in line
    assert makes.startswith("make: ***") and not called


@pytest.mark.parametrize("target", TARGETS)
def test_a_zip_of_the_repository_is_refused_at_once(folder, target):
    assert_refused(folder, target)


def test_a_worktree_whose_repository_has_gone_and_a_machine_without_git(folder):
    (folder / ".git").write_text("gitdir: /nowhere/.git/worktrees/zip\n")
    assert_refused(folder, "repro", "-j2")
    (folder / ".git").unlink()
    for name in ("make", "sh", "sed"):
        (folder / name).symlink_to(shutil.which(name))
    assert_refused(folder, "repro", PATH=str(folder))


def test_a_zip_after_the_install_is_refused_too(folder):
    (folder / ".venv").mkdir()
    (folder / ".venv/installed").touch()
    done = shell(folder, "make", "repro", check=False)
    assert done.returncode == 2 and "git init" in done.stderr and len(done.stderr.split("\n")) == 3


@pytest.mark.parametrize("kind", ["clone", "worktree", "subfolder", "another owner's"])
def test_what_is_a_repository_goes_on(folder, kind):
    """A worktree has a file in the place of the folder .git; another owner's is no matter."""
    main = folder if kind in ("clone", "another owner's") else folder.parent
    shell(main, "git", "init", "-q")
    if kind == "worktree":
        (folder / ".git").write_text(f"gitdir: {main}/.git\n")
    other = {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"} if kind == "another owner's" else {}
    assert install(folder, "repro", **other)[1]


def jobs(folder, *settings):
    """What `make repro` gives as the number of jobs."""
    shell(folder, "git", "init", "-q")
    out = shell(folder, "make", "-n", "repro", *settings).stdout
    return out.partition("--keep-going --jobs ")[2].split()[0]


def test_as_many_stages_at_once_as_there_are_cores(folder):
    """On macOS, which has no sched_getaffinity, too; and one where nobody knows."""
    cut = 'import os; os.__dict__.pop("sched_getaffinity", 0); os.cpu_count = lambda: {}'
    for count, expected in (("3", "3"), ("None", "1")):
        text = f"exec {sys.executable} -c '{cut.format(count)}\n'\"$2\""
        python = script(folder, "python", text)
        assert jobs(folder, f"PYTHON={python}") == expected
    cores = str(workspace.cores())
    assert jobs(folder, f"PYTHON={sys.executable}") == cores


def test_an_empty_number_of_jobs_is_one_and_not_all(folder):
    assert jobs(folder, "JOBS=") == jobs(folder, "JOBS= ") == jobs(folder, "PYTHON=false") == "1"
    assert jobs(folder, "JOBS=7") == "7"
