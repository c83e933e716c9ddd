"""Feature statistics by shards: eight commands and a merge give what one pass over all images does."""

import sys

import numpy as np
import pytest

from benchmarks import workspace
from stages.lib import artifacts, data, features, metrics, params
from tests.project import shell
from tests.torture import TINY


def test_eight_shards_are_one_pass(tiny, monkeypatch):
    workspace.set_params(tiny, {**TINY, "evaluate.batch_size": 7})
    for k in range(1, 9):
        workspace.python(tiny, "cluster.statistics", "m2", "--shard", f"{k}/8")
    said = workspace.python(tiny, "cluster.statistics", "m2", "--merge", "8")
    assert said == "results/statistics/test-m2.safetensors: 200 images, 16 features\n"
    monkeypatch.chdir(tiny)
    p = params.load()
    images = data.load_split("test", "cpu", ["m2"]).images["m2"]
    mean, covariance = metrics.feature_statistics(features.extractor(p, "cpu")(images).double().detach().numpy())
    tensors, about = artifacts.load_tensors("results/statistics/test-m2.safetensors")
    assert about == {"count": 200}
    np.testing.assert_allclose(tensors["mean"].numpy(), mean, rtol=1e-6)  # other batches, other float32 rounding of the features
    np.testing.assert_allclose(tensors["covariance"].numpy(), covariance, rtol=1e-4, atol=1e-6 * np.abs(covariance).max())


def test_a_shard_of_one_image(tiny):
    workspace.set_params(tiny, TINY)
    workspace.python(tiny, "cluster.statistics", "m2", "--shard", "200/200")
    tensors, about = artifacts.load_tensors(tiny / "results/statistics/test-m2-200of200.safetensors")
    assert about == {"count": 1} and tensors["covariance"].shape == (16, 16) and not tensors["covariance"].any()


@pytest.mark.parametrize("arguments, said", [
    (["--shard", "9/8"], "error: --shard 9/8: such as 3/8, the third of eight"),
    (["--shard", "x"], "error: --shard x: such as 3/8, the third of eight"),
    (["--shard", "1/201"], "error: --shard 1/201: there are 200 images, too few for 201 shards"),
    (["--merge", "0"], "error: --merge 0: how many shards, 1 or more"),
    (["--merge", "5"], "error: results/statistics/test-m2-1of5.safetensors")])
def test_bad_input_is_one_line(tiny, arguments, said):
    done = shell(tiny, sys.executable, "-m", "cluster.statistics", "m2", *arguments, check=False, PYTHONPATH=str(workspace.ROOT))
    assert done.returncode == 2 and done.stderr.startswith(said) and done.stderr.count("\n") == 1
