"""Files in, files out: steps as functions on paths, Nipype interfaces of them, and workflows of these.

The steps are in `steps`, one file each, but for `training.slices.train_on_slices`, `report.subject_report`,
`report.study_report` and `workflow.write_back.write_back`. The names below are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from brgm_med.lazy import lazy

if TYPE_CHECKING:
    from brgm_med.pipelines.workflow.interfaces import Convert as Convert
    from brgm_med.pipelines.workflow.interfaces import Evaluate as Evaluate
    from brgm_med.pipelines.workflow.interfaces import Preprocess as Preprocess
    from brgm_med.pipelines.workflow.interfaces import Reconstruct as Reconstruct
    from brgm_med.pipelines.workflow.interfaces import Report as Report
    from brgm_med.pipelines.workflow.interfaces import Slice as Slice
    from brgm_med.pipelines.workflow.interfaces import Train as Train
    from brgm_med.pipelines.workflow.interfaces import WriteBack as WriteBack
    from brgm_med.pipelines.workflow.interfaces import WriteDicom as WriteDicom
    from brgm_med.pipelines.workflow.workflows import init_brgm_wf as init_brgm_wf
    from brgm_med.pipelines.workflow.workflows import init_preprocess_wf as init_preprocess_wf
    from brgm_med.pipelines.workflow.workflows import init_reconstruct_wf as init_reconstruct_wf
    from brgm_med.pipelines.workflow.workflows import init_train_wf as init_train_wf
    from brgm_med.pipelines.workflow.workflows import init_write_back_wf as init_write_back_wf
else:
    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "workflow.interfaces": "Convert, Evaluate, Preprocess, Reconstruct, "
            "Report, Slice, Train, WriteBack, WriteDicom",
            "workflow.workflows": "init_brgm_wf, init_preprocess_wf, "
            "init_reconstruct_wf, init_train_wf, init_write_back_wf",
        },
    )
