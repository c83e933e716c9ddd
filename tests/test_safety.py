"""What must not be in the code: pickles, code made from text, shells. As bandit looks, over the syntax tree."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(file.relative_to(ROOT).as_posix() for folder in ("stages", "benchmarks", "cluster") for file in (ROOT / folder).rglob("*.py"))
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "telnetlib", "ftplib"}
CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.load", "torch.save", "yaml.load",
         "np.savez", "pd.read_pickle", "tempfile.mktemp"}


def findings(source):
    """Lines of `source` that do what no file here may do, as (line, what)."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [(node.lineno, name) for name in names if name.split(".")[0] in MODULES]
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            keywords = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
            if name in CALLS or keywords.get("shell") or keywords.get("allow_pickle"):
                found.append((node.lineno, name))
    return found


@pytest.mark.parametrize("file", FILES)
def test_no_pickle_no_code_from_text_no_shell(file):
    assert findings((ROOT / file).read_text()) == []


@pytest.mark.parametrize("line", ["import pickle", "from joblib import load", "eval('1')", "torch.load('x')", "yaml.load(x)",
                                  "subprocess.run('ls', shell=True)", "np.load(x, allow_pickle=True)", "os.system('ls')"])
def test_it_would_be_found(line):
    assert findings(line)
