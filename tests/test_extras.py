"""Optional packages: what is declared, and the one line where one is missing."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from brgm_med import extras
from brgm_med.extras import EXTRAS, MissingPackageError, missing, require
from brgm_med.pipelines.cli import main
from tests.house import ROOT
from tests.mr_series import mr_series

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def named(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=\[]", line)[0] for line in requirements}


def test_the_extras_are_those_of_the_project() -> None:
    declared = PROJECT["optional-dependencies"]
    assert set(declared) - {"all", "docs", "dev"} == set(EXTRAS)
    for name, extra in EXTRAS.items():
        assert set(extra.packages.values()) == named(declared[name])
        assert not set(extra.packages.values()) & named(PROJECT["dependencies"])
    (everything,) = declared["all"]
    assert set(re.findall(r"\w+", everything.partition("[")[2])) == set(EXTRAS)


def test_modules_are_those_of_the_packages() -> None:
    owners = importlib.metadata.packages_distributions()
    for extra in EXTRAS.values():
        for module, package in extra.packages.items():
            installed = {re.sub(r"[-_.]+", "-", name).lower() for name in owners[module]}
            assert package in installed


def test_the_page_on_installation_names_every_package() -> None:
    text = (ROOT / "docs" / "install.md").read_text()
    for name, extra in EXTRAS.items():
        (row,) = re.findall(rf"^\| `\[{name}\]` .*$", text, flags=re.M)
        assert all(package in row for package in extra.packages.values())


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A function that hides an installed module from `extras`."""

    def hide(module: str) -> None:
        real = extras.installed
        monkeypatch.setattr(extras, "installed", lambda name: name != module and real(name))

    return hide


def test_what_is_installed_is_not_missing() -> None:
    for name in EXTRAS:
        assert missing(name) == []
        require(name)


def test_what_is_missing_is_named_with_its_extra(without: Callable[[str], None]) -> None:
    without("gdcm")
    require("dicom", "highdicom")
    with pytest.raises(
        MissingPackageError, match=r"python-gdcm is not installed, .*; pip install 'brgm-med\[dicom\]'$"
    ):
        require("dicom")
    assert missing("dicom") == ["python-gdcm"]


def picture(folder: Path, name: str) -> str:
    path = folder / name
    values = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    Image.fromarray(values).save(path)
    return str(path)


def series(folder: Path) -> str:
    return str(mr_series(folder / "series"))


def heads(folder: Path) -> str:
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.float32), np.eye(4)), folder / "head.nii.gz")
    return str(folder)


@pytest.mark.parametrize(
    ("module", "extra", "source", "command"),
    [
        ("highdicom", "dicom", series, ["sr", "--in", "{scan}"]),
        ("highdicom", "dicom", series, ["degrade", "--in", "{scan}", "--slice-thickness", "9", "--out", "{out}"]),
        ("dicomanonymizer", "dicom", series, ["sr", "--in", "{scan}", "--out", "{out}", "--deidentify"]),
        ("imagecodecs", "pictures", lambda f: picture(f, "a.png"), ["sr", "--in", "{scan}"]),
        ("tifffile", "pictures", lambda f: picture(f, "a.tif"), ["sr", "--in", "{scan}"]),
        ("imagecodecs", "pictures", lambda f: picture(f, "a.jpg"), ["sr", "--in", "{scan}"]),
        ("pynetdicom", "pacs", series, ["send", "{scan}", "--to", "A@localhost:1"]),
        ("dicomweb_client", "pacs", series, ["send", "{scan}", "--to", "https://localhost:1/studies"]),
        ("tensorboard", "train", heads, ["train", "--data", "{scan}", "--out", "{out}"]),
    ],
)
def test_a_command_names_the_extra_that_it_needs(
    module: str,
    extra: str,
    source: Callable[[Path], str],
    command: list[str],
    tmp_path: Path,
    without: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    scan, out = source(tmp_path), tmp_path / "out"
    before = sorted(tmp_path.iterdir())
    without(module)
    assert main([word.format(scan=scan, out=out) for word in command]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"{EXTRAS[extra].packages[module]} is not installed" in last
    assert last.endswith(f"pip install 'brgm-med[{extra}]'")
    assert sorted(tmp_path.iterdir()) == before


def test_doctor_says_what_each_missing_package_would_bring(
    without: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    without("pynetdicom")
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (pacs,) = [line for line in lines if "[pacs]" in line]
    assert "without pynetdicom: pip install 'brgm-med[pacs]'; for send, to an archive" in pacs
    (dicom,) = [line for line in lines if line.startswith("  [dicom]")]
    assert "complete" in dicom
