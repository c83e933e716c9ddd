"""How a command starts, stops and fails. No output follows from it, so it is in no stage's deps.

Exit codes: 2 for a `UserError`, as one line on stderr; 130 for SIGINT, 143 for SIGTERM.
"""

import argparse
import contextlib
import signal
import sys
import time

from ebmvae.core.messages import Stopped, UserError, say, seconds

try:
    import fcntl
except ImportError:  # on Windows; `run` says so
    fcntl = None


def parser(description: str) -> argparse.ArgumentParser:
    """An argument parser that shows a module's docstring as it is written."""
    style = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(description=description, formatter_class=style)


def run(main) -> None:
    """Call `main()` as a command: see the exit codes above.

    A mistake in the code shows its traceback.
    """
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _stop)
    try:
        if fcntl is None:
            raise UserError("this system has no file locks of Unix (fcntl); on Windows, use WSL")
        main()
    except UserError as error:
        say(f"error: {error}")
        sys.exit(2)
    except Stopped as stopped:
        say(f"stopped by {stopped}")
        sys.exit(128 + stopped.signum)


def _stop(signum, frame):
    signal.signal(signum, signal.SIG_DFL)  # a second one ends the process at once
    raise Stopped(signum)


@contextlib.contextmanager
def exclusive(*name: str):
    """Inside, this process alone runs stage `name`; then its checkpoints are removed.

    A killed `dvc repro` leaves its child running, which keeps the lock until it ends. The next one
    waits LOCK_SECONDS of the environment, 60 without, then raises `UserError`.
    """
    from ebmvae.core import checkpoints  # with torch, which most commands need not wait for

    stage = " ".join(name)
    file = checkpoints.FOLDER / f"{stage}.lock"
    try:
        file.parent.mkdir(exist_ok=True)
        lock = open(file, "w")
    except OSError as error:
        raise UserError(f"{file}: can't be written ({error.strerror})") from None
    with lock:
        _acquire(lock, stage, seconds("LOCK_SECONDS"))
        yield
        checkpoints.clear(stage)


def _acquire(lock, stage, patience):
    """Lock the open file `lock`; raises `UserError` after `patience` seconds."""
    end, waiting = time.monotonic() + patience, False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > end:
                raise UserError(
                    f"{stage}: another process runs this stage in this folder and holds "
                    f"{lock.name}; wait for it or end it"
                ) from None
        except OSError as error:
            raise UserError(
                f"{lock.name}: can't be locked ({error.strerror}); use a file system with locks"
            ) from None
        if not waiting:
            say(f"{stage}: waiting for another process that runs this stage")
            waiting = True
        time.sleep(0.2)
