"""Other people's tools: MONAI's chain and bundle command, container recipes, bash."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import pytest

from tests.house import ROOT
from tests.small_heads import small_head

BIN = Path(sys.executable).parent


@pytest.mark.slow
def test_the_example_for_monai_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "interop.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    assert len([line for line in block.splitlines() if line.strip()]) <= 20
    small_head(tmp_path / "scan.nii.gz", thick=True)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(block.replace("steps=15", "steps=1"), "interop.md", "exec"), names)
    image = names["image"]
    assert (float(image.min()), float(image.max())) == (0, 1)  # type: ignore[attr-defined]
    assert image.pixdim.tolist() == pytest.approx([2, 2, 2])  # type: ignore[attr-defined]
    assert (tmp_path / "finer" / "scan_certificate.json").is_file()


@pytest.mark.slow
def test_the_example_for_nipype_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "workflows.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    scan = small_head(tmp_path / "scan.nii.gz", thick=True)
    from brgm_med.pipelines.steps import super_resolve

    super_resolve(scan, tmp_path / "truth.nii.gz", steps=1, threads=2)
    monkeypatch.chdir(tmp_path)
    exec(compile(block.replace("steps=15", "steps=1"), "workflows.md", "exec"), {})
    (scores,) = (tmp_path / "work").glob("**/scores.json")
    assert '"rmse": 0.0' in scores.read_text()


def test_recipes_of_containers_copy_what_is_there() -> None:
    docker = (ROOT / "containers" / "Dockerfile").read_text()
    copied = [line.split()[1:-1] for line in docker.splitlines() if line.startswith("COPY")]
    recipe = (ROOT / "containers" / "brgm-med.def").read_text()
    sections = re.split(r"^%(\w+)\n", recipe, flags=re.M)
    parts = dict(zip(sections[1::2], sections[2::2], strict=True))
    assert {"files", "post", "runscript"} <= parts.keys()
    listed = [line.split()[0] for line in parts["files"].splitlines() if line.strip()]
    assert sorted(listed) == sorted(name for line in copied for name in line)
    ignored = (ROOT / ".dockerignore").read_text()
    for name in listed:
        assert (ROOT / name).exists()
        assert f"!{name}\n" in ignored
    images = {re.search(r"^F(?:ROM|rom:) ?(.*)$", text, flags=re.M)[1] for text in (docker, recipe)}  # type: ignore[index]
    assert len(images) == 1


@pytest.mark.slow
def test_a_linter_has_nothing_against_the_dockerfile() -> None:
    done = subprocess.run([BIN / "hadolint", ROOT / "containers" / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def installed(shell: str, monkeypatch: pytest.MonkeyPatch, home: Path) -> int | str | None:
    from brgm_med.pipelines.cli import main

    for variable in ("XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(variable, str(home))
    with pytest.raises(SystemExit) as done:
        main(["--install-completion", shell])
    return done.value.code


def completed(script: Path, *words: str) -> list[str]:
    """What bash offers for the last of `words`."""
    quoted = " ".join(f"'{w}'" for w in words)
    code = f"source '{script}'; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _shtab_brgm_med"
    code += ' brgm-med "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"; echo ${COMPREPLY[*]}'
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes_commands_options_and_choices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    assert installed("bash", monkeypatch, tmp_path) == 0
    assert installed("bash", monkeypatch, tmp_path / "file") == 4
    script = tmp_path / "bash-completion" / "completions" / "brgm-med"
    assert completed(script, "brgm-med", "in") == ["inpaint"]
    assert completed(script, "brgm-med", "run", "--partic") == ["--participant-label"]
    assert completed(script, "brgm-med", "run", "--task", "") == ["sr", "inpaint", "train"]


@pytest.mark.parametrize(
    ("shell", "file"), [("zsh", "zsh/site-functions/_brgm-med"), ("fish", "fish/completions/brgm-med.fish")]
)
def test_other_shells_have_every_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: str, file: str
) -> None:
    assert installed(shell, monkeypatch, tmp_path) == 0
    script = (tmp_path / file).read_text()
    assert "brgm-med" in script
    assert all(word in script for word in ("inpaint", "participant-label", "slice-thickness"))
    if (program := shutil.which(shell)) is not None:
        subprocess.run([program, "-n", tmp_path / file], check=True, capture_output=True)


def test_a_shell_without_completion_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from brgm_med.pipelines.cli import main

    monkeypatch.setenv("SHELL", "/bin/ksh")
    with pytest.raises(SystemExit) as done:
        main(["--install-completion"])
    assert done.value.code == 2
    assert "ksh: there is completion for bash, zsh, fish" in capsys.readouterr().err


@pytest.mark.slow
def test_monai_runs_a_bundle_on_a_scan(tmp_path: Path) -> None:
    from brgm_med.files import digest
    from brgm_med.pipelines.training.heads import export
    from brgm_med.priors import bundle
    from tests.runs import save_run

    save_run(tmp_path / "run")
    for name in ("template.nii.gz", "mask.nii.gz"):
        shutil.copy(bundle.find(bundle.DEFAULT) / name, tmp_path / "run" / name)
    export(tmp_path / "run", tmp_path / "prior", name="x", description="x", licence="", card="")
    scan = small_head(tmp_path / "scan.nii.gz", thick=True)
    given = ["--config_file", tmp_path / "prior/configs/inference.json", "--bundle_root", tmp_path / "prior"]
    given += ["--scan", scan, "--result", tmp_path / "finer.nii.gz", "--steps", 1]
    command = [sys.executable, "-m", "monai.bundle", "run", "reconstruct", *map(str, given)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "finer_certificate.json").read_text())
    assert content["prior"]["sha256"] == digest(tmp_path / "prior/configs/metadata.json")
    assert content["parameters"]["steps"] == 1
    result = nib.load(tmp_path / "finer.nii.gz")
    assert isinstance(result, nib.Nifti1Image)
    assert result.header.get_zooms() == pytest.approx((2, 2, 2))
