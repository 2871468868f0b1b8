"""One result's report: what went in, what came out, what of it was measured, and what the certificate says."""

from __future__ import annotations

from pathlib import Path

from brgm_med._version import __version__
from brgm_med.errors import InputRefusedError, UsageError
from brgm_med.files import check_output, replacing
from brgm_med.pipelines.report.beside import beside, read_certificate
from brgm_med.pipelines.report.entries import at, rows
from brgm_med.pipelines.report.page import asset, document, filled
from brgm_med.pipelines.report.words import paragraphs
from brgm_med.pipelines.results.certificate import STATEMENT
from brgm_med.pipelines.results.publish import default_certificate, default_report
from brgm_med.transforms.formats import stem

SCRIPTS = ("viewer.js", "samples.js")


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
    """Write the report of `result`, made of `scan`, as one HTML file of a few MB that needs nothing else.

    `scan` is the first of several. `certificate` (JSON) is the one written with the result. `measured` is the map of
    it, float [0, 1] on its grid, 1 where it was measured, by default the one beside it; `mask` the one that was
    inpainted. Intervals and samples are looked for beside the result. `prior`, a name or a folder, is where the
    template is looked for if not under the certificate's name; `series` chooses one of several volumes of DICOM;
    `title` names the subject (default: the result's name). The same files make the same bytes. Nobody may read the
    report who may not read all of them. Raises InputRefusedError for files that cannot be read or are not those that
    the certificate names, UsageError where `out` is one of them, and as `files.check_output` does.
    """
    measured = measured or beside(result, "measured")
    inputs = [path for path in (scan, result, certificate, measured, mask) if path is not None]
    if out.resolve() in (path.resolve() for path in inputs):
        raise UsageError(f"{out}: is one of the files to report on; choose another name for the report")
    check_output(out, force)
    content = read_certificate(certificate)

    from brgm_med.pipelines.report import images, sections, summary
    from brgm_med.pipelines.report.evidence import gather
    from brgm_med.pipelines.report.view import view

    evidence = gather(scan, result, content, measured=measured, mask=mask, prior=prior, series=series)
    shades = images.window(evidence.scan, evidence.brain)
    volumes, layers = view(evidence, *shades)
    name, kind = title or stem(result), "inpainting" if "hole" in content else "super-resolution"
    body = filled(
        "result.html",
        statement=STATEMENT,
        name=name,
        kind=kind,
        software=str(content.get("software", "brgm-med")),
        version=__version__,
        views=images.VIEWS,
        layers=layers,
        volumes=volumes,
        pairs=sections.pairs(evidence, *shades),
        shown=sections.convention(evidence, *shades),
        lines=summary.lines(content, evidence),
        sheets=sections.hole_sheets(evidence, *shades) if "hole" in content else [],
        margin=sections.MARGIN_MM,
        missing={"residual": "", **evidence.missing},
        inferred=sections.inferred(evidence, *shades),
        intervals=sections.intervals(evidence),
        samples=sections.samples(evidence, *shades),
        residual=sections.residual(evidence, *shades),
        slices=sections.slices(evidence.slices),
        registration=sections.registration(evidence, *shades),
        paragraphs=paragraphs(content),
        entries=list(rows(content)),
    )
    page = document(
        f"{name}: {kind} report", body, [asset(script) for script in SCRIPTS], icon=sections.icon(evidence, *shades)
    )
    with replacing(out, force, inputs) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return out


def report_beside(
    result: Path,
    *,
    scan: Path | None = None,
    mask: Path | None = None,
    certificate: Path | None = None,
    out: Path | None = None,
    series: str | None = None,
    force: bool = False,
) -> Path:
    """Write the report of any `result`; the other files are looked for beside it, by the names that its certificate
    holds, where they are not given. Raises as `subject_report`, and InputRefusedError for a file that is not there."""
    certificate = certificate or default_certificate(result)
    content = read_certificate(certificate)
    scan = scan or _beside(result, at(content, "source", "file"), "the scan", "--in")
    if mask is None and "mask" in content and beside(result, "measured") is None:
        mask = _beside(result, at(content, "mask", "file"), "the mask", "--mask")
    out = out or default_report(result)
    return subject_report(out, scan=scan, result=result, certificate=certificate, mask=mask, series=series, force=force)


def _beside(result: Path, name: object, noun: str, option: str) -> Path:
    path = result.with_name(name) if isinstance(name, str) and name == Path(name).name else None
    if path is None or not path.exists():
        known = f" ({name})" if isinstance(name, str) else ""
        raise InputRefusedError(
            f"{result}: {noun} that it was made from{known} is not beside it; name it with {option}"
        )
    return path
