"""params.yaml: every mistake is one line that names the key and the file."""

import copy
import math
import re
from pathlib import Path

import pytest
import yaml

from ebmvae import params
from ebmvae.core.messages import UserError
from ebmvae.methods import BASELINES
from ebmvae.reporting.seeds import fingerprints

FILE = Path(__file__).parents[2] / "params.yaml"
GOOD = yaml.safe_load(FILE.read_text())
GOOD_P = params.check(GOOD)
RANGES = {  # smallest and largest value; Ellipsis where the end is above 0, or there is none
    "seed polymnist.seed classifier.seed": (0, ...),
    "polymnist.modalities": (2, 10),
    "polymnist.n_train": (100, 60000),
    "polymnist.n_test": (100, 10000),
    "evaluate.n_samples": (100, ...),
    "annealed.fit.latent_classes annealed.fit.batch_size annealed.steps": (2, ...),
    "classifier.min_accuracy vae.warmup annealed.guidance_below": (0.0, 1.0),
    "vae.beta ebm.noise_scale annealed.fit.weight_decay annealed.guidance_scale": (0.0, ...),
    " ".join(["annealed.class_guidance", *(f"baseline.beta.{m}" for m in BASELINES)]): (0.0, ...),
}
RANGES = {key: ends for keys, ends in RANGES.items() for key in keys.split()}
CHOICES = {
    "matmul_precision": ["ieee", "bf16"],
    "polymnist.digits": ["auto", "mnist", "embedded"],
    "vae.likelihood": ["gaussian", "laplace", "correlated"],
    "vae.lr_schedule": ["constant", "cosine"],
    "ebm.fit.objective": ["exact", "sliced", "denoising"],
    "ebm.fit.model": ["energy", "score"],
    "evaluate.tuples": ["test", "validation"],
}
LEAVE_OUT = object()


def leaves(content, prefix=""):
    for key, value in content.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


VALUES = dict(leaves(GOOD))


def changed(key, value):
    """The repository's parameters with one dotted key set, or left out."""
    content = copy.deepcopy(GOOD)
    *sections, last = key.split(".")
    section = content
    for name in sections:
        section = section[name]
    section[last] = value
    if value is LEAVE_OUT:
        del section[last]
    return content


def look_up(p, key):
    for name in filter(None, key.split(".")):
        p = getattr(p, name)
    return p


def assert_refused(content, key, *more):
    """One line that names the file and the key, and `more`."""
    with pytest.raises(UserError) as caught:
        params.check(content, "some/params.yaml")
    message = str(caught.value)
    assert message.startswith("some/params.yaml: ") and f" {key} " in f"{message} "
    assert "\n" not in message and all(str(part) in message for part in more)


def test_the_repositorys_file_loads_and_can_not_be_changed():
    p = params.load(FILE)
    assert {key: look_up(p, key) for key in VALUES} == VALUES
    assert p.model_dump() == GOOD
    for section, name in ((p, "seed"), (p.vae, "beta"), (p.ebm.fit, "steps")):
        with pytest.raises(ValueError, match="frozen"):
            setattr(section, name, 1)


@pytest.mark.parametrize("text, value", [("1e-05", 1e-5), ("1E3", 1000.0), ("1", 1.0)])
def test_floats_as_dvc_writes_them(tmp_path, text, value):
    """`dvc exp run -S ebm.step_size=1e-5` writes 1e-05, a string to YAML 1.1."""
    written = FILE.read_text().replace(
        f"step_size: {VALUES['ebm.step_size']}", f"step_size: {text}"
    )
    (tmp_path / "params.yaml").write_text(written)
    step_size = params.load(tmp_path / "params.yaml").ebm.step_size
    assert step_size == value and type(step_size) is float


@pytest.mark.parametrize("key", [key for key, value in VALUES.items() if value is None])
@pytest.mark.parametrize("text", ["", "''", "' '", "~"])
def test_an_empty_string_means_none_where_there_may_be_none(tmp_path, key, text):
    """`dvc exp run -S polymnist.own_data=` writes ''. Fingerprints are those of nothing."""
    name = key.rpartition(".")[2]
    written = re.sub(rf"(?m)^  {name}:", f"  {name}: {text}", FILE.read_text())
    (tmp_path / "params.yaml").write_text(written)
    p = params.load(tmp_path / "params.yaml")
    assert p.model_dump() == GOOD and fingerprints(p, "data") == fingerprints(GOOD_P, "data")


@pytest.mark.parametrize("key", [key for key, value in VALUES.items() if type(value) is str])
def test_an_empty_string_is_refused_where_there_must_be_one(key):
    for value in ("", " ", "\t\n"):
        assert_refused(changed(key, value), key, repr(value))


@pytest.mark.parametrize("key", VALUES)
def test_a_key_that_is_missing_or_of_another_type(key):
    assert_refused(changed(key, LEAVE_OUT), key)
    for value in ([1], {"a": 1}, True):  # True is not the integer 1
        assert_refused(changed(key, value), key)
    if type(VALUES[key]) is int:
        for value in ("5", 5.0, 2.5, None, -1, math.nan):
            assert_refused(changed(key, value), key, repr(value))
    if type(VALUES[key]) is float:
        for value in ("fast", "nan", math.nan, math.inf, "1e999", None, -1e-9):
            assert_refused(changed(key, value), key)


@pytest.mark.parametrize("section", ["", *sorted({k.rpartition(".")[0] for k in VALUES} - {""})])
def test_an_unknown_key_names_the_known_ones(section):
    key = f"{section}.sede".lstrip(".")
    known = look_up(params.check(GOOD), section).model_dump()
    assert_refused(changed(key, 1), f"{key};", ", ".join(known))


@pytest.mark.parametrize("key", ["baseline.beta.mmvae", "baseline.total_correlation", "judge"])
def test_names_of_other_methods_and_of_yesterday(key):
    assert_refused(changed(key, 1.0), f"{key};")


@pytest.mark.parametrize(
    "key", [key for key, value in VALUES.items() if type(value) in (int, float)]
)
def test_ranges(key):
    """Where nothing else is listed, a number is a count, from 1, or positive."""
    whole = type(VALUES[key]) is int
    smallest, largest = RANGES.get(key, (1 if whole else ..., ...))
    step = 1 if whole else 1e-9
    params.check(changed(key, smallest if smallest is not ... else 1e-9))
    assert_refused(changed(key, smallest - step if smallest is not ... else 0.0), key)
    params.check(changed(key, largest if largest is not ... else 10**6))
    if largest is not ...:
        assert_refused(changed(key, largest + step), key)


@pytest.mark.parametrize("key", CHOICES)
def test_choices(key):
    for value in CHOICES[key]:
        assert look_up(params.check(changed(key, value)), key) == value
    assert_refused(changed(key, "other"), key, *map(repr, CHOICES[key]))


def test_what_is_no_sha256():
    for value in ("", "f58c", "F" * 64, "a" * 65, "a" * 64 + "\n"):
        assert_refused(changed("fid.sha256", value), "fid.sha256")


def test_several_mistakes_name_the_first_and_count_the_rest():
    content = changed("vae.beta", -1)
    content["classifier"]["epochs"] = 0
    assert_refused(content, "classifier.epochs", "1 more")


NO_YAML = [b"a: [1", b"a: b: c", b"\tseed: 1", b"a: !!python/object:os.system x", b"seed: \xff"]
NO_YAML += [b"seed: \0", b"profile: 2024-13-45"]  # no date, but of the form of one


@pytest.mark.parametrize("content", [b"", b"just words", b"[1, 2]", b"17", *NO_YAML])
def test_a_file_that_is_no_yaml_or_no_mapping(tmp_path, content):
    (tmp_path / "params.yaml").write_bytes(content)
    for path in (tmp_path / "params.yaml", tmp_path / "none.yaml", tmp_path):
        with pytest.raises(UserError, match=f"^{path}: ") as caught:
            params.load(path)
        assert "\n" not in str(caught.value)


SIDES = "<<<<<<< HEAD\nseed: 1\n=======\nseed: 2\n>>>>>>> other\n"
DIFF3 = "<<<<<<< ours\nseed: 1\n||||||| 1a2b\nseed: 0\n=======\nseed: 2\n>>>>>>> theirs\n"


@pytest.mark.parametrize(
    "conflict", [SIDES, DIFF3, SIDES.replace("\n", "\r\n"), ">>>>>>> left over\n", "=======\n"]
)
def test_a_merge_conflict_is_called_one(tmp_path, monkeypatch, conflict):
    monkeypatch.chdir(tmp_path)
    first, rest = FILE.read_text().split("seed: 0", 1)
    with open("params.yaml", "w", newline="") as file:
        file.write(first + conflict + rest)
    with pytest.raises(UserError) as caught:
        params.load()
    line = first.count("\n") + 1
    assert str(caught.value).startswith(f"params.yaml: line {line} is in a merge conflict")
    assert "git add params.yaml" in str(caught.value)


def test_a_comment_may_hold_the_marks_of_a_conflict(tmp_path):
    (tmp_path / "params.yaml").write_text(FILE.read_text() + "# =======\n#>>>>>>> a\n# ---\n")
    assert params.load(tmp_path / "params.yaml") == GOOD_P
