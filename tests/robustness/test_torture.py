"""A sample of the deep suite (`make torture`): faults of every kind, none survived wrongly."""

import ast
import json
import re
import sys

from tests.project import ROOT, shell
from tests.robustness import torture

COUNTS = {
    **{"kills": 4, "signals": 3, "damages": 19, "bits": 19, "checkpoints": 2},
    **{"parameters": 20, "pictures": 29, "disks": 0},
    **{"dvc-kills": 0, "dvc-signals": 0},  # a pass through DVC takes more than a minute
}


def test_the_page_shows_the_last_full_run_and_nothing_was_lost_in_it():
    table = json.loads((ROOT / "docs/reliability.json").read_text())
    assert torture.markdown(table) in (ROOT / "docs/reliability.md").read_text()
    assert list(table) == list(torture.FAULTS)
    for kind, (_, full, _) in torture.FAULTS.items():
        assert table[kind]["survived"] >= full and table[kind]["lost"] == 0, kind


def test_a_sample_of_the_torture():
    options = [f"--{name}={count}" for name, count in COUNTS.items()]
    done = shell(ROOT, sys.executable, "-m", "tests.robustness.torture", *options)
    tallies = dict(re.findall(r"^(\w.*): ({.*}), \d+ s$", done.stdout, re.M))
    assert list(tallies) == list(torture.FAULTS)
    for tally, least in zip(tallies.values(), COUNTS.values(), strict=True):
        assert ast.literal_eval(tally)["survived"] >= least, done.stdout
