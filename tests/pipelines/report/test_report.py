"""Reports say what the certificate says, show what the files hold, and need nothing but themselves."""

from __future__ import annotations

import base64
import csv
import gzip
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from brgm_med.errors import InputRefusedError, UsageError
from brgm_med.pipelines.report import Outcome, evidence, study_report, subject_report
from brgm_med.pipelines.report.entries import number, rows
from brgm_med.pipelines.report.images import VIEWS, Spot, Volume, grey
from brgm_med.pipelines.report.page import MAX_BYTES, document
from brgm_med.pipelines.report.study import FAR, robust_z
from brgm_med.pipelines.report.viewer import small_nifti
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
    assert len(scripts) == 3
    for script in scripts:
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    assert report[1].stat().st_size < MAX_BYTES


def test_names_are_text_and_never_markup(report: tuple[dict[str, Path], Path]) -> None:
    elements = Elements(report[1].read_text(encoding="utf-8"))
    assert HOSTILE in elements.text
    assert len(elements.all("script")) == 4  # three that run and the volumes
    # Nothing that is not well escaped ends the block of the volumes.
    assert json.loads(re.findall(r'id="volumes">(.*?)</script>', report[1].read_text(), re.DOTALL)[0])["volumes"]


def test_says_what_the_certificate_says(report: tuple[dict[str, Path], Path]) -> None:
    files, path = report
    text = Elements(path.read_text(encoding="utf-8")).text
    said = text[: text.index("Before and after")]
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
    assert text.index("For research, not for diagnosis") < text.index("In words")


def words_of(folder: Path, **entries: Any) -> str:
    page = Elements(subject_report(folder / "r.html", **case(folder, **entries)).read_text()).text
    return page[: page.index("Before and after")]


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
    assert len(page.all("img")) == 9 * 2 + 3 + 3  # the template of the prior that stands second is drawn


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
    assert len(pictures) == 9 * 2 + 3 + 3  # pairs, residual, registration; no map of what was measured
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
    inferred = evidence.inferred_on(Grid((x, y, z), scan.affine), tmp_path / "map", None, {}, {})
    assert inferred is not None
    np.testing.assert_allclose(inferred[0].numpy(), 1 - values, atol=1e-6)
    with pytest.raises(InputRefusedError, match="is no map of what was measured"):
        evidence.inferred_on(Grid((x, y, z), scan.affine), series, None, {}, {})


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
    assert "None" not in text[: text.index("Before and after")]


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


def test_the_viewers_volume_fits_its_budget_and_stays_in_place() -> None:
    grid = Grid((40, 40, 40), np.diag([1.0, 1, 1, 1]))
    values = torch.rand(40, 40, 40).numpy()
    packed, small = small_nifti(Volume(values, grid), 0.0, 1.0, 20_000)
    assert len(packed) <= 20_000
    image = nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(packed)))
    np.testing.assert_allclose(image.affine, small.affine)
    factor = round(small.spacing[0])
    assert factor > 1
    np.testing.assert_allclose(image.affine[:3, 3], (factor - 1) / 2)  # the centre of the first block
    first = values[:factor, :factor, :factor].mean()
    assert image.get_fdata()[0, 0, 0] == pytest.approx(first, abs=0.5 / 255 + 1e-6)


def test_scripts_cannot_end_their_element() -> None:
    with pytest.raises(Exception, match="end of its own element"):
        document("t", "", ["'</ScRipt>'"])
    text = (resources.files("brgm_med.pipelines.report") / "niivue" / "niivue.umd.js").read_bytes()
    readme = (resources.files("brgm_med.pipelines.report") / "niivue" / "README.md").read_text()
    assert hashlib.sha256(text).hexdigest() in readme


def test_numbers_in_words() -> None:
    shown = [number(v) for v in (1.9077e-8, 0.5, 2.0, 1719.6, 1293897, True, "3", None, 123.4)]
    assert shown == ["1.91 × 10⁻⁸", "0.5", "2", "1,720", "1,293,897", None, None, None, "123"]
    assert paragraphs({}) == []


def test_a_study_marks_what_is_unusual_and_links_its_subjects(tmp_path: Path) -> None:
    out = study_report(tmp_path / "study.html", study(tmp_path))
    elements = Elements(out.read_text())
    assert "9 subjects: 8 done, 1 refused, 0 failed. 1 with an unusual value." in elements.text
    assert elements.text.count("(unusual, z") == 1
    assert "0.55 (unusual, z -" in elements.text
    links = [a["href"] for a in elements.all("a")]
    assert links[1] == "./a%20folder/sub-0%23.html"
    assert len(elements.all("script")) == 1
    assert 'the file is "truncated" <script>x</script>' in elements.text
    assert "its certificate odd.json cannot be read" in elements.text
    table = list(csv.DictReader(io.StringIO((tmp_path / "study.csv").read_text())))
    assert [r["outlier_in"] for r in table] == [""] * 6 + ["registration_correlation", "", ""]
    assert table[7]["subject"] == "'=<b>cmd</b>"
    assert float(table[1]["relative_residual"]) == 2e-8
    assert "voxels_with_prior" not in table[0]
    with pytest.raises(InputRefusedError, match="exists already"):
        study_report(out, [])


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
