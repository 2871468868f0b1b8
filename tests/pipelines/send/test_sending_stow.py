"""`brgm-med send` over STOW-RS, against an HTTP server that takes the request apart as PS3.18, section 10.5 has it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from brgm_med.errors import CannotWriteError
from brgm_med.pipelines.send.send import send
from tests.archives import body, files, free_port
from tests.commands import refused, run
from tests.dicom_files import tiny_series


class Archive(ThreadingHTTPServer):
    """Stores what is posted. `script` holds what it does with the first requests: an HTTP status, or a failure reason
    (from 0x100 on HTTP 409 with the Failed SOP Sequence), or a word for a lie."""

    def __init__(self, script: list[int | str]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = script
        self.kept: dict[str, bytes] = {}
        self.requests = 0


class Handler(BaseHTTPRequestHandler):
    server: Archive

    def do_POST(self) -> None:
        self.server.requests += 1
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path != "/dicom-web/studies":
            return self.reply(404)
        kind = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        message = BytesParser().parsebytes(kind + content)
        assert message.get_content_type() == "multipart/related"
        (part,) = message.get_payload()
        assert part.get_content_type() == "application/dicom"  # type: ignore[union-attr]
        instance = part.get_payload(decode=True)  # type: ignore[union-attr]
        assert isinstance(instance, bytes)
        header = dcmread(BytesIO(instance), stop_before_pixels=True)
        told, item = Dataset(), Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
        now = self.server.script.pop(0) if self.server.script else 200
        if now == "silent":
            return self.reply(200)
        if now == "other":
            item.ReferencedSOPInstanceUID = "1.2.3"
        elif now == "garbage":
            return self.reply(200, b"<html>PLANTED</html>")
        elif (isinstance(now, int) and 300 <= now < 0x110) or now in (400, 401, 429, 500, 503):
            return self.reply(int(now), b"PLANTED")
        elif now == "accepted":  # HTTP 202, but none is stored
            item.FailureReason = 0xA700
            told.FailedSOPSequence = [item]
            return self.reply(202, told.to_json().encode())
        elif isinstance(now, int) and now >= 0x110 and now != 200:
            item.FailureReason = now
            told.FailedSOPSequence = [item]
            return self.reply(409, told.to_json().encode())
        elif now == "warning":
            item.WarningReason = 0xB000
        else:
            self.server.kept[header.SOPInstanceUID] = instance
        told.ReferencedSOPSequence = [item]
        return self.reply(200, told.to_json().encode())

    def reply(self, status: int, content: bytes = b"") -> None:
        if content:
            assert not content.startswith(b"{") or json.loads(content)
        self.send_response(status)
        self.send_header("Content-Type", "application/dicom+json" if content[:1] == b"{" else "text/html")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def listening(*script: int | str) -> Iterator[tuple[str, Archive]]:
    with Archive(list(script)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/dicom-web/studies", server
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless])
def test_every_byte_arrives_as_it_is(tmp_path: Path, syntax: UID) -> None:
    images = tiny_series(tmp_path, syntax=syntax)
    with listening() as (url, archive):
        assert send(tmp_path, url) == 3
    assert set(archive.kept) == {made.SOPInstanceUID for made in images}
    for name, content in archive.kept.items():
        (tmp_path / name).write_bytes(content)
        assert dcmread(tmp_path / name).file_meta.TransferSyntaxUID == syntax
    assert sorted(body(tmp_path / name) for name in archive.kept) == sorted(map(body, files(tmp_path)))


def test_a_deflated_file_stays_deflated(tmp_path: Path) -> None:
    tiny_series(tmp_path, 1, syntax=DeflatedExplicitVRLittleEndian)
    with listening() as (url, archive):
        assert send(tmp_path, url) == 1
    (content,) = archive.kept.values()
    assert dcmread(BytesIO(content)) == dcmread(files(tmp_path)[0])


@pytest.mark.parametrize("first", [503, 429, 500, 0x0110, 0xA700, "accepted"])
def test_what_may_succeed_later_is_tried_again(tmp_path: Path, first: int | str) -> None:
    tiny_series(tmp_path)
    with listening(first) as (url, archive):
        assert send(tmp_path, url, pause=0.01) == 3
    assert len(archive.kept) == 3
    assert archive.requests == 4


@pytest.mark.parametrize(
    ("first", "said"),
    [
        (400, "HTTP 400"),
        (0xA900, "0xA900"),
        (0x0122, "0x0122"),
        ("silent", "unconfirmed"),
        ("other", "unconfirmed"),
        ("garbage", "unconfirmed"),
    ],
)
def test_what_was_not_stored_is_not_called_stored(
    tmp_path: Path, first: int | str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    tiny_series(tmp_path)
    with listening(first) as (url, archive), pytest.raises(CannotWriteError, match=f"1 of 3 .*{said}"):
        send(tmp_path, url, pause=60)
    assert len(archive.kept) == 2
    printed = capfd.readouterr()
    assert len(printed.out.splitlines()) == 3
    assert "PLANTED" not in printed.out + printed.err


def test_a_warning_is_stored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_series(tmp_path, 1)
    with listening("warning") as (url, _):
        assert send(tmp_path, url) == 1
    assert "0xB000" in capsys.readouterr().out


def test_no_permission_is_asked_for_once(tmp_path: Path) -> None:
    tiny_series(tmp_path)
    with listening(401) as (url, archive), pytest.raises(CannotWriteError, match=r"3 of 3 .* HTTP 401"):
        send(tmp_path, url, pause=60)
    assert archive.requests == 1


def test_a_wrong_path_is_asked_for_once(tmp_path: Path) -> None:
    tiny_series(tmp_path)
    with listening() as (url, archive), pytest.raises(CannotWriteError, match=r"3 of 3 .* HTTP 404"):
        send(tmp_path, url.replace("dicom-web", "wado"), pause=60)
    assert archive.requests == 1


def test_no_listener_is_one_clear_line(tmp_path: Path) -> None:
    tiny_series(tmp_path)
    done = run("send", tmp_path, "--to", f"http://127.0.0.1:{free_port()}/studies", "--retries", 0)
    assert "3 of 3 were not stored" in refused(done, 4)
