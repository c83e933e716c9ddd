"""Pages of `dvc plots` for one, two and three revisions of the committed reports, for check_plots.py to look at.

    python -m tests.browser.plots_pages FOLDER
"""

import json
import sys
import tempfile
from pathlib import Path

from tests.project import clone, commit, shell

REVISIONS = {"one": ["show"], "two": ["diff", "first", "second"], "three": ["diff", "first", "second", "third"]}


def main():
    out = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = clone(Path(name))
        shell(folder, "git", "tag", "first")
        original = {curve: json.loads((folder / f"reports/plots/{curve}.json").read_text()) for curve in ("coherence", "frechet")}
        for tag, factor in (("second", 0.9), ("third", 0.8)):
            for curve, rows in original.items():
                (folder / f"reports/plots/{curve}.json").write_text(json.dumps([{**row, "value": factor * row["value"]} for row in rows]))
            commit(folder, tag)
            shell(folder, "git", "tag", tag)
        for count, words in REVISIONS.items():
            shell(folder, "dvc", "plots", *words, "--out", str(out / count))


if __name__ == "__main__":
    main()
