"""What jobs of `cluster.submit` start from: a clean commit, parameters, DVC's remote, and a clone that holds them."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import yaml

from stages.lib import params
from stages.lib.runtime import UserError

COMMITTED = ("dvc.yaml", "params.yaml", "stages", "cluster", "reports/seeds", ":!cluster/resources.yaml")  # what jobs take from the commit
FOLDERS = (("polymnist", "backgrounds"), ("polymnist", "import_dir"), ("polymnist", "own_data"), ("fid", "inception_weights"))


def git(*arguments, folder="."):
    """Standard output of a git command in `folder`; raises `UserError` with the last line it said where it fails."""
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"`git {' '.join(arguments)}`: {' '.join(done.stderr.strip().splitlines()[-1:])}")
    return done.stdout


def committed():
    """The commit that jobs work on; raises `UserError` where the project differs from it."""
    commit = git("rev-parse", "HEAD").strip()
    if changed := git("status", "--porcelain", "--", *COMMITTED).splitlines():
        raise UserError(f"{changed[0][3:]}: differs from the commit that jobs would work on; commit it, or `git checkout` it"
                        + (f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""))
    return commit


def parameters(profile, seeds):
    """{seed: text of params.yaml}, for the profile and each of the seeds 0 to `seeds` - 1 (None: the one of params.yaml)."""
    from dvc.exceptions import InvalidArgumentError
    from dvc.utils.hydra import apply_overrides

    known = {"default": None, **{file.stem: file for file in sorted(Path("profiles").glob("*.args"))}}
    if profile not in known:
        raise UserError(f"--profile {profile}: no such file in profiles/; known are {', '.join(known)}")
    if seeds is not None and seeds < 1:
        raise UserError(f"--seeds {seeds}: how many, 1 or more")
    words = re.sub("#.*", "", known[profile].read_text()).split() if known[profile] else []
    overrides = [word for word in words if word != "-S"]
    contents = {}
    for seed in [None] if seeds is None else range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(shutil.copy("params.yaml", folder))
            try:
                apply_overrides(file, overrides + ([] if seed is None else [f"seed={seed}"]))  # as `dvc exp run -S` does
            except InvalidArgumentError as error:
                raise UserError(f"{known[profile]}: {str(error.__cause__).splitlines()[0]}") from None
            text = file.read_text()
        content = yaml.safe_load(text)
        params.check(content)
        contents[content["seed"]] = text
    for section, key in FOLDERS:
        value = content[section][key]
        if value and Path(value).exists() and not Path(value).is_absolute() and not git("ls-files", "--", value):
            raise UserError(f"params.yaml: {section}.{key} = {value} is not in git, and jobs work in clones; give its absolute path")
    return contents


def remote(repo):
    """Name and settings of DVC's default remote, paths absolute; raises `UserError` where there is none."""
    name = repo.config["core"].get("remote")
    if not name or name not in repo.config["remote"]:
        raise UserError(".dvc/config: no default remote, through which jobs hand on their results; `dvc remote add -d shared /folder` "
                        "(a folder that all nodes see, or s3://, ssh://)")
    return name, {key: str(value) if isinstance(value, str) else value for key, value in repo.config["remote"][name].items()}


def project(run, commit, contents, name, settings):
    """Make RUN/project: a clone of `commit` with a branch seed<N> for each seed, whose params.yaml is `contents[N]`."""
    from dvc.repo import Repo

    folder = run / "project"
    shutil.rmtree(folder, ignore_errors=True)
    git("clone", "--quiet", "--no-checkout", str(Path.cwd()), str(folder))
    for seed, text in contents.items():
        git("checkout", "--quiet", "-B", f"seed{seed}", commit, folder=folder)
        (folder / "params.yaml").write_text(text)
        git("-c", "user.name=cluster.submit", "-c", "user.email=", "commit", "--quiet", "--all", "--allow-empty", "--message",
            f"{run.name}, seed {seed}", folder=folder)
    with Repo(str(folder)) as repo, repo.config.edit("local") as config:  # jobs copy it: git would not, and it may hold keys
        config["core"]["remote"] = name
        config["remote"][name] = settings
    (folder / ".dvc/config.local").chmod(0o600)
