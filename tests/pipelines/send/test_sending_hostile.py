"""Archives that lead elsewhere, drip, never end, send far too much, or answer nonsense; and Ctrl-C at any time."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from brgm_med.errors import CannotWriteError
from brgm_med.pipelines.send import c_store, stow
from brgm_med.pipelines.send.send import send
from tests.archives import free_port
from tests.commands import refused, run
from tests.dicom_files import tiny_series

Serving = Callable[[socket.socket], None]


class Redirecting(BaseHTTPRequestHandler):
    """Sends everybody elsewhere."""

    status: ClassVar[int]
    to: ClassVar[str]
    seen: ClassVar[list[str]]

    def do_POST(self) -> None:
        self.seen.append(f"POST {self.path}")
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.status)
        self.send_header("Location", self.to)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.seen.append(f"GET {self.path}")
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirection_is_refused_and_named(tmp_path: Path, status: int) -> None:
    tiny_series(tmp_path)
    elsewhere: Any = type("Elsewhere", (Redirecting,), {"status": 200, "to": "", "seen": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), elsewhere) as second:
        threading.Thread(target=second.serve_forever, daemon=True).start()
        there = f"127.0.0.1:{second.server_address[1]}"
        to = f"http://{there}/dicom-web/studies"
        first: Any = type("First", (Redirecting,), {"status": status, "to": to, "seen": []})
        with ThreadingHTTPServer(("127.0.0.1", 0), first) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            url = f"http://127.0.0.1:{server.server_address[1]}/dicom-web/studies"
            with pytest.raises(CannotWriteError, match=rf"redirects to {there} \(HTTP {status}\)"):
                send(tmp_path, url, pause=0)
            server.shutdown()
        second.shutdown()
    assert first.seen == ["POST /dicom-web/studies"]
    assert elsewhere.seen == []


@contextmanager
def serving(serve: Serving) -> Iterator[int]:
    """A listener on loopback that does `serve` with every connection, each in a thread; gives its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def one(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            serve(connection)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def forever(connection: socket.socket, head: bytes, part: bytes, pause: float = 0.0) -> None:
    """Send `head`, and `part` again and again, for at most a minute."""
    connection.sendall(head)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        connection.sendall(part)
        time.sleep(pause)


OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/dicom+json\r\n"
HTTP: dict[str, Serving] = {
    "a body that drips": lambda c: forever(c, OK + b"Content-Length: 10000\r\n\r\n", b" ", 0.05),
    "headers that drip": lambda c: forever(c, b"HTTP/1.1 200 OK\r\nX: ", b"x", 0.05),
    "interim answers": lambda c: forever(c, b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.01),
    "nothing": lambda c: forever(c, b"", b"", 0.05),
}


@pytest.mark.parametrize("kind", HTTP)
def test_no_exchange_over_http_lasts_longer_than_its_deadline(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_series(tmp_path)
    monkeypatch.setattr(stow, "TIMEOUT", (0.5, 0.5))
    begun = time.monotonic()
    with serving(HTTP[kind]) as port, pytest.raises(CannotWriteError, match=r"took longer|want of a connection"):
        send(tmp_path, f"http://127.0.0.1:{port}/studies", retries=0)
    assert time.monotonic() - begun < 5


ANSWERS = {
    "a list": OK + b"Content-Length: 2\r\n\r\n[]",
    "a number": OK + b"Content-Length: 1\r\n\r\n7",
    "deep": OK + b"Content-Length: 200000\r\n\r\n" + b"[" * 100_000 + b"]" * 100_000,
    "deep objects": OK + b"Content-Length: 60001\r\n\r\n" + b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "huge": OK + b"Content-Length: 3000000000\r\n\r\n" + b" " * (2 << 20),
    "odd elements": OK + b"Content-Length: 26\r\n\r\n" + b'{"00081199": {"vr": "SQ"}}',
    "a failure that is none": b"HTTP/1.1 409 Conflict\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]",
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_an_answer_that_is_none_leaves_that_file_unknown_and_the_others_are_sent(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_series(tmp_path)
    count = sum(file.is_file() for file in tmp_path.rglob("*"))
    requests: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        content = b""
        while b"--0f3cf5c0-70e0-41ef-baef-c6f9f65ec3e1--" not in content:
            content += connection.recv(65536)
        requests.append(content)
        connection.sendall(ANSWERS[kind])

    with serving(serve) as port, pytest.raises(CannotWriteError, match=f"{count} of {count} were not stored"):
        send(tmp_path, f"http://127.0.0.1:{port}/studies", retries=0)
    assert len(requests) == count
    said = capsys.readouterr().out.splitlines()
    assert len(said) == count
    assert all("unconfirmed" in line or "refused (HTTP 409" in line for line in said)


def accepting(then: Serving) -> Serving:
    """Of DICOM: accept the association, every presentation context, and read a request before `then`."""

    def serve(connection: socket.socket) -> None:
        head = connection.recv(6, socket.MSG_WAITALL)
        request = connection.recv(int.from_bytes(head[2:6], "big"), socket.MSG_WAITALL)
        items, at = b"", 68
        while at < len(request):
            kind, length = request[at], int.from_bytes(request[at + 2 : at + 4], "big")
            item = request[at + 4 : at + 4 + length]
            if kind == 0x10:
                items += bytes([0x10, 0]) + length.to_bytes(2, "big") + item
            elif kind == 0x20:
                syntax = item[4 + 4 + int.from_bytes(item[6:8], "big") :]
                result = bytes([item[0], 0, 0, 0]) + syntax
                items += bytes([0x21, 0]) + len(result).to_bytes(2, "big") + result
            elif kind == 0x50:
                items += bytes([0x50, 0]) + length.to_bytes(2, "big") + item
            at += 4 + length
        content = request[:68] + items
        connection.sendall(bytes([2, 0]) + len(content).to_bytes(4, "big") + content)
        connection.recv(6, socket.MSG_WAITALL)
        then(connection)

    return serve


GIANT = bytes([4, 0]) + (0xFFFFFFF0).to_bytes(4, "big")
DICOM: dict[str, Serving] = {
    "an association that drips": lambda c: forever(c, bytes([2, 0, 0, 0, 0xFF, 0]), b"x", 0.05),
    "no answer to the association": lambda c: forever(c, b"", b"", 0.05),
    "an answer that drips": accepting(lambda c: forever(c, bytes([4, 0, 0, 0, 0xFF, 0]), b"x", 0.05)),
    "an answer of 4 GB": accepting(lambda c: forever(c, GIANT, b"x" * 65536)),
    "an association of 4 GB": lambda c: forever(c, GIANT, b"x" * 65536),
    "no answer": accepting(lambda c: forever(c, b"", b"", 0.05)),
}


@pytest.mark.parametrize("kind", DICOM)
def test_no_exchange_over_dicom_lasts_longer_than_its_deadline(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_series(tmp_path)
    monkeypatch.setattr(c_store, "ANSWER_SECONDS", 1)
    monkeypatch.setattr(c_store, "CONNECT_SECONDS", 1)
    begun = time.monotonic()
    with serving(DICOM[kind]) as port, pytest.raises(CannotWriteError, match="were not stored"):
        send(tmp_path, f"ARCHIVE@127.0.0.1:{port}", retries=0)
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize("kind", ["a body that drips", "an answer that drips"])
def test_ctrl_c_ends_an_exchange(tmp_path: Path, kind: str) -> None:
    tiny_series(tmp_path)
    main = threading.get_ident()
    threading.Timer(1.0, lambda: signal.pthread_kill(main, signal.SIGINT)).start()
    begun = time.monotonic()
    with serving(HTTP.get(kind) or DICOM[kind]) as port, pytest.raises(KeyboardInterrupt):
        send(tmp_path, f"http://127.0.0.1:{port}/studies" if kind in HTTP else f"A@127.0.0.1:{port}", retries=0)
    assert time.monotonic() - begun < 6


def test_what_a_file_calls_itself_cannot_move_the_cursor(tmp_path: Path) -> None:
    folder = tmp_path / "evil\x1b[2J\nname"
    folder.mkdir()
    line = refused(run("send", folder / "x\x1b]0;y\x07", "--to", f"A@127.0.0.1:{free_port()}"), 3)
    assert "\x1b" not in line
    assert "\\x1b[2J name/x\\x1b]0;y\\x07" in line
    assert os.linesep not in line
