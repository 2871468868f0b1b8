"""The two affines of a NIfTI header, sform and qform: decoded, checked, and written so that they agree.

Needs numpy only, so that a refusal comes at once. The equations are "method 2" (quaternion) and "method 3"
(rows) of the NIfTI-1 standard, nifti1.h, https://nifti.nimh.nih.gov/nifti-1.
"""

from __future__ import annotations

import numpy as np

from brgm_med.transforms.formats import affine as affines
from brgm_med.transforms.formats.affine import Affine, AffineProblem
from brgm_med.transforms.formats.nifti_record import Record

HALF_TURN = 1e-7
"""A quaternion whose real part, squared, is below this means half a turn exactly, as in NIfTI's own nifti1_io."""


def sform(record: Record, unit: float) -> Affine:
    """The sform, index -> world RAS mm. `unit` is the length of the header's unit in mm."""
    rows = np.asarray(record["srow"], np.float64) * unit
    return affines.make_affine(rows[:, :3], rows[:, 3])


def qform(record: Record, unit: float) -> Affine:
    """The qform, index -> world RAS mm. Raises AffineProblem for impossible voxel sizes or quaternions."""
    size = np.asarray(record["pixdim"], np.float64)[1:4]
    if not (np.isfinite(size).all() and (size > 0).all()):
        raise AffineProblem("has voxel sizes (pixdim) that are not positive numbers")
    b, c, d = (float(v) for v in record["quatern"])
    rest = 1.0 - (b * b + c * c + d * d)
    if not rest > -1e-5:  # float32 rounding of a unit quaternion stays far inside; NaN does not
        raise AffineProblem("has a quaternion longer than 1 or not finite")
    a = 0.0 if rest < HALF_TURN else np.sqrt(rest)
    b, c, d = np.array([b, c, d]) / np.sqrt(a * a + b * b + c * c + d * d)
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
        ]
    )
    handedness = -1.0 if record["pixdim"][0] < 0 else 1.0
    offset = np.asarray(record["qoffset"], np.float64)
    return affines.make_affine(rotation * size * [1.0, 1.0, handedness] * unit, offset * unit)


def choose(record: Record, unit: float, shape: tuple[int, ...], choice: str) -> tuple[Affine, str, bool]:
    """The affine to use, the form it came from, and whether that is all the header says.

    "auto" takes the sform where there is one, else the qform, and wants both, where both are there, to be
    sound and to agree to 0.1 mm at every corner. The last value is False only where the form that was not
    chosen says something else. Raises AffineProblem (a whole sentence but for its subject, the header).
    """
    decoders = {"sform": sform, "qform": qform}
    present = [name for name in decoders if record[f"{name}_code"] > 0]
    if not present:
        raise AffineProblem("has neither sform nor qform (both codes are 0), so its place in space is unknown")
    if choice != "auto" and choice not in present:
        raise AffineProblem(f"has no {choice}, only a {present[0]}")
    sound: dict[str, Affine] = {}
    for name in present:
        try:
            affine = decoders[name](record, unit)
            affines.check(affine, shape)
            sound[name] = affine
        except AffineProblem as problem:
            if choice in ("auto", name):
                article = "an" if name == "sform" else "a"
                raise AffineProblem(f"has {article} {name} that {problem}") from None
    distance = 0.0
    if len(sound) == 2:
        distance = affines.corner_distance(sound["sform"], sound["qform"], shape)
        if choice == "auto" and distance > affines.TOLERANCE_MM:
            raise AffineProblem(f"has an sform and a qform that disagree by {distance:.3g} mm at a corner")
    name = present[0] if choice == "auto" else choice
    return sound[name], name, len(sound) == len(present) and distance <= affines.TOLERANCE_MM


def encode_qform(record: Record, affine: Affine) -> None:
    """Write the qform (pixdim, quaternion, offset; mm) nearest to `affine` into `record`."""
    from scipy.spatial.transform import Rotation

    size = np.linalg.norm(affine[:3, :3], axis=0)
    rotation = affines.without_shear(affine)[:3, :3] / size
    handedness = 1.0 if np.linalg.det(rotation) > 0 else -1.0
    x, y, z, w = Rotation.from_matrix(rotation * [1.0, 1.0, handedness]).as_quat()
    record["pixdim"][:4] = [handedness, *size]
    record["quatern"] = np.array([x, y, z]) * (1.0 if w >= 0 else -1.0)
    record["qoffset"] = affine[:3, 3]


def encode(record: Record, affine: Affine, shape: tuple[int, ...]) -> None:
    """Write `affine` (mm) into the forms whose codes are positive in `record`, both from the same numbers.

    A quaternion in single precision can be up to about 0.1 mm off at a corner where the rotation is near
    half a turn. So an sform is added where a qform alone would be off by more than 1e-3 mm, and the qform is
    marked absent where it would disagree with the sform.
    """
    encode_qform(record, affine)
    record["srow"] = affine[:3]
    off = affines.corner_distance(qform(record, 1.0), affine, shape)
    if record["sform_code"] <= 0 and off > 1e-3:
        record["sform_code"] = record["qform_code"]
    if record["sform_code"] <= 0:
        record["srow"] = 0
    elif record["qform_code"] > 0 and off > affines.TOLERANCE_MM:
        record["qform_code"] = 0
