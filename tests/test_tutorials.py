"""The tutorials run: each page's blocks of shell and Python in order, in one folder and one namespace.

Fences of other kinds (console, json) are shown and not run; a page says so.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.heads import template_head
from tests.house import ROOT
from tests.mr_series import mr_series
from tests.small_heads import small_head

FOLDER = ROOT / "docs" / "tutorials"
FAST = "--steps 1 --threads 1"


def run_page(name: str, options: str = "") -> dict[str, object]:
    """Run the page in the present folder; `options` go into each command that reconstructs. Returns its names."""
    text = (FOLDER / f"{name}.md").read_text()
    names: dict[str, object] = {"__name__": "tutorial"}
    blocks = list(re.finditer(r"^```(python|sh)\n(.*?)^```", text, flags=re.S | re.M))
    assert len(blocks) > 4
    for block in blocks:
        if block[1] == "python":
            code = "\n" * text.count("\n", 0, block.start(2)) + block[2]
            exec(compile(code, name, "exec", dont_inherit=True), names)
        else:
            command = re.sub(r"^(brgm-med (?:sr|run .* participant)\b.*)$", rf"\1 {options}", block[2], flags=re.M)
            shell(command)
    return names


def shell(command: str) -> None:
    """Run a block of shell, with the command `brgm-med` of this interpreter."""
    script = f'brgm-med() {{ "{sys.executable}" -m brgm_med "$@"; }}\nset -e\n{command}'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=os.environ | ENVIRONMENT)
    assert done.returncode == 0, done.stderr


ENVIRONMENT = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NIPYPE_NO_ET": "1"}


def test_every_tutorial_has_a_test() -> None:
    assert {page.stem for page in FOLDER.glob("*.md")} == {"thick-t2", "bids-study", "own-generator"}


def test_a_thick_t2_becomes_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template_head(tmp_path / "head.nii.gz")
    monkeypatch.chdir(tmp_path)
    run_page("thick-t2", f"{FAST} --prior self")
    assert (tmp_path / "again.html").read_bytes() == (tmp_path / "finer_report.html").read_bytes()


@pytest.mark.slow
def test_a_thick_t2_of_a_real_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import demo

    demo.fetch_head(tmp_path)
    monkeypatch.chdir(tmp_path)
    run_page("thick-t2")


@pytest.mark.slow
def test_a_study_goes_from_dicom_to_bids_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dicom").mkdir()
    for seed, subject in enumerate(("01", "02")):
        head = nib.load(small_head(tmp_path / f"{subject}.nii.gz", seed=seed, thick=True))
        assert isinstance(head, nib.Nifti1Image)
        lps = np.diag([-1.0, -1, 1, 1]) @ head.affine
        voxels = np.asarray(head.dataobj).astype(np.uint16)
        changes = {"PatientID": f"P{subject}", "SliceThickness": 8, "SpacingBetweenSlices": 8}
        mr_series(tmp_path / "dicom" / subject, voxels, lps, **changes)
    monkeypatch.chdir(tmp_path)
    run_page("bids-study", FAST)
    assert len(list((tmp_path / "derived-01").glob("*.dcm"))) > 20
    assert (tmp_path / "out" / "study.html").is_file()


def test_a_generator_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = run_page("own-generator")
    assert names["result"].shape == (6, 1, 16, 16)  # type: ignore[attr-defined]
