"""docs/tutorial.md, block by block, in the finished smoke run; and what `stages.sample` refuses."""

import json
import re
import sys

import numpy as np
from PIL import Image

from tests.project import ROOT, shell

RECONSTRUCTION = """
import torch
from ebmvae import params
from ebmvae.data import splits
from stages import sample
test = splits.load_split("test")
model, vaes = sample.load("eb_mvae_annealed", params.load(), torch.device("cpu"))
picture, drawn = test.images["m2"][3], ((3, 0), (3, 0), (5, 0), (3, 1))
a, again, more, other = (sample.generate(model, vaes, {"m2": picture}, *how) for how in drawn)
assert all(torch.equal(a[k], again[k]) for k in a)
assert all((a[k].int() - more[k][:3].int()).abs().max() <= 1 for k in a)  # one generator per sample
assert not torch.equal(a["m1"], other["m1"])
encode, decode = vaes["m2"]
with torch.no_grad():  # what is observed comes back as its reconstruction, but for posterior noise
    recon = splits.to_uint8(decode(encode(splits.to_float(picture[None]))[0]))
error = lambda x: float((x["m2"].float() - recon).square().mean())
assert error(a) < 0.7 * error(sample.generate(model, vaes, {}, n=3))
"""
REQUESTS = [  # what is wrong, as the message has to name it, and the request
    ("--target m9", "--target m9"),
    ("--observed m1=a.png", "--target m1 --observed m1=a.png"),
    ("--observed m2", "--target m1 --observed m2"),
    ("--observed m2=nowhere.png", "--target m1 --observed m2=nowhere.png"),
    ("--observed m2=README.md", "--target m1 --observed m2=README.md"),
    ("28x28", "--target m1 --observed m2=reports/figures/figure1.png"),
    ("-n 0", "--target m1 -n 0"),
]
REFUSALS = """
import json, sys
from ebmvae import command
from stages import sample
for request in json.loads(sys.argv[1]):
    sys.argv = ["sample", *request.split(), "-o", "never.png"]
    try:
        command.run(sample.main)
    except SystemExit as end:
        print(end.code, file=sys.stderr)
"""


def test_every_block_runs(finished):
    """Python blocks share their names, as in one session; bash blocks come between them."""
    blocks = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "docs/tutorial.md").read_text(), re.S)
    assert {language for language, _ in blocks} == {"python", "bash"}
    script = ["import subprocess"]
    for language, code in blocks:
        shell_call = f"subprocess.run(['bash', '-ec', {code!r}], check=True)"
        script.append(code if language == "python" else shell_call)
    done = shell(finished, sys.executable, "-c", "\n".join(script))
    assert "'m3': (16, 3, 28, 28)" in done.stdout and "m1 stands still: True" in done.stdout
    assert re.search(r"higher energy in (0\.\d+|1\.0)$", done.stdout, re.M)
    for name, columns in (("out", 4), ("paper", 4), ("unconditional", 3)):
        with Image.open(finished / f"{name}.png") as image:
            assert image.size == (columns * 30 - 2, columns * 30 - 2)
            assert len(np.unique(np.asarray(image))) > 50
    for file in ("out.png", "paper.png", "unconditional.png", "m1.png", "m4.png"):
        (finished / file).unlink()
    assert "up to date" in shell(finished, "dvc", "status").stdout


def test_what_is_observed_comes_back_and_seeds_differ(finished):
    shell(finished, sys.executable, "-c", RECONSTRUCTION)


def test_bad_requests_get_one_line_that_names_what_is_wrong(finished):
    requests = json.dumps([request for _, request in REQUESTS])
    lines = shell(finished, sys.executable, "-c", REFUSALS, requests).stderr.splitlines()
    assert lines[1::2] == ["2"] * len(REQUESTS) and not (finished / "never.png").exists()
    for line, (named, _) in zip(lines[::2], REQUESTS, strict=True):
        assert line.startswith("error: ") and named in line
