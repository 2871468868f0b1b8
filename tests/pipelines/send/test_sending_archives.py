"""`brgm-med send` to the real things: Orthanc, over C-STORE and STOW-RS, and dcmtk's storescp.

They listen on every interface, so each runs where the only network is a loopback of its own (`unshare -n`).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from brgm_med.transforms.formats.dicom.deidentify import Deidentifier
from tests.archives import body, files
from tests.commands import COMMAND
from tests.dicom_files import save, tiny_image, tiny_series
from tests.orthanc import inside as inside
from tests.orthanc import orthanc, retrieved, run, running

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("target", ["ARCHIVE@127.0.0.1:4242", "http://127.0.0.1:8042/dicom-web/studies"])
def test_orthanc_stores_all_and_gives_equal_pixels_back(inside: list[str], tmp_path: Path, target: str) -> None:
    """Plain, RLE and de-identified images; what comes back over WADO-RS is as it was sent."""
    series, back = tmp_path / "series", tmp_path / "back"
    back.mkdir()
    images = {made.SOPInstanceUID: made for made in tiny_series(series, 4)}
    compressed = tiny_image(5, RLELossless)
    save(compressed, series / "IM5")
    images[compressed.SOPInstanceUID] = compressed
    hidden = Deidentifier()(tiny_image(6))
    save(hidden, series / "IM6")  # type: ignore[arg-type]
    with orthanc(inside, tmp_path):
        done = run(*inside, COMMAND, "send", series, "--to", target)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(": stored\n") == 6
        assert "stored 6 of 6" in done.stderr
        held = retrieved(inside, compressed.StudyInstanceUID, back / "plain")
        (one,) = retrieved(inside, hidden.StudyInstanceUID, back / "hidden").values()
    assert set(held) == set(images)
    for uid, image in images.items():
        assert np.array_equal(held[uid].pixel_array, image.pixel_array)
    assert np.array_equal(one.pixel_array, hidden.pixel_array)
    assert one.PatientIdentityRemoved == "YES"


def test_orthanc_of_another_title_rejects_us(inside: list[str], tmp_path: Path) -> None:
    tiny_series(tmp_path / "series")
    with orthanc(inside, tmp_path):
        done = run(*inside, COMMAND, "send", tmp_path / "series", "--to", "WRONG@127.0.0.1:4242", "--retries", 1)
        absent = run(*inside, COMMAND, "send", tmp_path / "series", "--to", "http://127.0.0.1:8042/no/studies")
    for failed in (done, absent):
        assert failed.returncode == 4
        assert "3 of 3 were not stored" in failed.stderr.splitlines()[-1]
    assert "association was" in done.stderr  # rejected; aborted where the reply was lost, for Orthanc closes at once
    assert "HTTP 404" in absent.stderr


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless])
def test_storescp_gets_every_byte_as_it_is(inside: list[str], tmp_path: Path, syntax: UID) -> None:
    storescp = shutil.which("storescp")
    if storescp is None:
        pytest.skip("storescp is not installed (Debian: dcmtk)")
    series, kept = tmp_path / "series", tmp_path / "kept"
    kept.mkdir()
    tiny_series(series, syntax=syntax)
    with running(inside, [4243], storescp, "--accept-all", "--bit-preserving", "-od", kept, 4243):
        done = run(*inside, COMMAND, "send", series, "--to", "ANY@127.0.0.1:4243")
    assert done.returncode == 0, done.stderr
    assert sorted(map(body, kept.iterdir())) == sorted(map(body, files(series)))
