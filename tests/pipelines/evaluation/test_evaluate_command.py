"""`brgm-med evaluate`: heads in; a table, what it says and pictures out; it goes on where it stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from brgm_med.pipelines.cli import main
from brgm_med.pipelines.evaluation import table
from brgm_med.pipelines.evaluation.methods import BLEND
from brgm_med.pipelines.evaluation.supervised import record_of
from tests.small_heads import small_head

METHODS = (BLEND, "map+blend+orthogonal", "map+blend", "cubic", "cubic+consistency", "pca", "supervised")
COST = {"seconds", "MB"}

pytestmark = pytest.mark.usefixtures("offline")


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heads")
    for seed in range(3):
        small_head(folder / f"head{seed}.nii.gz", seed)
    return folder


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluated")


def run(heads: Path, out: Path, *extra: object) -> int:
    fixed = ("evaluate", "--data", heads, "--out", out, "--levels", 8, "--subjects", "2:3", "--every", 30)
    return main([str(a) for a in (*fixed, "--images", 16, *extra)])


def numbers(rows: list[table.Row]) -> list[table.Row]:
    return [{k: v for k, v in row.items() if k not in COST} for row in rows]


def test_heads_are_measured_once_and_alike(heads: Path, out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(heads, out, "--methods", *METHODS) == 2
    assert "supervised-sr-8.safetensors; say with --train" in capfd.readouterr().err

    assert run(heads, out, "--methods", *METHODS, "--train", "0:2") == 0
    rows = table.read(out / "sr.csv")
    assert {(row["subject"], row["level"]) for row in rows} == {("head2.nii.gz", "8")}
    assert [row["image"] for row in rows] == ["0"] * 7 + ["30"] * 7 + ["60"] * 7
    assert [row["method"] for row in rows[:7]] == list(METHODS)
    exact = [row for row in rows if row["method"] in (BLEND, "map+blend+orthogonal", "cubic+consistency")]
    assert max(float(row["residual"]) for row in exact) < 1e-6
    assert all(float(row["PSNR"]) > 10 and 0 < float(row["SSIM"]) <= 1 and row["LPIPS"] == "" for row in rows)
    report = (out / "sr.md").read_text()
    assert "raised the squared error of ours: 0 of 3" in report
    assert "not for diagnosis" in report
    assert (out / "images" / "sr-8.png").stat().st_size > 1000
    assert len(list((out / "images" / "sr-8" / BLEND).glob("head2_*.png"))) == 3
    record = record_of(out / "baselines" / "supervised-sr-8.safetensors")
    assert record["images"] == 32
    assert record["slices"] == 2 * 61

    assert run(heads, out, "--methods", "pca", "--subjects", "1:3") == 2
    assert "learnt from 1 of these subjects (head1.nii.gz" in capfd.readouterr().err

    before = (out / "sr.csv").read_bytes()
    assert run(heads, out, "--methods", *METHODS) == 0
    assert (out / "sr.csv").read_bytes() == before
    table.write(out / "sr.csv", [row for row in rows if row["method"] not in (BLEND, "cubic")])
    assert run(heads, out, "--methods", *METHODS) == 0
    assert numbers(table.read(out / "sr.csv")) == numbers(rows)


def test_tables_of_another_kind_are_not_mixed(heads: Path, out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(heads, out, "--methods", "cubic", "--every", 20) == 2
    assert "another prior, version, --every or --seed" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("extra", "code", "said"),
    [
        (("--methods", "moon"), 2, "--methods moon"),
        (("--levels", "1.5"), 2, "whole number"),
        (("--methods", "projection-a"), 2, "needs weights for LPIPS"),
        (("--subjects", "7:9", "--methods", "cubic"), 2, "holds 3 images"),
        (("--methods", "telea"), 2, "fills holes"),
        (("--trained", "moon"), 2, "--trained moon"),
        (("--prior", "moon"), 5, "no such prior"),
        (("--lpips-weights", "/nowhere.pth"), 5, "/nowhere.pth"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    heads: Path, tmp_path: Path, extra: tuple[str, ...], code: int, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(heads, tmp_path / "out", *extra) == code
    error = [line for line in capfd.readouterr().err.splitlines() if line.startswith("brgm-med:")]
    assert len(error) == 1
    assert said in error[0]
