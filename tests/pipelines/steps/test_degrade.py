"""`brgm-med degrade`: never over its source, sidecars that nobody else takes as his own, a full disk, private files."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import zipfile
from pathlib import Path

import pytest

from brgm_med import staging
from brgm_med.errors import BrgmError, CannotWriteError, UsageError
from brgm_med.pipelines.steps.degrade import degrade
from brgm_med.transforms.formats.dicom import archive
from tests.mr_series import mr_series
from tests.small_heads import small_head


def test_it_never_writes_where_it_reads(tmp_path: Path) -> None:
    head = small_head(tmp_path / "h.nii.gz")
    content = head.read_bytes()
    (tmp_path / "soft.nii.gz").symlink_to(head)
    os.link(head, tmp_path / "hard.nii.gz")
    names = ("h.nii.gz", "soft.nii.gz", "hard.nii.gz")
    for scan in names:
        for out in names:
            with pytest.raises(UsageError, match="where the command reads"):
                degrade(tmp_path / scan, tmp_path / out, factor=2, force=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names)
    assert all((tmp_path / name).read_bytes() == content for name in names)


@pytest.mark.parametrize("out", ["h.nii", "h"])
def test_its_sidecar_is_nobody_else_s(tmp_path: Path, out: str) -> None:
    head = small_head(tmp_path / "h.nii.gz")
    series = mr_series(tmp_path / "in") if out == "h" else None
    with pytest.raises(UsageError, match=r"h\.nii\.gz: would take h\.json as its own"):
        degrade(series or head, tmp_path / out, factor=2, force=True)
    (tmp_path / "h.json").write_text("{}")
    with pytest.raises(BrgmError):
        degrade(head, tmp_path / "h.nii", factor=2, force=True)
    assert (tmp_path / "h.json").read_text() == "{}"


@pytest.mark.parametrize("force", [False, True])
def test_at_a_full_disk_all_is_as_it_was(tmp_path: Path, force: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    head, out = small_head(tmp_path / "in" / "h.nii.gz"), tmp_path / "out"
    out.mkdir()
    if force:
        degrade(head, out / "d.nii.gz", factor=2)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    assert len(before) == 2 * force

    def full(self: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    monkeypatch.setattr(Path, "write_text", full)  # the sidecar, after the image
    with pytest.raises(CannotWriteError, match=r"d\.(nii\.gz|json): cannot be written \(No space left"):
        degrade(head, out / "d.nii.gz", factor=4, force=force)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


@pytest.mark.parametrize("kind", ["nifti", "dicom"])
def test_nobody_reads_the_result_who_may_not_read_the_scan(tmp_path: Path, kind: str) -> None:
    scan = small_head(tmp_path / "h.nii.gz") if kind == "nifti" else mr_series(tmp_path / "in")
    for file in [scan] if scan.is_file() else scan.iterdir():
        file.chmod(0o600)
    out = tmp_path / ("out.nii.gz" if kind == "nifti" else "out")
    degrade(scan, out, factor=2)
    made = [tmp_path / "out.json", *(out.iterdir() if out.is_dir() else [out])]
    assert {stat.S_IMODE(p.stat().st_mode) for p in made} == {0o600}
    assert not out.is_dir() or stat.S_IMODE(out.stat().st_mode) == 0o700


def test_a_zip_is_unpacked_privately_beside_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    series, packed = mr_series(tmp_path / "series"), tmp_path / "in" / "a.zip"
    packed.parent.mkdir()
    with zipfile.ZipFile(packed, "w") as file:
        for one in series.iterdir():
            file.write(one, one.name)
    (tmp_path / "out").mkdir()
    left = tmp_path / "out" / f".brgm-{'0' * 16}.part"  # of a killed run
    shutil.copytree(series, left / "new")
    (left / "lock").touch()
    monkeypatch.setattr(archive, "_unpacked", {})
    degrade(packed, tmp_path / "out" / "d.nii.gz", factor=2)
    (files,) = archive._unpacked.values()
    assert files.root.parent.parent == tmp_path / "out"
    assert stat.S_IMODE(files.root.parent.stat().st_mode) == 0o700
    assert not left.exists()
    staging.settle(tmp_path / "out")
    assert len(list(files.root.iterdir())) == 6
