"""Files and folders that appear together: at every moment of a kill, without replacing what others put there."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from brgm_med import staging
from brgm_med.errors import CannotWriteError, InputRefusedError, UsageError
from brgm_med.files import check_apart, check_new_folder, check_output, moved, new_folder, replacing, write_json
from brgm_med.staging import commit, journal
from tests.kills import content, forked

NAMES = ("image", "map", "proof")


@pytest.fixture(params=["renameat2", "plain"])
def rename(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """With the exchange of Linux, and as on a file system that has none."""
    if request.param == "plain":
        monkeypatch.setattr(journal, "_renameat2", lambda *_: errno.EINVAL)
    return request.param


def write(folder: Path, text: str, force: bool, names: tuple[str, ...] = NAMES) -> None:
    """A command: an image and its map, a folder, and the proof somewhere else."""
    paths = [folder / name for name in ("image", "map", "series")] + [folder / "else" / "proof"]
    for path in paths:
        check_new_folder(path, "" if force else None) if path.name == "series" else check_output(path, force)
    with moved(paths, force) as (image, mapped, series, proof):
        image.write_text(text)
        if text != "no map":
            mapped.write_text(text)
        series.mkdir()
        (series / "1").write_text(text)
        write_json(proof, {"text": text}, force=False)


@pytest.mark.parametrize("step", [11, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("force", [False, True])
def test_a_kill_at_any_event_leaves_all_or_nothing_and_the_same_command_completes(
    tmp_path: Path, force: bool, step: int, rename: str
) -> None:
    folder = tmp_path / "once"
    (folder / "else").mkdir(parents=True)
    if force:
        write(folder, "old", False)
    before = content(folder)
    text = "no map" if force else "new"
    code, events = forked(lambda: write(folder, text, force))
    assert (code, events > 25) == (0, True)
    whole = content(folder)
    assert sorted(whole) == sorted({*before, *whole} - ({"map"} if force else set()))
    for last in range(0, events, step):
        folder = tmp_path / str(last)
        (folder / "else").mkdir(parents=True)
        if force:
            write(folder, "old", False)
        assert forked(lambda f=folder: write(f, text, force), last)[0] == -9  # type: ignore[misc]
        for one in (folder, folder / "else"):
            staging.settle(one)
        assert content(folder) in (before, whole), last
        if not force and content(folder) == whole:
            continue  # all is there, and what it was written in was removed only in part
        assert forked(lambda f=folder: write(f, text, force))[0] == 0  # type: ignore[misc]
        assert content(folder) == whole


def test_what_appears_meanwhile_is_not_replaced(tmp_path: Path, rename: str) -> None:
    for number, name in enumerate(NAMES):
        folder = tmp_path / name
        folder.mkdir()

        def written(folder: Path = folder, name: str = name, as_folder: bool = bool(number % 2)) -> None:
            with moved([folder / one for one in NAMES]) as staged:
                for one in staged:
                    one.write_text("ours")
                (folder / name).mkdir() if as_folder else (folder / name).write_text("theirs")

        with pytest.raises(InputRefusedError, match=f"{name}: has appeared meanwhile; .* --force"):
            written()
        assert content(folder) == {name: None if number % 2 else b"theirs"}
    new = new_folder(tmp_path / "f")
    (new.__enter__() / "a").touch()
    (tmp_path / "f").mkdir()
    with pytest.raises(InputRefusedError, match="has appeared meanwhile"):
        new.__exit__(None, None, None)
    with replacing(tmp_path / "g", force=True) as file:
        file.write_text("ours")
        (tmp_path / "g").write_text("theirs")
    assert (tmp_path / "g").read_text() == "ours"


def test_what_appears_between_the_look_and_the_move_is_not_replaced(
    tmp_path: Path, rename: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = commit.do

    def late(staged: Path, path: Path, *rest: object) -> None:
        if path.name == "map":
            path.write_text("theirs")
        real(staged, path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(commit, "do", late)
    several = moved([tmp_path / name for name in NAMES])
    for one in several.__enter__():
        one.write_text("ours")
    with pytest.raises(InputRefusedError, match="map: has appeared"):
        several.__exit__(None, None, None)
    assert content(tmp_path) == {"map": b"theirs"}


def test_only_what_dead_processes_of_ours_left_is_removed(tmp_path: Path) -> None:
    living, foreign = tmp_path / f".brgm-{'a' * 16}.part", tmp_path / f".brgm-{'b' * 16}.part"
    for folder in (living, foreign, tmp_path / ".brgm-mine"):
        (folder / "new").mkdir(parents=True)
        (folder / "lock").touch()
    (tmp_path / f".brgm-{'c' * 16}.part").mkdir()  # killed before it had a lock
    (tmp_path / f".brgm-{'d' * 16}.done").mkdir()
    (tmp_path / f".brgm-{'e' * 16}.part").symlink_to(foreign)
    if os.geteuid() == 0:
        os.chown(foreign, 65534, 65534)
    with (living / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        staging.settle(tmp_path)
    names = {living.name, ".brgm-mine", f".brgm-{'e' * 16}.part"} | ({foreign.name} if os.geteuid() == 0 else set())
    assert {p.name for p in tmp_path.iterdir()} == names


def test_what_the_user_put_at_the_name_of_a_killed_set_is_left(tmp_path: Path) -> None:
    (tmp_path / "else").mkdir()
    _, events = forked(lambda: write(tmp_path, "new", False))
    for path in (tmp_path / "image", tmp_path / "map", tmp_path / "else" / "proof"):
        path.unlink()
    (tmp_path / "series" / "1").unlink()
    (tmp_path / "series").rmdir()
    for last in range(events):
        for one in (tmp_path, tmp_path / "else"):
            staging.settle(one)
        forked(lambda: write(tmp_path, "new", False), last)
        if (tmp_path / "map").exists():
            break
    (tmp_path / "image").unlink()
    (tmp_path / "image").write_text("the user's")
    staging.settle(tmp_path)
    staging.settle(tmp_path / "else")
    assert content(tmp_path) == {"image": b"the user's", "else": None}


def test_an_output_folder_that_vanishes_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()

    def vanishing() -> None:
        with moved([folder / "a", folder / "b"]) as staged:
            staged[0].write_text("a")
            folder.rename(tmp_path / "moved")
            staged[1].write_text("b")

    with pytest.raises(CannotWriteError, match="cannot be written"):
        vanishing()
    assert not folder.exists()
    staging.settle(tmp_path / "moved")
    assert content(tmp_path) == {"moved": None}


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_nobody_reads_an_output_who_may_not_read_its_inputs(tmp_path: Path, mode: int) -> None:
    private, public = tmp_path / "private", tmp_path / "public"
    for path, own in ((private, mode), (public, 0o644)):
        path.mkdir()
        (path / "1").touch()
        (path / "1").chmod(own)
    for number, source in enumerate((private, private / "1")):
        names = tmp_path / f"file{number}", tmp_path / f"folder{number}"
        with moved(names, like=[public, source]) as (file, folder):
            assert stat.S_IMODE(file.parent.parent.stat().st_mode) == 0o700
            file.touch()
            folder.mkdir()
            (folder / "1").touch()
        modes = [stat.S_IMODE(p.stat().st_mode) for p in (names[0], names[1] / "1", names[1])]
        assert modes == [mode, mode, mode | (mode & 0o444) >> 2]


def test_no_command_writes_where_it_reads(tmp_path: Path) -> None:
    scan, series = tmp_path / "scan", tmp_path / "series"
    scan.write_text("scan")
    series.mkdir()
    (series / "1").write_text("slice")
    (tmp_path / "soft").symlink_to(scan)
    os.link(scan, tmp_path / "hard")
    (tmp_path / "folder").symlink_to(series)
    for out in (scan, tmp_path / "soft", tmp_path / "hard", series / "1", tmp_path / "folder" / "1", series, tmp_path):
        with pytest.raises(UsageError, match="where the command reads"):
            check_apart([tmp_path / "free", out], [scan, series])
    with pytest.raises(UsageError, match="where the command reads"):
        check_apart([scan], [tmp_path / "soft"])
    check_apart([tmp_path / "free", tmp_path / "gone" / "free"], [scan, series, tmp_path / "missing"])


def test_a_clock_that_goes_back_changes_nothing(tmp_path: Path) -> None:
    """What is undone is told by what it is, not by when it was made."""

    def write_at(text: str, seconds: int) -> None:
        paths = [tmp_path / name for name in NAMES]
        for path in paths:
            check_output(path, text == "new")
        with moved(paths, text == "new") as staged:
            for one in staged:
                one.write_text(text)
                os.utime(one, (seconds, seconds))

    write_at("old", 4_000_000_000)
    before = content(tmp_path)
    _, events = forked(lambda: write_at("new", 1))
    staged_anew = content(tmp_path)
    for path in tmp_path.iterdir():
        path.unlink()
    write_at("old", 4_000_000_000)
    for last in range(events - 12, events, 2):
        assert forked(lambda: write_at("new", 1), last)[0] == -9
        staging.settle(tmp_path)
        assert content(tmp_path) in (before, staged_anew)
