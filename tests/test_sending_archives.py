"""`brgm-med send` to the real things: Orthanc, over C-STORE and STOW-RS, and dcmtk's storescp.

They listen on every interface, so each runs where the only network is a loopback of its own (`unshare -n`).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from brgm_med.transforms.formats.dicom.deidentify import Deidentifier
from tests.dicom_files import save, tiny_image, tiny_series
from tests.test_cli import COMMAND
from tests.test_sending import body, files

pytestmark = pytest.mark.slow
ORTHANC = shutil.which("Orthanc", path=f"{os.environ.get('PATH')}:/usr/sbin")
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
LOOPBACK = """
import fcntl, socket, struct, time
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS: up, running
print("up", flush=True)
time.sleep(600)
"""
RETRIEVE = """
import sys
from dicomweb_client.api import DICOMwebClient
for number, dataset in enumerate(DICOMwebClient(sys.argv[1]).retrieve_study(sys.argv[2])):
    dataset.save_as(f"{sys.argv[3]}/{number}", enforce_file_format=True)
"""


@pytest.fixture
def inside() -> Iterator[list[str]]:
    """The beginning of a command that is to run where a loopback is all the network there is."""
    unshare, nsenter = shutil.which("unshare"), shutil.which("nsenter")
    if os.geteuid() != 0 or not unshare or not nsenter:
        pytest.skip("only root can make a network of its own (unshare -n)")
    holder = subprocess.Popen([unshare, "-n", sys.executable, "-c", LOOPBACK], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    try:
        if holder.stdout.readline() != "up\n":
            pytest.skip("no permission to make a network of its own (unshare -n)")
        yield [nsenter, "-t", str(holder.pid), "-n"]
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=120)


@contextmanager
def running(inside: list[str], ports: list[int], *command: object) -> Iterator[None]:
    """A server that listens at `ports`, and is ended."""
    probe = "import socket, sys; [socket.create_connection(('127.0.0.1', int(p))).close() for p in sys.argv[1:]]"
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen([*inside, *map(str, command)], stdout=log, stderr=subprocess.STDOUT)
        try:
            until = time.monotonic() + 60
            while run(*inside, sys.executable, "-c", probe, *ports).returncode:
                log.seek(0)
                assert server.poll() is None, log.read()
                assert time.monotonic() < until, "the server does not listen"
                time.sleep(0.2)
            yield
        finally:
            server.terminate()
            server.wait(60)


@contextmanager
def orthanc(inside: list[str], folder: Path) -> Iterator[None]:
    if ORTHANC is None or not PLUGIN.exists():
        pytest.skip("Orthanc and its DICOMweb plugin are not installed (Debian: orthanc, orthanc-dicomweb)")
    settings = {
        "Name": "ARCHIVE",
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "Plugins": [str(PLUGIN)],
        "DicomAet": "ARCHIVE",
        "DicomCheckCalledAet": True,
        "DicomPort": 4242,
        "HttpPort": 8042,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "HttpsVerifyPeers": False,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with running(inside, [4242, 8042], ORTHANC, folder / "orthanc.json"):
        yield


def retrieved(inside: list[str], study: str, folder: Path) -> dict[str, Dataset]:
    """What Orthanc gives of a study over WADO-RS, by SOP Instance UID; kept in the new `folder`."""
    folder.mkdir()
    got = run(*inside, sys.executable, "-c", RETRIEVE, "http://127.0.0.1:8042/dicom-web", study, folder)
    assert got.returncode == 0, got.stderr
    return {str(one.SOPInstanceUID): one for one in map(dcmread, folder.iterdir())}


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
