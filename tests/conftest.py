"""The one smoke run that several test files look at."""

import pytest

from tests.project import clone, commit, shell, smoke_args


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A clone after `make smoke`, two stages at once. What tests change they put back."""
    folder = clone(tmp_path_factory.mktemp("finished"))
    shell(folder, "git", "config", "user.name", "t")
    shell(folder, "git", "config", "user.email", "t@example.org")
    (folder / "profiles/smoke.args").write_text(" ".join(smoke_args()) + "\n")
    shell(folder, "make", "smoke", "JOBS=2")
    commit(folder, "smoke run")
    return folder
