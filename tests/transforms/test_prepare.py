"""Heads are prepared once: what is kept is what the transforms say, whole, and found again by its content."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import pytest
import torch

from brgm_med.errors import InputRefusedError, PriorError
from brgm_med.transforms import CoronalSlices, LoadScan, NormaliseIntensity, RegisterRigid
from brgm_med.transforms.cache import PreparedHeads, cached_stack
from brgm_med.transforms.prepare import heads_in, prepare_heads
from brgm_med.transforms.template import BOX_SHAPE, Template, centred_grid
from tests import phantom
from tests.heads import BOX
from tests.house import ROOT

POSES = (
    phantom.rigid(6.0, -4.0, 3.0, (5.0, -8.0, 10.0)),
    phantom.rigid(-5.0, 3.0, -2.0, (-6.0, 4.0, -5.0)),
    phantom.rigid(2.0, 6.0, 4.0, (0.0, 9.0, 3.0)),
)


def save_head(path: Path, number: int) -> Path:
    pose = POSES[number % len(POSES)]
    grid = centred_grid((52, 58, 50), 4.0, tuple(pose[:3, 3]))
    noise = np.random.default_rng(number).standard_normal(grid.shape)
    values = 20 + 600 * phantom.head(grid, pose, edge=3)[0].numpy() + 5 * noise
    image = nib.nifti1.Nifti1Image(values.round().clip(0).astype(np.int16), grid.affine)
    image.set_sform(grid.affine, code=1)
    image.set_qform(grid.affine, code=1)
    nib.nifti1.save(image, path)
    return path


def new_run(folder: Path) -> Path:
    folder.mkdir()
    phantom.template().save(folder)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two heads, and a run that holds them."""
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "data").mkdir()
    paths = [save_head(folder / "data" / f"head{i}.nii.gz", i) for i in range(2)]
    prepare_heads(paths, new_run(folder / "run"), BOX)
    return folder


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def prepare(folder: Path) -> tuple[PreparedHeads, list[str]]:
    lines: list[str] = []
    return prepare_heads(heads_in(folder / "data"), folder / "run", BOX, report=lines.append), lines


def kept(folder: Path) -> dict[str, tuple[int, bytes]]:
    """When the files of the cache were written, and what they hold."""
    return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in (folder / "run" / "cache").iterdir()}


def test_what_is_kept_is_what_the_transforms_say(whole: Path) -> None:
    heads, lines = prepare(whole)
    assert lines == ["2 of 2 heads were registered before"]
    template = Template.load(whole / "run", BOX)
    x, y, z = BOX_SHAPE
    for number, path in enumerate(heads_in(whole / "data")):
        head = heads[number]
        assert set(head) == {"stack", "pose", "correlation"}
        assert head["stack"].shape == (y, 1, z, x)
        assert head["stack"].dtype == torch.float16
        pose = head["pose"].numpy()
        # Registered: the corners of the box lie where the phantom's own pose puts them.
        corners = np.c_[BOX.corners() * 0.8, np.ones(8)]
        assert np.linalg.norm(corners @ (pose - POSES[number]).T, axis=1).max() < 5.0
        assert float(head["correlation"]) > 0.8
        scan = LoadScan()(path)
        stack = CoronalSlices()(RegisterRigid(template)(NormaliseIntensity(template)(scan, pose), pose)).as_tensor()
        torch.testing.assert_close(head["stack"].float(), stack, rtol=1e-3, atol=1e-3)
        assert abs(float(head["stack"][:, 0, 0, 0].float().median()) + 1) < 0.1


def test_training_reads_half_precision_stacks_from_memory(copy: Path) -> None:
    heads, _ = prepare(copy)
    stacks, expected = [cached_stack(file) for file in heads.files], heads[1]["stack"]
    for file in heads.files:
        assert file.parent == copy / "run" / "cache"
        file.unlink()
    assert len(stacks) == 2
    assert type(stacks[1]) is torch.Tensor
    assert stacks[1].dtype == torch.float16
    assert torch.equal(stacks[1], expected)
    assert stacks[1].data_ptr() == stacks[1].data_ptr()  # one and the same memory: nothing is read or copied
    with pytest.raises(PriorError, match=rf"{heads.files[0].name}: missing or damaged"):
        cached_stack(heads.files[0])


def test_only_what_is_missing_is_made_and_all_the_same_again(copy: Path) -> None:
    before = kept(copy)
    assert len(before) == 2
    heads, _ = prepare(copy)
    expected = heads[1]
    heads.files[1].unlink()
    _, lines = prepare(copy)
    assert lines == ["1 of 2 heads were registered before", "registered 1 of 1 heads"]
    after = kept(copy)
    assert after[heads.files[0].name] == before[heads.files[0].name]
    assert after.keys() == before.keys()
    assert after[heads.files[1].name][0] > before[heads.files[1].name][0]
    assert all(torch.equal(heads[1][name], expected[name]) for name in expected)


def test_files_are_found_by_content_and_not_by_name(copy: Path) -> None:
    first, second = heads_in(copy / "data")
    (copy / "data" / "sub").mkdir()
    first.rename(copy / "data" / "sub" / "z.nii.gz")
    before = kept(copy)
    heads, lines = prepare(copy)
    assert [Path(p).name for p in heads.data] == ["head1.nii.gz", "z.nii.gz"]
    assert lines == ["2 of 2 heads were registered before"]
    assert kept(copy) == before
    # Another content, or another template, is another file.
    template = Template.load(copy / "run", BOX)
    cache = copy / "run" / "cache"
    save_head(second, 2)
    changed = PreparedHeads([second], template, cache)
    assert changed.missing() == [0]
    shutil.copy(copy / "data" / "sub" / "z.nii.gz", second)
    assert PreparedHeads([second], template, cache).missing() == []
    other = Template(template.image * 1.01, template.mask, template.grid, template.box)
    assert PreparedHeads([second], other, cache).missing() == [0]


def test_a_damaged_file_is_named_and_removed(copy: Path) -> None:
    template, cache, lines = Template.load(copy / "run", BOX), copy / "run" / "cache", []
    heads = PreparedHeads(heads_in(copy / "data"), template, cache, lines.append)
    file = heads.files[0]
    content = file.read_bytes()
    turned = bytearray(content)
    turned[len(content) // 2] ^= 1  # which torch.load alone does not notice
    other = {"stack": torch.zeros(3)}
    torch.save({"head": other, "sha256": "0" * 64}, copy / "other.pt")
    torch.save(other, copy / "older.pt")
    foreign = [(copy / name).read_bytes() for name in ("other.pt", "older.pt")]
    for damage in (bytes(turned), content[: len(content) // 2], b"", b"not an archive", *foreign):
        file.write_bytes(damage)
        lines.clear()
        assert heads.missing() == [0]
        assert lines == [f"{file}: damaged; head0.nii.gz is prepared again"]
        assert not file.exists()
    file.write_bytes(content)
    assert heads.missing() == []
    (cache / ".brgm-dead.part").write_bytes(b"left by a killed run")
    prepare(copy)
    assert {p.name for p in cache.iterdir()} == {f.name for f in heads.files}


def test_a_file_that_cannot_be_read_is_named(copy: Path) -> None:
    (copy / "data" / "other.nii.gz").write_bytes(b"no scan")
    with pytest.raises(InputRefusedError, match=r"other\.nii\.gz: .*; take it out of the folder") as caught:
        prepare(copy)
    assert str(caught.value).count("other.nii.gz") == 1
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_head_that_does_not_register_is_named(copy: Path) -> None:
    grid = centred_grid((40, 40, 40), 4.0, (0, 0, 0))
    noise = np.random.default_rng(0).standard_normal(grid.shape).astype(np.float32)
    image = nib.nifti1.Nifti1Image(noise, grid.affine)
    image.set_sform(grid.affine, code=1)
    nib.nifti1.save(image, copy / "data" / "noise.nii.gz")
    for workers in (1, 2):
        save_head(copy / "data" / "more.nii.gz", 2)
        with pytest.raises(InputRefusedError, match=r"data/noise\.nii\.gz: .*; take it out of the folder"):
            prepare_heads(heads_in(copy / "data"), copy / "run", BOX, workers=workers, report=lambda line: None)


def test_heads_are_sorted_by_name_and_the_run_is_not_among_them(tmp_path: Path) -> None:
    for name in ("t1/b.nii.gz", "t1/a.nii", "u/a.nii", "run/template.nii.gz", "participants.tsv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    found = heads_in(tmp_path, without=tmp_path / "run")
    assert [p.relative_to(tmp_path).as_posix() for p in found] == ["t1/a.nii", "u/a.nii", "t1/b.nii.gz"]
    with pytest.raises(InputRefusedError, match="holds no scan"):
        heads_in(tmp_path / "run", without=tmp_path / "run")
    with pytest.raises(InputRefusedError, match="is not a folder"):
        heads_in(tmp_path / "participants.tsv")


@pytest.mark.parametrize("name", [".git/annex/objects/MD5E-a.nii.gz", "t1/._a.nii.gz", ".trash/t1/a.nii.gz"])
def test_hidden_copies_are_no_heads(tmp_path: Path, name: str) -> None:
    for file in ("t1/a.nii.gz", name):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("head")
    assert heads_in(tmp_path) == [tmp_path / "t1/a.nii.gz"]


def test_a_head_whose_content_is_not_here_is_not_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_text("head")
    (tmp_path / "b.nii.gz").symlink_to(".git/annex/objects/aa/MD5E-b.nii.gz")
    with pytest.raises(InputRefusedError, match=r"b\.nii\.gz: is a pointer of git-annex.*git annex get"):
        heads_in(tmp_path)


CHILD = """
import sys
from pathlib import Path
from brgm_med.transforms.prepare import heads_in, prepare_heads
from tests.heads import BOX

if __name__ == "__main__":
    report = lambda line: print(line, flush=True)
    prepare_heads(heads_in(Path(sys.argv[1])), Path(sys.argv[2]), BOX, workers=2, report=report)
"""


def alive(session: int) -> list[int]:
    """The processes of a session, but for dead ones that nobody has asked after."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (ProcessLookupError, psutil.NoSuchProcess):
            pass
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_processes_end_with_the_first_and_make_the_same(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / "data", tmp_path / "data")
    for i in range(2, 8):
        save_head(tmp_path / "data" / f"head{i}.nii.gz", i)
    (tmp_path / "child.py").write_text(CHILD)
    run = new_run(tmp_path / "run")
    command = [sys.executable, str(tmp_path / "child.py"), str(tmp_path / "data"), str(run)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    before = 0
    for number in (signal.SIGKILL, signal.SIGINT):
        child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert child.stdout is not None
        lines = iter(child.stdout.readline, "")
        assert any(line.startswith("registered 1 of") for line in lines)
        os.kill(child.pid, number)
        assert child.wait(timeout=60) != 0
        deadline = time.monotonic() + 60
        while alive(child.pid):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        child.stdout.close()
        done = len(list((run / "cache").glob("*.pt")))
        assert before < done < 8
        before = done
    last = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300)
    assert f"{before} of 8 heads were registered before" in last.stdout
    assert f"registered {8 - before} of {8 - before} heads" in last.stdout
    known = list((whole / "run" / "cache").iterdir())
    assert len(known) == 2
    for path in known:
        here, there = (torch.load(p, weights_only=True) for p in (path, run / "cache" / path.name))
        assert here["sha256"] == there["sha256"]
        assert torch.equal(here["head"]["stack"], there["head"]["stack"])
