"""Patterns of masks: odd ones are a usage error, names with wildcards in them are taken literally."""

from __future__ import annotations

from pathlib import Path

import pytest

from brgm_med.errors import UsageError
from brgm_med.pipelines.dataset.patterns import matching
from brgm_med.pipelines.dataset.plain import find_plain


def files(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


@pytest.mark.parametrize(
    "pattern",
    ["/abs", "", " ", ".", "**x", "a**/b", "../{sub}", "masks/../../x", "{sub.foo}", "{sub[0]}", "{0}", "{}", "{run}"],
)
def test_odd_patterns_are_a_usage_error(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(UsageError, match="--mask-pattern"):
        matching(tmp_path, pattern, {"sub": "01"}, "sub-01_T1w.nii.gz")


def test_a_width_costs_no_memory(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no 'sub:>99999999999'"):
        matching(tmp_path, "{sub:>99999999999}", {"sub": "01"}, "scan")


@pytest.mark.parametrize("name", ["h[1]", "h*", "h?", "h[!1]"])
def test_wildcards_in_a_scans_name_are_letters(tmp_path: Path, name: str) -> None:
    files(tmp_path, f"a[b]/{name}.nii.gz", f"a[b]/{name}_mask.nii.gz", "a[b]/h1_mask.nii.gz", "masks/h1.nii.gz")
    scans = {s.path.name: s for s in find_plain(tmp_path / "a[b]", task="inpaint")}
    assert scans[f"{name}.nii.gz"].mask == tmp_path / f"a[b]/{name}_mask.nii.gz"
    assert scans[f"{name}.nii.gz"].problem is None
    files(tmp_path, f"a[b]/masks/{name}.hole.nii")
    scans = {s.path.name: s for s in find_plain(tmp_path / "a[b]", task="inpaint", mask_pattern="*/{stem}.hole.nii")}
    assert scans[f"{name}.nii.gz"].mask == tmp_path / f"a[b]/masks/{name}.hole.nii"
