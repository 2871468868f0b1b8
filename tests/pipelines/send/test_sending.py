"""`brgm-med send` over C-STORE, against real listeners: an SCP of pynetdicom in this process."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
)
from pynetdicom import AE, AllStoragePresentationContexts, evt

from brgm_med.errors import CannotWriteError, InputRefusedError, UsageError
from brgm_med.pipelines.cli import main
from brgm_med.pipelines.send.send import send
from tests.archives import EVERY_SYNTAX, Keeping, body, files, free_port, listening
from tests.commands import COMMAND, refused, run
from tests.dicom_files import save, tiny_image, tiny_series


@pytest.mark.parametrize("syntax", EVERY_SYNTAX, ids=[s.name for s in EVERY_SYNTAX])
def test_every_byte_arrives_as_it_is(tmp_path: Path, syntax: UID, capsys: pytest.CaptureFixture[str]) -> None:
    """In the file's own transfer syntax, though the archive would take any."""
    tiny_series(tmp_path, syntax=syntax)
    (tmp_path / "notes.txt").write_text("no DICOM")
    keeping = Keeping()
    with listening(keeping) as archive:
        count = send(tmp_path, archive)
    assert count == len(files(tmp_path)) == len(keeping.kept)
    assert sorted(keeping.kept.values()) == sorted(map(body, files(tmp_path)))
    assert {c.transfer_syntax for c in keeping.contexts} == {syntax}
    printed = capsys.readouterr()
    assert sorted(printed.out.splitlines()) == sorted(f"{uid}: stored" for uid in keeping.kept)
    assert "1 skipped" in printed.err


def test_nothing_is_re_encoded_for_an_archive_of_another_syntax(tmp_path: Path) -> None:
    tiny_series(tmp_path, syntax=ExplicitVRLittleEndian)
    keeping = Keeping()
    with (
        listening(keeping, syntaxes=[ImplicitVRLittleEndian]) as archive,
        pytest.raises(CannotWriteError, match=r"3 of 3 .* not accepted"),
    ):
        send(tmp_path, archive)
    assert not keeping.kept


def test_one_sop_class_is_refused_and_the_rest_is_stored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_series(tmp_path)
    foreign = tiny_image(9, sop_class=CTImageStorage)
    save(foreign, tmp_path / "IM9")
    keeping = Keeping()
    begun = time.monotonic()
    with listening(keeping, classes=(MRImageStorage,)) as archive:
        assert main(["send", str(tmp_path), "--to", archive]) == 4
    assert time.monotonic() - begun < 5  # it is not tried again
    assert len(keeping.kept) == 3
    printed = capsys.readouterr()
    assert f"{foreign.SOPInstanceUID}: refused" in printed.out
    assert "1 of 4 were not stored" in printed.err.splitlines()[-1]


@pytest.mark.parametrize("code", [0xA700, 0x0110])
def test_what_may_succeed_later_is_tried_again(tmp_path: Path, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_series(tmp_path)
    keeping = Keeping(0, code)
    keeping.codes = [code]
    with listening(keeping) as archive:
        assert send(tmp_path, archive, pause=0.01) == 3
    assert len(keeping.kept) == 3
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_it_is_not_tried_for_ever(tmp_path: Path) -> None:
    tiny_series(tmp_path, 1)
    asked: list[object] = []

    def full(event: object) -> int:
        asked.append(event)
        return 0xA700

    with listening(full) as archive, pytest.raises(CannotWriteError, match="Out of Resources"):
        send(tmp_path, archive, retries=2, pause=0.01)
    assert len(asked) == 3


@pytest.mark.parametrize("code", [0xA900, 0xC000, 0x0124])
def test_what_will_not_succeed_later_is_not_tried_again(tmp_path: Path, code: int) -> None:
    tiny_series(tmp_path, 1)
    with listening(Keeping(code)) as archive, pytest.raises(CannotWriteError, match=f"0x{code:04X}"):
        send(tmp_path, archive, pause=60)


def test_a_warning_is_stored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_series(tmp_path, 1)
    with listening(Keeping(0xB000)) as archive:
        assert send(tmp_path, archive) == 1
    assert "stored, with a warning (0xB000 Coercion" in capsys.readouterr().out


@pytest.mark.parametrize("always", [False, True])
def test_an_archive_that_aborts(tmp_path: Path, always: bool) -> None:
    tiny_series(tmp_path)
    keeping, cut = Keeping(), []

    def store(event: Any) -> int:
        if always or not cut:
            cut.append(event)
            event.assoc.abort()
            return 0xA700
        return keeping(event)

    with listening(store) as archive:
        if always:
            with pytest.raises(CannotWriteError, match="cut off"):
                send(tmp_path, archive, retries=1, pause=0.01)
            assert not keeping.kept
        else:
            assert send(tmp_path, archive, pause=0.01) == 3
            assert len(keeping.kept) == 3


def test_an_archive_that_rejects_us(tmp_path: Path) -> None:
    tiny_series(tmp_path)
    with (
        listening(Keeping(), required="OTHER") as archive,
        pytest.raises(CannotWriteError, match=r"3 of 3 .* rejected .*[Cc]alled AE"),
    ):
        send(tmp_path, archive.replace("OTHER", "WRONG"), pause=60)


def test_an_interruption_ends_the_association(tmp_path: Path) -> None:
    """At once, though the archive has not answered, and as Ctrl-C ends every command."""
    tiny_series(tmp_path, 1)
    asked, aborted = threading.Event(), threading.Event()

    def slow(event: Any) -> int:
        asked.set()
        aborted.wait(20)
        return 0

    with listening(slow) as archive:
        sending = subprocess.Popen([COMMAND, "send", tmp_path, "--to", archive], stderr=subprocess.PIPE, text=True)
        assert asked.wait(60)
        begun = time.monotonic()
        sending.send_signal(signal.SIGINT)
        _, said = sending.communicate(timeout=60)
        aborted.set()
    assert sending.returncode == 130
    assert said.splitlines()[-1] == "brgm-med: interrupted"
    assert time.monotonic() - begun < 10


def test_more_kinds_than_an_association_has_contexts(tmp_path: Path) -> None:
    """128 of them. What the images are does not matter here, so each says that it is of another class."""
    classes = tuple(str(context.abstract_syntax) for context in AllStoragePresentationContexts)[:130]
    for number, sop_class in enumerate(classes):
        save(tiny_image(number, sop_class=UID(sop_class)), tmp_path / f"IM{number}")
    keeping = Keeping()
    with listening(keeping, [ExplicitVRLittleEndian], classes) as archive:
        assert send(tmp_path, archive) == 130
    assert len(keeping.kept) == 130


def test_no_listener_is_one_clear_line(tmp_path: Path) -> None:
    tiny_series(tmp_path)
    done = run("send", tmp_path, "--to", f"ARCHIVE@127.0.0.1:{free_port()}", "--retries", 1)
    line = refused(done, 4)
    assert "3 of 3 were not stored" in line
    assert "Connection refused" in line


def test_a_host_without_an_address(tmp_path: Path) -> None:
    tiny_series(tmp_path)
    assert "for want of a connection" in refused(run("send", tmp_path, "--to", "A@no.invalid:104", "--retries", 0), 4)


def test_an_archive_that_comes_up_late_is_found(tmp_path: Path) -> None:
    tiny_series(tmp_path, 1)
    port, keeping = free_port(), Keeping()
    entity = AE("ARCHIVE")
    entity.add_supported_context(MRImageStorage, EVERY_SYNTAX)
    started: list[Any] = []

    def start() -> None:
        handlers = [(evt.EVT_C_STORE, keeping)]
        started.append(entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers))  # type: ignore[arg-type]

    timer = threading.Timer(0.5, start)
    timer.start()
    try:
        assert send(tmp_path, f"ARCHIVE@127.0.0.1:{port}", retries=4, pause=0.1) == 1
    finally:
        timer.join()
        started[0].shutdown()


@pytest.mark.parametrize(
    "target",
    [
        "127.0.0.1:104",
        "AET@127.0.0.1",
        "AET@127.0.0.1:70000",
        "A-TITLE-THAT-IS-TOO-LONG@127.0.0.1:104",
        "BACK\\SLASH@127.0.0.1:104",
        "ftp://127.0.0.1/studies",
        "http://127.0.0.1/dicom-web",
        "http://me:secret@127.0.0.1/studies",
    ],
)
def test_wrong_targets(tmp_path: Path, target: str) -> None:
    with pytest.raises(UsageError) as caught:
        send(tmp_path, target)
    assert "secret" not in str(caught.value)


def test_what_cannot_be_sent(tmp_path: Path) -> None:
    with pytest.raises(InputRefusedError, match="no such"):
        send(tmp_path / "none", "A@127.0.0.1:104")
    (tmp_path / "notes.txt").write_text("no DICOM")
    with pytest.raises(InputRefusedError, match="holds no DICOM"):
        send(tmp_path, "A@127.0.0.1:104")
    (tmp_path / "IM1").write_bytes(bytes(128) + b"DICM" + b"\x02\x00\x10")
    with pytest.raises(InputRefusedError, match="damaged"):
        send(tmp_path, "A@127.0.0.1:104")


@pytest.mark.parametrize("syntax", [*EVERY_SYNTAX, DeflatedExplicitVRLittleEndian])
def test_a_truncated_file_is_refused_before_anything_is_sent(tmp_path: Path, syntax: UID) -> None:
    tiny_series(tmp_path, syntax=syntax)
    damaged = files(tmp_path)[0]
    damaged.write_bytes(damaged.read_bytes()[:-50])
    with pytest.raises(InputRefusedError, match="truncated"):
        send(tmp_path, "A@127.0.0.1:104")


def test_no_word_of_the_patient(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither in the names of files nor in what the archive remarks, and a file may be sent alone."""
    made = tiny_image(1)
    made.PatientName, made.PatientID = "PLANTED^NAME", "PLANTED-ID"
    path = tmp_path / "PLANTED_NAME.dcm"
    save(made, path)

    def talkative(event: Any) -> Any:
        from pydicom import Dataset

        status = Dataset()
        status.Status, status.ErrorComment = 0xC000, "PLANTED remark"
        return status

    with listening(talkative) as archive:
        assert main(["send", str(path), "--to", archive]) == 4
    printed = capfd.readouterr()
    said = (printed.out + printed.err).replace(str(path), "")
    assert "PLANTED" not in said
    assert re.search("0xC000", said)
