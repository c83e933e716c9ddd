"""Code and parameters that a process follows from: as it found them, and whether they were edited since."""

import functools
import hashlib
import os
import re
import sys
from pathlib import Path

import yaml


@functools.cache
def as_started():
    """Code and parameters as this process found them: {file of stages/: SHA-256}, and what params.yaml holds."""
    return _look()


def _look():
    code, file = Path(__file__).parents[1], Path("params.yaml")
    digests = {each.relative_to(code).as_posix(): hashlib.sha256(each.read_bytes()).hexdigest()
               for each in sorted(code.rglob("*.py")) if each.is_file()}  # an editor's lock is a link to nowhere
    try:
        return digests, yaml.safe_load(file.read_text()) if file.exists() else {}
    except (OSError, ValueError, IndexError, yaml.YAMLError):
        return digests, None  # params.load says what is wrong with it


def edited():
    """Names of files and parameters that this stage follows from and that were edited since it started.

    DVC reads them for dvc.lock only when a stage has ended. Without DVC nothing is noted, and nothing is wrong.
    """
    name, _, item = os.environ.get("DVC_STAGE", "").partition("@")
    if not name or not Path("dvc.yaml").exists():
        return []
    (code, values), (code_now, values_now) = as_started(), _look()
    here = Path(__file__).parents[1]
    used = {Path(module.__file__) for module in list(sys.modules.values()) if getattr(module, "__file__", None)}
    try:
        stage = yaml.safe_load(Path("dvc.yaml").read_text())["stages"][name]
        # In a foreach an item has fields; in a matrix, of one dimension here, it is the value itself.
        of_item = lambda match: stage["foreach"][item][match[1]] if "foreach" in stage else item
        keys = [re.sub(r"\$\{item\.(\w+)\}", of_item, key) for key in stage.get("do", stage).get("params", [])]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return ["dvc.yaml"]  # half saved; as DVC read it, it had this stage

    def value(content, key):
        for part in key.split("."):
            content = content.get(part) if isinstance(content, dict) else None
        return content

    return [f"stages/{file}" for file in code if here / file in used and code[file] != code_now.get(file)] + [
        key for key in keys if value(values, key) != value(values_now, key)]


as_started()  # now: loading torch takes seconds
