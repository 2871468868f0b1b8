"""Commands that are killed at file-system events, and run again: the bytes are those of an undisturbed run.

Every process is forked from this one, in which everything is loaded and, of `sr` and `inpaint`, computed: what is done
in the fork is the check of the outputs and their publication, and of the other commands all. A spread sample of the
events is tried; `BRGM_MED_KILLS=every python -m pytest -m slow tests/pipelines/test_kills.py` tries every one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from brgm_med.pipelines.cli import main
from brgm_med.pipelines.report import subject_report
from brgm_med.pipelines.results import publish
from brgm_med.pipelines.send.send import send
from brgm_med.pipelines.steps import degrade, inpaint, super_resolution
from brgm_med.staging import settle_below
from brgm_med.transforms.formats.affine import RAS_LPS
from brgm_med.transforms.formats.dicom.derived import Choices
from tests.archives import Keeping, body, files, listening
from tests.kills import content, forked
from tests.mr_series import mr_series
from tests.small_heads import small_head
from tests.studies import bids_study

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

SAMPLE = 7
"""Events of each case that are tried in a usual run."""

Rest = Callable[[], object]
NAMES = {"nifti": "out.nii.gz", "dicom": "out"}


def sampled(events: int) -> list[int]:
    if os.environ.get("BRGM_MED_KILLS") == "every":
        return list(range(events))
    return sorted({round(i * (events - 1) / (SAMPLE - 1)) for i in range(SAMPLE)})


def source(folder: Path, kind: str, thick: bool) -> Path:
    """A small head of nobody."""
    head = small_head(folder / "head.nii.gz", seed=1, thick=thick)
    if kind == "nifti":
        return head
    image = nib.load(head)
    assert isinstance(image, nib.Nifti1Image)
    return mr_series(folder / "series", np.asarray(image.dataobj).astype(np.uint16), RAS_LPS @ image.affine)


class Computed(BaseException):
    """What is to be published is there."""


def rest_of(step: Any, command: Callable[..., object], patch: pytest.MonkeyPatch) -> Rest:
    """What `command` of a step does once its result is computed: look whether it can be written, and publish it."""
    calls: dict[str, Rest] = {}

    def check(*arguments: Any, **options: Any) -> object:
        calls["check"] = partial(publish.check, *arguments, **options)
        return calls["check"]()

    def stop(*arguments: Any, **options: Any) -> object:
        calls["publish"] = partial(publish.publish, *arguments, **options)
        raise Computed

    with patch.context() as patched:
        patched.setattr(step, "check", check)
        patched.setattr(step, "publish", stop)
        with pytest.raises(Computed):
            command()

    def rest() -> None:
        calls["check"]()
        calls["publish"]()

    return rest


def killed_anywhere(folder: Path, prepare: Rest, rest: Rest, force: bool) -> None:
    """Kill `rest`, which writes into `folder`, at many events; what is then there is all or nothing, and it completes.

    `prepare` makes the folder as it is before. All that `folder` holds is compared, byte by byte.
    """
    prepare()
    rest()  # loads what it needs
    prepare()
    before = content(folder)
    code, events = forked(rest)
    assert (code, events > 20) == (0, True)
    whole = content(folder)
    assert whole != before
    for last in sampled(events):
        prepare()
        assert forked(rest, last)[0] == -9
        complete = content(folder) == whole
        settle_below(folder)
        now = content(folder)
        assert now in (before, whole), (last, sorted(now))
        if force or not (complete or now == whole):
            assert forked(rest)[0] == 0, last
            assert content(folder) == whole, last


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("command", ["sr", "inpaint", "degrade"])
def test_a_command_on_a_scan(
    tmp_path: Path, command: str, kind: str, force: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    scan, place = source(tmp_path, kind, command == "sr"), tmp_path / "results"
    out = place / NAMES[kind]
    options: dict[str, Any] = {"choices": Choices(uid_seed="s"), "force": force}
    if command == "degrade":
        rest: Rest = lambda: degrade.degrade(scan, out, factor=2, **options) and 0  # noqa: E731
    elif command == "sr":
        page = {"report": subject_report, **options}
        call = partial(super_resolution.super_resolve, scan, out, prior="self", steps=1, threads=1, **page)
        place.mkdir()
        rest = rest_of(super_resolution, call, monkeypatch)
    else:
        mask = np.zeros(nib.load(tmp_path / "head.nii.gz").shape, np.uint8)  # type: ignore[attr-defined]
        mask[20:24, 20:24, 20:24] = 1
        nib.save(nib.Nifti1Image(mask, nib.load(tmp_path / "head.nii.gz").affine), tmp_path / "mask.nii.gz")  # type: ignore[attr-defined]
        page = {"report": subject_report, **options}
        call = partial(inpaint.inpaint, scan, tmp_path / "mask.nii.gz", out, steps=1, threads=1, **page)
        place.mkdir()
        rest = rest_of(inpaint, call, monkeypatch)

    def prepare() -> None:
        """Nothing is there, or, to be replaced, an older result with a map and a certificate."""
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        if force:
            for path in (out, place / NAMES[kind].replace("out", "out_measured")):
                if kind == "nifti":
                    path.write_text("old")
                else:
                    path.mkdir()
                    (path / "0001.dcm").write_text("old")
            if command != "degrade":
                (place / "out_report.html").write_text("old")
            (place / ("out.json" if command == "degrade" else "out_certificate.json")).write_text("old")

    killed_anywhere(place, prepare, rest, force)


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("again", [False, True])
def test_a_study(tmp_path: Path, kind: str, again: bool) -> None:
    """What a run that was finished but for its derivatives does: the steps before are remembered in its folder.

    `again`: older derivatives stand there.
    """
    torch.set_num_threads(1)
    root = tmp_path / "study"
    if kind == "nifti":
        bids_study(root, 1, bad=())
    else:
        root.mkdir()
        source(tmp_path, kind, thick=True)
        (tmp_path / "series").rename(root / "series")
    out, work = tmp_path / "place" / "out", tmp_path / "place" / "out_work"
    layout = () if kind == "nifti" else ("--layout", "plain")
    command = ["run", str(root), str(out), "participant", "--steps", "1", "--prior", "self", *layout]
    assert main(command) == 0
    first = content(out)
    shutil.move(work, tmp_path / "remembered")
    shutil.move(out, tmp_path / "older")

    def prepare() -> None:
        shutil.rmtree(out.parent, ignore_errors=True)
        shutil.copytree(tmp_path / "remembered", work, symlinks=True)
        if again:
            shutil.copytree(tmp_path / "older", out)
            for file in (p for p in out.rglob("*") if p.is_file()):
                file.write_bytes(b"old")

    prepare()
    code, events = forked(lambda: main(command))
    assert code == 0
    assert content(out) == first
    for last in sampled(events):
        prepare()
        assert forked(lambda: main(command), last)[0] == -9
        assert forked(lambda: main(command))[0] == 0, last
        assert content(out) == first, last
        assert not list(work.rglob(".brgm-*")), last


def test_sending(tmp_path: Path) -> None:
    """Whatever was killed, the archive has every file as it is once the command is run again."""
    series = mr_series(tmp_path / "series")
    keeping = Keeping()
    with listening(keeping) as target:
        rest: Rest = lambda: send(series, target, retries=0) and 0  # noqa: E731
        rest()  # loads what it needs
        keeping.kept.clear()
        code, events = forked(rest, opening=True)
        assert (code, events > 6) == (0, True)
        for last in sampled(events):
            assert forked(rest, last, opening=True)[0] == -9
            keeping.kept.clear()
            assert forked(rest)[0] == 0
            assert sorted(keeping.kept.values()) == sorted(body(file) for file in files(series))
