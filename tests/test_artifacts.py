"""Files: round trips, damage of any kind, and writes that fail."""

import hashlib

import numpy as np
import pytest
import torch
from torch import nn

from stages.lib import artifacts
from stages.lib.runtime import UserError

TENSORS = {"b": torch.arange(6.0).view(2, 3), "a": torch.tensor([1, 2]), "c": torch.tensor(True)}
ABOUT = {"modalities": ["m1", "m2"], "dim": 3}


def linear(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs))


def save_something(kind, path):
    if kind == "json":
        artifacts.save_json(path, {"a": [1, 2.5, None, "x"]})
    elif kind == "array":
        artifacts.save_array(path, np.arange(12, dtype=np.uint8).reshape(3, 4))
    else:
        artifacts.save_tensors(path, TENSORS, ABOUT)


LOAD = {"json": artifacts.load_json, "array": artifacts.load_array, "tensors": artifacts.load_tensors}
KINDS = pytest.mark.parametrize("kind", LOAD)


def refusal(call, *arguments):
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def names(folder):
    return sorted(file.name for file in folder.iterdir())


# ---- round trips


@pytest.mark.parametrize("value", [{"a": [1, 2.5, None, True], "é": {"b": "x\ny"}}, [], "text", 0.1, None])
def test_json_round_trip(tmp_path, value):
    artifacts.save_json(tmp_path / "x.json", value)
    assert artifacts.load_json(tmp_path / "x.json") == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [-float("inf")]}])
def test_json_refuses_what_is_no_number(tmp_path, value):
    with pytest.raises(ValueError):
        artifacts.save_json(tmp_path / "x.json", value)
    assert names(tmp_path) == []


@pytest.mark.parametrize("array", [
    np.arange(24, dtype=np.uint8).reshape(2, 3, 4), np.array([-1, 2**62]), np.array([[0.1, np.nan]]),
    np.arange(24).reshape(4, 6).T, np.arange(10)[::2], np.zeros((0, 3))], ids=["uint8", "int64", "nan", "transposed", "strided", "empty"])
def test_array_round_trip(tmp_path, array):
    artifacts.save_array(tmp_path / "x.npy", array)
    found = artifacts.load_array(tmp_path / "x.npy")
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), array)  # anyone can read it


def test_array_is_mapped_and_changes_never_reach_the_file(tmp_path):
    artifacts.save_array(tmp_path / "x.npy", np.arange(5))
    found = artifacts.load_array(tmp_path / "x.npy")
    assert isinstance(found, np.memmap)
    found[:] = 0
    del found
    np.testing.assert_array_equal(artifacts.load_array(tmp_path / "x.npy"), np.arange(5))


def test_array_refuses_pickles(tmp_path):
    with pytest.raises(ValueError):
        artifacts.save_array(tmp_path / "x.npy", np.array([{}]))
    assert names(tmp_path) == []


def test_tensors_round_trip(tmp_path):
    artifacts.save_tensors(tmp_path / "x.safetensors", TENSORS, ABOUT)
    found, about = artifacts.load_tensors(tmp_path / "x.safetensors")
    assert about == ABOUT
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)


def test_tensors_may_be_transposed_and_part_of_a_graph(tmp_path):
    base = torch.arange(12.0).view(3, 4).requires_grad_()
    artifacts.save_tensors(tmp_path / "x.safetensors", {"t": base.T, "twice": 2 * base})
    found, about = artifacts.load_tensors(tmp_path / "x.safetensors")
    assert about is None
    assert torch.equal(found["t"], base.T) and torch.equal(found["twice"], 2 * base)


def test_module_round_trip(tmp_path):
    shape = dict(inputs=3, outputs=2)
    module, x = linear(**shape), torch.randn(8, 3)
    module(x)  # moves the batch norm's buffers
    artifacts.save_module(tmp_path / "x.safetensors", module, shape)
    found = artifacts.load_module(tmp_path / "x.safetensors", linear, torch.device("cpu"))
    assert torch.equal(found(x), module.eval()(x))
    assert not any(part.training for part in found.modules())
    assert not any(weight.requires_grad for weight in found.parameters())


def test_save_makes_folders_and_replaces(tmp_path):
    file = tmp_path / "a" / "b" / "x.json"
    artifacts.save_json(file, 1)
    artifacts.save_json(file, 2)
    assert artifacts.load_json(file) == 2
    assert names(file.parent) == ["x.json", "x.json.sha256"]


def test_checksum_is_the_sha256(tmp_path):
    artifacts.save_json(tmp_path / "x.json", [1])
    digest = hashlib.sha256((tmp_path / "x.json").read_bytes()).hexdigest()
    assert (tmp_path / "x.json.sha256").read_text() == digest + "\n"


def test_save_without_checksum(tmp_path):
    artifacts.save_json(tmp_path / "x.json", [1], checksum=False)
    assert names(tmp_path) == ["x.json"]


# ---- the same content, the same bytes


def test_tensors_are_byte_deterministic(tmp_path):
    about = {"b": 1, "a": {"d": 2, "c": [3]}}
    artifacts.save_tensors(tmp_path / "one", TENSORS, about)
    turned = {"a": {"c": [3], "d": 2}, "b": 1}  # the order of a dict is no content
    for i in range(20):
        artifacts.save_tensors(tmp_path / "two", dict(reversed(TENSORS.items())), turned)
        assert (tmp_path / "two").read_bytes() == (tmp_path / "one").read_bytes()


def test_arrays_are_byte_deterministic_whatever_their_layout(tmp_path):
    array = np.arange(24).reshape(4, 6)
    artifacts.save_array(tmp_path / "one", array)
    artifacts.save_array(tmp_path / "two", np.asfortranarray(array))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


# ---- damage


@KINDS
def test_a_flip_of_any_byte_is_found(tmp_path, kind):
    file = tmp_path / "x.dat"
    save_something(kind, file)
    whole = file.read_bytes()
    for i in range(len(whole)):
        file.write_bytes(whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :])
        assert f"{file}: damaged" in refusal(LOAD[kind], file)
    file.write_bytes(whole)
    LOAD[kind](file)


@KINDS
def test_any_truncation_is_found(tmp_path, kind):
    file = tmp_path / "x.dat"
    save_something(kind, file)
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        assert f"{file}: damaged" in refusal(LOAD[kind], file)
    file.write_bytes(whole + b"\n")
    assert f"{file}: damaged" in refusal(LOAD[kind], file)


@KINDS
def test_a_damaged_checksum_is_found(tmp_path, kind):
    file = tmp_path / "x.dat"
    save_something(kind, file)
    for noted in (b"", b"0" * 64, b"\xff\xfe"):
        (tmp_path / "x.dat.sha256").write_bytes(noted)
        assert str(file) in refusal(LOAD[kind], file)


@KINDS
@pytest.mark.parametrize("missing", ["x.dat", "x.dat.sha256"])
def test_a_missing_file_is_named(tmp_path, kind, missing):
    save_something(kind, tmp_path / "x.dat")
    (tmp_path / missing).unlink()
    assert refusal(LOAD[kind], tmp_path / "x.dat").startswith(f"{tmp_path / missing}: missing")


@KINDS
def test_a_folder_in_place_of_the_file_is_named(tmp_path, kind):
    save_something(kind, tmp_path / "x.dat")
    (tmp_path / "x.dat").unlink()
    (tmp_path / "x.dat").mkdir()
    assert refusal(LOAD[kind], tmp_path / "x.dat").startswith(f"{tmp_path}/x.dat: can't be read")


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 100])
def test_no_model_file(tmp_path, content):
    artifacts.write(tmp_path / "x", content)  # with a right checksum
    assert refusal(artifacts.load_tensors, tmp_path / "x").startswith(f"{tmp_path}/x: not a model file")


def test_a_model_file_of_another_project(tmp_path):
    from safetensors.torch import save

    for metadata in (None, {"format": "pt"}):
        artifacts.write(tmp_path / "x", save({"a": torch.ones(1)}, metadata))
        assert refusal(artifacts.load_tensors, tmp_path / "x").startswith(f"{tmp_path}/x: not a model file")


def test_weights_of_another_shape(tmp_path):
    artifacts.save_module(tmp_path / "x", linear(3, 2), dict(inputs=4, outputs=2))
    message = refusal(artifacts.load_module, tmp_path / "x", linear, "cpu")
    assert message.startswith(f"{tmp_path}/x: does not fit its network")


def test_arguments_of_another_network(tmp_path):
    """Saved by another version of the code, whose constructor took something else."""
    artifacts.save_module(tmp_path / "x", linear(3, 2), dict(inputs=3, outputs=2, dropout=0.5))
    message = refusal(artifacts.load_module, tmp_path / "x", linear, "cpu")
    assert message.startswith(f"{tmp_path}/x: does not fit its network")


# ---- writes that fail (root may write anywhere, so: something in the way)


@KINDS
def test_a_file_in_place_of_the_folder(tmp_path, kind):
    (tmp_path / "folder").write_text("old")
    message = refusal(save_something, kind, tmp_path / "folder" / "x")
    assert message.startswith(f"{tmp_path}/folder/x: can't be written (")
    assert names(tmp_path) == ["folder"] and (tmp_path / "folder").read_text() == "old"


@KINDS
def test_a_folder_in_place_of_the_target(tmp_path, kind):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "old").write_text("old")
    assert refusal(save_something, kind, tmp_path / "x").startswith(f"{tmp_path}/x: can't be written (")
    assert names(tmp_path) == ["x"] and names(tmp_path / "x") == ["old"]


@KINDS
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_whole(tmp_path, kind, call, monkeypatch):
    save_something(kind, tmp_path / "x")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(artifacts.os, call, full)
        message = refusal(artifacts.write, tmp_path / "x", b"new")
    assert message == f"{tmp_path}/x: can't be written (No space left on device)"
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    LOAD[kind](tmp_path / "x")


@pytest.mark.parametrize("sync", [1, 3])  # of the file, of its checksum; 2 and 4 are those of the folder
def test_a_disk_that_fills_up_leaves_the_old_or_the_new_file(tmp_path, sync, monkeypatch):
    """A reader sees one or the other, never `damaged`."""
    artifacts.save_json(tmp_path / "x", "old")
    fsync, calls = artifacts.os.fsync, []

    def full(file):
        calls.append(file)
        if len(calls) == sync:
            raise OSError(28, "No space left on device")
        fsync(file)

    with monkeypatch.context() as patch:
        patch.setattr(artifacts.os, "fsync", full)
        refusal(artifacts.save_json, tmp_path / "x", "new")
    assert artifacts.load_json(tmp_path / "x") in ("old", "new")
    assert names(tmp_path) == ["x", "x.sha256"]


def test_ctrl_c_leaves_no_temporary_file(tmp_path, monkeypatch):
    artifacts.save_json(tmp_path / "x", 1)

    def interrupt(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(artifacts.os, "fsync", interrupt)
        artifacts.save_json(tmp_path / "x", 2)
    assert artifacts.load_json(tmp_path / "x") == 1
    assert names(tmp_path) == ["x", "x.sha256"]


def test_paths_inside_the_project_are_named_as_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refusal(artifacts.load_json, tmp_path / "models" / "x.json").startswith("models/x.json.sha256: missing")


# ---- files that are whole, but hold what no stage writes


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_are_refused(tmp_path, value):
    artifacts.save_tensors(tmp_path / "x", {"mean": torch.tensor([0.0, value]), "n": torch.tensor([1])})
    assert refusal(artifacts.load_tensors, tmp_path / "x").startswith(f"{tmp_path}/x: mean holds NaN or infinity")


@pytest.mark.parametrize("text", ['{"loss": NaN}', "[Infinity]", "-Infinity", "{", "", "[" * 100_000])
def test_json_that_is_none(tmp_path, text):
    artifacts.write(tmp_path / "x.json", text.encode())
    assert refusal(artifacts.load_json, tmp_path / "x.json").startswith(f"{tmp_path}/x.json: not JSON")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x93NUMPY\x01\x00", b"PK\x03\x04" + bytes(100)])
def test_no_array(tmp_path, content):
    artifacts.write(tmp_path / "x.npy", content)
    assert refusal(artifacts.load_array, tmp_path / "x.npy").startswith(f"{tmp_path}/x.npy: not an array")


def test_what_was_read_is_known_by_its_digest(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "verified", {})
    artifacts.save_json(tmp_path / "x.json", 1)
    artifacts.load_json(tmp_path / "x.json")
    assert artifacts.verified == {f"{tmp_path}/x.json": hashlib.sha256(b"1\n").hexdigest()}


# ---- files that belong together


def test_together_is_all_or_none(tmp_path, monkeypatch):
    for name in ("a", "b"):
        artifacts.save_json(tmp_path / f"{name}.json", "old")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def fails():
        with artifacts.together():
            artifacts.save_json(tmp_path / "a.json", "new")
            assert artifacts.load_json(tmp_path / "a.json") == "old"  # not before all are written
            (tmp_path / "folder").mkdir()
            artifacts.save_json(tmp_path / "folder" / "x" / "b.json", "new")
            artifacts.write(tmp_path / "a.json" / "b.json", b"new")  # a file is no folder

    with pytest.raises(UserError, match="b.json: can't be written"):
        fails()
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()} == before
    assert list((tmp_path / "folder" / "x").iterdir()) == []
    with artifacts.together():
        for name in ("a", "b"):
            artifacts.save_json(tmp_path / f"{name}.json", "new")
    assert [artifacts.load_json(tmp_path / f"{name}.json") for name in ("a", "b")] == ["new", "new"]
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == sorted(before)


def test_a_write_after_a_failed_unit_is_on_its_own_again(tmp_path):
    with pytest.raises(ZeroDivisionError):
        with artifacts.together():
            artifacts.write(tmp_path / "a", b"1")
            1 / 0
    assert list(tmp_path.iterdir()) == []
    artifacts.write(tmp_path / "a", b"2", checksum=False)
    assert (tmp_path / "a").read_bytes() == b"2"
