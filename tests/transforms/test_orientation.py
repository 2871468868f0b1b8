"""The reasons that a head's pose is refused for."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from brgm_med.errors import InputRefusedError
from brgm_med.transforms.orientation import SIZES, Hypothesis, check_orientation, turns


def hypothesis(information: float, size: float = 1.0, turn: int = 0, covered: float = 1.0) -> Hypothesis:
    return Hypothesis(turns()[turn], size, False, sitk.Euler3DTransform(), covered, information)


@pytest.mark.parametrize(("stated", "turned"), [(0.4, 0.5), (0.4, 0.4), (0.1, 0.05)])
def test_a_head_that_is_too_small_is_refused_by_its_size(stated: float, turned: float) -> None:
    with pytest.raises(InputRefusedError, match=r"at the smallest, 0\.8 of an adult's: a small child's head"):
        check_orientation(hypothesis(stated, SIZES[0]), hypothesis(turned, turn=5))
    with pytest.raises(InputRefusedError, match="orientation") as refusal:
        check_orientation(hypothesis(stated), hypothesis(turned, turn=5))
    assert "child" not in str(refusal.value)


def test_what_fits_is_not_refused_whatever_its_size() -> None:
    for size in SIZES:
        check_orientation(hypothesis(0.5, size), hypothesis(0.4, turn=5))
    with pytest.raises(InputRefusedError, match="only 40% of the brain"):
        check_orientation(hypothesis(0.1, SIZES[0], covered=0.4), hypothesis(0.05, turn=5))
    assert np.allclose(turns()[0], np.eye(3))
