"""Where a file of the user lies that git and DVC do not carry along. No output follows from it.

`dvc exp run --temp` and `--queue` run in a copy of the project, in .dvc/tmp/exps, that has only
what git or DVC tracks. DVC sets DVC_ROOT to the project it was copied from.
"""

import os
from pathlib import Path


def project() -> Path | None:
    """The folder in the project that the current one is a copy of; None where it is no copy."""
    root = Path(os.environ.get("DVC_ROOT") or ".").absolute()
    here = Path.cwd()
    own = next((folder for folder in (here, *here.parents) if (folder / ".dvc").is_dir()), here)
    if not root.is_dir() or root.samefile(own):
        return None
    return root / here.relative_to(own)


def places(path) -> list[Path]:
    """Where `path` may lie: as given, and if that is relative, in the project copied from too."""
    copied_from = project()
    relative = copied_from and not Path(path).is_absolute()
    return [Path(path), copied_from / path] if relative else [Path(path)]


def locate(path) -> Path:
    """The first of `places` where something lies; `path` itself where nothing does."""
    return next((place for place in places(path) if os.path.lexists(place)), Path(path))
