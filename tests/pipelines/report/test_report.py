"""Reports say what the certificate says, show what the files hold, and need nothing but themselves."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from brgm_med.errors import InputRefusedError, UsageError
from brgm_med.pipelines.console import withhold
from brgm_med.pipelines.report import Outcome, files, mosaic, report_beside, study_report, subject_report
from brgm_med.pipelines.report.entries import number, rows
from brgm_med.pipelines.report.images import VIEWS, Spot, Volume, grey
from brgm_med.pipelines.report.outliers import FAR, robust_z
from brgm_med.pipelines.report.page import MAX_BYTES, document
from brgm_med.pipelines.report.words import paragraphs
from brgm_med.pipelines.results.certificate import Certificate
from brgm_med.transforms.formats import dicom
from brgm_med.transforms.formats.dicom import map as dicom_map
from brgm_med.transforms.formats.dicom.derived import NO_CHOICES
from brgm_med.transforms.geometry import Grid
from tests.mr_series import mr_series
from tests.reports import HOSTILE, OWN, case, digest, study, written


class Elements(HTMLParser):
    """Every element of a page with its attributes, and its text outside of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside not in ("script", "style"):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.found if name == tag]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], Path]:
    folder = tmp_path_factory.mktemp("report")
    files = case(folder)
    return files, subject_report(folder / "report.html", **files)


def test_asks_for_nothing_outside_itself(report: tuple[dict[str, Path], Path]) -> None:
    page = report[1].read_text(encoding="utf-8")
    elements = Elements(page)
    for _, attributes in elements.found:
        for name in ("src", "href", "srcset", "action", "poster"):
            assert (attributes.get(name) or "data:").startswith("data:")
        assert not any(name.startswith("on") for name in attributes)
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    policy = next(m["content"] for m in elements.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    # Every script that runs is one that the policy names by its hash.
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 2
    for script in scripts:
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    assert report[1].stat().st_size < MAX_BYTES


def test_names_are_text_and_never_markup(report: tuple[dict[str, Path], Path]) -> None:
    elements = Elements(report[1].read_text(encoding="utf-8"))
    assert HOSTILE in elements.text
    assert len(elements.all("script")) == 3  # two that run and the volumes
    # Nothing that is not well escaped ends the block of the volumes.
    data = json.loads(re.findall(r'id="volumes">(.*?)</script>', report[1].read_text(), re.DOTALL)[0])
    assert [layer["label"] for layer in data["layers"]] == ["residual", "the model's box", "template"]


def test_says_what_the_certificate_says(report: tuple[dict[str, Path], Path]) -> None:
    files, path = report
    text = Elements(path.read_text(encoding="utf-8")).text
    said = in_words(text)
    for words in (
        "3.21 × 10⁻⁵",
        "0.457",
        "5,600 of its 5,824",
        "36 %",
        "0 to 3, 22 to 25",
        "0.832",
        "1.05 times",
        "12.3",
        "17.5",
        "0.0125",
        "43 %",
    ):
        assert words in said
    assert "Nobody stated this" in said
    for name, value in rows(json.loads(files["certificate"].read_text())):
        assert name in text
        assert value in text
    assert text.count("For research, not for diagnosis") == 2
    places = [text.index(part) for part in ("For research", "axial ", "In short", "What was measured", "In words")]
    assert places == sorted(places)  # the picture comes first, then ten lines, then details


def words_of(folder: Path, **entries: Any) -> str:
    return in_words(Elements(subject_report(folder / "r.html", **case(folder, **entries)).read_text()).text)


def in_words(text: str) -> str:
    """The section of a page that says in sentences what its certificate does."""
    return text[text.index("In words") : text.index("Certificate, parameters and provenance")]


def test_says_which_prior_inferred_what(tmp_path: Path) -> None:
    shipped = json.loads(case(tmp_path)["certificate"].read_text())["prior"]
    beside = {**shipped, "weight": 0.3, "reason": "it knows such scans (correlation with its template 0.85)"}
    words = words_of(tmp_path, prior=OWN, population_prior=beside)
    for part in (
        "tuned on this scan's own planes",
        "detail down to 1.56 mm; the network infers nothing finer",
        "a weight of 1.1, because the scan is as sharp through plane as in plane",
        f"the statistical model {shipped['name']}",
        "a weight of 0.3: it knows such scans",
        f"the template of {shipped['name']}",
    ):
        assert part in words
    page = Elements((tmp_path / "r.html").read_text())
    assert len(page.all("img")) == 3 * 2 + 3 + 3  # the template of the prior that stands second is drawn


def test_says_that_a_prior_was_not_used_and_nothing_of_a_template_where_none_was(tmp_path: Path) -> None:
    words = words_of(tmp_path, prior=OWN, registration=None)
    assert "tuned on this scan's own planes" in words
    assert "template" not in words
    assert "the statistical model" not in words.lower()
    assert "Not shown: the scan was not registered" in (tmp_path / "r.html").read_text()
    second = tmp_path / "second"
    second.mkdir()
    unused = {"name": "heads", "weight": 0.0, "reason": "it knows no knees"}
    words = words_of(second, prior=OWN, population_prior=unused, registration=None)
    assert "The statistical model heads, which was trained on other heads, was not used: it knows no knees." in words
    assert "what is most probable" not in words


def test_pixels_that_were_interpolated_are_told_from_those_of_the_scan() -> None:
    spacing = {"R": 1.5625, "A": 1.5625, "S": 5.0}
    (as_stored,) = paragraphs({"prior": OWN, "acquisition": {"Spacing": spacing}})[1:]
    (finer,) = paragraphs({"prior": OWN, "acquisition": {"Spacing": spacing | {"R": 0.78125, "A": 0.78125}}})[1:]
    assert "interpolated" not in as_stored
    assert "detail down to 1.56 mm (their pixels of 0.781 mm were interpolated)" in finer


@pytest.mark.parametrize(
    ("level", "sentence"),
    [
        ({"deviation": 3.0, "kind": "gaussian"}, "was estimated from the scan itself (gaussian) as 3 in its units"),
        ({"deviation": 3.0, "kind": "stated"}, "was stated as 3 in its units"),
        ({"deviation": 0.0, "kind": "stated"}, "The scan is taken to have no noise."),
        ({"deviation": 0.0, "kind": "negligible"}, "noise is negligible"),
        ({"deviation": 0.0, "kind": "unidentified"}, "does not tell how noisy it is"),
    ],
)
def test_the_noise_in_words(level: dict[str, Any], sentence: str) -> None:
    (text,) = paragraphs({"noise": [level]})
    assert sentence in text


def test_pictures_have_words_and_controls_have_labels(report: tuple[dict[str, Path], Path]) -> None:
    page = report[1].read_text(encoding="utf-8")
    elements = Elements(page)
    pictures = elements.all("img")
    assert len(pictures) == 3 * 2 + 3 + 3  # pairs, residual, registration; no map of what was measured
    assert all(re.search(r"(axial|coronal|sagittal), [RAS] [+-]\d+ mm", picture["alt"] or "") for picture in pictures)
    assert "Not shown: no map of what was measured was given" in elements.text
    labelled = re.sub(r"<label.*?</label>", "", page, flags=re.DOTALL)
    assert not re.search(r"<(input|select)", labelled[: labelled.index("<script>")])
    for rule in ("prefers-color-scheme: dark", "prefers-reduced-motion", "@media print", ":focus-visible"):
        assert rule in page


def test_the_same_files_make_the_same_bytes_and_are_not_overwritten(
    report: tuple[dict[str, Path], Path], tmp_path: Path
) -> None:
    files, path = report
    assert subject_report(tmp_path / "again.html", **files).read_bytes() == path.read_bytes()
    with pytest.raises(InputRefusedError, match="exists already"):
        subject_report(path, **files)
    with pytest.raises(UsageError, match="is one of the files to report on"):
        subject_report(files["certificate"], **files, force=True)


def test_with_a_map_of_what_was_measured(tmp_path: Path) -> None:
    files = case(tmp_path)
    image = nib.load(files["result"])
    values = np.full(image.shape, 0.75)
    measured = written(tmp_path, "result_measured.nii.gz", values, image.affine)
    text = Elements(subject_report(tmp_path / "r.html", **files, measured=measured).read_text()).text
    assert "on average 25 % over the field of view" in text
    wrong = written(tmp_path, "wrong.nii.gz", values * 2, image.affine)
    with pytest.raises(InputRefusedError, match="outside \\[0, 1\\]"):
        subject_report(tmp_path / "s.html", **files, measured=wrong)
    assert not (tmp_path / "s.html").exists()


def test_a_map_in_dicom_lies_where_its_series_does(tmp_path: Path) -> None:
    series = mr_series(tmp_path / "series")
    scan = dicom.Reader().read(series)
    values = np.random.default_rng(0).random(scan.array.shape).astype(np.float32)
    how = Certificate(prior={"name": "a prior", "sha256": "0" * 64}, parameters={}).derivation("sr")
    dicom_map.write(tmp_path / "map", values, scan.affine, series, dicom_map.MEASURED, how, NO_CHOICES, False)
    x, y, z = values.shape
    inferred = files.inferred_on(Grid((x, y, z), scan.affine), tmp_path / "map", None, {}, {})
    assert inferred is not None
    np.testing.assert_allclose(inferred[0].numpy(), 1 - values, atol=1e-6)
    with pytest.raises(InputRefusedError, match="is no map of what was measured"):
        files.inferred_on(Grid((x, y, z), scan.affine), series, None, {}, {})


def test_residual_is_that_of_the_files(tmp_path: Path) -> None:
    files = case(tmp_path)
    image = nib.load(files["result"])
    wrong = np.asarray(image.get_fdata())
    wrong[13, 12, 12] += 3 * 321.0  # a sample averages three voxels
    nib.save(nib.Nifti1Image(wrong.astype(np.float32), image.affine), files["result"])
    content = json.loads(files["certificate"].read_text())
    content["result"]["sha256"] = digest(files["result"])
    files["certificate"].write_text(json.dumps(content))
    before = Elements(subject_report(tmp_path / "r.html", **files).read_text()).text
    largest = float(re.findall(r"The largest is ([\d.,]+)\.", before)[0].replace(",", ""))
    assert largest == pytest.approx(321, rel=0.2)  # and what the interpolated image is off there


def test_files_of_another_certificate_are_refused(tmp_path: Path) -> None:
    files = case(tmp_path)
    for which in ("scan", "result"):
        other = written(tmp_path, "other.nii.gz", nib.load(files[which]).get_fdata() + 1, nib.load(files[which]).affine)
        with pytest.raises(InputRefusedError, match="is not the file that the certificate was written for"):
            subject_report(tmp_path / "r.html", **{**files, which: other})
    files["certificate"].write_text("[]")
    with pytest.raises(InputRefusedError, match="is no certificate"):
        subject_report(tmp_path / "r.html", **files)
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"acquisition": None, "registration": None, "consistency": None, "coverage": None, "prior": None},
        {"acquisition": {"Thickness": "odd"}, "registration": {"template_to_scan": [[1, 2], [3]], "correlation": "x"}},
        {"registration": {"template_to_scan": np.zeros((4, 4)).tolist()}, "coverage": {"interpolated_slices": [1]}},
        {"scans": [{"file": "b.nii.gz", "noise": 0.03}, {"file": "c"}], "consistency": {"relative_residual": None}},
        {"prior": {"name": "no such prior", "sha256": "0"}, "source": {"file": 3, "sha256": "withheld"}},
        {
            "noise": [],
            "further_scans": ["odd", {}],
            "explained_by_the_scans": 3,
            "consistency": {"relative_residual": 0.1, "further_scans": [{}]},
        },
        {"noise": [{"deviation": 0.0, "kind": "unidentified"}, "odd"], "registration": {"not_identified": ["x", "y"]}},
        {"consistency": {"relative_residual": True, "bound": 2.0, "within_bound": "yes"}, "novel": {"deep": [1, {}]}},
    ],
)
def test_unknown_and_missing_entries_crash_nothing(tmp_path: Path, change: dict[str, Any]) -> None:
    text = Elements(subject_report(tmp_path / "r.html", **case(tmp_path, **change)).read_text()).text
    for name, value in rows(change):
        assert name in text
        assert value in text
    assert "None" not in text[: text.index("All that the certificate holds")]


def test_inpainting_shows_the_hole(tmp_path: Path) -> None:
    files = case(tmp_path)
    image = nib.load(files["scan"])
    values = image.get_fdata()
    hole = np.zeros(image.shape)
    hole[10:13, 3:6, 12:15] = 1
    values[hole > 0] = np.nan
    scan = written(tmp_path, "scan.nii.gz", values, image.affine)
    result = written(tmp_path, "result.nii.gz", np.where(hole > 0, 500, values), image.affine)
    mask = tmp_path / "mask.nii.gz"
    nib.save(nib.Nifti1Image(hole.astype(np.uint8), image.affine), mask)
    content = json.loads(files["certificate"].read_text())
    del content["consistency"], content["coverage"]
    content |= {
        "source": {"file": "scan.nii.gz", "sha256": digest(scan), "affine": "sform"},
        "result": {"file": "result.nii.gz", "sha256": digest(result)},
        "mask": {"file": "mask.nii.gz", "sha256": digest(mask), "known": False, "resampled": False},
        "hole": {"voxels": 27, "inferred_by_the_prior": 0.75, "interpolated_from_its_rim": 0.25},
        "outside_the_hole": {"voxels": 5589, "changed": 0},
    }
    files["certificate"].write_text(json.dumps(content))
    text = Elements(subject_report(tmp_path / "r.html", **files, mask=mask).read_text()).text
    assert "the 27 voxels that mask.nii.gz marks as unknown were filled" in text
    assert "75 % were inferred by the prior and 25 % interpolated" in text
    assert "Of the 5,589 voxels outside the hole, 0 were changed" in text
    assert "Residual" not in text
    assert "Outside the hole0 of 5,589 voxels changed" in text
    pictures = Elements((tmp_path / "r.html").read_text()).all("img")
    sheets = [p for p in pictures if "Slices through the hole" in str(p["alt"])]
    assert [re.findall(r"axial|coronal|sagittal", str(p["alt"]))[0] for p in sheets] == ["axial", "coronal", "sagittal"]
    data = json.loads(re.findall(r'id="volumes">(.*?)</script>', (tmp_path / "r.html").read_text(), re.DOTALL)[0])
    assert (data["layers"][0]["label"], data["layers"][0]["on"]) == ("hole", True)
    assert "on average 0.48 % over the field of view" in text  # 27 of 5616


@pytest.mark.parametrize("order", ["RAS", "LPS", "SRA", "AIL"])
def test_planes_are_radiological_whatever_the_order_of_axes(order: str) -> None:
    canonical = np.zeros((4, 5, 6), np.float32)
    canonical[3, 4, 5] = 1  # right, anterior, superior
    to = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(tuple(order))
    )
    values = nib.orientations.apply_orientation(canonical, to)
    affine = np.diag([2.0, 2, 2, 1]) @ nib.orientations.inv_ornt_aff(to, canonical.shape)
    x, y, z = values.shape
    volume = Volume.turned(values, Grid((x, y, z), affine))
    np.testing.assert_array_equal(volume.values, canonical)
    for view in VIEWS:
        plane = volume.plane(view, np.array([6.0, 8.0, 10.0]))  # mm
        assert plane[0, 0] == 1  # its left top: R and A, R and S, A and S
        assert plane.sum() == 1
        assert view.letters[0] in "RA"
        assert view.letters[2] in "AS"
        assert grey(volume, Spot(view, np.array([6.0, 8.0, 10.0]), ""), 0, 1).size == plane.shape[::-1]


def test_the_views_volume_is_what_it_was_and_stays_in_place() -> None:
    x, y, z = 13, 10, 7
    grid = Grid((x, y, z), np.diag([1.0, 2, 3, 1]))
    values = np.random.default_rng(0).random((x, y, z)).astype(np.float32)
    packed = mosaic.entry(Volume(values, grid), grid, 0.0, 1.0)
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(packed["uri"].split(",")[1]))))
    width, height = packed["tile"]
    for k in range(z):
        top, left = k // packed["columns"] * height, k % packed["columns"] * width
        np.testing.assert_allclose(
            sheet[top : top + y, left : left + x].T / 255, values[:, :, k], atol=0.5 / 255 + 1e-6
        )
    assert (packed["start"], packed["step"]) == ([0, 0, 0], [1, 1, 1])

    coarse = mosaic.averaged(Volume(values, grid), (2, 3, 1))
    assert coarse.values.shape == (7, 4, 7)
    assert coarse.values[0, 0, 0] == pytest.approx(values[:2, :3, 0].mean())
    packed = mosaic.entry(coarse, grid, 0.0, 1.0)
    assert (packed["start"], packed["step"]) == ([0, 0, 0], [2, 3, 1])
    factors = mosaic.factors_within(grid, 100)
    assert np.prod(np.ceil(np.array([x, y, z]) / factors)) <= 100


def test_a_jpeg_fits_its_budget_or_is_of_the_least_quality() -> None:
    grid = Grid((64, 64, 16), np.eye(4))
    smooth = np.linspace(0, 1, 64, dtype=np.float32)[:, None, None] * np.ones((64, 64, 16), np.float32)
    noise = np.random.default_rng(0).random((64, 64, 16)).astype(np.float32)
    sizes = [len(mosaic.entry(Volume(v, grid), grid, 0, 1, 40_000)["uri"]) for v in (smooth, noise)]
    assert sizes[0] < 40_000
    assert sizes[1] == len(mosaic.entry(Volume(noise, grid), grid, 0, 1, 1)["uri"])


def test_a_large_noisy_volume_is_shown_in_larger_blocks_in_its_place() -> None:
    grid = Grid((100, 100, 100), np.eye(4))
    noise = Volume(np.random.default_rng(0).random((100, 100, 100)).astype(np.float32), grid)
    packed = mosaic.entry(noise, grid, 0, 1, 400_000)
    assert len(packed["uri"]) <= 400_000
    assert np.prod(packed["shape"]) <= 500_000
    assert [round(n * s) for n, s in zip(packed["shape"], packed["step"], strict=True)] == [100, 100, 100]
    assert packed["start"] == [0, 0, 0]


def test_scripts_cannot_end_their_element() -> None:
    with pytest.raises(Exception, match="end of its own element"):
        document("t", "", ["'</ScRipt>'"])


def test_numbers_in_words() -> None:
    shown = [number(v) for v in (1.9077e-8, 0.5, 2.0, 1719.6, 1293897, True, "3", None, 123.4)]
    assert shown == ["1.91 × 10⁻⁸", "0.5", "2", "1,720", "1,293,897", None, None, None, "123"]
    assert paragraphs({}) == []


def test_a_study_marks_what_is_unusual_and_links_its_subjects(tmp_path: Path) -> None:
    out = study_report(tmp_path / "study.html", study(tmp_path))
    elements = Elements(out.read_text())
    assert "9 scans of 9 subjects: 8 done, 1 refused, 0 failed. 1 with an unusual value." in elements.text
    assert elements.text.count("(unusual, z") == 1
    assert "0.55 (unusual, z -" in elements.text
    links = [a["href"] for a in elements.all("a")]
    assert links[:3] == ["./study.csv", "./study.tsv", "./a%20folder/sub-0%23.html"]
    assert len(elements.all("script")) == 1
    assert 'the file is "truncated" <script>x</script>' in elements.text
    assert "its certificate odd.json cannot be read" in elements.text
    table = list(csv.DictReader(io.StringIO((tmp_path / "study.csv").read_text())))
    assert [r["outlier_in"] for r in table] == [""] * 6 + ["registration_correlation", "", ""]
    assert table[7]["subject"] == "'=<b>cmd</b>"
    assert float(table[1]["relative_residual"]) == 2e-8
    assert "voxels_with_prior" not in table[0]
    tabs = list(csv.DictReader(io.StringIO((tmp_path / "study.tsv").read_text()), delimiter="\t"))
    assert [list(row.values()) for row in tabs] == [[v or "n/a" for v in row.values()] for row in table]
    with pytest.raises(InputRefusedError, match="exists already"):
        study_report(out, [])


def test_a_study_counts_subjects_shows_them_and_draws_distributions(
    tmp_path: Path, report: tuple[dict[str, Path], Path]
) -> None:
    names = [f"sub-{i:02d}/ses-{j}/anat/sub-{i:02d}_ses-{j}_T1w.nii.gz" for i in range(3) for j in range(2)]
    content = {"registration": {"correlation": 0.8}, "consistency": {"relative_residual": 1e-8}}
    out = study_report(tmp_path / "study.html", [Outcome(n, "done", "", content, report[1]) for n in names])
    elements = Elements(out.read_text())
    assert "6 scans of 3 subjects: 6 done" in elements.text
    pictures = elements.all("img")
    assert len(pictures) == 6
    assert all(str(picture["src"]).startswith("data:image/jpeg;base64,") for picture in pictures)
    drawn = [element["aria-label"] for element in elements.all("svg")]
    assert drawn == ["Distribution of relative residual", "Distribution of correlation"]


def test_rounding_is_never_unusual(tmp_path: Path) -> None:
    """A page once said z = 61,026 of residuals that were all rounding; and a weight of 0.3001 among 0.3."""
    for name, values in {
        "relative_residual": [1e-8, 1.1e-8, 1e-8, 1e-8, 1e-8, 9e-6, 1e-8],
        "correlation": [0.8, 0.8, 0.8, 0.8, 0.8, 0.80001, 0.8],
    }.items():
        entry = "registration" if name == "correlation" else "consistency"
        subjects = [Outcome(f"sub-{i}", "done", "", {entry: {name: v}}) for i, v in enumerate(values)]
        page = Elements(study_report(tmp_path / f"{name}.html", subjects).read_text()).text
        assert "0 with an unusual value" in page
    seen = [{"consistency": {"relative_residual": v}} for v in (*[1e-8] * 6, 0.02)]
    page = study_report(tmp_path / "s.html", [Outcome(f"sub-{i}", "done", "", c) for i, c in enumerate(seen)])
    assert "1 with an unusual value" in Elements(page.read_text()).text  # noise, or a contradiction


def test_numbers_in_a_scans_own_units_are_not_compared(tmp_path: Path) -> None:
    certificates = [{"consistency": {"max_abs_residual": v}} for v in (*[1.0] * 6, 1e6)]
    page = study_report(tmp_path / "s.html", [Outcome(f"sub-{i}", "done", "", c) for i, c in enumerate(certificates)])
    assert "0 with an unusual value" in Elements(page.read_text()).text


def test_a_study_lists_the_weights_of_both_priors(tmp_path: Path) -> None:
    alone = {"name": "heads", "weight": 1.0}
    certificates = [{"prior": OWN, "population_prior": {**alone, "weight": 0.3}}, {"prior": OWN}, {"prior": alone}]
    subjects = [Outcome(f"sub-{i}", "done", "", content) for i, content in enumerate(certificates)]
    study_report(tmp_path / "study.html", subjects)
    table = list(csv.DictReader(io.StringIO((tmp_path / "study.csv").read_text())))
    assert [row["own_weight"] for row in table] == ["1.1", "1.1", ""]
    assert [row["population_weight"] for row in table] == ["0.3", "", "1.0"]


def test_robust_z() -> None:
    z = robust_z([1.0, 2.0, 3.0, 4.0, 100.0])
    assert z[:4] == pytest.approx([-1.349, -0.6745, 0, 0.6745])
    assert z[4] > FAR
    assert robust_z([1.0, 1.0, 100.0]) == [0, 0, 0]
    assert robust_z([5.0] * 9) == [0] * 9
    mostly = robust_z([5.0] * 9 + [6.0])  # no median absolute deviation: the mean one
    assert mostly[:9] == [0] * 9
    assert mostly[9] == pytest.approx(1 / (1.2533 * 0.1))
    assert robust_z([0.3] * 6 + [0.31], floor=0.05)[6] == pytest.approx(0.2)


def test_every_slice_keeps_its_total_intensity_and_the_page_says_so(tmp_path: Path) -> None:
    """Where the result agrees with the scan; the case's result is one that does not."""
    files = case(tmp_path)
    text = Elements(subject_report(tmp_path / "r.html", **files).read_text()).text
    assert re.search(r"The total intensity changed by up to [\d.]+ % in \d+ measured slices", text)
    scan = nib.load(files["scan"])
    exact = np.repeat(scan.get_fdata(), 3, axis=int(np.argmax(scan.header.get_zooms())))
    result = nib.load(files["result"])
    nib.save(nib.Nifti1Image(exact.astype(np.float32)[tuple(map(slice, result.shape))], result.affine), files["result"])
    content = json.loads(files["certificate"].read_text())
    content["result"]["sha256"] = digest(files["result"])
    files["certificate"].write_text(json.dumps(content))
    text = Elements(subject_report(tmp_path / "s.html", **files).read_text()).text
    assert "The total intensity is preserved in all 9 measured slices" in text


def test_intervals_and_samples_are_shown_where_they_are(tmp_path: Path) -> None:
    files = case(tmp_path)
    image = nib.load(files["result"])
    values = image.get_fdata()
    for name, change in (("lower", -25.0), ("upper", 75.0), ("sample-1", 10.0), ("sample-2", -10.0)):
        written(tmp_path, f"result_{name}.nii.gz", values + change, image.affine)
    page = Elements(subject_report(tmp_path / "r.html", **files).read_text())
    assert "Intervals100 wide on average" in page.text
    assert "Width of the interval, in the scan's units: black is 0 and white 100; on average it is 100." in page.text
    assert sum("Sample 2" in str(picture["alt"]) for picture in page.all("img")) == 3
    data = json.loads(re.findall(r'id="volumes">(.*?)</script>', (tmp_path / "r.html").read_text(), re.DOTALL)[0])
    assert [reading["label"] for reading in data["readings"]] == ["lower", "upper"]
    written(tmp_path, "result_upper.nii.gz", values[1:], image.affine)
    with pytest.raises(InputRefusedError, match="result_upper"):
        subject_report(tmp_path / "s.html", **files)


def test_a_page_of_any_result_finds_what_belongs_to_it(tmp_path: Path) -> None:
    files = case(tmp_path, source={"file": "scan.nii.gz"})
    page = report_beside(files["result"])
    assert page == tmp_path / "result_report.html"
    assert page.read_bytes() == subject_report(tmp_path / "same.html", **files).read_bytes()
    moved = files["scan"].rename(tmp_path / "elsewhere.nii.gz")
    with pytest.raises(InputRefusedError, match=r"was made from \(scan.nii.gz\) is not beside it.*--in"):
        report_beside(files["result"], force=True)
    assert report_beside(files["result"], scan=moved, force=True).is_file()


def test_names_that_are_withheld_are_withheld_in_the_page(tmp_path: Path) -> None:
    files = case(tmp_path, novel={"note": "made of Doe^John.nii.gz"})
    withhold([tmp_path / "Doe^John.nii.gz"])
    try:
        text = subject_report(tmp_path / "r.html", **files, title="Doe^John").read_text()
    finally:
        withhold()
    assert "John" not in text
    assert text.count("withheld (de-identified)") >= 3


def test_nobody_reads_the_page_who_may_not_read_the_scan(tmp_path: Path) -> None:
    files = case(tmp_path)
    files["scan"].chmod(0o600)
    assert subject_report(tmp_path / "r.html", **files).stat().st_mode & 0o077 == 0
