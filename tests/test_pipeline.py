"""The DAG itself: real DVC in temporary clones at the smoke profile, what re-runs, bad input, the README's commands."""

import ast
import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from stages.lib.params import Params, check
from tests.project import MADE, METHODS, ROOT, figures_are_there, shell, smoke_args

# ---- dvc.yaml against the code, without running it


def stages():
    """Every stage of dvc.yaml, templates resolved by DVC: {name: {"cmd", "deps", "outs", "params"}}."""
    from dvc.repo import Repo

    with Repo(str(ROOT)) as repo:
        return {stage.name: {"cmd": stage.cmd, "deps": {d.def_path for d in stage.deps if d.def_path != "params.yaml"},
                             "outs": {o.def_path for o in stage.outs},
                             "params": {k for d in stage.deps if d.def_path == "params.yaml" for k in d.params}}
                for stage in repo.index.stages}


def imported(file):
    """All files under stages/ that `file` imports, directly or not, itself included."""
    found, open_files = set(), [file]
    while open_files:
        file = open_files.pop()
        if file in found:
            continue
        found.add(file)
        for node in ast.walk(ast.parse((ROOT / file).read_text())):
            names = []
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("stages"):
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names if alias.name.startswith("stages")]
            open_files += [path for name in names if (ROOT / (path := name.replace(".", "/") + ".py")).is_file()]
    return found


def test_code_dependencies_cover_every_import():
    for name, stage in stages().items():
        script = stage["cmd"].split()[2].replace(".", "/") + ".py"
        if name == "report":
            assert "stages" in stage["deps"]  # the whole folder: it tells by the code which other seeds go with this run
            continue
        declared = {dep for dep in stage["deps"] if dep.startswith("stages/")}
        assert declared == imported(script), name


def test_parameters_that_a_stage_reads_are_declared():
    for name, stage in stages().items():
        script = stage["cmd"].split()[2].replace(".", "/") + ".py"
        code = {file: (ROOT / file).read_text() for file in imported(script)}
        section = re.search(r"p = params\.load\(\)\.([a-z_]+)", code[script])  # then `p` is that section
        read = {section[1]} if section else {
            key for text in code.values() for key in re.findall(r"\bp\.([a-z_.]+)", text)
            if key.split(".")[0] in Params.model_fields}
        if name.startswith("evaluate@"):  # in energy_based() each energy reads its own section
            other = {"ebm", "annealed"} - {{"eb_mvae": "ebm", "eb_mvae_annealed": "annealed"}.get(name.split("@")[1])}
            read = {key for key in read if key.split(".")[0] not in other}
        undeclared = {key for key in read if not any(
            f"{key}.".startswith(f"{declared}.") or declared.startswith(f"{key}.") for declared in stage["params"])}
        assert undeclared == set(), name


@pytest.mark.parametrize("key, rerun", [
    ("ebm.langevin_steps", {"evaluate@eb_mvae", "report"}),
    ("annealed.guidance", {"evaluate@eb_mvae_annealed", "report"}),
    ("annealed.steps", {"evaluate@eb_mvae_annealed", "report"}),
    ("ebm.fit.steps", {"fit_ebm", "evaluate@eb_mvae", "report"}),
    ("annealed.fit.states", {"fit_annealed", "evaluate@eb_mvae_annealed", "report"}),
    ("baseline.beta.poe", {"train_baseline@poe", "evaluate@poe", "report"}),
    ("evaluate.tuples", {"references", *(f"evaluate@{method}" for method in METHODS), "report"}),
])
def test_what_a_parameter_reruns(key, rerun):
    """The stages that declare it, and all that depend on what they make."""
    graph = stages()
    found = {name for name, stage in graph.items() if any(f"{key}.".startswith(f"{p}.") for p in stage["params"])}
    while more := {name for name, stage in graph.items() if stage["deps"] & set().union(*(graph[f]["outs"] for f in found))} - found:
        found |= more
    assert found == rerun


def test_a_stage_never_imports_a_stage():
    for script in (ROOT / "stages").glob("*.py"):
        assert {f for f in imported(f"stages/{script.name}") if f.count("/") == 1} == {f"stages/{script.name}"}


def test_the_committed_run_is_that_of_the_committed_parameters_and_code():
    if not (ROOT / "dvc.lock").exists():
        pytest.fail("dvc.lock is missing: commit a default run")
    done = shell(ROOT, "dvc", "repro", "--dry", "--allow-missing")
    assert "Running stage" not in done.stdout, done.stdout
    metrics = json.loads((ROOT / "reports/table.json").read_text())
    assert metrics["profile"] == "default" and metrics["dataset"] == "PolyMNIST (MNIST digits)"


def test_the_readme_quotes_the_committed_run():
    metrics = json.loads((ROOT / "reports/table.json").read_text())
    rows = re.findall(r"^\| (m\d): coherence / Fréchet distance \| (.*) \|$", (ROOT / "README.md").read_text(), re.M)
    assert [target for target, _ in rows] == ["m3", "m5"]
    for target, cells in rows:
        cells = [cell.split(" / ") for cell in cells.split(" | ")]
        quote = lambda table, method: (f"{table[method][target]['given4']['coherence']:.2f}".removeprefix("0"),
                                       f"{table[method][target]['given4']['frechet_polymnist']:.0f}")
        for method, cell in zip(METHODS, cells, strict=True):
            means, deviations = quote(metrics, method), quote(metrics["standard_deviation"], method)
            assert cell == [f"{mean} ± {deviation}" for mean, deviation in zip(means, deviations)], method


def test_profiles_set_the_same_known_keys():
    keys = {}
    for file in sorted((ROOT / "profiles").glob("*.args")):
        settings = re.findall(r"^-S ([a-z_.]+)=(\S+)$", file.read_text(), re.M)
        content = yaml.safe_load((ROOT / "params.yaml").read_text())
        for key, value in settings:
            *sections, last = key.split(".")
            part = content
            for section in sections:
                part = part[section]
            assert last in part
            part[last] = yaml.safe_load(value)
        check(content)
        keys[file.stem] = {key for key, _ in settings}
    assert keys["smoke"] == keys["medium"] == keys["paper"]


# ---- the smoke run


def test_two_clones_give_the_same_bytes_one_stage_at_a_time_and_two(pair):
    first, second = pair
    files = sorted(f.relative_to(first) for made in MADE for f in [first / made, *(first / made).rglob("*")] if f.is_file())
    assert len(files) > 100
    different = [str(f) for f in files if (first / f).read_bytes() != (second / f).read_bytes()]
    assert different == []


def test_figures(finished):
    figures_are_there(finished)


def test_the_grid_is_complete(finished):
    rows = json.loads((finished / "reports/plots/grid.json").read_text())
    assert len(rows) == 6 * 5 * 16  # methods, targets, subsets of the other four (the empty one too)
    assert {row["method"] for row in rows} == set(METHODS)
    cells = {(row["method"], row["target"], row["observed"]) for row in rows}
    assert len(cells) == len(rows) and ("eb_mvae_annealed", "m3", "m1+m4") in cells
    for row in rows:
        observed = [] if row["observed"] == "none" else row["observed"].split("+")
        assert row["target"] not in observed and row["n_observed"] == len(observed)
        assert (row["coherence"] is None) == (observed == [])
        assert row["frechet_polymnist"] >= 0 and row["n_samples"] == 100 and row["seed"] == 0


def test_metrics_and_claims(finished):
    metrics = json.loads((finished / "reports/table.json").read_text())
    rows = json.loads((finished / "reports/plots/grid.json").read_text())
    for method in METHODS:
        for target in ("m1", "m2", "m3", "m4", "m5"):
            for k in range(1, 5):
                cells = [r["coherence"] for r in rows
                         if (r["method"], r["target"], r["n_observed"]) == (method, target, k)]
                assert metrics[method][target][f"given{k}"]["coherence"] == pytest.approx(sum(cells) / len(cells), abs=1e-4)
        assert 0 <= metrics[method]["unconditional"]["all_agree"] <= 1
        assert ("energy_auroc" in metrics[method]) == (method in ("eb_mvae", "eb_mvae_annealed"))
    assert metrics["profile"] == "smoke" and metrics["seeds"] == dict.fromkeys(METHODS, [0])
    assert metrics["standard_deviation"] == {}
    flat = json.loads((finished / "reports/metrics.json").read_text())
    assert list(flat) == METHODS
    for method, numbers in flat.items():  # few and flat, for `dvc exp show`
        assert all(type(value) is float for value in numbers.values()) and len(numbers) == 7 + ("energy_auroc" in metrics[method])
        assert numbers["m3_coherence"] == metrics[method]["m3"]["given4"]["coherence"]
        assert numbers["m5_distance"] == metrics[method]["m5"]["given4"]["frechet_polymnist"]
        every = [metrics[method][f"m{m}"][f"given{k}"]["coherence"] for m in range(1, 6) for k in range(1, 5)]
        assert numbers["mean_coherence"] == pytest.approx(sum(every) / 20, rel=1e-4)
    claims = (finished / "reports/claims.md").read_text()
    assert len(re.findall(r"^\| \d+ \|.*\| (holds|\*\*fails\*\*) \|", claims, re.M)) == 15  # the paper's nine and six of ours
    assert metrics["dataset"] in claims


def test_status_is_clean_and_a_fresh_clone_has_nothing_to_do(finished, tmp_path):
    assert "up to date" in shell(finished, "dvc", "status").stdout
    shell(tmp_path, "git", "clone", "-q", str(finished), "again")
    assert "Running stage" not in shell(tmp_path / "again", "dvc", "repro", "--dry", "--allow-missing").stdout


def test_more_langevin_steps_rerun_one_evaluation_and_the_report(finished):
    done = shell(finished, "dvc", "exp", "run", "-S", "ebm.langevin_steps=80")
    assert re.findall(r"Running stage '(.*)'", done.stdout) == ["evaluate@eb_mvae", "report"]
    page = shell(finished, "dvc", "plots", "diff", "HEAD", "workspace", "--out", "dvc_plots")
    html = (finished / "dvc_plots/index.html").read_text()
    assert "index.html" in page.stdout
    for name in ("figure1.png", "figure2.png", "figure3.png", "coherence.json", "frechet.json", "grid.json"):
        assert name in html
    for image in ("figure1", "figure2", "figure3"):  # each figure once a revision, side by side
        assert len(re.findall(rf"<img[^>]*{image}[^>]*>", html)) == 2
    assert {"HEAD", "workspace"} <= set(re.findall(r'"rev": "([^"]*)"', html))
    difference = shell(finished, "dvc", "metrics", "diff", "--json").stdout
    assert any("eb_mvae" in key for key in json.loads(difference)["reports/metrics.json"])
    assert "langevin_steps" in shell(finished, "dvc", "exp", "show", "--csv").stdout.splitlines()[0]
    assert "evaluate@eb_mvae" in shell(finished, "dvc", "dag", "--dot").stdout
    shell(finished, "git", "checkout", "-q", "params.yaml", "dvc.lock", "reports")
    shell(finished, "dvc", "checkout", "-q")
    assert "up to date" in shell(finished, "dvc", "status").stdout


# ---- bad input: one line, a non-zero exit, the old outputs whole


def fingerprint(folder, *paths):
    return {f: f.read_bytes() for path in paths for f in sorted((folder / path).rglob("*")) if f.is_file()}


def test_a_damaged_output_comes_back_as_the_message_says(finished):
    """The cache must not share the file's bytes on disk (hard links would), or it would be damaged too."""
    file = finished / "latents/test.safetensors"
    whole = file.read_bytes()
    file.chmod(0o644)
    with open(file, "r+b") as opened:
        opened.seek(len(whole) // 2)
        opened.write(bytes([whole[len(whole) // 2] ^ 1]))
    assert "remove it and run `dvc checkout`" in refused(finished, "stages.references")
    file.unlink()
    shell(finished, "dvc", "checkout", "-q")
    assert file.read_bytes() == whole
    assert "up to date" in shell(finished, "dvc", "status").stdout


@pytest.fixture
def params_file(finished):
    """params.yaml of the finished clone as a dict, and a way to change it; put back afterwards."""
    path = finished / "params.yaml"
    before = path.read_text()

    def change(key, value):
        content = yaml.safe_load(before)
        *sections, last = key.split(".")
        part = content
        for section in sections:
            part = part[section]
        part[last] = value
        path.write_text(yaml.safe_dump(content))

    yield change
    path.write_text(before)


def refused(folder, module, *args, **env):
    """The one line on stderr of a stage that must fail."""
    done = shell(folder, "python", "-m", module, *args, check=False, **env)
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if not re.match(r"\w+ \w+: step ", line)]
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    return lines[0]


@pytest.mark.parametrize("key, stale", [
    ("ebm.step_size", ["evaluate@eb_mvae"]), ("annealed.guidance", ["evaluate@eb_mvae_annealed"])])
def test_a_samplers_parameter_makes_one_evaluation_stale(finished, params_file, key, stale):
    """By DVC's own word; and the report, which tells by the parameters which other seeds go with this run."""
    params_file(key, 0.125)
    assert list(json.loads(shell(finished, "dvc", "status", "--json").stdout)) == [*stale, "report"]


@pytest.mark.parametrize("key, value, says", [
    ("vae.betta", 1, "unknown key vae.betta"),
    ("vae.beta", "much", "vae.beta = 'much'"),
    ("ebm.langevin_steps", 0, "ebm.langevin_steps = 0"),
    ("annealed.steps", 1, "annealed.steps = 1"),
    ("polymnist.backgrounds", "nowhere", "nowhere is not a folder"),
])
def test_bad_parameters(finished, params_file, key, value, says):
    params_file(key, value)
    before = fingerprint(finished, "data")
    assert says in refused(finished, "stages.polymnist")
    assert fingerprint(finished, "data") == before


def test_missing_mnist(finished, params_file, tmp_path):
    params_file("polymnist.digits", "mnist")
    before = fingerprint(finished, "data")
    no_internet = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy")}
    line = refused(finished, "stages.polymnist", MNIST_DIR=str(tmp_path), **no_internet)
    assert f"{tmp_path} holds no train-images-idx3-ubyte" in line and "no mirror answered" in line
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8b no gzip")
    assert "train-images-idx3-ubyte.gz" in refused(finished, "stages.polymnist", MNIST_DIR=str(tmp_path))
    assert fingerprint(finished, "data") == before


@pytest.mark.parametrize("method, model", [("eb_mvae", "models/ebm"), ("eb_mvae_annealed", "models/annealed")])
def test_a_corrupt_model(finished, method, model):
    path = finished / model / "joint.safetensors"
    whole, before = path.read_bytes(), fingerprint(finished, "results")
    os.chmod(path, 0o644)
    try:
        path.unlink()  # DVC may have linked it to its cache
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert f"{model}/joint.safetensors" in refused(finished, "stages.evaluate", method)
    finally:
        path.write_bytes(whole)
    assert fingerprint(finished, "results") == before


def test_nan_in_training(finished, params_file):
    params_file("vae.learning_rate", 1e20)
    before = fingerprint(finished, "models")
    assert re.search(r"train_vae m1: the loss is NaN or infinite by step \d+", refused(finished, "stages.train_vae", "m1"))
    assert fingerprint(finished, "models") == before


# ---- Makefile and README


def test_make_smoke_keeps_its_report(finished):
    if not (Path(sys.prefix) / "installed").exists():
        pytest.skip("make would install a second environment here: this Python is not the .venv that make made")
    args = smoke_args()
    (finished / "profiles/smoke.args").write_text(" ".join(args) + "\n")
    done = shell(finished, "make", "smoke")  # everything is in the run cache by now: DVC runs nothing
    assert "pip install" not in done.stdout
    for name in ("metrics.json", "table.json", "index.html"):
        assert (finished / "reports/smoke" / name).read_bytes() == (finished / "reports" / name).read_bytes()
    shutil.rmtree(finished / "reports/smoke")
    shell(finished, "git", "checkout", "-q", ".")


def test_make_seeds_merges_another_seed_and_leaves_the_committed_run_in_place(finished):
    if not (Path(sys.prefix) / "installed").exists():
        pytest.skip("make would install a second environment here: this Python is not the .venv that make made")
    before = json.loads((finished / "reports/table.json").read_text())
    done = shell(finished, "make", "seeds", "SEEDS=1")
    ran = re.findall(r"Running stage '(.*)'", done.stdout)
    assert {"polymnist", "train_judge"}.isdisjoint(ran)  # what is measured and by what stays the same
    assert {f"evaluate@{method}" for method in METHODS} < set(ran)
    assert ran[-1] == "report" and ran.count("train_vae@m1") == 1  # going back to seed 0 trains nothing
    other = json.loads((finished / "reports/seeds/1.json").read_text())
    after = json.loads((finished / "reports/table.json").read_text())
    assert after["seeds"] == dict.fromkeys(METHODS, [0, 1])
    for method in (*METHODS, "unimodal_vae", "real"):
        both = [table[method]["m3"].get("given4", table[method]["m3"])["frechet_polymnist"] for table in (before, other["table"])]
        assert both[0] != both[1] or method == "real"
        cell, deviation = ((part[method]["m3"].get("given4", part[method]["m3"]))["frechet_polymnist"]
                           for part in (after, after["standard_deviation"]))
        assert cell == pytest.approx(sum(both) / 2, rel=1e-4)
        assert deviation == pytest.approx(abs(both[0] - both[1]) / 2**0.5, rel=1e-3, abs=1e-6)
    page = (finished / "reports/claims.md").read_text()
    assert "seeds 0, 1 (mean ± s.d.)" in page and len(re.findall(r" \([0-2] of 2 seeds\) \|", page)) == 15
    assert "up to date" in shell(finished, "dvc", "status").stdout
    shell(finished, "git", "checkout", "-q", ".")
    shell(finished, "git", "clean", "-fdq", "reports")
    assert "up to date" in shell(finished, "dvc", "status").stdout


def test_an_old_python_gets_one_clear_line(tmp_path):
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\ncase "$1" in --version) echo "Python 3.9.18";; *) exit 1;; esac\n')
    old.chmod(0o755)
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "requirements.txt", tmp_path)
    done = shell(tmp_path, "make", f"PYTHON={old}", ".venv/installed", check=False)
    assert done.returncode != 0 and not (tmp_path / ".venv").exists()
    assert "error: Python 3.9.18 found, Python 3.11 to 3.13 is needed" in done.stderr


def commands():
    """Every command line in the README's `bash` blocks, comments stripped."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    lines = [re.sub(r"\s+#.*", "", line).strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def test_the_readme_has_commands():
    assert "make repro" in commands() and "make test" in commands()


@pytest.mark.parametrize("command", commands())
def test_every_command_of_the_readme(finished, command):
    """Cheap commands are run; those that train for long are resolved by make or DVC, which would refuse a wrong one."""
    words = shlex.split(command)
    settings = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    words = [word for word in words if not re.match(r"[A-Z_]+=", word)]
    if words[0] == "make":
        shell(finished, "make", "-n", *words[1:], **settings)
    elif words[:3] == ["dvc", "exp", "run"]:  # the change itself is tested above; here that its keys are known
        for key, value in (word.split("=", 1) for word in words if "=" in word):
            content = yaml.safe_load((finished / "params.yaml").read_text())
            for part in key.split("."):
                content = content[part]
    elif words[:2] == ["dvc", "repro"]:
        shell(finished, *words, "--dry")
    elif words[0] in ("git", "cd", "source"):
        assert words[1:2] in (["clone"], ["checkout"]) or words[0] in ("cd", "source")
    else:
        shell(finished, *words, **settings)
