"""A short run of the deep suite (`make torture`): faults of every kind, none survived wrongly."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
COUNTS = {"kills": 8, "signals": 4, "damages": 21, "bits": 21, "checkpoints": 2, "parameters": 25, "pictures": 29, "disks": 0,
          "dvc-kills": 2, "dvc-signals": 2}


def test_a_short_torture():
    options = [part for name, count in COUNTS.items() for part in (f"--{name}", str(count))]
    done = subprocess.run([sys.executable, "-m", "tests.torture", *options], cwd=ROOT, text=True, capture_output=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "DEVICE": "cpu"})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = [json.loads(line.split(": ", 1)[1].rsplit(", ", 1)[0].replace("'", '"')) for line in done.stdout.splitlines() if ": {" in line]
    assert len(rows) == 10 and all(row["lost"] == 0 for row in rows)
    assert sum(row["survived"] for row in rows) >= sum(COUNTS.values()) - 1
