"""What imports may do: nothing happens, and they point one way."""

import ast
import graphlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = {  # of the library, by name of the module
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for file in sorted((ROOT / "ebmvae").rglob("*.py"))
}
METHOD_PARTS = (
    "random",
    "messages",
    "shapes",
)  # of core that have to do with neither file nor device
MAY_IMPORT = {
    "core": ["core"],
    "sources": ["sources", "paths", "core"],
    "data": ["data", "core"],
    "vae": ["vae", "core"],
    **{name: [name, "vae", "core"] for name in ("ebm", "annealed", "baselines")},
    "evaluation": ["evaluation", "methods", "paths", "data", "vae", "core"],
    "reporting": ["reporting", "methods", "core"],
    "methods": [],
    "params": ["methods", "core"],
    "command": ["core"],
    "paths": [],
}


def imported(source):
    """Names of all modules that `source` imports, at its top or in a function."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            names.update((parts & FILES.keys()) or {node.module})
    return names


IMPORTED = {name: imported(file.read_text()) for name, file in FILES.items()}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_one_way(package):
    allowed = [f"ebmvae.{name}" for name in MAY_IMPORT[package]]
    for module, names in IMPORTED.items():
        if module.split(".")[1:2] == [package]:
            for name in names:
                root, *_ = name.split(".")
                assert root not in ("stages", "tools", "cluster", "benchmarks", "tests"), module
                assert root != "ebmvae" or ".".join(name.split(".")[:2]) in allowed, module


def test_every_package_has_its_rule():
    assert {name.split(".")[1] for name in FILES if name != "ebmvae"} == MAY_IMPORT.keys()


@pytest.mark.parametrize("package", ["ebm", "annealed", "baselines", "vae"])
def test_methods_know_nothing_of_files_dvc_or_devices(package):
    core = {f"ebmvae.core.{name}" for name in METHOD_PARTS}
    for module, names in IMPORTED.items():
        if module.startswith(f"ebmvae.{package}"):
            assert {name for name in names if name.startswith("ebmvae.core")} <= core, module
            assert not names & {"os", "io", "pathlib", "json", "subprocess", "dvc"}, module
            calls = [
                n for n in ast.walk(ast.parse(FILES[module].read_text())) if hasattr(n, "func")
            ]
            assert not {"open", "torch.device"} & {ast.unparse(call.func) for call in calls}, module
            assert "torch.cuda" not in FILES[module].read_text(), module


def test_no_cycles():
    graph = {name: names & FILES.keys() - {name} for name, names in IMPORTED.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter({"a": {"b"}, "b": {"a"}}).prepare()


WATCH = """
import importlib, os, random, signal, sys
import matplotlib, matplotlib.font_manager, numpy, torch  # may fill caches of their own
from pathlib import Path

def state():
    return {
        "folder": (os.getcwd(), os.listdir()),
        "environment": dict(os.environ),
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "deterministic": torch.get_deterministic_debug_mode(),
        "precision": torch.backends.mkldnn.matmul.fp32_precision,
        "torch": torch.get_rng_state().tolist(),
        "numpy": str(numpy.random.get_state()),
        "random": random.getstate(),
        "backend": str(dict.__getitem__(matplotlib.rcParams, "backend")),
        "signals": [signal.getsignal(number) for number in signal.valid_signals()],
    }

def written(event, arguments):
    names = ("os.mkdir", "os.rename", "os.remove", "subprocess.Popen", "socket.connect")
    if event in names or event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        changes.append((event, str(arguments[0])))

sys.path.insert(0, sys.argv[1])
before, changes = state(), []
sys.addaudithook(written)
for name in sys.argv[2:]:
    importlib.import_module(name)
    after = state()
    changes += [key for key in before if after[key] != before[key]]
    assert not changes, f"{name}: {changes}"
assert "matplotlib.pyplot" not in sys.modules
"""


def test_nothing_happens_at_import(tmp_path):
    """No file, no folder, no environment, no thread, no random number, no signal, no backend."""
    environment = {k: v for k, v in os.environ.items() if k not in ("MPLBACKEND", "PYTHONPATH")}
    command = [sys.executable, "-B", "-c", WATCH, str(ROOT), *FILES]
    done = subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True)
    assert done.returncode == 0 and done.stdout == done.stderr == "", done.stderr
