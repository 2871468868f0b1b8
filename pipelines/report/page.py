"""An HTML page that needs nothing but itself, and may load and run nothing else: its policy says so to the browser."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from typing import Any

from brgm_med.errors import BrgmError

MAX_BYTES = 8_000_000


def asset(name: str, package: str = "brgm_med.pipelines.report") -> str:
    """A file of a package, by default of this one, as text."""
    return (resources.files(package) / name).read_text(encoding="utf-8")


def e(value: object) -> str:
    """Text for HTML, inside of an element or a quoted attribute."""
    return escape(str(value), quote=True)


def banner(text: str) -> str:
    """Bar that stays on top of a page."""
    return f'<p class="banner" role="note"><strong>{e(text)}</strong></p>'


def section(identifier: str, heading: str, inside: str) -> str:
    """A part of a page, under a heading; `inside` is HTML already."""
    return (
        f'<section id="{identifier}" aria-labelledby="{identifier}-h"><h2 id="{identifier}-h">{e(heading)}</h2>'
        f"{inside}</section>"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str) -> str:
    """A table of cells that are HTML already; the first of a row is its heading."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>' for row in rows
    )
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{e(caption)}"><table><caption>{e(caption)}</caption>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def data_block(identifier: str, content: Any) -> str:
    """JSON for a script to read: no part of it can end the element that holds it."""
    text = json.dumps(content, allow_nan=False).replace("<", "\\u003c").replace("&", "\\u0026")
    return f'<script type="application/json" id="{e(identifier)}">{text}</script>'


def document(
    title: str, body: str, scripts: Sequence[str] = (), style: str | None = None, most: int = MAX_BYTES
) -> str:
    """The whole page, in the reports' style or another. Raises BrgmError for one of more than `most` bytes.

    The Content Security Policy allows the scripts given here, by their hashes, and no request that leaves the file: an
    image is `data:`, what niivue unpacks `data:` or `blob:`; it sets styles on its canvas.
    """
    for script in scripts:
        if "</script" in script.lower() or "<!--" in script:
            raise BrgmError(
                "a script of the report holds the end of its own element; this is a defect, please report it"
            )
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    policy = (
        f"default-src 'none'; script-src {hashes or chr(39) + 'none' + chr(39)}; "
        "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; connect-src data: blob:; base-uri 'none'; "
        "form-action 'none'"
    )
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="robots" content="noindex">\n'
        f'<title>{e(title)}</title>\n<link rel="icon" href="data:,">\n<style>\n{style or asset("page.css")}</style>\n'
        f"</head>\n<body>\n{body}\n{''.join(f'<script>{s}</script>' + chr(10) for s in scripts)}</body>\n</html>\n"
    )
    if len(page.encode()) > most:
        raise BrgmError(f"the page would have {len(page.encode())} bytes, more than {most}; please report it")
    return page
