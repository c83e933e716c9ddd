"""params.yaml: every mistake is one line that names the key and the file."""

import copy
from pathlib import Path

import pytest
import yaml

from stages.lib import params
from stages.lib.runtime import UserError

REPOSITORY = Path(__file__).resolve().parent.parent
GOOD = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
LEAVE_OUT = object()


def changed(key, value):
    """The repository's parameters with one dotted key set, or left out."""
    content = copy.deepcopy(GOOD)
    *sections, last = key.split(".")
    section = content
    for name in sections:
        section = section[name]
    if value is LEAVE_OUT:
        del section[last]
    else:
        section[last] = value
    return content


def load(tmp_path, text):
    """Load a params.yaml with this text (or these bytes)."""
    file = tmp_path / "params.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return params.load(file)


def load_changed(tmp_path, key, value):
    return load(tmp_path, yaml.safe_dump(changed(key, value)))


def refusal(call, *arguments):
    """The one line of the `UserError` that `call` raises."""
    with pytest.raises(UserError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def leaves(content, prefix=""):
    for key, value in content.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def look_up(p, key):
    for name in key.split("."):
        p = getattr(p, name)
    return p


KEYS = [key for key, _ in leaves(GOOD)]

# ---- what is right


def test_the_repositorys_file_loads():
    p = params.load(REPOSITORY / "params.yaml")
    for key, value in leaves(GOOD):
        assert look_up(p, key) == value


@pytest.mark.parametrize("text, value", [("1e-05", 1e-5), ("1e-5", 1e-5), ("1E3", 1000.0)])
def test_what_yaml_reads_as_a_string_is_a_float(tmp_path, text, value):
    """`dvc exp run -S vae.learning_rate=1e-5` writes 1e-05, a string to YAML 1.1."""
    assert isinstance(yaml.safe_load(text), str)
    content = yaml.safe_dump(GOOD).replace(f"step_size: {GOOD['ebm']['step_size']}", f"step_size: {text}")
    found = load(tmp_path, content).ebm.step_size
    assert found == value and type(found) is float


def test_a_whole_number_is_a_float(tmp_path):
    found = load_changed(tmp_path, "vae.beta", 1).vae.beta
    assert found == 1.0 and type(found) is float


def test_parameters_are_frozen():
    p = params.check(GOOD)
    for target, name in ((p, "seed"), (p.vae, "beta"), (p.ebm.fit, "steps")):
        with pytest.raises(Exception, match="frozen"):
            setattr(target, name, 1)


# ---- what is wrong


@pytest.mark.parametrize("key", KEYS)
def test_missing_key(tmp_path, key):
    message = refusal(load_changed, tmp_path, key, LEAVE_OUT)
    assert message == f"{tmp_path}/params.yaml: {key} is missing"


@pytest.mark.parametrize("section", ["", *sorted({key.rpartition(".")[0] for key in KEYS} - {""})])
def test_unknown_key(tmp_path, section):
    key = f"{section}.sede".lstrip(".")
    message = refusal(load_changed, tmp_path, key, 1)
    assert f"{tmp_path}/params.yaml: unknown key {key}; known here: " in message
    known = message.split("known here: ")[1].split(", ")
    assert known == [name for name in (look_up(params.check(GOOD), section) if section else params.check(GOOD)).model_dump()]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", [[1], {"a": 1}, True])
def test_wrong_type(tmp_path, key, value):
    """No key takes a list, a mapping or a truth value; True is not the integer 1."""
    message = refusal(load_changed, tmp_path, key, value)
    assert message.startswith(f"{tmp_path}/params.yaml: {key} = {value!r} ")


@pytest.mark.parametrize("key", [key for key, value in leaves(GOOD) if type(value) is int])
@pytest.mark.parametrize("value", ["5", 5.0, 2.5, None, -1, float("nan")])
def test_wrong_count(tmp_path, key, value):
    assert refusal(load_changed, tmp_path, key, value).startswith(f"{tmp_path}/params.yaml: {key} = {value!r} ")


@pytest.mark.parametrize("key", [key for key, value in leaves(GOOD) if type(value) is float])
@pytest.mark.parametrize("value", ["fast", "nan", float("nan"), float("inf"), "1e999", None, -1e-9])
def test_wrong_float(tmp_path, key, value):
    assert refusal(load_changed, tmp_path, key, value).startswith(f"{tmp_path}/params.yaml: {key} = ")


@pytest.mark.parametrize("key, low, high", [
    ("polymnist.modalities", 2, 10), ("polymnist.n_train", 100, 60000), ("polymnist.n_test", 100, 10000),
    ("vae.warmup", 0.0, 1.0), ("baseline.total_correlation", 0.0, 1.0)])
def test_range_of_two_ends(tmp_path, key, low, high):
    for good in (low, high):
        assert look_up(load_changed(tmp_path, key, good), key) == good
    step = 1 if isinstance(low, int) else 1e-9
    for bad in (low - step, high + step):
        assert f" {key} = {bad!r} " in refusal(load_changed, tmp_path, key, bad)


@pytest.mark.parametrize("key, least", [
    ("seed", 0), ("polymnist.seed", 0), ("judge.epochs", 1), ("judge.batch_size", 1), ("judge.feature_dim", 1),
    ("vae.latent_dim", 1), ("vae.epochs", 1), ("vae.batch_size", 1), ("vae.beta", 0.0), ("ebm.fit.hidden", 1),
    ("ebm.fit.layers", 1), ("ebm.fit.steps", 1), ("ebm.langevin_steps", 1), ("ebm.noise_scale", 0.0),
    ("annealed.fit.hidden", 1), ("annealed.fit.states", 2), ("annealed.fit.steps", 1),
    ("annealed.fit.contrast_steps", 1), ("annealed.fit.weight_decay", 0.0), ("annealed.fit.batch_size", 2),
    ("annealed.steps", 2), ("annealed.guidance", 0.0),
    ("baseline.latent_dim", 1), ("baseline.beta.poe", 0.0), ("evaluate.n_samples", 100), ("evaluate.max_subsets", 1)])
def test_least_value(tmp_path, key, least):
    assert look_up(load_changed(tmp_path, key, least), key) == least
    bad = least - 1
    assert f" {key} = {bad!r} " in refusal(load_changed, tmp_path, key, bad)


@pytest.mark.parametrize("key", ["judge.learning_rate", "vae.learning_rate", "vae.scale", "ebm.step_size",
                                 "ebm.fit.learning_rate", "ebm.fit.posterior_scale",
                                 "annealed.fit.learning_rate"])
def test_zero_is_not_positive(tmp_path, key):
    assert f" {key} = 0.0 " in refusal(load_changed, tmp_path, key, 0.0)


@pytest.mark.parametrize("key, allowed", [
    ("polymnist.digits", ["auto", "mnist", "embedded"]), ("vae.likelihood", ["gaussian", "laplace", "correlated"]),
    ("vae.lr_schedule", ["constant", "cosine"]), ("ebm.fit.objective", ["exact", "sliced", "denoising"]),
    ("ebm.fit.model", ["energy", "score"]), ("evaluate.tuples", ["test", "validation"])])
def test_choice(tmp_path, key, allowed):
    for value in allowed:
        assert look_up(load_changed(tmp_path, key, value), key) == value
    message = refusal(load_changed, tmp_path, key, "other")
    assert f" {key} = 'other' " in message
    assert all(repr(value) in message for value in allowed)


@pytest.mark.parametrize("value", ["", "f58c", "F" * 64, "g" * 64, "a" * 65, "a" * 64 + "\n"])
def test_digest(tmp_path, value):
    assert " fid.sha256 = " in refusal(load_changed, tmp_path, "fid.sha256", value)


def test_several_mistakes_name_the_first_and_count_the_rest(tmp_path):
    content = changed("vae.beta", -1)
    content["judge"]["epochs"] = 0
    message = refusal(load, tmp_path, yaml.safe_dump(content))
    assert " judge.epochs = 0 " in message and message.endswith("(and 1 more)")


@pytest.mark.parametrize("text", ["", "just words", "[1, 2]", "null", "17"])
def test_no_mapping(tmp_path, text):
    assert refusal(load, tmp_path, text).startswith(f"{tmp_path}/params.yaml: (the whole file) = ")


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "\tseed: 1", "a: !!python/object:os.system x", b"seed: \xff",
                                  "seed: \0", "profile: 2024-13-45"])  # the last is no date, but has the form of one
def test_no_yaml(tmp_path, text):
    assert refusal(load, tmp_path, text).startswith(f"{tmp_path}/params.yaml: ")


def test_missing_file(tmp_path):
    assert refusal(params.load, tmp_path / "none.yaml").startswith(f"{tmp_path}/none.yaml: can't be read")


def test_folder_instead_of_a_file(tmp_path):
    assert refusal(params.load, tmp_path).startswith(f"{tmp_path}: can't be read")
