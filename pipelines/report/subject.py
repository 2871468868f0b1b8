"""One subject's report: what went in, what came out, what of it was measured, and what the certificate says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from brgm_med._version import __version__
from brgm_med.errors import InputRefusedError, UsageError
from brgm_med.files import check_output, replacing
from brgm_med.pipelines.report.entries import rows
from brgm_med.pipelines.report.page import MAX_BYTES, asset, banner, document, e, section, table
from brgm_med.pipelines.report.words import paragraphs
from brgm_med.pipelines.results.certificate import STATEMENT
from brgm_med.transforms.formats import stem

SCRIPTS = ("flicker.js", "niivue/niivue.umd.js", "viewer.js")
SPARE = 50_000
"""Bytes of the page beside its sections and scripts, and of its volumes beside their voxels, at most."""


def subject_report(
    out: Path,
    *,
    scan: Path,
    result: Path,
    certificate: Path,
    measured: Path | None = None,
    mask: Path | None = None,
    prior: str | None = None,
    series: str | None = None,
    title: str | None = None,
    force: bool = False,
) -> Path:
    """Write the report of `result`, made of `scan`, as one HTML file of at most 8 MB that needs nothing else.

    `scan` is the first of several. `certificate` (JSON) is the one written with the result. `measured` is the map
    beside it, float [0, 1] on its grid, 1 where it was measured; `mask` the one that was inpainted. `prior`, a name or
    a folder, is where the template is looked for if not under the certificate's name; `series` chooses one of several
    volumes of DICOM; `title` names the subject (default: the result's name). The same files make the same bytes.
    Raises InputRefusedError for files that cannot be read or are not those that the certificate names, UsageError
    where `out` is one of them, and as `files.check_output` does.
    """
    inputs = [path for path in (scan, result, certificate, measured, mask) if path is not None]
    if out.resolve() in (path.resolve() for path in inputs):
        raise UsageError(f"{out}: is one of the files to report on; choose another name for the report")
    check_output(out, force)
    content = read_certificate(certificate)

    from brgm_med.pipelines.report import sections
    from brgm_med.pipelines.report.evidence import gather

    evidence = gather(scan, result, content, measured=measured, mask=mask, prior=prior, series=series)
    name, kind = title or stem(result), "inpainting" if "hole" in content else "super-resolution"
    scripts = [asset(script) for script in SCRIPTS]
    cells = ([e(entry), f"<code>{e(value)}</code>"] for entry, value in rows(content))
    entries = table(["entry", "value"], cells, "Certificate")
    entries = f"<p>All that the certificate holds, as it is written there.</p>{entries}"
    parts = [
        banner(STATEMENT),
        f"<header><h1>{e(name)}</h1><p>Report of {kind} by {e(content.get('software', 'brgm-med'))}</p></header><main>",
        section("words", "In words", "".join(f"<p>{e(text)}</p>" for text in paragraphs(content))),
        sections.compare(evidence),
        sections.maps(evidence),
        sections.registration(evidence),
        section("certificate", "Certificate, parameters and provenance", entries),
        f"</main><footer><p>{e(STATEMENT)}</p><p>Report written by brgm-med {__version__}. This file asks for nothing "
        "outside of itself. The interactive view is drawn by niivue 0.69.0 (BSD-2-Clause).</p></footer>",
    ]
    used = sum(len(part.encode()) for part in (*parts, *scripts))
    parts.insert(-2, sections.view(evidence, MAX_BYTES - used - SPARE))
    page = document(f"{name}: {kind} report", "\n".join(parts), scripts)
    with replacing(out, force, inputs) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return out


def read_certificate(path: Path) -> dict[str, Any]:
    """A certificate's JSON object. Raises InputRefusedError for what is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputRefusedError(f"{path}: is no readable certificate ({error}); give the JSON of a result") from error
    if not isinstance(content, dict):
        raise InputRefusedError(f"{path}: is no certificate (a JSON object); give the JSON of a result")
    return content
