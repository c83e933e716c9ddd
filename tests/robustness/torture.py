"""Faults of every kind, injected into real stages, and what became of the outputs.

    make torture          # the full counts, about 20 minutes on two cores; docs/reliability.json
    OMP_NUM_THREADS=1 DEVICE=cpu python -m tests.robustness.torture --kills 10 --dvc-kills 2

Stages run in forked children of this process, which has imported everything: hundreds of starts
cost no hundred imports.
"""

import contextlib
import importlib
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import sklearn.datasets
import torch
import torch._dynamo  # stages import it late, which a child without rights could not
import yaml
from dvc.repo import Repo
from PIL import Image

from benchmarks.workspace import set_params
from ebmvae import command
from ebmvae.core import checkpoints
from ebmvae.core.messages import UserError
from ebmvae.methods import BASELINES, METHODS
from tests.project import ROOT, clone, commit, contents, environment
from tools import parallel

TINY = yaml.safe_load("""{
    polymnist.digits: embedded, polymnist.n_train: 400, polymnist.n_test: 200,
    classifier.epochs: 1, classifier.batch_size: 32, classifier.min_accuracy: 0,
    classifier.feature_epochs: 1, classifier.feature_dim: 16,
    vae.epochs: 2, vae.batch_size: 8, vae.latent_dim: 16, baseline.latent_dim: 16,
    ebm.fit.steps: 150, ebm.fit.hidden: 64, ebm.langevin_steps: 10, annealed.fit.steps: 60,
    annealed.fit.infonce_steps: 60, annealed.fit.hidden: 32, annealed.fit.batch_size: 64,
    annealed.steps: 10, evaluate.n_samples: 100}""")
TRAININGS = {
    "train_classifiers": "models/classifiers",
    **{f"train_vae m{m}": f"models/vae/m{m}" for m in range(1, 6)},
    "fit_ebm": "models/ebm",
    "fit_annealed": "models/annealed",
    **{f"train_baseline {method}": METHODS[method].models for method in BASELINES},
}
OUTS = {  # in an order in which they can run
    "polymnist": "data/polymnist",
    **{stage: out for stage, out in TRAININGS.items() if not stage.startswith("fit_")},
    "encode": "latents",
    **TRAININGS,
    "references": "results/references",
    **{f"evaluate {method}": f"results/{method}" for method in METHODS},
    "report": "reports",
}
MAINS = {s: importlib.import_module(f"stages.{s}").main for s in {s.split()[0] for s in OUTS}}
READERS = {  # a stage, some of the files that it reads
    "train_vae m1": "data/polymnist/train/m1.npy models/classifiers/m1.safetensors",
    "train_vae m2": "data/polymnist/test/m2.npy",
    "train_classifiers": "data/polymnist/train/labels.npy data/polymnist/test/crops.npy",
    "encode": "data/polymnist/provenance.json models/vae/m2/encoder.safetensors",
    "fit_ebm": "latents/train.safetensors",
    "fit_annealed": "latents/test.safetensors",
    "references": "models/classifiers/features.safetensors latents/test.safetensors.sha256",
    "evaluate eb_mvae": "models/ebm/joint.safetensors models/vae/m2/decoder.safetensors",
    "evaluate eb_mvae_annealed": "models/annealed/standardisation.safetensors",
    "evaluate moe": "models/baseline/moe/m3/encoder.safetensors",
    "evaluate poe": "results/references/statistics.safetensors",
    "report": "results/mopoe/results.json results/mopoe/unconditional_m1.npy "
    "results/references/results.json models/classifiers/accuracy.json models/vae/m1/history.json",
}
SECTIONS = {  # of params.yaml, and a stage that reads it
    "polymnist": "polymnist",
    "classifier": "train_classifiers",
    "vae": "train_vae m1",
    "ebm": "fit_ebm",
    "annealed": "fit_annealed",
    "baseline": "train_baseline moe",
    "evaluate": "evaluate eb_mvae",
    "fid": "references",
}
BAD = (None, "much", -1, [], {}, [1], float("nan"), float("inf"), True, "1e", "")
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"  # in docs/reliability.md
INTERVAL = "0.3"  # seconds between checkpoints


# ---- running a stage


def start(folder, stage, fault=None, **variables):
    """A child that runs `stage` in `folder`, after `fault()`. Returns (pid, what it prints)."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, os.fdopen(reading, "rb")
    code = 1
    try:
        for stream in (1, 2):
            os.dup2(writing, stream)
        os.chdir(folder)
        os.environ.update(variables)
        sys.argv = stage.split()
        if fault:
            fault()
        command.run(MAINS[sys.argv[0]])
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def finish(process):
    """Exit code of a child and what it printed."""
    pid, output = process
    with output:
        text = output.read().decode(errors="replace")
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text


def run(folder, stage, fault=None, **variables):
    return finish(start(folder, stage, fault, **variables))


def undisturbed(folder):
    """Run every stage once in `folder`; returns {stage: (seconds, its outputs)}."""
    sklearn.datasets.load_digits()  # another that a child without rights could not
    set_params(folder, TINY)
    expected = {}
    for stage, out in OUTS.items():
        begun = time.monotonic()
        code, text = run(folder, stage)
        assert code == 0, f"{stage}: {text}"
        expected[stage] = time.monotonic() - begun, contents(folder, out)
    return expected


def new_tally(**more):
    return {"injected": 0, "survived": 0, "lost": 0, **more}


def count(tally, good, *about, faults=1):
    """Count faults as survived, or as lost, which is printed."""
    tally["survived" if good else "lost"] += faults
    if not good:
        print(" ", *about, flush=True)


# ---- faults: functions of the folder, what is expected there, a number and the dice -> tally


def kills(folder, expected, number, dice, signals):
    """Signals at random moments to a stage, up to three times; then it runs to its end."""
    tally = new_tally(too_late=0, longest_redone_s=0.0, slowest_end_s=0.0)
    while tally["injected"] < number:
        stage = dice.choice(list(TRAININGS if dice.random() < 0.7 else OUTS))
        seconds, outputs = expected[stage]
        before = tally["injected"]
        for _ in range(dice.choice((1, 1, 2, 3))):
            signal_one(folder, stage, dice.uniform(0.02, 1) * seconds, dice.choice(signals), tally)
        shutil.rmtree(folder / OUTS[stage], ignore_errors=True)
        code, text = run(folder, stage)
        left = list((folder / checkpoints.FOLDER).glob("*.checkpoint"))
        good = code == 0 and not left and contents(folder, OUTS[stage]) == outputs
        count(tally, good, stage, code, text[-500:], faults=tally["injected"] - before)
    return tally


def signal_one(folder, stage, delay, signum, tally):
    """`signum` to a stage after `delay` seconds: it must end soon, with its exit code."""
    shutil.rmtree(folder / OUTS[stage], ignore_errors=True)  # as DVC does
    begun = time.time()
    process = start(folder, stage, CHECKPOINT_SECONDS=INTERVAL)
    time.sleep(delay)
    sent = time.time()
    os.kill(process[0], signum)
    code, text = finish(process)
    if code == 0:  # the stage had ended: no fault
        tally["too_late"] += 1
        return
    tally["injected"] += 1
    if signum == signal.SIGKILL:  # what was done since the last checkpoint is done again
        saved = [f.stat().st_mtime for f in (folder / checkpoints.FOLDER).glob("*.checkpoint")]
        redone = sent - max(saved, default=0)
        if redone < sent - begun:
            tally["longest_redone_s"] = max(tally["longest_redone_s"], redone)
        return
    tally["slowest_end_s"] = max(tally["slowest_end_s"], time.time() - sent)
    if code not in (128 + signum, -signum) or "Traceback" in text:  # the latter before `run` began
        print(f"  {stage}: exit {code}: {text[-500:]}", flush=True)
        tally["lost"] += 1


def dvc_kills(_, expected, number, dice, signals):
    """Signals to `dvc repro` itself at random moments; all outputs at the end of each pass.

    Between two starts what docs/reliability.md says: wait for the orphan or end it, and
    `git checkout dvc.lock` where it is torn.
    """
    tally = new_tally(passes=0, dvc_lock_torn=0)
    with tempfile.TemporaryDirectory() as name:
        folder = clone(Path(name))
        set_params(folder, TINY)
        commit(folder, "tiny")
        while tally["injected"] < number:
            before = tally["injected"]
            while (code := repro(folder, tally["injected"] < number, dice, signals)) is None:
                tally["injected"] += 1
                tally["dvc_lock_torn"] += mended(folder)
            tally["passes"] += 1
            measured = {stage: outputs for stage, (_, outputs) in expected.items()}
            del measured["report"]  # its folder holds what is in git, too
            good = all(contents(folder, OUTS[s]) == outputs for s, outputs in measured.items())
            status = subprocess.check_output(
                ["dvc", "status"], cwd=folder, env=environment(), text=True
            )
            good = good and code == 0 and "up to date" in status
            text = (folder / ".git/log").read_text()[-500:]
            count(tally, good, code, status, text, faults=tally["injected"] - before)
            subprocess.run(["git", "checkout", "-q", "."], cwd=folder, check=True)
            made = ("data", "models", "latents", "results", ".dvc/cache", ".dvc/tmp")
            for out in (*made, checkpoints.FOLDER):
                shutil.rmtree(folder / out, ignore_errors=True)
    return tally


def repro(folder, disturb, dice, signals):
    """`dvc repro`: its exit code, or None where it was hit by a signal and nothing of it is left.

    Ctrl-C in a terminal reaches the whole group, as `timeout` and schedulers do; `kill` reaches DVC
    alone, whose child lives on.
    """
    shell = dice.choice(["/bin/sh", "/bin/bash"])  # the first may stay between DVC and the stage
    env = environment(SHELL=shell, CHECKPOINT_SECONDS=INTERVAL)
    with open(folder / ".git/log", "w") as log:
        process = subprocess.Popen(
            ["dvc", "repro"], cwd=folder, env=env, start_new_session=True, stdout=log, stderr=log
        )
    try:
        return process.wait(dice.uniform(2, 9) if disturb else None)
    except subprocess.TimeoutExpired:
        signum = dice.choice(signals)
    whole = signum == signal.SIGINT or signum == signal.SIGTERM and dice.random() < 0.5
    (os.killpg if whole else os.kill)(process.pid, signum)
    process.wait()
    if dice.random() < 0.5:  # end the orphan; otherwise wait for it
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    while any(map(partial(is_of_group, process.pid), psutil.pids())):
        time.sleep(0.1)


def is_of_group(group, pid):
    try:
        dead = psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        return os.getpgid(pid) == group and not dead
    except (psutil.Error, ProcessLookupError):
        return False


def mended(folder):
    """1 where dvc.lock was torn: the runner says so, and git brings an older one back; else 0."""
    try:
        with contextlib.chdir(folder), Repo() as project:
            parallel.refuse_torn_lock(project)
        return 0
    except UserError as error:
        assert "git checkout dvc.lock" in str(error)
    subprocess.run(["git", "checkout", "-q", "dvc.lock"], cwd=folder, check=True)
    return 1


def damages(folder, expected, number, dice, harm):
    """`harm` on a file that a stage reads: it must end with 2, name it, and write nothing."""
    tally = new_tally(injected=number)
    pairs = [(stage, name) for stage, names in READERS.items() for name in names.split()]
    for i in range(number):
        stage, name = pairs[i % len(pairs)]
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(harm(whole, dice))
        code, text = run(folder, stage)
        (folder / name).write_bytes(whole)
        named = name.removesuffix(".sha256") in text and "Traceback" not in text
        good = code == 2 and named and contents(folder, OUTS[stage]) == expected[stage][1]
        count(tally, good, name, stage, code, text[-300:])
    return tally


def cut(whole, dice):
    return whole[: dice.randrange(len(whole))]


def flip(whole, dice):
    damaged = bytearray(whole)
    damaged[dice.randrange(len(whole))] ^= 1 << dice.randrange(8)
    return bytes(damaged)


def damaged_checkpoints(folder, expected, number, dice):
    """A checkpoint damaged between a kill and the next start: set aside, the bytes as ever."""
    tally = new_tally()
    while tally["injected"] < number:
        stage = dice.choice(("train_vae m1", "fit_ebm", "fit_annealed", "train_baseline moe"))
        process = start(folder, stage, CHECKPOINT_SECONDS="0")
        time.sleep(dice.uniform(0.4, 0.9) * expected[stage][0])
        os.kill(process[0], signal.SIGKILL)
        finish(process)
        for file in list((folder / checkpoints.FOLDER).glob("*.checkpoint"))[:1]:
            file.write_bytes(dice.choice((cut, flip))(file.read_bytes(), dice))
            code, text = run(folder, stage)
            good = code == 0 and (folder / f"{file}.damaged").exists()
            good = good and contents(folder, OUTS[stage]) == expected[stage][1]
            tally["injected"] += 1
            count(tally, good, "checkpoint of", stage, code, text[-300:])
            (folder / f"{file}.damaged").unlink(missing_ok=True)
    return tally


def parameters(folder, expected, number, dice):
    """Wrong values, unknown and missing keys, no YAML: one line that names the key or the file."""
    tally, file = new_tally(), folder / "params.yaml"
    original = file.read_text()
    keys = [(section, key) for section in SECTIONS for key in yaml.safe_load(original)[section]]
    while tally["injected"] < number:
        section, key = keys[tally["injected"] % len(keys)]
        kind = dice.choice(("value", "value", "value", "unknown", "missing", "text"))
        text, name = wrong_parameter(original, section, key, kind, dice.choice(BAD))
        if text is None:
            continue
        stage = SECTIONS[section]
        file.write_text(text)
        code, output = run(folder, stage)
        file.write_text(original)
        one_line = output.startswith("error: ") and output.strip().count("\n") == 0
        good = code == 2 and one_line and name in output
        good = good and contents(folder, OUTS[stage]) == expected[stage][1]
        tally["injected"] += 1
        count(tally, good, kind, section, key, code, output[-300:])
    return tally


def wrong_parameter(original, section, key, kind, value):
    """(a wrong params.yaml, what the message must name); (None, "") if it were not wrong."""
    values, name = yaml.safe_load(original), f"{section}.{key}"
    if kind == "text":
        return original[: original.index(f"{key}:") + len(key)] + ": [}", "params.yaml"
    if kind == "missing":
        del values[section][key]
    elif kind == "unknown":
        name = f"{name}s"
        values[section][f"{key}s"] = 1
    else:
        may_be_empty = ("polymnist.import_dir", "polymnist.own_data")
        paths = ("polymnist.backgrounds", "polymnist.import_dir", "fid.inception_weights")
        if name in may_be_empty and not value or name in paths and isinstance(value, str):
            return None, ""
        values[section][key] = value
    return yaml.safe_dump(values), name


def picture(dice, side=40):
    pixels = np.frombuffer(dice.randbytes(side * side * 3), np.uint8)
    return Image.fromarray(pixels.reshape(side, side, 3))


def png(dice):
    """The bytes of a picture's file."""
    buffer = io.BytesIO()
    picture(dice).save(buffer, format="PNG")
    return buffer.getvalue()


WRONG = {  # kind: what comes in the place of a picture
    "text": lambda file, dice: file.write_text("no picture"),
    "empty": lambda file, dice: file.touch(),
    "script": lambda file, dice: file.write_text("%!PS-Adobe-3.0 EPSF-3.0\n"),
    "truncated": lambda file, dice: file.write_bytes(png(dice)[:200]),
    "small": lambda file, dice: picture(dice, 10).save(file),
    "16 bit": lambda file, dice: Image.fromarray(np.full((40, 40), 3000, np.uint16)).save(file),
    "animated": lambda file, dice: picture(dice).save(
        file, save_all=True, append_images=[picture(dice)]
    ),
    "bomb": lambda file, dice: Image.new("1", (40000, 40000)).save(file),
    "link": lambda file, dice: file.symlink_to("/etc/passwd"),
    "dead link": lambda file, dice: file.symlink_to("nowhere"),
    "pipe": lambda file, dice: os.mkfifo(file),
    "gone": lambda file, dice: None,
}
MISNAMED = "x.png 1.png 9999999999.1.png 1.9999.png -1.1.png".split()


def pictures(folder, expected, number, dice):
    """Folders of pictures and PolyMNIST trees that are wrong in one way each."""
    tally = new_tally(injected=number)
    kinds = [(key, kind) for kind in WRONG for key in ("backgrounds", "import_dir")]
    kinds += [("import_dir", name) for name in MISNAMED]
    for i in range(number):
        key, kind = kinds[i % len(kinds)]
        with tempfile.TemporaryDirectory() as where:
            if key == "backgrounds":
                files = [Path(where, f"{m}.png") for m in range(5)]
            else:
                files = [Path(where, s, f"m{m}") for s in ("train", "test") for m in range(5)]
                files = [file / f"{k}.{k}.png" for file in files for k in range(3)]
            for file in files:
                file.parent.mkdir(parents=True, exist_ok=True)
                picture(dice, 28 if key == "import_dir" else 40).save(file)
            if kind in MISNAMED:
                files[1].rename(files[1].with_name(kind))
            else:
                files[1].unlink()
                WRONG[kind](files[1], dice)
            set_params(folder, {**TINY, f"polymnist.{key}": where})
            code, text = run(folder, "polymnist")
        set_params(folder, TINY)
        last = text.strip().splitlines()[-1] if text.strip() else ""
        good = code == 2 and last.startswith(f"error: polymnist.{key}") and "Traceback" not in text
        good = good and contents(folder, OUTS["polymnist"]) == expected["polymnist"][1]
        count(tally, good, key, kind, code, text[-300:])
    return tally


def full_disk():
    """Files may grow to 300 bytes only."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))


def no_rights():
    """To write where others may not."""
    if os.getuid() == 0:
        os.setgid(65534)
        os.setuid(65534)


def disks(folder, expected, number, dice):
    """Outputs that can't be written, in every stage, `number` times."""
    tally = new_tally()
    scratch = folder / checkpoints.FOLDER
    for stage, out in [*OUTS.items()] * number:
        for fault in (full_disk, no_rights):
            places = [p for p in (folder / out, *(folder / out).rglob("*")) if p.is_dir()]
            for place in places if fault is no_rights else ():
                place.chmod(0o555)
            scratch.chmod(0o777)
            for file in scratch.iterdir():
                file.chmod(0o666)
            code, text = run(folder, stage, fault)
            for place in places:
                place.chmod(0o755)
            good = code == 2 and "can't be written" in text and "Traceback" not in text
            good = good and contents(folder, out) == expected[stage][1]
            tally["injected"] += 1
            count(tally, good, stage, fault.__name__, code, text[-300:])
            for file in scratch.glob("*.checkpoint"):
                file.unlink()
    return tally


STOP = [signal.SIGTERM, signal.SIGINT]
FAULTS = {  # kind: (option, its full count, function)
    "SIGKILL to a stage": ("kills", 100, partial(kills, signals=[signal.SIGKILL])),
    "SIGTERM or SIGINT to a stage": ("signals", 30, partial(kills, signals=STOP)),
    "file cut short": ("damages", 200, partial(damages, harm=cut)),
    "bit flipped": ("bits", 200, partial(damages, harm=flip)),
    "checkpoint damaged": ("checkpoints", 20, damaged_checkpoints),
    "parameters": ("parameters", 60, parameters),
    "pictures": ("pictures", 30, pictures),
    "full disk, read-only outputs": ("disks", 1, disks),
    "SIGKILL to dvc repro": ("dvc-kills", 20, partial(dvc_kills, signals=[signal.SIGKILL])),
    "SIGTERM or SIGINT to dvc repro": ("dvc-signals", 30, partial(dvc_kills, signals=STOP)),
}


def markdown(table):
    """reliability.json as a table."""
    rows = []
    for kind, tally in table.items():
        further = {key: tally[key] for key in tally if key not in new_tally()}
        more = "; ".join(f"{key.replace('_', ' ')} {value}" for key, value in further.items())
        numbers = " | ".join(str(tally[key]) for key in new_tally())
        rows.append(f"| {kind} | {numbers} | {more} |")
    head = ["| fault | injected | survived | lost | |", "| --- | --- | --- | --- | --- |"]
    return "\n".join([*head, *rows])


def write(table):
    (ROOT / "docs/reliability.json").write_text(json.dumps(table, indent=1) + "\n")
    page = ROOT / "docs/reliability.md"
    before, after = page.read_text().split(BEGIN)[0], page.read_text().split(END)[1]
    page.write_text(f"{before}{BEGIN}\n{markdown(table)}\n{END}{after}")


def main():
    parser = command.parser(__doc__)
    for option, full, _ in (*FAULTS.values(), ("seed", 0, None)):
        parser.add_argument(f"--{option}", type=int, default=full)
    parser.add_argument("--write", action="store_true", help="write docs/reliability.json")
    args = parser.parse_args()
    if torch.get_num_threads() != 1 or os.environ.get("DEVICE") != "cpu":
        parser.error("start it with OMP_NUM_THREADS=1 DEVICE=cpu: forks don't share thread pools")
    dice, table = random.Random(args.seed), {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        expected = undisturbed(folder)
        for kind, (option, _, inject) in FAULTS.items():
            begun = time.monotonic()
            tally = inject(folder, expected, getattr(args, option.replace("-", "_")), dice)
            table[kind] = {key: round(value, 2) for key, value in tally.items()}
            print(f"{kind}: {table[kind]}, {time.monotonic() - begun:.0f} s", flush=True)
    if args.write:
        write(table)
    sys.exit(any(tally["lost"] for tally in table.values()))


if __name__ == "__main__":
    main()
