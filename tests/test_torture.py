"""A short run of the deep suite (`make torture`): faults of every kind, none survived wrongly."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests import torture

ROOT = Path(__file__).parent.parent
COUNTS = {"kills": 8, "signals": 4, "damages": 21, "bits": 21, "checkpoints": 2, "parameters": 25, "pictures": 29, "disks": 0,
          "dvc-kills": 0, "dvc-signals": 0}  # a pass through DVC takes more than a minute; test_lockwatch.py kills it at the worst moment


def test_the_page_shows_the_last_full_run_and_nothing_was_lost_in_it():
    table = json.loads((ROOT / "docs/reliability.json").read_text())
    assert torture.markdown(table) in (ROOT / "docs/reliability.md").read_text()
    assert all(found["lost"] == 0 for found in table.values())
    least = {"SIGKILL to a stage": 100, "SIGTERM or SIGINT to a stage": 30, "SIGKILL to dvc repro": 20, "SIGTERM or SIGINT to dvc repro": 30,
             "file cut short": 200, "bit flipped": 200, "parameters": 60, "pictures": 25, "full disk, read-only outputs": 40}
    assert all(table[kind]["survived"] >= count for kind, count in least.items())


def test_a_short_torture():
    options = [part for name, count in COUNTS.items() for part in (f"--{name}", str(count))]
    done = subprocess.run([sys.executable, "-m", "tests.torture", *options], cwd=ROOT, text=True, capture_output=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "DEVICE": "cpu"})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = [json.loads(line.split(": ", 1)[1].rsplit(", ", 1)[0].replace("'", '"')) for line in done.stdout.splitlines() if ": {" in line]
    assert len(rows) == 10 and all(row["lost"] == 0 for row in rows)
    assert sum(row["survived"] for row in rows) >= sum(COUNTS.values()) - 1
