"""An HTML page that needs nothing but itself, and may load and run nothing else: its policy says so to the browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from functools import cache
from html import escape
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from brgm_med.errors import BrgmError
from brgm_med.pipelines.console import shown

if TYPE_CHECKING:
    from jinja2 import Environment

MAX_BYTES = 9_000_000
"""A guard: pictures have budgets that leave most pages below 6 MB."""
ICON = re.compile(rb'<link rel="icon" href="(data:image/jpeg;base64,[A-Za-z0-9+/=]+)">')
HEAD_BYTES = 50_000
"""The icon of a page lies within so many bytes from its start."""


def asset(name: str, package: str = "brgm_med.pipelines.report") -> str:
    """A file of a package, by default of this one, as text."""
    return (resources.files(package) / name).read_text(encoding="utf-8")


def e(value: object) -> str:
    """Text for HTML, inside of an element or a quoted attribute."""
    return escape(str(value), quote=True)


@cache
def _environment() -> Environment:
    """Templates of this package. All that they print is text, escaped, with the names withheld that no output may have
    (`console.shown`), unless it is marked as HTML."""

    from jinja2 import Environment, FunctionLoader, StrictUndefined

    def printed(value: Any) -> Any:
        return shown(value, longest=None) if isinstance(value, str) and not isinstance(value, Markup) else value

    return Environment(
        loader=FunctionLoader(asset), autoescape=True, finalize=printed, undefined=StrictUndefined, trim_blocks=True
    )


def filled(template: str, **content: Any) -> Markup:
    """A template of this package with its content."""
    return Markup(_environment().get_template(template).render(content))


def data_block(identifier: str, content: Any) -> Markup:
    """JSON for a script to read: no part of it can end the element that holds it."""
    text = json.dumps(content, allow_nan=False).replace("<", "\\u003c").replace("&", "\\u0026")
    return Markup(f'<script type="application/json" id="{e(identifier)}">{text}</script>')


def icon_of(page: Path) -> str | None:
    """The icon of a page of this software, a JPEG as `data:` address; None where it has none, or is not there."""
    try:
        with page.open("rb") as file:
            start = file.read(HEAD_BYTES)
    except OSError:
        return None
    address = ICON.search(start)
    return address[1].decode("ascii") if address else None


def document(
    title: str,
    body: str,
    scripts: Sequence[str] = (),
    style: str | None = None,
    most: int = MAX_BYTES,
    icon: str = "data:,",
) -> str:
    """The whole page around `body`, which is HTML, in the reports' style or another. Raises BrgmError for one of more
    than `most` bytes.

    The Content Security Policy allows the scripts given here, by their hashes, and no request that leaves the file: an
    image is `data:`.
    """
    for script in scripts:
        if "</script" in script.lower() or "<!--" in script:
            raise BrgmError(
                "a script of the report holds the end of its own element; this is a defect, please report it"
            )
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    policy = (
        f"default-src 'none'; script-src {hashes or chr(39) + 'none' + chr(39)}; style-src 'unsafe-inline'; "
        "img-src data: blob:; font-src data:; connect-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    parts = {"style": Markup(style or asset("page.css")), "body": Markup(body), "scripts": [*map(Markup, scripts)]}
    page = str(filled("page.html", title=title, policy=Markup(policy), icon=icon, **parts))
    if len(page.encode()) > most:
        raise BrgmError(f"the page would have {len(page.encode())} bytes, more than {most}; please report it")
    return page
