"""Style as a test: lengths, the one import of numba, the order of the stages, docstrings."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "replay").rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in FILES]

MAX_FUNCTION, MAX_FILE, MAX_COLUMNS, MAX_SUBJECT = 60, 400, 100, 72
LONG_FUNCTIONS = {
    ("replay/engine/loop.py", "loop"): "one compiled body; each array passed to a helper costs 10 ns",
}

ROOMS = (
    "base", "physmap", "costs", "engine", "allocators", "trace", "trace/synthetic",
    "importers/source",
    "importers/joining", "importers/text", "importers/dat", "importers/xen", "importers/clocks",
    "importers/ordering", "importers", "metrics", "truth/verify", "calibration",
    "c", "c/kernel_tree", "calibration/sensitivity", "truth/witness", "report/telling", "runs",
    "compare", "perfetto", "gate", "report/page",
    "report", "record", "claims", "api", "cli", "__main__",
)
"""Folders, and single files at the top: each imports from itself and from those before it."""

CONTRACTS = {
    "FORMAT": "what a folder of importers/ is found by",
    "STRATEGY": "what a file of allocators/ is found by",
    "OPTIONS": "what a strategy can be told, for the strategies made from it",
    "OWN": "a strategy's part of the state, for the strategies made from it",
    "options": "the same part, seen in a state",
    "app": "what a file of cli/ with verbs below its own is found by",
}
"""Names that every module of a kind has, each with a value of its own."""


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


def room(parts: Sequence[str]) -> str:
    """The folder below replay/ that holds a module, or the module itself at the top."""
    folder = [part for k, part in enumerate(parts) if (ROOT / "replay" / "/".join(parts[: k + 1])).is_dir()]
    return "/".join(folder) or parts[0]


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


def test_numba_is_imported_by_one_module() -> None:
    users = [name for name, tree in trees()
             if any(module.split(".")[0] == "numba" for module in imported(tree))]
    assert users == ["replay/base/jit.py"]


def test_rooms_import_only_from_rooms_before_them() -> None:
    """So no two folders import each other; imports within functions count as well."""
    wrong = []
    for name, tree in trees():
        own = room(Path(name).with_suffix("").parts[1:])
        for module in imported(tree) if own != "__init__" else ():
            first, *rest = module.split(".")
            if first != "replay" or not rest or rest[0].startswith("__"):
                continue
            if ROOMS.index(room(rest)) > ROOMS.index(own):
                wrong.append(f"{name} imports {module}")
    assert wrong == []


def assigned(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Names that a module assigns to, each with what it is set to; (a, b) = (1, 2) is two."""
    for node in tree.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            names = target.elts if isinstance(target, ast.Tuple) else [target]
            values = [ast.unparse(node.value)] * len(names)
            if isinstance(target, ast.Tuple):
                values = ([ast.unparse(value) for value in node.value.elts]
                          if isinstance(node.value, ast.Tuple) else
                          [f"{value}[{k}]" for k, value in enumerate(values)])
            yield from ((one.id, value) for one, value in zip(names, values, strict=True)
                        if isinstance(one, ast.Name))


def texts() -> set[str]:
    """Module-level names of texts: what they stand for in brackets is a key, not a place."""
    return {name for _, tree in trees() for name, value in assigned(tree)
            if isinstance(ast.parse(value, mode="eval").body, ast.Constant)
            and value.startswith(("'", '"', "b'", 'b"'))}


def test_nothing_but_its_verb_imports_the_claims() -> None:
    users = {name for name, tree in trees() for module in imported(tree)
             if module.startswith("replay.claims") and not name.startswith("replay/claims/")}
    assert users == {"replay/api.py"}


def named_by_number(node: ast.expr, keys: set[str]) -> bool:
    """Whether a subscript is an index constant, alone or added to something."""
    if isinstance(node, ast.Tuple):
        return any(named_by_number(one, keys) for one in node.elts)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        return named_by_number(node.left, keys) or named_by_number(node.right, keys)
    name = node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")
    return name.isupper() and len(name) > 1 and name not in keys


WORDS = ("m", "p", "words")
"""What vectors of words of many kinds are called: a state, the lock's plan, a file's words."""


def number(node: ast.expr | None) -> int | None:
    """A whole number that is written out."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        below = number(node.operand)
        return None if below is None else -below
    return node.value if isinstance(node, ast.Constant) and type(node.value) is int else None


def terms(node: ast.expr | None) -> list[ast.expr]:
    """What a sum or a difference is made of."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        return terms(node.left) + terms(node.right)
    return [node] if node else []


def row_by_number(node: ast.expr | None) -> bool:
    """Whether a place is told as so many times the length of a row."""
    return any(isinstance(term, ast.BinOp) and isinstance(term.op, ast.Mult)
               and (number(term.left) is not None or number(term.right) is not None)
               for term in terms(node))


def field_by_number(vector: ast.expr, place: ast.expr) -> bool:
    """Whether a place is told as the number of a field behind another place.

    The next one of a table, or the one before, is told by a number too: table + which + 1; in what
    holds one kind of values, which + 1.
    """
    found = terms(place)
    numbers = [value for term in found if (value := number(term)) is not None]
    if not numbers or len(found) < 2:
        return False
    name = vector.id if isinstance(vector, ast.Name) else getattr(vector, "attr", "")
    return max(map(abs, numbers)) > 1 or (name in WORDS and len(found) == 2)


def column_by_number(node: ast.Subscript) -> bool:
    """Whether a column of a table is told by its number; the first one of a row is no column."""
    if isinstance(node.value, ast.Attribute) and node.value.attr == "T":
        return (number(node.slice) or 0) not in (0, -1)
    parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else []
    sliced = any(isinstance(part, ast.Slice) for part in parts)
    return any((value := number(part)) is not None and (sliced or value not in (0, -1))
               for part in parts)


def by_number(node: ast.Subscript) -> bool:
    """Whether a subscript says by a number what lies in a place."""
    parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    bounds = [bound for part in parts
              for bound in ((part.lower, part.upper) if isinstance(part, ast.Slice) else (part,))]
    return (column_by_number(node) or any(map(row_by_number, bounds))
            or any(field_by_number(node.value, part) for part in parts
                   if not isinstance(part, ast.Slice)))


def test_words_have_names() -> None:
    """No subscript by an index constant or by a number in its place: what lies in an array has a
    name there.
    """
    keys = texts()
    found = [f"{name}:{node.lineno} {ast.unparse(node)}" for name, tree in trees()
             for node in ast.walk(tree) if isinstance(node, ast.Subscript)
             and (named_by_number(node.slice, keys) or by_number(node))]
    assert found == []


@pytest.mark.parametrize("text", [
    "m[at + 1]", "self.m[at - 1]", "words[1 + at]", "m[at + 4 * k]", "m[at + 2 * (k - 1)]",
    "x[k + 2]", "m[s.list :][: 4 * n]", "m[a : a + n * 4]", "x[:, 0]", "x[:n, 2]", "x[k, 3]",
    "x.T[1]"])
def test_a_word_by_its_number_is_found(text: str) -> None:
    node = ast.parse(text, mode="eval").body
    assert isinstance(node, ast.Subscript) and by_number(node)


@pytest.mark.parametrize("text", [
    "x[0]", "x[-1]", "x[2]", "x['a']", "x[k + 1]", "m[run + b + 1]", "m[at + count - 1 - k]",
    "x[1:]", "x[k : k + 10]", "x[t, 0]", "x[s + 1, k]", "x[:, k]", "x.T[0]", "x[n // 2]"])
def test_what_has_no_name_to_give_may_be_a_number(text: str) -> None:
    node = ast.parse(text, mode="eval").body
    assert isinstance(node, ast.Subscript) and not by_number(node)


def with_two_values(files: Iterator[tuple[str, ast.Module]]) -> set[str]:
    """Names that modules define, and not alike; private ones aside."""
    found: dict[str, set[str]] = {}
    for _, tree in files:
        for name, value in assigned(tree):
            if not name.startswith("_"):
                found.setdefault(name, set()).add(value)
    return {name for name, values in found.items() if len(values) > 1}


def test_a_name_means_one_thing() -> None:
    """No name at the top of a module has another value elsewhere."""
    assert with_two_values(trees()) == set(CONTRACTS)


def test_a_name_with_two_meanings_is_found() -> None:
    texts = ("A, B = 1, 2\nC: int = 3\n_D = 4", "A = 1\nB = 3\n_D = 5", "C = 3")
    assert with_two_values((text, ast.parse(text)) for text in texts) == {"B"}


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


def test_subjects_of_the_last_commits_are_short() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    log = subprocess.run(["git", "-C", str(ROOT), "log", "-20", "--format=%s"], text=True,
                         capture_output=True, check=True).stdout.splitlines()
    assert [subject for subject in log if len(subject) > MAX_SUBJECT] == []
