"""The house: what is importable, from where, and at what cost. Facts about a fresh interpreter run in one."""

from __future__ import annotations

import ast
import importlib
import json
import os
import pydoc
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import brgm_med
from brgm_med._version import __version__
from tests.house import ROOT

HEAVY = ["torch", "torchvision", "lpips", "monai", "nipype", "nibabel", "pydicom", "SimpleITK", "matplotlib"]
HEAVY += ["pynetdicom", "dicomweb_client", "dicomanonymizer"]
COMMAND = Path(sys.executable).with_name("brgm-med")


def run(*args: str | Path, cwd: Path, ok: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([str(a) for a in args], cwd=cwd, capture_output=True, text=True, timeout=280)
    assert not ok or done.returncode == 0, done.stderr
    return done


def loaded_after(statement: str, cwd: Path) -> set[str]:
    """Top-level modules that a fresh interpreter, started in `cwd`, holds after `statement`."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    modules = json.loads(run(sys.executable, "-c", code, cwd=cwd).stdout.splitlines()[-1])
    return {name.split(".")[0] for name in modules}


def test_importing_the_package_loads_nothing_heavy(tmp_path: Path) -> None:
    assert not loaded_after("import brgm_med", tmp_path) & set(HEAVY)


def test_the_mathematics_does_not_load_the_packages_above_it(tmp_path: Path) -> None:
    """But for the one name that is passed on from there."""
    names = "[getattr(brgm_med, n) for n in brgm_med.__all__ if n != 'super_resolve']"
    loaded = loaded_after(f"import brgm_med\n{names}", tmp_path)
    assert not loaded & {"monai", "nipype", "nibabel", "pydicom", "SimpleITK"}


def test_transforms_do_not_load_pipelines(tmp_path: Path) -> None:
    loaded = loaded_after("import brgm_med.transforms", tmp_path)
    assert "nipype" not in loaded


def test_a_reconstruction_loads_no_monai(tmp_path: Path) -> None:
    """That takes as long as torch; the MONAI transforms alone need it."""
    rooms = "brgm_med.pipelines.steps.super_resolution, brgm_med.pipelines.reconstruct.volume"
    loaded = loaded_after(f"import {rooms}, brgm_med.pipelines.results.consistency", tmp_path)
    assert "torch" in loaded
    assert "monai" not in loaded


def test_every_public_name_is_there() -> None:
    assert len(set(brgm_med.__all__)) == len(brgm_med.__all__)
    for name in brgm_med.__all__:
        assert getattr(brgm_med, name) is not None
    assert set(brgm_med.__all__) <= set(dir(brgm_med))


@pytest.mark.parametrize("package", ["brgm_med", "brgm_med.transforms", "brgm_med.pipelines"])
def test_type_checkers_and_the_interpreter_see_the_same_public_names(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__file__ is not None
    guarded = next(node for node in ast.parse(Path(module.__file__).read_text()).body if isinstance(node, ast.If))
    exported = [alias.asname for node in guarded.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assigned = [target.id for node in guarded.body if isinstance(node, ast.Assign) for target in node.targets]  # type: ignore[attr-defined]
    names = {name for name in (*exported, *assigned) if name is not None}
    assert names == set(module.__all__) - {"__version__"}
    assert all(callable(getattr(module, name)) for name in names)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = brgm_med.no_such_name


@pytest.mark.parametrize("folder", ["transforms", "pipelines"])
def test_the_folders_at_the_top_are_linked_into_the_package(folder: str) -> None:
    link = ROOT / "brgm_med" / folder
    assert os.readlink(link) == f"../{folder}"
    assert importlib.import_module(f"brgm_med.{folder}").__file__ == str(link / "__init__.py")


def test_what_bundles_call_is_where_they_say() -> None:
    """A prior's identity is the hash of its files, these names among them: code moves, the names stay."""
    config = ROOT / "brgm_med" / "priors" / "brain-t1-coronal" / "configs" / "inference.json"
    targets = re.findall(r'"_target_": "([^"]+)"', config.read_text())
    assert "brgm_med.pipelines.steps.super_resolve" in targets
    for target in targets:
        assert callable(pydoc.locate(target)), target


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    """What makes `--help` quick; the time itself depends on the machine."""
    code = """
import sys
from brgm_med.pipelines.cli import main
sys.argv = ["brgm-med", "--help"]
try:
    main()
except SystemExit as end:
    assert not end.code
"""
    loaded = loaded_after(code, tmp_path)
    assert not loaded & {*HEAVY, "numpy", "scipy"}


@pytest.mark.parametrize("command", ["sr", "degrade", "inpaint", "series", "send", "train", "prior", "doctor"])
def test_the_installed_command_lists_its_commands(command: str, tmp_path: Path) -> None:
    assert command in run(COMMAND, "--help", cwd=tmp_path).stdout
    assert command in run(COMMAND, command, "--help", cwd=tmp_path).stdout


def test_the_changelog_has_this_version() -> None:
    assert re.search(rf"^## {re.escape(__version__)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_the_citation_has_this_version_and_the_paper() -> None:
    text = (ROOT / "CITATION.cff").read_text()
    entries = dict(re.findall(r"^([a-z-]+): *(.*)$", text, re.MULTILINE))
    required = {"cff-version", "message", "title", "authors", "type", "license", "version", "preferred-citation"}
    assert required <= entries.keys()
    assert (entries["cff-version"], entries["version"], entries["license"]) == ("1.2.0", __version__, "Apache-2.0")
    assert "https://arxiv.org/abs/2012.04567" in text


@pytest.mark.slow
def test_the_wheel_holds_the_code_and_the_prior_and_installs_alone(tmp_path: Path) -> None:
    """Built from a copy, so that nothing of an earlier build gets in; and once more from its source archive."""
    copy = tmp_path / "source"
    unwanted = shutil.ignore_patterns(".*", "build", "dist", "demo", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, copy, ignore=unwanted, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    run(*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", tmp_path, copy, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())

    archives, again = tmp_path / "archives", tmp_path / "again"
    build = f"from setuptools.build_meta import build_sdist; build_sdist({str(archives)!r})"
    run(sys.executable, "-c", build, cwd=copy)
    (archive,) = archives.glob("*.tar.gz")
    run(*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", again, archive, cwd=tmp_path)
    assert set(zipfile.ZipFile(next(again.glob("*.whl"))).namelist()) == names

    assert {name.split("/")[0] for name in names} == {"brgm_med", f"brgm_med-{__version__}.dist-info"}
    for folder in ("brgm_med", "transforms", "pipelines"):
        inside = Path("brgm_med") / ("" if folder == "brgm_med" else folder)
        for source in (ROOT / folder).rglob("*.py"):
            assert str(inside / source.relative_to(ROOT / folder)) in names
    assert {f"brgm_med/ops/{file.name}" for file in (ROOT / "brgm_med" / "ops").glob("*.cu*")} <= names
    prior = ROOT / "brgm_med" / "priors" / "brain-t1-coronal"
    files = [p for p in prior.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert files, f"{prior} is missing"
    assert {str(p.relative_to(ROOT)) for p in files} <= names
    assert {"LICENSE", "NOTICE"} <= {Path(name).name for name in names}
    assert wheel.stat().st_size < 12e6

    target = tmp_path / "installed"
    run(*pip, "install", "--quiet", "--no-deps", "--target", target, wheel, cwd=tmp_path)
    code = f"import sys; sys.path.insert(0, {str(target)!r}); import brgm_med.transforms as t; print(t.__file__)"
    assert run(sys.executable, "-c", code, cwd=tmp_path).stdout.strip().startswith(str(target))
