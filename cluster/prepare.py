"""What jobs of `cluster.submit` start from: a clean commit, parameters, a remote, and a clone."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import yaml

from ebmvae import params
from ebmvae.core.messages import UserError

# What jobs take from the commit.
COMMITTED = (
    "dvc.yaml",
    "params.yaml",
    "ebmvae",
    "stages",
    "tools",
    "cluster",
    "reports/seeds",
    ":!cluster/resources.yaml",
)
FOLDERS = (  # parameters that may be a path
    ("polymnist", "backgrounds"),
    ("polymnist", "import_dir"),
    ("polymnist", "own_data"),
    ("fid", "inception_weights"),
)


def git(*arguments, folder="."):
    """Standard output of git in `folder`; raises `UserError` with its last line where it fails."""
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        raise UserError(f"`git {' '.join(arguments)}`: {' '.join(last)}")
    return done.stdout


def committed():
    """The commit that jobs work on; raises `UserError` where the project differs from it."""
    commit = git("rev-parse", "HEAD").strip()
    if changed := git("status", "--porcelain", "--", *COMMITTED).splitlines():
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        raise UserError(
            f"{changed[0][3:]}: differs from the commit that jobs would work on; "
            f"commit it, or `git checkout` it{more}"
        )
    return commit


def parameters(profile, seeds):
    """{seed: text of params.yaml} for the profile and the seeds 0 to `seeds` - 1.

    seeds: None for the seed of params.yaml alone. Raises `UserError` for an unknown profile, a
    wrong parameter and a folder that no clone has.
    """
    files = {file.stem: file for file in sorted(Path("profiles").glob("*.args"))}
    if profile != "default" and profile not in files:
        known = ", ".join(("default", *files))
        raise UserError(f"--profile {profile}: no such file in profiles/; known are {known}")
    if seeds is not None and seeds < 1:
        raise UserError(f"--seeds {seeds}: how many, 1 or more")
    file = files.get(profile)
    words = re.sub("#.*", "", file.read_text()).split() if file else []
    overrides = [word for word in words if word != "-S"]
    texts = {}
    for seed in [None] if seeds is None else range(seeds):
        text = overridden(overrides + ([] if seed is None else [f"seed={seed}"]), file)
        content = yaml.safe_load(text)
        params.check(content)
        texts[content["seed"]] = text
    refuse_uncommitted_folders(content)
    return texts


def overridden(overrides, profile):
    """The text of params.yaml with "key=value"s in their places, as `dvc exp run -S` has it."""
    from dvc.exceptions import InvalidArgumentError
    from dvc.utils.hydra import apply_overrides

    with tempfile.TemporaryDirectory() as folder:
        file = Path(shutil.copy("params.yaml", folder))
        try:
            apply_overrides(file, overrides)
        except InvalidArgumentError as error:
            raise UserError(f"{profile}: {str(error.__cause__).splitlines()[0]}") from None
        return file.read_text()


def refuse_uncommitted_folders(content):
    """Raise `UserError` where a relative path among the parameters is in no clone."""
    for section, key in FOLDERS:
        value = content[section][key]
        if not value or not Path(value).exists() or Path(value).is_absolute():
            continue
        if not git("ls-files", "--", value):
            raise UserError(
                f"params.yaml: {section}.{key} = {value} is not in git, and jobs work in clones; "
                "give its absolute path"
            )


def remote(repo):
    """Name and settings of DVC's default remote, paths absolute; raises `UserError` without one."""
    name, remotes = repo.config["core"].get("remote"), repo.config["remote"]
    if not name or name not in remotes:
        raise UserError(
            ".dvc/config: no default remote, through which jobs hand on their results; "
            "`dvc remote add -d shared /folder` (a folder that all nodes see, or s3://, ssh://)"
        )
    # A path in the configuration is a `str` of a class of DVC's own.
    return name, {
        key: str(value) if isinstance(value, str) else value for key, value in remotes[name].items()
    }


def project(run, commit, texts, name, settings):
    """Make RUN/project: a clone of `commit` with a branch seed<N> per seed.

    params.yaml of a branch is `texts[N]`. name, settings: DVC's remote, as from `remote`.
    """
    from dvc.repo import Repo

    folder = run / "project"
    shutil.rmtree(folder, ignore_errors=True)
    git("clone", "--quiet", "--no-checkout", str(Path.cwd()), str(folder))
    who = ("-c", "user.name=cluster.submit", "-c", "user.email=")
    for seed, text in texts.items():
        git("checkout", "--quiet", "-B", f"seed{seed}", commit, folder=folder)
        (folder / "params.yaml").write_text(text)
        message = ("--message", f"{run.name}, seed {seed}")
        git(*who, "commit", "--quiet", "--all", "--allow-empty", *message, folder=folder)
    # Jobs copy the local configuration: git would not, and it may hold keys.
    with Repo(str(folder)) as repo, repo.config.edit("local") as config:
        config["core"]["remote"] = name
        config["remote"][name] = settings
    (folder / ".dvc/config.local").chmod(0o600)
