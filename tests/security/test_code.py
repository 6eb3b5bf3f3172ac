"""No code path loads code from data, and no shell sees a value that is not quoted."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PYTHON = [
    file
    for folder in ("bpgo", "baselines", "tests", "workflow")
    for file in sorted((REPOSITORY / folder).rglob("*.py"))
]
WORKFLOW = [REPOSITORY / "Snakefile", *sorted((REPOSITORY / "workflow").rglob("*.smk"))]

FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
# The one place that reads published torch files, and the only way it may.
TORCH_LOAD = REPOSITORY / "bpgo" / "rewards" / "shared" / "checkpoints.py"
FORBIDDEN_CALLS = {
    "eval": "runs text as code",
    "exec": "runs text as code",
    "compile": "runs text as code",
    "__import__": "imports by name",
    "os.system": "runs a shell",
    "os.popen": "runs a shell",
    "subprocess.getoutput": "runs a shell",
    "torch.load": "may unpickle; weights are safetensors",
    "torch.save": "pickles; weights are safetensors",
    "yaml.load": "may build objects; use yaml.safe_load",
    "yaml.full_load": "may build objects; use yaml.safe_load",
    "yaml.unsafe_load": "builds objects; use yaml.safe_load",
    **{
        f"yaml.{name}Loader": "may build objects; use yaml.SafeLoader"
        for name in ("", "Full", "Unsafe", "C", "CFull", "CUnsafe")
    },
    "pandas.read_pickle": "unpickles",
    "pd.read_pickle": "unpickles",
}


def dotted(node: ast.expr) -> str:
    """`a.b.c` for a chain of names, else an empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return ""


def problems(tree: ast.AST, file: Path | None = None) -> Iterator[str]:
    """One line for each forbidden import or call.

    `file` may be one that is allowed more: `TORCH_LOAD`, or a test, which may write torch files.
    """
    allowed = {"torch.load"} if file == TORCH_LOAD else set()
    if file is not None and file.is_relative_to(REPOSITORY / "tests"):
        allowed.add("torch.save")
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                if name.split(".")[0] in FORBIDDEN_MODULES:
                    yield f"line {node.lineno}: imports {name}"
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            if name == "torch.load" and name in allowed:
                keywords = {keyword.arg: keyword.value for keyword in node.keywords}
                safe = keywords.get("weights_only")
                if not (isinstance(safe, ast.Constant) and safe.value is True):
                    yield f"line {node.lineno}: torch.load without weights_only=True"
            elif name in FORBIDDEN_CALLS and name not in allowed:
                yield f"line {node.lineno}: {name} {FORBIDDEN_CALLS[name]}"
            for keyword in node.keywords:
                given = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
                if keyword.arg in ("shell", "allow_pickle", "trust_remote_code") and given:
                    yield f"line {node.lineno}: {keyword.arg}={given}"
                if keyword.arg == "weights_only" and given is False:
                    yield f"line {node.lineno}: weights_only=False"


@pytest.mark.parametrize("file", PYTHON, ids=lambda file: str(file.relative_to(REPOSITORY)))
def test_no_code_from_data(file: Path) -> None:
    found = list(problems(ast.parse(file.read_text(), str(file)), file))
    assert not found, f"{file}: {found}"


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "eval('1')",
        "torch.load(path)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.CUnsafeLoader(text).get_data()",
        "np.load(path, allow_pickle=True)",
        "subprocess.run('ls', shell=True)",
        "Model.from_pretrained(name, trust_remote_code=True)",
    ],
)
def test_the_walk_sees(text: str) -> None:
    assert list(problems(ast.parse(text)))


@pytest.mark.parametrize(
    ("text", "file", "fine"),
    [
        ("torch.load(path, weights_only=True)", TORCH_LOAD, True),
        ("torch.load(path)", TORCH_LOAD, False),
        ("torch.load(path, weights_only=safe)", TORCH_LOAD, False),
        (
            "torch.load(path, weights_only=True)",
            REPOSITORY / "bpgo" / "storage" / "files.py",
            False,
        ),
        ("torch.save(state, path)", TORCH_LOAD, False),
        ("torch.save(state, path)", REPOSITORY / "tests" / "fixtures" / "a.py", True),
    ],
)
def test_torch_files_have_one_reader(text: str, file: Path, fine: bool) -> None:
    assert (not list(problems(ast.parse(text), file))) == fine


@pytest.mark.parametrize("file", WORKFLOW, ids=lambda file: file.name)
def test_every_shell_value_is_quoted(file: Path) -> None:
    text = file.read_text()
    blocks = re.findall(r"^    shell:\n((?:        .*\n)+)", text, flags=re.MULTILINE)
    assert len(blocks) == len(re.findall(r"^    shell:", text, flags=re.MULTILINE))
    assert not re.search(r"^    (run|script|notebook):|\bshell\(", text, flags=re.MULTILINE)
    for block in blocks:
        for value in re.findall(r"{([^}]*)}", block):
            assert value == "threads" or value.endswith(":q"), f"{{{value}}} is not quoted"
        assert ">> {log:q} 2>&1" in block, "a log is appended to, so a resumed job keeps it"


def test_every_wildcard_is_constrained() -> None:
    text = (REPOSITORY / "Snakefile").read_text()
    block = re.search(r"^wildcard_constraints:\n((?:    .*\n)+)", text, flags=re.MULTILINE)
    assert block
    constrained = set(re.findall(r"^    (\w+)=", block[1], flags=re.MULTILINE))
    paths = re.findall(r'(?<!f)"{root}/[^"]*"', "".join(file.read_text() for file in WORKFLOW))
    used = {name for path in paths for name in re.findall(r"{(\w+)}", path)}
    assert used <= constrained
