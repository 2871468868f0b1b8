"""Orthanc in a network of its own, by C-STORE and DICOMweb."""

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

import pytest
from pydicom import Dataset, dcmread

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
