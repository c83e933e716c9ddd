"""The order in which stages complete does not matter: the smallest DAG in random orders, two stages at once; same lock, same bytes.

dvc.lock is the committed one before, as in any clone: into an empty one DVC writes stages in the order in which they complete.

    python -m tests.cluster.orders [--orders 10]      # about a minute an order
"""

import argparse
import hashlib
import random
import re
import sys
import tempfile
from pathlib import Path

from benchmarks.workspace import set_params
from tests.project import MADE, clone, commit, shell
from tests.torture import TINY


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=10)
    count = parser.parse_args().orders
    expected, orders = None, []
    for order in range(count + 1):
        with tempfile.TemporaryDirectory() as name:
            folder = clone(Path(name))
            set_params(folder, TINY)
            commit(folder, "tiny")
            if order == 0:
                shell(folder, "dvc", "repro")
            else:
                ran = in_random_order(folder, random.Random(order))
                orders.append(ran)
            found = made(folder)
            status = shell(folder, "dvc", "status").stdout
            assert "up to date" in status, status
        expected = expected or found
        different = sorted(file for file in expected.keys() | found.keys() if expected.get(file) != found.get(file))
        print(f"order {order}: {'dvc repro, one after the other' if order == 0 else ' '.join(ran)}: {len(found)} files, "
              f"{len(different)} different {different[:5]}", flush=True)
        if different:
            sys.exit(1)
    assert len({tuple(ran) for ran in orders}) == count, "two orders were the same"
    print(f"{count} orders of completion, all different: the same {len(expected)} files, byte for byte")


def in_random_order(folder, rng):
    """Run the DAG by make, two stages at once, what can start in an order drawn by `rng`; the stages as they completed."""
    text = shell(folder, sys.executable, "-m", "cluster.rules").stdout
    stages = re.search("^all: (.*)$", text, re.M)[1].split()
    text = re.sub("^all: .*$", lambda _: "all: " + " ".join(rng.sample(stages, len(stages))), text, flags=re.M)
    text = re.sub(r"^(\t@dvc .* (\S+))$", r"\1 && echo \2 >> completed", text, flags=re.M)
    (folder / ".dvc/tmp").mkdir(exist_ok=True)
    (folder / ".dvc/tmp/rules.mk").write_text(text)
    shell(folder, "make", "--keep-going", "--jobs", "2", "--file", ".dvc/tmp/rules.mk")
    completed = folder / "completed"
    ran = completed.read_text().split()
    completed.unlink()
    assert sorted(ran) == sorted(stages)
    return ran


def made(folder):
    """SHA-256 of every file that a run makes."""
    files = [file for name in MADE for file in ([folder / name] if (folder / name).is_file() else sorted((folder / name).rglob("*")))]
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()}


if __name__ == "__main__":
    main()
