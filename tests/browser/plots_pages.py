"""Pages of `dvc plots` for one, two and three revisions of the committed reports.

    python -m tests.browser.plots_pages FOLDER

check_plots.py looks at them.
"""

import json
import sys
import tempfile
from pathlib import Path

from tests.project import clone, commit, shell

TAGS = ("first", "second", "third")
REVISIONS = {"one": ["show"], "two": ["diff", *TAGS[:2]], "three": ["diff", *TAGS]}


def main():
    out = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = clone(Path(name))
        files = [folder / f"reports/plots/{curve}.json" for curve in ("coherence", "frechet")]
        original = {file: json.loads(file.read_text()) for file in files}
        shell(folder, "git", "tag", "first")
        for tag, factor in (("second", 0.9), ("third", 0.8)):
            for file, rows in original.items():
                changed = [{**row, "value": factor * row["value"]} for row in rows]
                file.write_text(json.dumps(changed))
            commit(folder, tag)
            shell(folder, "git", "tag", tag)
        for count, words in REVISIONS.items():
            shell(folder, "dvc", "plots", *words, "--out", str(out / count))


if __name__ == "__main__":
    main()
