"""The smoke run, whole: what it makes, what an experiment shows, how bad input ends; the README."""

import json
import re
import shlex
import shutil

import pytest
import yaml

from ebmvae.methods import ENERGIES, METHODS
from tests.project import ROOT, contents, figures_are_there, shell

NAMES = [f"m{k}" for k in range(1, 6)]


def read(folder, file):
    return json.loads((folder / "reports" / file).read_text())


def is_clean(folder):
    return "up to date" in shell(folder, "dvc", "status").stdout


# ---- what it made


def test_stages_one_at_a_time_make_the_bytes_of_two_at_once(finished):
    before = contents(finished, "models", "latents", "results")
    stages = ("encode", "fit_ebm", "train_baseline@poe", "evaluate@eb_mvae")
    done = shell(finished, "dvc", "repro", "--force", "--single-item", *stages)
    assert re.findall(r"Running stage '(.*)'", done.stdout) == list(stages)
    assert contents(finished, "models", "latents", "results") == before and len(before) > 100
    assert is_clean(finished)


def test_make_smoke_keeps_its_report(finished):
    figures_are_there(finished)
    for name in ("metrics.json", "table.json", "results.md", "index.html", "figures/figure2.png"):
        kept = (finished / "reports/smoke" / name).read_bytes()
        assert kept == (finished / "reports" / name).read_bytes()


def test_a_fresh_clone_has_nothing_to_do(finished, tmp_path):
    shell(tmp_path, "git", "clone", "-q", str(finished), "again")
    done = shell(tmp_path / "again", "dvc", "repro", "--dry", "--allow-missing")
    assert "Running stage" not in done.stdout


def test_the_grid_is_complete(finished):
    rows = read(finished, "plots/grid.json")
    cells = {(row["method"], row["target"], row["observed"]) for row in rows}
    assert len(cells) == len(rows) == len(METHODS) * 5 * 16  # subsets of the other four, one empty
    assert ("eb_mvae_annealed", "m3", "m1+m4") in cells and {row["seed"] for row in rows} == {0}
    for row in rows:
        observed = [] if row["observed"] == "none" else row["observed"].split("+")
        assert row["target"] not in observed and row["n_observed"] == len(observed)
        assert (row["coherence"] is None) == (observed == [])
        assert row["frechet_polymnist"] >= 0 and row["n_samples"] == 100


def test_the_table_has_the_means_of_the_grid(finished):
    table, rows = read(finished, "table.json"), read(finished, "plots/grid.json")
    assert table["profile"] == "smoke" and table["seeds"] == dict.fromkeys(METHODS, [0])
    assert table["standard_deviation"] == {}
    metrics = read(finished, "metrics.json")
    assert list(metrics) == list(METHODS)
    for method, numbers in metrics.items():
        means = []
        for target, k in ((target, k) for target in NAMES for k in range(1, 5)):
            key = (method, target, k)
            same = [row for row in rows if (row["method"], row["target"], row["n_observed"]) == key]
            means.append(sum(row["coherence"] for row in same) / len(same))
            value = table[method][target][f"given{k}"]["coherence"]
            assert value == pytest.approx(means[-1], abs=1e-4)
        assert numbers["mean_coherence"] == pytest.approx(sum(means) / 20, abs=1e-4)
        assert 0 <= table[method]["unconditional"]["all_agree"] <= 1
        assert ("energy_auroc" in table[method]) == (method in ENERGIES)
    claims = (finished / "reports/claims.md").read_text()  # the paper's nine and six of ours
    assert len(re.findall(r"^\| \d+ \|.*\| (holds|\*\*fails\*\*) \|", claims, re.M)) == 15


# ---- an experiment


def test_more_langevin_steps_rerun_one_evaluation_and_the_report(finished):
    done = shell(finished, "dvc", "exp", "run", "-S", "ebm.langevin_steps=80")
    assert re.findall(r"Running stage '(.*)'", done.stdout) == ["evaluate@eb_mvae", "report"]
    shell(finished, "dvc", "plots", "diff", "HEAD", "workspace", "--out", "dvc_plots")
    html = (finished / "dvc_plots/index.html").read_text()
    for name in ("coherence.json", "frechet.json", "grid.json", "training.json"):
        assert name in html
    for figure in ("figure1", "figure2", "figure3"):  # once per revision, side by side
        assert len(re.findall(rf"<img[^>]*{figure}[^>]*>", html)) == 2
    assert {"HEAD", "workspace"} <= set(re.findall(r'"rev": "([^"]*)"', html))
    difference = json.loads(shell(finished, "dvc", "metrics", "diff", "--json").stdout)
    assert any(key.startswith("eb_mvae.") for key in difference["reports/metrics.json"])
    shell(finished, "git", "checkout", "-q", "params.yaml", "dvc.lock", "reports")
    shell(finished, "dvc", "checkout", "-q")
    assert is_clean(finished)


# ---- bad input: one line, exit code 2, the old outputs whole (more in tests/robustness)


def refused(folder, module, *args, **env):
    """The one line on stderr of a stage that must fail."""
    done = shell(folder, "python", "-m", module, *args, check=False, **env)
    lines = [line for line in done.stderr.splitlines() if ": step " not in line]
    assert done.returncode == 2 and len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    return lines[0]


@pytest.fixture
def change(finished):
    """Sets a key of params.yaml in the finished clone, which is put back afterwards."""
    path = finished / "params.yaml"
    before = path.read_text()

    def set_key(key, value):
        section, name = key.split(".")
        content = yaml.safe_load(before)
        content[section][name] = value
        path.write_text(yaml.safe_dump(content))

    yield set_key
    path.write_text(before)


def test_a_damaged_output_comes_back_as_the_message_says(finished):
    """The cache must not share the file's bytes on disk, or it would be damaged too."""
    file = finished / "latents/test.safetensors"
    whole = file.read_bytes()
    file.chmod(0o644)
    with open(file, "r+b") as opened:
        opened.seek(len(whole) // 2)
        opened.write(bytes([whole[len(whole) // 2] ^ 1]))
    line = refused(finished, "stages.references")
    assert "latents/test.safetensors" in line and "`dvc checkout`" in line
    file.unlink()
    shell(finished, "dvc", "checkout", "-q")
    assert file.read_bytes() == whole and is_clean(finished)


@pytest.mark.parametrize(
    "key, value, stage, named",
    [
        ("vae.betta", 1, ("polymnist",), "vae.betta"),
        ("vae.learning_rate", 1e20, ("train_vae", "m1"), r"train_vae m1: .* step \d+"),  # NaN
    ],
)
def test_bad_parameters(finished, change, key, value, stage, named):
    change(key, value)
    before = contents(finished, "data", "models")
    assert re.search(named, refused(finished, f"stages.{stage[0]}", *stage[1:]))
    assert contents(finished, "data", "models") == before


def test_missing_mnist(finished, change, tmp_path):
    change("polymnist.digits", "mnist")
    before = contents(finished, "data")
    env = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy")}
    env["MNIST_DIR"] = str(tmp_path)
    line = refused(finished, "stages.polymnist", **env)
    assert str(tmp_path) in line and "train-images-idx3-ubyte" in line
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8b no gzip")
    assert "train-images-idx3-ubyte.gz" in refused(finished, "stages.polymnist", **env)
    assert contents(finished, "data") == before


# ---- Makefile and README


def test_an_old_python_gets_one_clear_line(tmp_path):
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\ncase "$1" in --version) echo "Python 3.9.18";; *) exit 1;; esac\n')
    old.chmod(0o755)
    for file in ("Makefile", "requirements.txt"):
        shutil.copy(ROOT / file, tmp_path)
    shell(tmp_path, "git", "init", "-q")
    done = shell(tmp_path, "make", f"PYTHON={old}", ".venv/installed", check=False)
    assert done.returncode != 0 and not (tmp_path / ".venv").exists()
    assert "3.9.18" in done.stderr and "3.11" in done.stderr


def commands():
    """Every command line in the README's `bash` blocks, without comments."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
    assert {"make repro", "make test"} <= set(lines)
    return list(filter(None, lines))


@pytest.mark.parametrize("line", commands())
def test_every_command_of_the_readme(finished, line):
    """What trains for long is resolved by make or DVC, which would refuse a wrong one."""
    words = shlex.split(line)
    settings = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    words = [word for word in words if not re.match(r"[A-Z_]+=", word)]
    if words[0] == "make":
        shell(finished, "make", "-n", *words[1:], **settings)
    elif words[:3] == ["dvc", "exp", "run"]:  # an experiment is run above; here its keys are known
        for key in (word.split("=")[0] for word in words if "=" in word):
            content = yaml.safe_load((finished / "params.yaml").read_text())
            for part in key.split("."):
                content = content[part]
    elif words[0] == "git":
        assert words[1] in ("clone", "checkout")
    elif words[0] not in ("cd", "source"):
        shell(finished, *words, *(["--dry"] if words[:2] == ["dvc", "repro"] else []), **settings)
