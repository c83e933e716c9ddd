"""How far a change reaches, by DVC's own word (docs/extending.md): a comment, then `dvc repro`."""

import contextlib
import re

import pytest
from dvc.repo import Repo

from ebmvae.methods import METHODS
from tests.project import ROOT, contents, shell

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inside DVC
MVTCAE = ["train_baseline@mvtcae", "evaluate@mvtcae", "report"]
NOWHERE = [
    *(f"ebmvae/{name}.py" for name in ("params", "command")),
    *("tools/parallel.py", "cluster/submit.py", "tests/project.py", "docs/scaling.md", "Makefile"),
]
REACH = [
    (["ebmvae/baselines/mvtcae.py"], MVTCAE),
    (["ebmvae/ebm/score_matching.py"], ["fit_ebm", "evaluate@eb_mvae", "report"]),
    (["ebmvae/ebm/langevin.py"], ["evaluate@eb_mvae", "report"]),
    *(
        ([f"ebmvae/annealed/{file.name}"], ["fit_annealed", "evaluate@eb_mvae_annealed", "report"])
        for file in sorted((ROOT / "ebmvae/annealed").glob("[a-z]*.py"))
    ),
    (["ebmvae/reporting/claims.py"], ["report"]),
    (["ebmvae/reporting/page.html.j2"], ["report"]),
    (["ebmvae/methods.py"], ["report"]),
    (
        ["ebmvae/evaluation/metrics.py"],
        ["references", *(f"evaluate@{method}" for method in METHODS), "report"],
    ),
    (NOWHERE, []),
]


@pytest.fixture
def edited(finished):
    """Appends a comment to files of the finished clone, which are put back afterwards."""
    before = {}

    def edit(files):
        for file in files:
            before[file] = (finished / file).read_bytes()
            (finished / file).write_bytes(before[file] + b"# a comment\n")

    yield edit
    for file, content in before.items():
        (finished / file).write_bytes(content)


def stale(folder, **options):
    """What `dvc repro` would run, in its order."""
    with contextlib.chdir(folder), Repo() as repo:
        return [stage.addressing for stage in repo.reproduce(dry=True, **options)]


@pytest.mark.parametrize("files, stages", REACH, ids=[files[0] for files, _ in REACH])
def test_how_far_a_comment_reaches(finished, edited, files, stages):
    edited(files)
    assert sorted(stale(finished)) == sorted(stages)


def test_a_comment_in_a_loss_runs_three_stages_and_changes_no_byte(finished, edited):
    before = contents(finished, "models", "results")
    edited(["ebmvae/baselines/mvtcae.py"])
    done = shell(finished, "dvc", "repro")
    assert re.findall(r"Running stage '(.*)'", done.stdout) == MVTCAE
    assert contents(finished, "models", "results") == before
    shell(finished, "git", "checkout", "-q", ".")
    assert stale(finished) == []


def test_the_committed_run_is_that_of_the_committed_parameters_and_code():
    assert (ROOT / "dvc.lock").exists(), "commit a default run"
    assert stale(ROOT, allow_missing=True) == []
