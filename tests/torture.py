"""Faults of every kind, injected into real stages, and what became of the outputs.

    make torture                       # the full counts, about 20 minutes on two cores; writes docs/reliability.json
    OMP_NUM_THREADS=1 DEVICE=cpu python -m tests.torture --kills 10 --dvc-kills 2 --dvc-signals 2 --damages 10 --bits 10

Stages run in forked children of this process, which has imported everything: hundreds of starts cost no hundred imports.
"""

import argparse
import importlib
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
from pathlib import Path

import numpy as np
import sklearn.datasets
import torch
import torch._dynamo
import yaml
from PIL import Image

from benchmarks.workspace import set_params
from stages.lib import provenance, runtime
from tests.project import BIN, ROOT, clone, commit

TINY = {"polymnist.digits": "embedded", "polymnist.n_train": 400, "polymnist.n_test": 200, "judge.epochs": 1, "judge.batch_size": 32,
        "judge.least_accuracy": 0, "judge.feature_epochs": 1, "judge.feature_dim": 16, "vae.epochs": 2, "vae.batch_size": 8,
        "vae.latent_dim": 16, "baseline.latent_dim": 16, "ebm.fit.steps": 150, "ebm.fit.hidden": 64, "annealed.fit.steps": 60,
        "annealed.fit.contrast_steps": 60,
        "annealed.fit.hidden": 32, "annealed.fit.batch_size": 64, "evaluate.n_samples": 100, "ebm.langevin_steps": 10}
METHODS = ("eb_mvae", "eb_mvae_annealed", "poe", "moe", "mopoe", "mvtcae")
OUTS = {"polymnist": "data/polymnist", "train_judge": "models/judge", **{f"train_vae m{m}": f"models/vae/m{m}" for m in range(1, 6)},
        "encode": "latents", "fit_ebm": "models/ebm", "fit_annealed": "models/annealed",
        **{f"train_baseline {m}": f"models/baseline/{m}" for m in METHODS[2:]}, "references": "results/references",
        **{f"evaluate {m}": f"results/{m}" for m in METHODS}, "report": "reports"}
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"  # in docs/reliability.md
INTERVAL = 0.3  # seconds between checkpoints
MAINS = {name: importlib.import_module(f"stages.{name}").main for name in {stage.split()[0] for stage in OUTS}}


# ---- running a stage


def start(folder, stage, fault=None, **environment):
    """A child that runs `stage` in `folder`; `fault()` is called in it first. Returns (pid, file with what it prints)."""
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
        os.environ.update(environment)
        provenance.as_started.cache_clear()
        sys.argv = stage.split()
        if fault:
            fault()
        runtime.run(MAINS[sys.argv[0]])
        code = 0
    except SystemExit as exit:
        code = exit.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)


def finish(process):
    """Exit code of a child and what it printed."""
    pid, output = process
    with output:
        text = output.read().decode(errors="replace")
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text


def run(folder, stage, fault=None, **environment):
    return finish(start(folder, stage, fault, **environment))


def content(folder, out):
    """Every file of an output, {path: bytes}."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in sorted((folder / out).rglob("*")) if file.is_file()}


def undisturbed(folder):
    """Run every stage once in `folder`; returns {stage: (seconds, its outputs)}."""
    sklearn.datasets.load_digits()  # what stages import late, and a child without rights could not: this, and torch._dynamo
    (folder / "stages").symlink_to(ROOT / "stages")
    set_params(folder, TINY)
    found = {}
    for stage, out in OUTS.items():
        begun = time.monotonic()
        code, text = run(folder, stage)
        assert code == 0, f"{stage}: {text}"
        found[stage] = time.monotonic() - begun, content(folder, out)
    return found


# ---- faults; each returns {"injected", "survived", "lost", ...}


def kills(folder, expected, count, signals, dice):
    """`signals` (SIGKILL, or SIGTERM and SIGINT) at random moments, a stage killed once or twice, then run to its end."""
    tally = {"injected": 0, "survived": 0, "lost": 0, "too_late": 0, "longest_redone_s": 0.0, "slowest_end_s": 0.0}
    trainers = [stage for stage in OUTS if stage.split()[0] in ("train_judge", "train_vae", "train_baseline", "fit_ebm", "fit_annealed")]
    while tally["injected"] < count:
        stage = dice.choice(trainers if dice.random() < 0.7 else list(OUTS))
        seconds, outputs = expected[stage]
        hits = 0
        for _ in range(dice.choice((1, 1, 2, 3))):
            shutil.rmtree(folder / OUTS[stage], ignore_errors=True)  # as DVC does
            begun = time.time()
            process = start(folder, stage, CHECKPOINT_SECONDS=str(INTERVAL))
            time.sleep(dice.uniform(0.02, 1) * seconds)
            asked, signum = time.time(), dice.choice(signals)
            os.kill(process[0], signum)
            code, text = finish(process)
            if code == 0:  # the stage had ended; no fault then, and none survived
                tally["too_late"] += 1
                continue
            hits += 1
            tally["injected"] += 1
            if signum == signal.SIGKILL:
                kept = [f.stat().st_mtime for f in (folder / runtime.SCRATCH).glob("*.checkpoint")]
                kept = [moment for moment in kept if moment > begun]
                if kept:  # a training was under way: what was done since its last checkpoint is done again
                    tally["longest_redone_s"] = max(tally["longest_redone_s"], asked - max(kept))
            else:
                tally["slowest_end_s"] = max(tally["slowest_end_s"], time.time() - asked)
                if code not in (128 + signum, -signum) or "Traceback" in text:  # the latter before `run` began
                    print(f"  {stage}: exit {code}: {text[-500:]}")
                    tally["lost"] += 1
        shutil.rmtree(folder / OUTS[stage], ignore_errors=True)
        code, text = run(folder, stage)
        if code == 0 and content(folder, OUTS[stage]) == outputs and not list((folder / runtime.SCRATCH).glob("*.checkpoint")):
            tally["survived"] += hits
        else:
            print(f"  {stage}: exit {code}, outputs differ after {hits} signals: {text[-500:]}")
            tally["lost"] += hits
    return tally


def dvc_kills(expected, count, signals, dice):
    """Signals to `dvc repro` itself at random moments, the next one started at once; all outputs at the end of each pass.

    Counted, too: a dvc.lock that DVC was killed while writing, and that was set aside before the next one read it.
    """
    tally = {"injected": 0, "survived": 0, "lost": 0, "passes": 0, "dvc_lock_torn": 0}
    with tempfile.TemporaryDirectory() as name:
        folder = clone(Path(name))
        set_params(folder, TINY)
        commit(folder, "tiny")
        environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "CHECKPOINT_SECONDS": str(INTERVAL)}

        def set_aside():
            """1 where the last signal tore dvc.lock, else 0."""
            aside = folder / "dvc.lock.damaged"
            found = aside.exists()
            aside.unlink(missing_ok=True)
            return int(found)

        while tally["injected"] < count:
            since = 0
            while True:
                shell = dice.choice(["/bin/sh", "/bin/bash"])  # the first may stay between DVC and the stage
                process = subprocess.Popen(["dvc", "repro"], cwd=folder, env={**environment, "SHELL": shell}, text=True, start_new_session=True,
                                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                try:
                    output, _ = process.communicate(timeout=dice.uniform(2, 9) if tally["injected"] < count else None)
                    break
                except subprocess.TimeoutExpired:
                    tally["dvc_lock_torn"] += set_aside()
                    signum = dice.choice(signals)
                    # Ctrl-C in a terminal reaches the whole group, as `timeout` and schedulers do; `kill` dvc alone, whose
                    # child lives on for a moment.
                    whole = signum == signal.SIGINT or signum == signal.SIGTERM and dice.random() < 0.5
                    (os.killpg if whole else os.kill)(process.pid, signum)
                    process.wait()
                    process.stdout.close()
                    tally["injected"] += 1
                    since += 1
            tally["passes"] += 1
            tally["dvc_lock_torn"] += set_aside()
            made = {out: content(folder, out) for out in OUTS.values() if out != "reports"}
            right = process.returncode == 0 and all(made[OUTS[stage]] == outputs for stage, (_, outputs) in expected.items() if stage != "report")
            status = subprocess.run(["dvc", "status"], cwd=folder, env=environment, capture_output=True, text=True).stdout
            if right and "up to date" in status:
                tally["survived"] += since
            else:
                tally["lost"] += since
                print(f"  dvc repro: exit {process.returncode}, {status[-300:]} {output[-500:]}")
            subprocess.run(["git", "checkout", "-q", "."], cwd=folder, check=True)
            for out in ("data", "models", "latents", "results", ".dvc/cache", ".dvc/tmp", ".checkpoints"):
                shutil.rmtree(folder / out, ignore_errors=True)
    return tally


READERS = {  # a file, a stage that reads it
    "data/polymnist/train/m1.npy": "train_vae m1", "data/polymnist/test/m1.npy": "train_vae m1",
    "data/polymnist/train/labels.npy": "train_judge", "data/polymnist/test/crops.npy": "train_judge",
    "data/polymnist/provenance.json": "encode", "models/judge/m1.safetensors": "train_vae m1",
    "models/judge/features.safetensors": "references", "models/vae/m2/encoder.safetensors": "encode",
    "models/vae/m2/decoder.safetensors": "evaluate eb_mvae", "latents/train.safetensors": "fit_ebm",
    "latents/test.safetensors": "fit_annealed", "models/ebm/joint.safetensors": "evaluate eb_mvae",
    "models/annealed/standardisation.safetensors": "evaluate eb_mvae_annealed", "models/baseline/moe/m3/encoder.safetensors": "evaluate moe",
    "results/references/statistics.safetensors": "evaluate poe", "results/references/results.json": "report",
    "results/mopoe/results.json": "report", "results/mopoe/unconditional_m1.npy": "report", "models/vae/m1/history.json": "report",
    "models/judge/accuracy.json": "report", "latents/test.safetensors.sha256": "references",
}


def damages(folder, expected, count, harm, dice):
    """`harm(bytes)` on a file that a stage reads: the stage must end with 2 and name it, its old outputs whole."""
    tally = {"injected": 0, "survived": 0, "lost": 0}
    for i in range(count):
        name = list(READERS)[i % len(READERS)]
        stage, file = READERS[name], folder / name
        whole = file.read_bytes()
        file.write_bytes(harm(whole, dice))
        code, text = run(folder, stage)
        file.write_bytes(whole)
        named = name.removesuffix(".sha256") in text and "Traceback" not in text
        good = code == 2 and named and content(folder, OUTS[stage]) == expected[stage][1]
        tally["injected"] += 1
        tally["survived" if good else "lost"] += 1
        if not good:
            print(f"  {name} by {stage}: exit {code}: {text[-300:]}")
    return tally


def damaged_checkpoints(folder, expected, count, harms, dice):
    """A checkpoint damaged between a kill and the next start: set aside and said, the bytes as ever."""
    tally = {"injected": 0, "survived": 0, "lost": 0}
    while tally["injected"] < count:
        stage = dice.choice(("train_vae m1", "fit_ebm", "fit_annealed", "train_baseline moe"))
        process = start(folder, stage, CHECKPOINT_SECONDS="0")
        time.sleep(dice.uniform(0.4, 0.9) * expected[stage][0])
        os.kill(process[0], signal.SIGKILL)
        finish(process)
        kept = list((folder / runtime.SCRATCH).glob("*.checkpoint"))
        if not kept:
            continue
        kept[0].write_bytes(dice.choice(harms)(kept[0].read_bytes(), dice))
        code, text = run(folder, stage)
        good = code == 0 and "is damaged" in text and content(folder, OUTS[stage]) == expected[stage][1]
        tally["injected"] += 1
        tally["survived" if good else "lost"] += 1
        if not good:
            print(f"  checkpoint of {stage}: exit {code}: {text[-300:]}")
    return tally


def cut(whole, dice):
    return whole[: dice.randrange(len(whole))]


def flip(whole, dice):
    damaged = bytearray(whole)
    damaged[dice.randrange(len(whole))] ^= 1 << dice.randrange(8)
    return bytes(damaged)


SECTION = {"polymnist": "polymnist", "judge": "train_judge", "vae": "train_vae m1", "ebm": "fit_ebm", "annealed": "fit_annealed",
           "baseline": "train_baseline moe", "evaluate": "evaluate eb_mvae", "fid": "references"}
BAD = (None, "much", -1, [], {}, [1], float("nan"), float("inf"), True, "1e", "")


def parameters(folder, expected, count, dice):
    """Wrong values, unknown and missing keys, and text that is no YAML: one line naming the key or the file."""
    tally = {"injected": 0, "survived": 0, "lost": 0}
    original = (folder / "params.yaml").read_text()
    keys = [(section, key) for section in SECTION for key in yaml.safe_load(original)[section]]
    while tally["injected"] < count:
        values = yaml.safe_load(original)
        section, key = keys[tally["injected"] % len(keys)]
        kind = dice.choice(("value", "value", "value", "unknown", "missing", "text"))
        name = f"{section}.{key}"
        if kind == "value":
            value = dice.choice(BAD)
            if name in ("polymnist.import_dir", "polymnist.own_data") and value in (None, "") or name in (
                    "polymnist.backgrounds", "polymnist.import_dir", "fid.inception_weights") and isinstance(value, str):
                continue  # no mistake, or one of the folders below
            values[section][key] = value
        elif kind == "unknown":
            name = f"{section}.{key}s"
            values[section][f"{key}s"] = 1
        elif kind == "missing":
            del values[section][key]
        text = yaml.safe_dump(values) if kind != "text" else original[: original.index(f"{key}:") + len(key)] + ": [}"
        (folder / "params.yaml").write_text(text)
        code, output = run(folder, SECTION[section])
        (folder / "params.yaml").write_text(original)
        one_line = output.strip().count("\n") == 0 and output.startswith("error: ") and (name in output or kind == "text" and "params.yaml" in output)
        good = code == 2 and one_line and content(folder, OUTS[SECTION[section]]) == expected[SECTION[section]][1]
        tally["injected"] += 1
        tally["survived" if good else "lost"] += 1
        if not good:
            print(f"  {kind} {name} = {values[section].get(key)!r}: exit {code}: {output[-300:]}")
    return tally


def pictures(folder, expected, count, dice):
    """Folders of pictures and PolyMNIST trees that are wrong in `count` ways, drawn from the kinds below."""
    tally = {"injected": 0, "survived": 0, "lost": 0}
    random_picture = lambda side=40: Image.fromarray(np.frombuffer(dice.randbytes(side * side * 3), np.uint8).reshape(side, side, 3))
    good = lambda where, side=40: random_picture(side).save(where)
    wrong = {
        "text": lambda f: f.write_text("no picture"), "empty": lambda f: f.write_bytes(b""),
        "truncated": lambda f: (good(f), f.write_bytes(f.read_bytes()[:200])), "small": lambda f: good(f, 10),
        "16 bit": lambda f: Image.fromarray(np.full((40, 40), 3000, np.uint16)).save(f),
        "animated": lambda f: random_picture().save(f, save_all=True, append_images=[random_picture()]),
        "link out": lambda f: f.symlink_to("/etc/passwd"), "dead link": lambda f: f.symlink_to("nowhere"),
        "pipe": os.mkfifo, "bomb": lambda f: Image.new("1", (40000, 40000)).save(f),
        "script": lambda f: f.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "gone": lambda f: None,
    }
    kinds = [(how, kind) for kind in wrong for how in ("backgrounds", "import_dir")]
    kinds += [("import_dir", f"named {name}") for name in ("x.png", "1.png", "9999999999.1.png", "1.9999.png", "-1.1.png")]
    for i in range(count):
        how, kind = kinds[i % len(kinds)]
        with tempfile.TemporaryDirectory() as name:
            where = Path(name)
            if how == "backgrounds":
                for m in range(1, 5):
                    good(where / f"{m}.png")
                wrong[kind](where / "0.png")
            else:
                for split in ("train", "test"):
                    for m in range(5):
                        (where / split / f"m{m}").mkdir(parents=True)
                        for k in range(3):
                            good(where / split / f"m{m}" / f"{k}.{k}.png", 28)
                spoilt = where / "train" / "m0" / "1.1.png"
                if kind.startswith("named "):
                    spoilt.rename(spoilt.with_name(kind.removeprefix("named ")))
                else:
                    spoilt.unlink()
                    wrong[kind](spoilt)
            set_params(folder, {**TINY, f"polymnist.{how}": str(where)})
            code, text = run(folder, "polymnist")
        set_params(folder, TINY)
        last = text.strip().splitlines()[-1] if text.strip() else ""
        right = code == 2 and last.startswith(f"error: polymnist.{how}") and "Traceback" not in text
        right = right and content(folder, OUTS["polymnist"]) == expected["polymnist"][1]
        tally["injected"] += 1
        tally["survived" if right else "lost"] += 1
        if not right:
            print(f"  {how} {kind}: exit {code}: {text[-300:]}")
    return tally


def disks(folder, expected):
    """Files that may grow to 300 bytes only (as on a full disk), and outputs that may not be written, in every stage."""
    tally = {"injected": 0, "survived": 0, "lost": 0}
    full = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
    forbidden = lambda: (os.setgid(65534), os.setuid(65534)) if os.getuid() == 0 else None
    for stage, out in OUTS.items():
        for fault in (full, forbidden):
            scratch = folder / runtime.SCRATCH
            for place in [folder / out, *(folder / out).rglob("*")]:
                if fault is forbidden and place.is_dir():
                    place.chmod(0o555)
            if fault is forbidden:
                scratch.chmod(0o777)
                for file in scratch.iterdir():
                    file.chmod(0o666)
            code, text = run(folder, stage, fault)
            for place in [folder / out, *(folder / out).rglob("*")]:
                if place.is_dir():
                    place.chmod(0o755)
            good = code == 2 and "can't be written" in text and "Traceback" not in text
            good = good and content(folder, out) == expected[stage][1]
            tally["injected"] += 1
            tally["survived" if good else "lost"] += 1
            if not good:
                print(f"  {stage}, {'full disk' if fault is full else 'read-only'}: exit {code}: {text[-300:]}")
            for file in scratch.glob("*.checkpoint"):
                file.unlink()
    return tally


def markdown(table):
    """reliability.json as a table."""
    further = lambda found: "; ".join(f"{key.replace('_', ' ')} {value}" for key, value in found.items()
                                      if key not in ("injected", "survived", "lost"))
    rows = [f"| {kind} | {found['injected']} | {found['survived']} | {found['lost']} | {further(found)} |" for kind, found in table.items()]
    return "\n".join(["| fault | injected | survived | lost | |", "| --- | --- | --- | --- | --- |", *rows])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option, count in (("kills", 100), ("signals", 30), ("dvc-kills", 20), ("dvc-signals", 30), ("damages", 200), ("bits", 200),
                          ("checkpoints", 20), ("parameters", 60), ("pictures", 30), ("disks", 1), ("seed", 0)):
        parser.add_argument(f"--{option}", type=int, default=count)
    parser.add_argument("--write", action="store_true", help="write docs/reliability.json")
    asked = parser.parse_args()
    if torch.get_num_threads() != 1 or os.environ.get("DEVICE") != "cpu":
        parser.error("start it with OMP_NUM_THREADS=1 DEVICE=cpu, as `make torture` does: forks don't share thread pools")
    dice, table = random.Random(asked.seed), {}
    stop = [signal.SIGTERM, signal.SIGINT]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        expected = undisturbed(folder)
        faults = {
            "SIGKILL to a stage": lambda: kills(folder, expected, asked.kills, [signal.SIGKILL], dice),
            "SIGTERM or SIGINT to a stage": lambda: kills(folder, expected, asked.signals, stop, dice),
            "file cut short": lambda: damages(folder, expected, asked.damages, cut, dice),
            "bit flipped": lambda: damages(folder, expected, asked.bits, flip, dice),
            "checkpoint damaged": lambda: damaged_checkpoints(folder, expected, asked.checkpoints, (cut, flip), dice),
            "parameters": lambda: parameters(folder, expected, asked.parameters, dice),
            "pictures": lambda: pictures(folder, expected, asked.pictures, dice),
            "full disk, read-only outputs": lambda: disks(folder, expected) if asked.disks else {"injected": 0, "survived": 0, "lost": 0},
            "SIGKILL to dvc repro": lambda: dvc_kills(expected, asked.dvc_kills, [signal.SIGKILL], dice),
            "SIGTERM or SIGINT to dvc repro": lambda: dvc_kills(expected, asked.dvc_signals, stop, dice),
        }
        for kind, inject in faults.items():
            begun = time.monotonic()
            table[kind] = {key: round(value, 2) for key, value in inject().items()}
            print(f"{kind}: {table[kind]}, {time.monotonic() - begun:.0f} s", flush=True)
    if asked.write:
        (ROOT / "docs" / "reliability.json").write_text(json.dumps(table, indent=1) + "\n")
        page = ROOT / "docs" / "reliability.md"
        before, after = page.read_text().split(BEGIN)[0], page.read_text().split(END)[1]
        page.write_text(f"{before}{BEGIN}\n{markdown(table)}\n{END}{after}")
    sys.exit(any(found["lost"] for found in table.values()))


if __name__ == "__main__":
    main()
