"""What code this is: digests of its files, for checkpoints, seeds and the report."""

import hashlib
import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]  # of the project
# No output follows from these but by parameters and file names, which count by themselves.
EXEMPT = {ROOT / "ebmvae" / name for name in ("params.py", "command.py", "methods.py")}


def digests(files) -> dict[str, str]:
    """{path below ROOT: SHA-256} of Python files; a folder stands for all below it."""
    listed = set()
    for file in (ROOT / name for name in files):
        listed.update(file.rglob("*.py") if file.is_dir() else [file])
    listed = {file for file in listed if file.is_file()}  # an editor's lock is a link to nowhere
    return {
        file.relative_to(ROOT).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(listed - EXEMPT)
    }


def loaded() -> dict[str, str]:
    """`digests` of the files of ebmvae/ and stages/ that this process has loaded."""
    names = {getattr(module, "__file__", None) for module in list(sys.modules.values())} - {None}
    folders = (ROOT / "ebmvae", ROOT / "stages")
    return digests(n for n in names if any(Path(n).is_relative_to(folder) for folder in folders))


def combined(files) -> str:
    """One SHA-256 of all `digests` of these files."""
    return hashlib.sha256(json.dumps(digests(files), sort_keys=True).encode()).hexdigest()
