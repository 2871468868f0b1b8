"""Damaged sidecars and certificates are named in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from brgm_med.errors import InputRefusedError
from brgm_med.files import read_json
from brgm_med.pipelines.dataset.outcomes import read_entry
from brgm_med.pipelines.report.subject import read_certificate as certificate_of_report
from brgm_med.pipelines.steps.write_dicom import read_certificate
from brgm_med.transforms.acquire import AcquisitionModel
from brgm_med.transforms.geometry import Grid

DAMAGED = [b"", b"{", b"\xff\xfe", b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}", b"nul"]


@pytest.mark.parametrize("content", DAMAGED)
def test_what_is_no_json(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    for read in (read_json, certificate_of_report, lambda p: read_certificate(p, "sr")):
        with pytest.raises(InputRefusedError, match=r"a\.json"):
            read(path)
    assert read_entry(path, "brgm_med") is None


@pytest.mark.parametrize(
    "content", [[], 3, {}, {"prior": 3, "parameters": {}}, {"prior": {}, "parameters": {}}, {"prior": None}]
)
def test_what_is_no_certificate(content: object, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputRefusedError, match=r"a\.json: is no certificate of this software"):
        read_certificate(path, "sr")


@pytest.mark.parametrize(
    "entry",
    [
        3,
        [],
        "abc",
        {},
        {"Spacing": 3},
        {"Spacing": {"R": 10**400, "A": 1, "S": 1}},
        {"Spacing": {"R": 1, "A": 1, "S": 1}, "Thickness": [1, 2, 3], "SliceAxis": "S", "Profile": "box"},
        {"Spacing": {"R": 1, "A": 1, "S": 1}, "Thickness": {"R": 1, "A": 1, "S": 1}, "SliceAxis": [], "Profile": "box"},
        {"Spacing": {"R": 1, "A": 1, "S": 1}, "Thickness": {"R": 1, "A": 1, "S": 1}, "SliceAxis": "S", "Profile": {}},
    ],
)
def test_a_damaged_acquisition(entry: object) -> None:
    grid = Grid((4, 4, 4), np.eye(4))
    with pytest.raises(InputRefusedError, match="BrgmMedAcquisition is damaged"):
        AcquisitionModel.from_sidecar({"BrgmMedAcquisition": entry}, grid)
