"""What is said to the user: errors that they can mend, lines, paths as they would type them."""

import contextlib
import os
import re
import signal
import sys
from pathlib import Path


class UserError(Exception):
    """Something the user can mend: one line that names the key or file, and the remedy."""

    def __init__(self, message):
        super().__init__(" ".join(str(message).splitlines()))  # file names may hold line breaks


class Stopped(BaseException):
    """SIGINT or SIGTERM came. Not an `Exception`: nothing but `command.run` should catch it."""

    def __init__(self, signum: int):
        self.signum = signum
        super().__init__(signal.Signals(signum).name)


def say(line: str) -> None:
    """One line on stderr, above whatever a progress bar shows. Nobody may be left to read it."""
    from tqdm import tqdm

    with contextlib.suppress(OSError, ValueError):
        tqdm.write(line, file=sys.stderr)
        sys.stderr.flush()


def relative(path) -> str:
    """`path` as the user would type it from the project's folder."""
    try:
        return str(Path(path).resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def seconds(variable: str) -> float:
    """A number of seconds from the environment, 60 without; raises `UserError` for no number."""
    value = os.environ.get(variable, "60")
    if not re.fullmatch(r"[0-9]+(\.[0-9]*)?", value):
        raise UserError(f"{variable}={value} is not a number of seconds")
    return float(value)
