"""The plan of the house: rooms, levels, and one direction of imports. `python tests/house.py` prints it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.house import ROOT, circles, code_lines, imports, longest_chain, modules, rooms

TESTS = ROOT / "tests"
LAYERS = ("brgm_med", "brgm_med.transforms", "brgm_med.pipelines")
ENTRY = "brgm_med.__main__"
"""`python -m brgm_med` starts the command line; nothing imports it."""
FROM_ABOVE = {("brgm_med", "brgm_med.pipelines.steps.super_resolution")}
"""What the package passes on, on first use, of a layer above: `brgm_med.super_resolve`, the whole of it in one line."""


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    return imports()


def layer(module: str) -> int:
    """0 for the mathematics, 1 for scans, 2 for files and commands."""
    return max(i for i, name in enumerate(LAYERS) if module == name or module.startswith(f"{name}."))


def test_no_module_imports_itself_through_others(graph: dict[str, set[str]]) -> None:
    assert circles(graph) == []
    assert circles(rooms(graph)) == []


def test_rooms_are_few_and_on_few_levels(graph: dict[str, set[str]]) -> None:
    assert len(rooms(graph)) <= 20
    assert len(longest_chain(rooms(graph))) <= 7


def test_imports_point_one_way_through_the_three_layers(graph: dict[str, set[str]]) -> None:
    upwards = {(m, other) for m, others in graph.items() for other in others if layer(other) > layer(m) and m != ENTRY}
    assert upwards == FROM_ABOVE
    assert not any(ENTRY in others for others in graph.values())


def test_every_source_is_seen_once(graph: dict[str, set[str]]) -> None:
    files = modules()
    assert len({file.resolve() for file in files.values()}) == len(files)
    assert {layer(name) for name in files} == {0, 1, 2}
    assert "brgm_med.pipelines.steps.super_resolution" in graph["brgm_med.pipelines.steps"]


def test_a_circle_a_chain_and_lines_are_seen_where_there_are_some(tmp_path: Path) -> None:
    for folder in ("brgm_med", "transforms", "pipelines"):
        (tmp_path / folder).mkdir()
    sources = {
        "brgm_med/low.py": '"""Low."""\n\n# a comment\nX = (\n    1\n)\n',
        "pipelines/a.py": "def f() -> None:\n    '''Doc.'''\n    from brgm_med.pipelines import b\n    b.g()\n",
        "pipelines/b.py": "import typing\n\nif typing.TYPE_CHECKING:\n    from brgm_med.pipelines.c.d import D\n",
        "pipelines/c/d.py": "import brgm_med.low\n",
    }
    (tmp_path / "pipelines" / "c").mkdir()
    for name, text in sources.items():
        (tmp_path / name).write_text(text)
    seen = imports(tmp_path)
    assert longest_chain(rooms(seen)) == ["a", "b", "c"]
    assert circles(seen) == []
    assert code_lines(tmp_path / "brgm_med" / "low.py") == 3
    assert code_lines(tmp_path / "pipelines" / "a.py") == 3
    (tmp_path / "pipelines" / "c" / "d.py").write_text("from brgm_med.pipelines.a import f\n")
    (circle,) = circles(imports(tmp_path))
    assert set(circle) == {f"brgm_med.pipelines.{name}" for name in ("a", "b", "c.d")}


def test_no_test_imports_another() -> None:
    """What tests share lives in modules that are no tests: those named test_* are only collected."""
    importing = {}
    for path in sorted(TESTS.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            origin = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(part.startswith("test_") for name in origin + names for part in name.split(".")):
                importing[path.name] = ast.unparse(node)
    assert importing == {}


def test_folders_of_tests_are_those_of_the_package() -> None:
    """A test lies where what it tests lies: tests/ops for brgm_med/ops, files at the top for modules of brgm_med."""
    for folder in {path.parent.relative_to(TESTS) for path in TESTS.rglob("test_*.py")} - {Path("benchmarks")}:
        room = ROOT / "brgm_med" / folder
        assert room.is_dir() or room.with_suffix(".py").is_file(), folder
        assert (TESTS / folder / "__init__.py").is_file(), folder
