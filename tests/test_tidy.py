"""Style as a test: lengths, the one import of numba, the order of the stages, docstrings."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "replay").rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in FILES]

MAX_FUNCTION, MAX_FILE, MAX_COLUMNS = 60, 400, 100
LONG_FUNCTIONS = {
    ("replay/loop.py", "loop"): "one compiled body; each array passed to a helper costs 10 ns",
}

STAGES = (
    ("anomalies", "units", "errors", "recording", "schema", "kernel", "histogram", "ahead", "aside"),
    ("physmap",),
    ("costs", "allocators", "stream", "output", "integrals", "queueing", "background", "loop"),
    ("engine", "arrivals"),
    ("trace", "importers"),
    ("conformance", "verify", "metrics"),
    ("calibration",),
    ("foreign",),
    ("kernel_tree",),
    ("sensitivity", "claims"),
    ("report", "runs", "compare", "gate", "witness", "record"),
    ("api",),
    ("cli",),
    ("__main__",),
)
"""A module imports from its own stage and from those before it."""

BANNED = ("pickle", "eval(", "exec(", "marshal", "shell=True", "yaml.load(", "FIXME", "breakpoint(")


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path, name in zip(FILES, NAMES, strict=True):
        yield name, ast.parse(path.read_text(encoding="utf-8"))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def imported(tree: ast.AST) -> Iterator[str]:
    """Names of imported modules, wherever the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def stage(part: str) -> int:
    """Place of replay.<part> in the order of the stages."""
    for place, parts in enumerate(STAGES):
        if part in parts:
            return place
    raise AssertionError(f"replay/{part} stands in no stage; add it to STAGES")


def test_the_package_is_found() -> None:
    assert len(FILES) > 30


@pytest.mark.parametrize("name", NAMES)
def test_files_and_lines_are_short(name: str) -> None:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MAX_FILE, f"{name} has {len(lines)} lines"
    long = [k for k, line in enumerate(lines, 1) if len(line) > MAX_COLUMNS]
    assert not long, f"{name}: lines {long} have more than {MAX_COLUMNS} columns"


def test_functions_are_short() -> None:
    long = {(name, f.name): f.end_lineno - f.lineno + 1 for name, tree in trees()
            for f in functions(tree) if f.end_lineno - f.lineno + 1 > MAX_FUNCTION}
    assert set(long) <= set(LONG_FUNCTIONS), long
    assert set(LONG_FUNCTIONS) <= set(long), "an allowance that nothing needs"


def test_numba_is_imported_by_the_kernel_module_alone() -> None:
    users = [name for name, tree in trees()
             if any(module.split(".")[0] == "numba" for module in imported(tree))]
    assert users == ["replay/kernel.py"]


def test_stages_import_only_from_stages_before_them() -> None:
    wrong = []
    for name, tree in trees():
        parts = Path(name).with_suffix("").parts[1:]
        if parts == ("__init__",):
            continue
        for module in imported(tree):
            split = module.split(".")
            if split[0] != "replay" or len(split) < 2 or split[1].startswith("__"):
                continue
            if stage(split[1]) > stage(parts[0]):
                wrong.append(f"{name} imports {module}")
    assert wrong == []


def test_nothing_runs_what_a_file_says_or_is_left_behind() -> None:
    found = [(name, word) for name, path in zip(NAMES, FILES, strict=True) for word in BANNED
             if word in path.read_text(encoding="utf-8").replace("exec_module(", "")]
    assert found == []


def test_only_the_command_line_prints_and_exits() -> None:
    users = [(name, node.lineno) for name, tree in trees()
             if not name.startswith("replay/cli/") and not name.endswith("/worker.py")
             for node in ast.walk(tree) if isinstance(node, ast.Call)
             and ast.unparse(node.func) in ("print", "sys.exit", "exit", "os._exit")]
    assert users == []


def public(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Public functions and classes of a module, and public methods of public classes."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from (f for f in node.body if isinstance(f, ast.FunctionDef)
                            and not f.name.startswith("_"))


def test_modules_public_functions_and_classes_have_docstrings() -> None:
    bare = [f"{name}:{node.lineno} {node.name}" for name, tree in trees() for node in public(tree)
            if not ast.get_docstring(node)]
    bare += [name for name, tree in trees() if tree.body and not ast.get_docstring(tree)]
    assert bare == []
