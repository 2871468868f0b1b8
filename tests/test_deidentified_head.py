"""From a hospital's series of a head to an archive, de-identified, through the installed commands."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom import dcmread

from tests.dicom_sent import image, save
from tests.heads import template_head
from tests.planted import found, plant
from tests.test_cli import run
from tests.test_sending import Keeping, listening


def planted_head(folder: Path, scratch: Path, thick: int = 3) -> list[str]:
    """An axial series of a head, of averages of `thick` slices, full of planted strings; returns those."""
    scan = nib.as_closest_canonical(nib.load(template_head(scratch)))
    voxels, spacing = scan.get_fdata(), scan.header.get_zooms()
    count = voxels.shape[2] // thick
    voxels = voxels[::-1, ::-1, : count * thick].reshape(*voxels.shape[:2], count, thick).mean(-1)
    corner = nib.affines.apply_affine(scan.affine, [scan.shape[0] - 1, scan.shape[1] - 1, (thick - 1) / 2])
    folder.mkdir()
    words: set[str] = set()
    for k in range(count):
        made = image(k + 1)
        words.update(plant(made))
        made.Rows, made.Columns = voxels.shape[1], voxels.shape[0]
        made.PixelSpacing, made.SliceThickness = [float(spacing[1]), float(spacing[0])], float(spacing[2]) * thick
        made.ImagePositionPatient = [-corner[0], -corner[1], corner[2] + k * thick * float(spacing[2])]
        made.PixelData = np.ascontiguousarray(voxels[:, :, k].T.round()).astype("<u2").tobytes()
        save(made, folder / f"Q03PLANTED_{k}.dcm")
    return sorted(words)


@pytest.mark.slow
def test_nothing_planted_comes_out_of_sr_nor_of_send(tmp_path: Path) -> None:
    source, out = tmp_path / "Q01PLANTED", tmp_path / "results" / "fine"
    out.parent.mkdir()
    words = planted_head(source, tmp_path / "head.nii.gz")
    assert len(words) > 60
    done = run("sr", "--in", source, "--out", out, "--deidentify", "--steps", 2)
    assert done.returncode == 0, done.stderr
    certificate = json.loads((out.parent / "fine_certificate.json").read_text())
    assert certificate["consistency"]
    assert found(words, [out.parent], done.stdout + done.stderr) == []
    told = dcmread(next(out.iterdir()))
    assert "inferred" in told.DerivationDescription
    assert "not for diagnosis" in told.ImageComments
    keeping = Keeping()
    with listening(keeping) as archive:
        sent = run("send", out.parent, "--to", archive)
    assert sent.returncode == 0, sent.stderr
    assert len(keeping.kept) == len(list(out.iterdir())) > 40
    assert found(words, text=sent.stdout + sent.stderr) == []
    assert not any(word.encode() in content for word in words for content in keeping.kept.values())
