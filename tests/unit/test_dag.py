"""dvc.yaml against the code that it names, without running it."""

import ast
import re
from types import SimpleNamespace

import pytest
import yaml
from dvc.repo import Repo

from benchmarks.workspace import set_params
from ebmvae import params
from ebmvae.core import code
from ebmvae.methods import METHODS
from ebmvae.reporting import seeds
from tests.project import ROOT

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inside DVC
# No output follows from these.
EXEMPT = {f"ebmvae/{name}.py" for name in ("params", "command", "methods", "paths")}
EVALUATIONS = {f"evaluate@{method}" for method in METHODS}


@pytest.fixture(scope="module")
def stages():
    """{name: script, item, deps, outs, params} of dvc.yaml, its templates resolved by DVC."""
    with Repo(str(ROOT)) as repo:
        return {stage.addressing: parts(stage) for stage in repo.index.stages}


def parts(stage):
    keys = [dep.params for dep in stage.deps if dep.def_path == "params.yaml"]
    return SimpleNamespace(
        script=stage.cmd.split()[2].replace(".", "/") + ".py",
        item=stage.addressing.partition("@")[2],
        deps={dep.def_path for dep in stage.deps} - {"params.yaml"},
        outs={out.def_path for out in stage.outs},
        params=set().union(*keys),
    )


def imported(file, item=""):
    """Files that `file` imports, directly or not, and itself; item: the method of its stage."""
    closure, to_read = set(), [file]
    while to_read:
        file = to_read.pop()
        if file not in closure and (ROOT / file).is_file():
            closure.add(file)
            for node in ast.walk(ast.parse((ROOT / file).read_text())):
                to_read += [name.replace(".", "/") + ".py" for name in names(node, item)]
    return closure


def names(node, item):
    """Modules, and perhaps names in them, that a syntax node imports."""
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.Attribute) and node.attr == "import_module":
        return [METHODS[item].module] if item else [entry.module for entry in METHODS.values()]
    return []


def files(path):
    """Python files that a dependency on `path` covers."""
    below = (ROOT / path).rglob("*.py") if (ROOT / path).is_dir() else [ROOT / path]
    return {file.relative_to(ROOT).as_posix() for file in below}


def declared(stage):
    """The stage's dependencies that are code, {path: Python files}."""
    return {dep: files(dep) for dep in stage.deps if dep.split("/")[0] in ("stages", "ebmvae")}


def upstream(stages, name):
    """The stage and all that its inputs follow from."""
    needs = {other for other, stage in stages.items() if stage.outs & stages[name].deps}
    return {name}.union(*(upstream(stages, other) for other in needs))


def overlap(a, b):
    """Whether one of two keys of params.yaml is the other, or a part of it."""
    return f"{a}.".startswith(f"{b}.") or f"{b}.".startswith(f"{a}.")


def test_code_dependencies_cover_every_import(stages):
    for name, stage in stages.items():
        covered = EXEMPT.union(*declared(stage).values())
        assert imported(stage.script, stage.item) <= covered, name


def test_no_code_dependency_is_superfluous(stages):
    for name, stage in stages.items():
        used = imported(stage.script, stage.item)
        if name == "report":  # it tells by all this code which other seeds go with this run
            used |= set(code.digests((*seeds.SHARED_CODE, "ebmvae")))
        assert not [path for path, covered in declared(stage).items() if not covered & used], name


def test_packages_hold_nothing_that_a_stage_could_follow_from():
    for file in ROOT.glob("*/**/__init__.py"):
        if file.relative_to(ROOT).parts[0] in ("ebmvae", "stages"):
            body = ast.parse(file.read_text()).body
            assert len(body) == 1 and isinstance(body[0], ast.Expr), file


def test_a_stage_never_imports_a_stage():
    for script in files("stages") - {"stages/__init__.py"}:
        assert {file for file in imported(script) if file.startswith("stages/")} == {script}


def test_dvc_yaml_is_short():
    lines = (ROOT / "dvc.yaml").read_text().splitlines()
    assert len(lines) <= 240 and max(map(len, lines)) <= 100


def read(stage):
    """Keys of params.yaml that a stage's code reads."""
    keys = set()
    for file in imported(stage.script, stage.item) - EXEMPT:
        text = (ROOT / file).read_text()
        if section := re.search(r"params\.load\(\)\.([a-z_]+)", text):  # then `p` is that section
            return {section[1]}
        keys |= set(re.findall(r"\bp\.([a-z_.]+)", text))
        if "getattr(p, entry.params)" in text:
            keys.add(METHODS[stage.item].params)
    return {key for key in keys if key.split(".")[0] in params.Params.model_fields}


def test_parameters_that_a_stage_reads_are_declared_and_no_others(stages):
    for name, stage in stages.items():
        keys = read(stage)
        assert not {key for key in keys if not any(overlap(key, p) for p in stage.params)}, name
        extra = {p for p in stage.params if not any(overlap(key, p) for key in keys)}
        if name.startswith("evaluate@"):  # a baseline's is that of its model
            extra -= {METHODS[stage.item].params}
        assert not extra or name == "report", (name, extra)


@pytest.mark.parametrize(
    "key, rerun",
    [
        ("ebm.langevin_steps", {"evaluate@eb_mvae", "report"}),
        ("ebm.fit.steps", {"fit_ebm", "evaluate@eb_mvae", "report"}),
        ("annealed.guidance_scale", {"evaluate@eb_mvae_annealed", "report"}),
        ("annealed.fit.steps", {"fit_annealed", "evaluate@eb_mvae_annealed", "report"}),
        ("baseline.beta.poe", {"train_baseline@poe", "evaluate@poe", "report"}),
        ("evaluate.tuples", {"references", *EVALUATIONS, "report"}),
        ("profile", {"report"}),
    ],
)
def test_what_a_parameter_reruns(stages, key, rerun):
    """The stages that declare it, and all that depend on what they make."""
    direct = {name for name, stage in stages.items() if any(overlap(key, p) for p in stage.params)}
    assert {name for name in stages if upstream(stages, name) & direct} == rerun


def test_a_seed_changes_neither_the_data_nor_what_measures(stages):
    test_what_a_parameter_reruns(stages, "seed", stages.keys() - {"polymnist", "train_classifiers"})


def test_profiles_set_the_same_known_keys(tmp_path):
    keys = {}
    for file in (ROOT / "profiles").glob("*.args"):
        settings = dict(re.findall(r"^-S ([a-z_.]+)=(\S+)$", file.read_text(), re.M))
        set_params(tmp_path, {key: yaml.safe_load(value) for key, value in settings.items()})
        params.load(tmp_path / "params.yaml")
        keys[file.stem] = set(settings)
    assert keys["smoke"] == keys["medium"] == keys["paper"]
