"""Pages of the site that are made of other files: a hook of mkdocs.

The README is the home page; CONTRIBUTING, SECURITY and CHANGELOG are pages; the command line's reference is made of its
parser, and that of the Python interface lists the public names of each layer.
"""

from __future__ import annotations

import argparse
import ast
import html
import re
import textwrap
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"README.md": "index.md"} | {f"{n}.md": f"{n.lower()}.md" for n in ("CONTRIBUTING", "SECURITY", "CHANGELOG")}
COPIED = ("NOTICE", "CITATION.cff", "LICENSE")
LAYERS = {
    "brgm_med": "Mathematics: tensors in, tensors out.",
    "brgm_med.corruptions": "f in y = f(x) + noise.",
    "brgm_med.transforms": "Scans: MONAI transforms that read, register and write.",
    "brgm_med.pipelines": "Files, arrays and workflows: the functions that the commands call.",
}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made."""
    made = {page: at_home((ROOT / name).read_text()) for name, page in PAGES.items()}
    made |= {name: (ROOT / name).read_text() for name in COPIED}
    made["reference/command-line.md"] = command_line()
    made |= {f"reference/{name}.md": interface(name, text) for name, text in LAYERS.items()}
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links from docs to files at the root lead to the pages that are made of them."""
    for name, page in PAGES.items():
        markdown = markdown.replace(f"](../{name}", f"]({page}").replace(f"](../../{name}", f"](../{page}")
    return markdown


def at_home(text: str) -> str:
    """A file of the root as a page: its links start in docs."""
    text = text.replace("](docs/", "](")
    for name, page in PAGES.items():
        text = text.replace(f"]({name}", f"]({page}")
    return text


def command_line() -> str:
    """The reference of all commands, made of the parser."""
    from brgm_med.pipelines.cli import parser

    top = parser()
    lines = ["# The command line", "", *sections(top, 1)]
    return "\n".join(lines) + "\n"


def sections(parser: argparse.ArgumentParser, level: int) -> list[str]:
    """A parser's description, usage and options, and those of its subcommands one level below."""
    usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
    shown = textwrap.fill(usage, 84, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    lines = [parser.description or "", "", "```text", shown, "```", ""]
    below: list[tuple[str, argparse.ArgumentParser]] = []
    for group in parser._action_groups:
        actions = [a for a in group._group_actions if a.help != argparse.SUPPRESS]
        for action in actions:
            if isinstance(action, argparse._SubParsersAction):
                below += list(action.choices.items())
        rows = [row(parser, a) for a in actions if not isinstance(a, argparse._SubParsersAction | argparse._HelpAction)]
        if rows:
            lines += [f"**{(group.title or 'options').capitalize()}**", "", *filter(None, [group.description]), ""]
            lines += ["| option | meaning |", "|---|---|", *rows, ""]
    if parser.epilog:
        verbatim = "\n" in parser.epilog
        lines += ["```text", parser.epilog, "```", ""] if verbatim else [parser.epilog, ""]
    for name, one in below:
        lines += [f"{'#' * (level + 1)} {parser.prog} {name}", "", *sections(one, level + 1)]
    return lines


def row(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """A row of a table: an option with its value's name, and its help."""
    formatter = parser._get_formatter()
    text = formatter._format_action_invocation(action)
    meaning = formatter._expand_help(action) if action.help else ""
    if action.choices is not None and not meaning:
        meaning = "one of " + ", ".join(str(c) for c in action.choices)
    return f"| <code>{html.escape(text).replace('|', '&#124;')}</code> | {escape(meaning).replace('|', '&#124;')} |"


def escape(text: str) -> str:
    """Text of a terminal as Markdown."""
    return re.sub(r"([*_<>\[\]])", r"\\\1", " ".join(text.split()))


def interface(package: str, text: str) -> str:
    """A page of a package's public names, each documented where it is defined."""
    lines = [f"# {package}", "", text, ""]
    for module, name in public(package):
        lines += [f"::: {module}.{name}", ""]
    return "\n".join(lines)


def public(package: str) -> list[tuple[str, str]]:
    """The module and the name of each public name of a package; those of a layer within are on that one's page."""
    body = ast.parse((ROOT / package.replace(".", "/") / "__init__.py").read_text())
    imports = [node for node in ast.walk(body) if isinstance(node, ast.ImportFrom)]
    names = [
        (str(node.module), a.name) for node in imports for a in node.names if a.name not in ("lazy", "__version__")
    ]
    own = [(module, name) for module, name in names if f"{module}.".startswith(f"{package}.")]
    inner = {name for layer in LAYERS if layer.startswith(f"{package}.") for _, name in public(layer)}
    return [(module, name) for module, name in own if name not in inner]
