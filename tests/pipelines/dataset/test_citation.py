"""The paragraph of methods says of every scan by what it was made, and nothing that is not so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from brgm_med.pipelines.dataset.citation import cite
from brgm_med.pipelines.dataset.settings import Settings
from brgm_med.pipelines.report import Outcome

POPULATION = {"name": "heads", "sha256": "b" * 64}


def outcome(prior: dict[str, Any], residual: float = 1e-8, **entries: Any) -> Outcome:
    certificate = {
        "prior": prior,
        "acquisition": {"Stated": True},
        "parameters": {"steps": 25},
        "consistency": {"relative_residual": residual},
    }
    return Outcome("a scan", "done", "", certificate | entries)


def own(gain: float, population: float | None = None, **entries: Any) -> Outcome:
    prior = {"name": "self", "sha256": "a" * 64, "weight": gain}
    if population is not None:
        entries["population_prior"] = POPULATION | {"weight": population}
    return outcome(prior, **entries)


def paragraph(folder: Path, settings: Settings, *outcomes: Outcome) -> str:
    cite(folder, settings, outcomes)
    return (folder / "logs" / "CITATION.md").read_text()


def test_each_prior_is_told_with_its_weight_and_its_scans(tmp_path: Path) -> None:
    outcomes = (own(1.1, 0.3), own(1.1, 0.0), own(1.0, residual=2e-3), outcome(POPULATION | {"weight": 1.0}))
    text = paragraph(tmp_path, Settings(), *outcomes, Outcome("b", "refused", "truncated"))
    assert "4 scans were super-resolved" in text
    assert "In 3 of them cubic interpolation" in text
    assert "corrected by 1 or 1.1 times the detail" in text
    assert "a" * 64 in text
    assert "In 1 of them 0.3 times the correction by the maximum a posteriori image under the prior" in text
    assert f'In 1 of them the maximum a posteriori image under the prior "heads" (SHA-256 {"b" * 64}) was' in text
    assert "largest relative residual 2.0e-03" in text
    assert "1 further scan was not reconstructed" in text
    assert "T1" not in text


def test_what_had_no_part_is_not_told(tmp_path: Path) -> None:
    text = paragraph(tmp_path, Settings(prior="self"), own(1.1, acquisition={"Stated": False}))
    assert "1 scan was super-resolved" in text
    assert "maximum a posteriori" not in text
    assert "L-BFGS" not in text
    assert "assumed from the voxel spacing in 1 of them" in text
    text = paragraph(tmp_path, Settings(), Outcome("b", "refused", "truncated"))
    assert "0 scans were super-resolved" in text
    assert "SHA-256" not in text
    text = paragraph(tmp_path, Settings("inpaint"), outcome(POPULATION, consistency=None))
    assert f'under the prior "heads" (SHA-256 {"b" * 64}), given the voxels around them, was searched by L-BFGS' in text


def test_a_training_names_the_prior_whose_space_it_uses(tmp_path: Path) -> None:
    text = paragraph(tmp_path, Settings("train"), Outcome("a", "done"), Outcome("b", "done"))
    assert '2 T1-weighted scans were registered rigidly to the template of the prior "brain-t1-coronal"' in text
