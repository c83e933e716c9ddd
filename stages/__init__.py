"""The stages. Who started this process is noted before anything else is loaded, which takes seconds: it may be gone by then."""

import os

PARENT = os.getppid()  # DVC, where DVC started it
