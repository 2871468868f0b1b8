"""Scans as MONAI transforms. Names are imported on first use, so that a refusal need not wait for torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brgm_med.lazy import lazy

if TYPE_CHECKING:
    from brgm_med.transforms.coronal import CoronalSlices as CoronalSlices
    from brgm_med.transforms.coronal import CoronalSlicesd as CoronalSlicesd
    from brgm_med.transforms.frame import Frame as Frame
    from brgm_med.transforms.geometry import Grid as Grid
    from brgm_med.transforms.load import LoadScan as LoadScan
    from brgm_med.transforms.load import LoadScand as LoadScand
    from brgm_med.transforms.normalise import NormaliseIntensity as NormaliseIntensity
    from brgm_med.transforms.normalise import NormaliseIntensityd as NormaliseIntensityd
    from brgm_med.transforms.rigid import RegisterRigid as RegisterRigid
    from brgm_med.transforms.rigid import RegisterRigidd as RegisterRigidd
    from brgm_med.transforms.save import SaveScan as SaveScan
    from brgm_med.transforms.save import SaveScand as SaveScand
else:
    __all__, __getattr__, __dir__ = lazy(__name__)
