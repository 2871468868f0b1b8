"""What is done of a study is known without a look at its nodes; whatever changes is worked on again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from brgm_med.pipelines.cli import main
from brgm_med.pipelines.dataset.remembered import inputs_of, is_done, outputs_of, remember
from brgm_med.pipelines.dataset.scan import Scan
from brgm_med.pipelines.dataset.settings import Settings
from brgm_med.pipelines.workflow import engines
from tests.mr_series import blob, mr_series
from tests.small_heads import small_head, truncated
from tests.studies import bids_study, hashes


def test_a_record_is_true_until_something_changes(tmp_path: Path) -> None:
    scan, mask, out = tmp_path / "scan.nii", tmp_path / "mask.nii", tmp_path / "out"
    series = mr_series(tmp_path / "series")
    for path in (scan, mask, out / "a" / "x_sr.nii.gz"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("one")
    one = Scan(scan, "a/x_sr", "x", {"Sources": ["scan.nii"]}, mask=mask)
    two = Scan(series, "b_sr", "b", {})
    now, record = (lambda: (inputs_of([one, two], Settings(), "", out), outputs_of([one, two], out))), tmp_path / "done"
    assert not is_done(record, *now())
    before = now()
    remember(record, *before)
    assert is_done(record, *now())
    (tmp_path / "other").write_text("beside")
    assert is_done(record, *now())
    changes = [
        lambda: scan.write_text("two"),
        lambda: mask.write_text("other"),
        lambda: (series / "IM003").write_bytes((series / "IM002").read_bytes()),
        lambda: (series / "IM999").touch(),
        lambda: (out / "a" / "x_sr.nii.gz").write_text("two"),
        lambda: (out / "a" / "x_sr.html").touch(),
        lambda: (out / "a" / "x_sr.nii.gz").unlink(),
        lambda: (out / "b_sr_dicom").mkdir(),
        lambda: (out / "b_sr_dicom" / "1.dcm").touch(),
        lambda: os.replace(scan, tmp_path / "gone"),
        lambda: record.write_text("[" * 10_000),
    ]
    for number, change in enumerate(changes):
        change()
        assert not is_done(record, *now()), number
        remember(record, *now())
        assert is_done(record, *now()), number
    for settings in (Settings(seed=1), Settings(prior="self"), Settings(allow_missing_files=True), Settings(threads=2)):
        assert inputs_of([one, two], settings, "", out) != now()[0]
    assert inputs_of([one, two], Settings(), "another prior", out) != now()[0]
    assert inputs_of([two], Settings(), "", out) != now()[0]


@pytest.mark.parametrize("layout", ["bids", "plain"])
def test_a_finished_study_asks_no_node(tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """But where a scan, or what was published of it, has changed."""
    root, out = bids_study(tmp_path / "bids", 3, bad=(1, 2, 3)), tmp_path / "out"
    graphs: list[str] = []
    run = engines.run

    def counted(workflow: object, *arguments: object, **options: object) -> list[str]:
        graphs.append(str(workflow))
        return run(workflow, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(engines, "run", counted)
    command = ["run", str(root), str(out), "participant", "--layout", layout]
    counts = []
    for change in (
        lambda: None,
        lambda: None,
        lambda: truncated(small_head(root / "sub-02/anat/sub-02_T1w.nii.gz", seed=9, thick=True)),
        lambda: next((out / "logs").glob("*sub-03*_refused.json")).unlink(),
        lambda: None,
    ):
        change()
        graphs.clear()
        assert main(command) == 1
        counts.append(len(graphs))
        assert len(list((out / "logs").glob("*_refused.json"))) == 3
    assert counts == [3, 0, 1, 1, 0]
    before = hashes(out)
    assert main(command) == 1
    assert hashes(out) == before


def test_a_study_has_one_display(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for all scans in a log; every node only where details are wanted; nothing where there is to be quiet."""
    root = bids_study(tmp_path / "bids", 2, bad=(1, 2))
    for number, (option, nodes) in enumerate((([], 0), (["--verbose"], 8), (["--quiet"], 0))):
        assert main(["run", str(root), str(tmp_path / str(number)), "participant", *option]) == 1
        lines = capsys.readouterr().err.splitlines()
        assert (
            sum(
                line.endswith(("convert: done", "reconstruct: done", "report: done", "write_back: done"))
                for line in lines
            )
            == nodes
        )
        ended = [line for line in lines if "reconstructing scans, 2 of 2" in line]
        assert len(ended) == (option != ["--quiet"])
        assert len(lines) == {"": 4, "--verbose": len(lines), "--quiet": 1}["".join(option)], lines


def test_series_of_the_same_pixels_are_told_where_there_is_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "in"
    root.mkdir()
    mr_series(root / "one", blob()[:, :, :1])  # a single slice is refused
    mr_series(root / "two", blob()[:, :, :1], PatientName="Other^Name")
    text = "warning: one and two hold the same pixels, byte for byte: each counts as a subject of its own"
    for expected in (True, False):
        assert main(["run", str(root), str(tmp_path / "out"), "participant", "--layout", "plain"]) == 1
        assert (text in capsys.readouterr().err.splitlines()) == expected
