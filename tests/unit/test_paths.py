"""Where a user's files lie when DVC runs a stage in a copy of the project."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ebmvae import paths
from ebmvae.core.messages import UserError
from ebmvae.evaluation import features
from ebmvae.sources.backgrounds import load_backgrounds


@pytest.fixture(params=[".", "sub/folder"])
def copied(request, tmp_path, monkeypatch):
    """A project, perhaps in a folder of its repository, and the current folder a copy of it."""
    root, copy = tmp_path / "a blank/pröject", tmp_path / "a blank/pröject/.dvc/tmp/exps/tmp1"
    for folder in (root, copy):
        (folder / ".dvc").mkdir(parents=True, exist_ok=True)
        (folder / request.param).mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv("DVC_ROOT", str(root))
    monkeypatch.chdir(copy / request.param)
    return root / request.param


def test_a_copy_knows_its_project(copied):
    assert paths.project() == copied


@pytest.mark.parametrize("root", [None, "", ".", "link", "gone"])
def test_no_copy(tmp_path, monkeypatch, root):
    """Also through a link, from a folder below, and with a DVC_ROOT that is no folder."""
    (tmp_path / "project/.dvc").mkdir(parents=True)
    (tmp_path / "project/below").mkdir()
    (tmp_path / "link").symlink_to("project")
    monkeypatch.delenv("DVC_ROOT", raising=False)
    if root is not None:
        value = str(tmp_path / root) if root in ("link", "gone") else root
        monkeypatch.setenv("DVC_ROOT", value)
    for folder in ("project", "link") + (("project/below",) if root == "link" else ()):
        monkeypatch.chdir(tmp_path / folder)
        assert paths.project() is None
        assert paths.locate("data/raw") == Path("data/raw")


def test_the_current_folder_comes_first(copied):
    (copied / "mine").mkdir()
    assert paths.locate("mine") == copied / "mine"
    Path("mine").mkdir()
    assert paths.locate("mine") == Path("mine")
    assert paths.locate(copied / "mine") == copied / "mine"
    assert paths.locate("nowhere") == Path("nowhere")


def test_backgrounds_of_the_project_are_read_in_a_copy(copied):
    (copied / "pictures").mkdir()
    for k in range(2):
        Image.fromarray(np.full((30, 30, 3), k, np.uint8)).save(copied / f"pictures/{k}.png")
    pictures, sources = load_backgrounds("pictures", 2)
    assert [int(picture[0, 0, 0]) for picture in pictures] == [0, 1]
    (copied / "outside.png").write_bytes((copied / "pictures/1.png").read_bytes())
    (copied / "pictures/1.png").unlink()
    (copied / "pictures/1.png").symlink_to("../outside.png")
    with pytest.raises(UserError, match="link out of"):
        load_backgrounds("pictures", 2)


def test_inceptions_weights_in_the_projects_data_raw_are_not_fetched_again(copied):
    (copied / "data/raw").mkdir(parents=True)
    (copied / "data/raw" / features.INCEPTION).write_bytes(b"weights")
    assert features.download(Path("data/raw")) == copied / "data/raw" / features.INCEPTION
