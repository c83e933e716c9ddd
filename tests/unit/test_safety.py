"""What must not be in the code: pickles, code made from text, shells. As bandit looks, by AST."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("ebmvae", "stages", "tools", "cluster", "benchmarks")
MODULES = set("pickle cPickle dill cloudpickle joblib marshal shelve telnetlib ftplib".split())
CALLS = set(
    "eval exec compile __import__ os.system os.popen torch.load torch.save yaml.load np.savez "
    "pd.read_pickle tempfile.mktemp".split()
)


def findings(source):
    """Lines of `source` that do what no file here may do, as (line, what)."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        lines += [(node.lineno, name) for name in names if name.split(".")[0] in MODULES]
        if isinstance(node, ast.Call):
            name, constants = ast.unparse(node.func), (ast.Constant,)
            given = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, constants)}
            if name in CALLS or given.get("shell") or given.get("allow_pickle"):
                lines.append((node.lineno, name))
    return lines


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_pickle_no_code_from_text_no_shell(folder):
    files = list((ROOT / folder).rglob("*.py"))
    lines = {str(file): findings(file.read_text()) for file in files}
    assert files and not any(lines.values()), lines


def test_they_would_be_noticed():
    assert findings("import pickle") and findings("from joblib import load")
    assert findings("eval('1')") and findings("yaml.load(x)")
    assert findings("subprocess.run('ls', shell=True)") and findings(
        "np.load(x, allow_pickle=True)"
    )
