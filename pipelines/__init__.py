"""Arrays in, arrays out: reconstructions, also as MONAI transforms. Files in, files out: steps as functions on paths,
Nipype interfaces of them, and workflows of these.

The steps are in `steps`, one file each, but for `training.slices.train_on_slices`, `report.subject_report`,
`report.study_report` and `workflow.write_back.write_back`. The names below are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from brgm_med.lazy import lazy

if TYPE_CHECKING:
    from brgm_med.pipelines.reconstruct.hole import inpaint_volume as inpaint_volume
    from brgm_med.pipelines.reconstruct.measurement import Reconstruction as Reconstruction
    from brgm_med.pipelines.reconstruct.measurement import Scan as Scan
    from brgm_med.pipelines.reconstruct.picture import inpaint_picture as inpaint_picture
    from brgm_med.pipelines.reconstruct.picture import reconstruct_picture as reconstruct_picture
    from brgm_med.pipelines.reconstruct.samples import sample_volume as sample_volume
    from brgm_med.pipelines.reconstruct.transform import SuperResolve as SuperResolve
    from brgm_med.pipelines.reconstruct.transform import SuperResolved as SuperResolved
    from brgm_med.pipelines.reconstruct.volume import reconstruct_volume as reconstruct_volume
    from brgm_med.pipelines.workflow.compute import Convert as Convert
    from brgm_med.pipelines.workflow.compute import Evaluate as Evaluate
    from brgm_med.pipelines.workflow.compute import Preprocess as Preprocess
    from brgm_med.pipelines.workflow.compute import Reconstruct as Reconstruct
    from brgm_med.pipelines.workflow.compute import Slice as Slice
    from brgm_med.pipelines.workflow.compute import Train as Train
    from brgm_med.pipelines.workflow.publish import Report as Report
    from brgm_med.pipelines.workflow.publish import WriteBack as WriteBack
    from brgm_med.pipelines.workflow.publish import WriteDicom as WriteDicom
    from brgm_med.pipelines.workflow.workflows import init_brgm_wf as init_brgm_wf
    from brgm_med.pipelines.workflow.workflows import init_preprocess_wf as init_preprocess_wf
    from brgm_med.pipelines.workflow.workflows import init_reconstruct_wf as init_reconstruct_wf
    from brgm_med.pipelines.workflow.workflows import init_train_wf as init_train_wf
    from brgm_med.pipelines.workflow.workflows import init_write_back_wf as init_write_back_wf
else:
    __all__, __getattr__, __dir__ = lazy(__name__)
