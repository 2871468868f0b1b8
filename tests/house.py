"""The plan of the house: `python tests/house.py` prints rooms, levels, the longest chain of imports, circles and lines.

A room is a file or folder directly in `pipelines/`; a level is a step of the longest chain of imports among rooms.
Imports inside functions and under TYPE_CHECKING count like all others.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE, ROOMS = "brgm_med", "brgm_med.pipelines"

Graph = Mapping[str, set[str]]


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Every module of the package and its file."""
    found = {}
    for file in sorted(p for folder in (PACKAGE, "transforms", "pipelines") for p in (root / folder).rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        if parts[0] == PACKAGE and parts[1] in ("transforms", "pipelines"):
            continue  # links to the folders at the top
        name = ".".join(parts if parts[0] == PACKAGE else (PACKAGE, *parts)).removesuffix(".__init__")
        found[name] = file
    return found


def imports(root: Path = ROOT) -> dict[str, set[str]]:
    """Module -> the modules of the package that it names in any import statement."""
    known = modules(root)
    graph: dict[str, set[str]] = {}
    for name, file in known.items():
        graph[name] = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{file}: a relative import"
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                targets = [one if one in known else str(node.module) for one in inner]
            else:
                continue
            graph[name].update(one for one in targets if one in known)
    return graph


def circles(graph: Graph) -> list[list[str]]:
    """Import circles, as chains that end where they begin: one of every group of modules that need each other."""
    left = {name: set(targets) for name, targets in graph.items()}
    found: list[list[str]] = []
    while True:
        try:
            TopologicalSorter(left).prepare()
        except CycleError as error:
            circle: list[str] = error.args[1][::-1]
            found.append(circle)
            left[circle[0]].discard(circle[1])
        else:
            return found


def rooms(graph: Graph) -> dict[str, set[str]]:
    """The graph among rooms of `pipelines/`; the package itself, which only passes names on, is none."""

    def room(name: str) -> str | None:
        return name.removeprefix(f"{ROOMS}.").split(".")[0] if name.startswith(f"{ROOMS}.") else None

    joined: dict[str, set[str]] = {}
    for name, targets in graph.items():
        here = room(name)
        if here is not None:
            others = {there for there in map(room, targets) if there is not None and there != here}
            joined.setdefault(here, set()).update(others)
    return joined


def longest_chain(graph: Graph) -> list[str]:
    """The longest chain of imports, from the top. Raises CycleError where there is a circle."""
    chains: dict[str, list[str]] = {}
    for name in TopologicalSorter(graph).static_order():
        below = max((chains[other] for other in sorted(graph[name])), key=len, default=[])
        chains[name] = [name, *below]
    return max((chains[name] for name in sorted(chains)), key=len)


def code_lines(file: Path) -> int:
    """Lines of code: not blank, no comment, no docstring."""
    text = file.read_text()
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            docstrings.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    silent = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in silent:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings)


def report(root: Path = ROOT) -> Iterator[str]:
    """The plan, line by line."""
    graph = imports(root)
    joined = rooms(graph)
    yield f"{len(joined)} rooms: {', '.join(sorted(joined))}"
    around = circles(joined)
    if not around:
        chain = longest_chain(joined)
        yield f"{len(chain)} levels: {' -> '.join(chain)}"
    for circle in around:
        yield f"circle of rooms: {' -> '.join(circle)}"
    found = circles(graph)
    yield f"{len(graph)} modules, {len(found)} circles"
    for circle in found:
        yield f"circle: {' -> '.join(circle)}"
    parts = {folder: (root / folder).rglob("*.py") for folder in ("transforms", "pipelines", "benchmarks", "tests")}
    links = (root / PACKAGE / "transforms", root / PACKAGE / "pipelines")
    own = (p for p in (root / PACKAGE).rglob("*.py") if not any(p.is_relative_to(link) for link in links))
    counts = {folder: sum(map(code_lines, files)) for folder, files in {PACKAGE: own, **parts}.items()}
    yield "lines of code: " + ", ".join(f"{folder} {count}" for folder, count in counts.items())


if __name__ == "__main__":
    print("\n".join(report()))
