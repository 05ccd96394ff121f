"""What the package's source must not contain: ways to run what a file says, and models loaded without a verifier."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import airflow_mlops

PACKAGE = Path(airflow_mlops.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

MODULES = {"pickle", "joblib", "cloudpickle", "dill", "marshal", "shelve", "torch", "jsonpickle"}
CALLS = {"eval", "exec", "compile", "__import__", "read_pickle", "to_pickle", "mktemp", "unsafe_load", "full_load"}
SAFE_LOADERS = {"SafeLoader", "CSafeLoader"}
# The one place that reads pickles, after the signature.
AUDITED = ("registry/formats.py", "load_signed")
# Whatever loads a registered model is told whose signatures count.
VERIFYING = {"fetch_model", "fetch_model_file", "open_model", "evaluate_candidate", "decide_candidate", "make_bundle"}
VERIFYING_OF = {"served_drift": {"drift", "snapshot_reference"}, "batch_inference": {"score"}}


def name_of(node: ast.expr) -> str:
    """``a.b.c`` as written; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return ""


def is_constant(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def safe_loaders(tree: ast.AST) -> set[str]:
    """PyYAML's safe loaders by every name they have in a file: imported, or as the base of a class."""
    found = set(SAFE_LOADERS)
    for _ in range(3):
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and {name_of(b).rpartition(".")[2] for b in node.bases} & found:
                found.add(node.name)
            if isinstance(node, ast.Assign) and name_of(node.value).rpartition(".")[2] in found:
                found |= {name_of(t) for t in node.targets}
    return found


def problems(source: str, file: str = "x.py") -> Iterator[str]:
    """One line for each thing that must not be there."""
    tree = ast.parse(source)
    audited = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and (file, node.name) == AUDITED
        for inner in ast.walk(node)
    }
    checked = set(VERIFYING)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            checked |= VERIFYING_OF.get((node.module or "").rpartition(".")[2], set()) & {n.name for n in node.names}
    for node in ast.walk(tree):
        if node in audited:
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [n.name for n in node.names]
            for name in names:
                # The audited function's module is imported at the top of its file.
                if name.partition(".")[0] in MODULES and (file, name) != (AUDITED[0], "pickle"):
                    yield f"{node.lineno}: import of {name}"
        if isinstance(node, ast.Attribute) and name_of(node).partition(".")[0] in MODULES:
            yield f"{node.lineno}: {name_of(node)}"
        if not isinstance(node, ast.Call):
            continue
        called = name_of(node.func)
        last = called.rpartition(".")[2]
        keywords = {k.arg: k.value for k in node.keywords}
        if last in CALLS and called not in ("re.compile",):
            yield f"{node.lineno}: call of {called}"
        if called in ("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"):
            yield f"{node.lineno}: call of {called}"
        if "shell" in keywords and not is_constant(keywords["shell"], False):
            yield f"{node.lineno}: shell="
        if is_constant(keywords.get("verify"), False):
            yield f"{node.lineno}: verify=False"
        if "allow_pickle" in keywords and called.partition(".")[0] in ("np", "numpy"):
            if not is_constant(keywords["allow_pickle"], False):
                yield f"{node.lineno}: {called}(allow_pickle=…)"
        elif called in ("np.load", "numpy.load", "np.save", "numpy.save"):
            yield f"{node.lineno}: {called} without allow_pickle=False"
        if called in ("yaml.load", "yaml.load_all", "yaml.compose", "yaml.parse", "yaml.scan"):
            loader = keywords.get("Loader") or (node.args[1] if len(node.args) > 1 else None)
            if loader is None or name_of(loader).rpartition(".")[2] not in safe_loaders(tree):
                yield f"{node.lineno}: {called} without a safe loader"
        if last in checked and "verifier" not in keywords:
            yield f"{node.lineno}: {called} without verifier="


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from joblib import load", "import os, dill", "import torch.nn", "from marshal import loads",
        "eval('1')", "exec(x)", "builtins.exec(x)", "compile(x, 'f', 'exec')", "__import__(x)",
        "pd.read_pickle(p)", "frame.to_pickle(p)", "tempfile.mktemp()", "requests.get(u, verify=False)",
        "subprocess.run(c, shell=True)", "subprocess.run(c, shell=flag)", "os.system(c)",
        "np.load(p, allow_pickle=True)", "np.load(p, allow_pickle=flag)", "np.load(p)", "yaml.load(t)",
        "yaml.load(t, Loader=yaml.Loader)", "yaml.load(t, yaml.UnsafeLoader)", "yaml.unsafe_load(t)",
        "class L(yaml.FullLoader): pass\nyaml.load(t, L)",
        "fetch_model(store, info)", "artifacts.fetch_model(store, info, trusted=())",
        "from airflow_mlops.ml.batch_inference import score\nscore(store, version)",
        "def load_signed():\n    pickle.load(f)",
    ],
)  # fmt: skip
def test_the_scan_finds(source: str) -> None:
    assert list(problems(source))


@pytest.mark.parametrize(
    "source",
    [
        "re.compile('x')", "np.load(p, allow_pickle=False)", "yaml.load(t, Loader=yaml.SafeLoader)",
        "class L(SafeLoader): pass\nyaml.load(t, L)", "subprocess.run(c, shell=False)", "json.load(f)",
        "fetch_model(store, info, verifier=v)", "metric.score(y)", "Verifier(keys, allow_pickle=True)",
    ],
)  # fmt: skip
def test_the_scan_lets_pass(source: str) -> None:
    assert list(problems(source)) == []


def test_only_the_audited_function_reads_pickles() -> None:
    source = "import pickle\ndef load_signed():\n    pickle.load(f)\ndef other():\n    pickle.load(f)\n"
    assert list(problems(source, AUDITED[0])) == ["5: pickle.load"]
    assert len(list(problems(source, "registry/other.py"))) == 3
    function = next(
        node
        for node in ast.walk(ast.parse((PACKAGE / AUDITED[0]).read_text()))
        if isinstance(node, ast.FunctionDef) and node.name == AUDITED[1]
    )
    read = [name_of(n.func) for n in ast.walk(function) if isinstance(n, ast.Call)]
    assert sorted(n for n in read if n.endswith(".load")) == ["joblib.load", "pickle.load"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_file_runs_what_it_reads(path: Path) -> None:
    file = path.relative_to(PACKAGE).as_posix()
    assert [f"{file}:{line}" for line in problems(path.read_text(encoding="utf-8"), file)] == []
