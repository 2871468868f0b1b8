"""Interfaces that publish: reports, DICOM, and what goes into the folder of derivatives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import BaseInterfaceInputSpec, Directory, File, TraitedSpec, traits

from brgm_med.pipelines.report import subject_report
from brgm_med.pipelines.steps.write_dicom import write_dicom
from brgm_med.pipelines.workflow.compute import missing_files_trait, scan_trait
from brgm_med.pipelines.workflow.refusals import is_refusal
from brgm_med.pipelines.workflow.step import InputSpec, Step
from brgm_med.pipelines.workflow.write_back import copy_folder, note, write_back
from brgm_med.transforms.formats import dicom, for_reading


class ResultSpec(InputSpec):
    """A result and its certificate."""

    result = File(exists=True, mandatory=True, desc="what Reconstruct gives")
    certificate = File(exists=True, mandatory=True, desc="the result's")


class FolderSpec(InputSpec):
    """The folder of derivatives, to write into. Its content is no input."""

    out_dir = traits.Str(mandatory=True, desc="the folder of derivatives; made if need be")

    def _get_sorteddict(self, *arguments: Any, **options: Any) -> Any:
        return BaseInterfaceInputSpec._get_sorteddict(self, *arguments, **options)


class WriteDicom(Step):
    """`steps.write_dicom`: the result as a derived series, where the scan came as DICOM."""

    refusable = "result"

    class input_spec(ResultSpec):
        source = scan_trait("the scan as it came", mandatory=True)
        series = traits.Str(desc="which DICOM series of several")
        allow_missing_files = missing_files_trait()
        task = traits.Enum("sr", "inpaint", usedefault=True, desc="what was done")
        uid_seed = traits.Str(desc="UIDs are made of this and the image (default: at random)")

    class output_spec(TraitedSpec):
        dicom = traits.Str(desc="folder of the derived series; empty where the source is no MR in DICOM")

    def work(self, cwd: Path) -> dict[str, Any]:
        source = Path(self.inputs.source)
        if not isinstance(for_reading(source), dicom.Reader):
            return {"dicom": ""}
        options = self.arguments("result", "certificate", "task", "series", "uid_seed", "allow_missing_files")
        return {"dicom": write_dicom(source=source, out=cwd / "series", **options) or ""}


class Report(Step):
    """`report.subject_report`: what a person reads of a result."""

    refusable = "result"

    class input_spec(ResultSpec):
        scan = File(exists=True, mandatory=True, desc="what Reconstruct was given")
        mask = File(exists=True, desc="of what was inpainted")
        measured = File(exists=True, desc="the map beside the result (default: looked for there)")
        prior = traits.Str(desc="folder of the population prior, if it is none that is shipped")
        title = traits.Str(desc="the subject's name (default: the result's)")

    class output_spec(TraitedSpec):
        report = File(exists=True, desc="one HTML file that needs nothing else")

    def work(self, cwd: Path) -> dict[str, Any]:
        options = self.arguments("scan", "result", "certificate", "mask", "measured", "prior", "title")
        return {"report": subject_report(cwd / "report.html", **options)}


class WriteBack(Step):
    """`write_back.write_back`. Runs every time, so that what is missing among the derivatives is put back."""

    refusable = ""
    _always_run = True

    class input_spec(ResultSpec, FolderSpec):
        dicom = traits.Str(desc="what WriteDicom gives")
        report = File(exists=True, desc="what Report gives")
        destination = traits.Str(mandatory=True, desc="name of the derivative in there, without an ending")
        sidecar = traits.Dict(desc="what its JSON file says besides the certificate")

    class output_spec(TraitedSpec):
        files = traits.List(traits.Str(), desc="what is there now")

    def work(self, cwd: Path) -> dict[str, Any]:
        options = self.arguments("result", "certificate", "destination", "sidecar", "report")
        series = self.arguments("dicom").get("dicom")
        if series is not None:
            options["result" if is_refusal(series) else "dicom"] = Path(series)
        return {"files": write_back(out=Path(self.inputs.out_dir), **options)}


class Note(Step):
    """`write_back.note`: of a scan without a derivative of its own, how it was registered, or why it was refused."""

    refusable = ""
    _always_run = True

    class input_spec(FolderSpec):
        result = File(exists=True, mandatory=True, desc="what a step gives, perhaps a refusal")
        pose = File(exists=True, desc="what Preprocess gives")
        destination = traits.Str(mandatory=True, desc="name of the scan's derivative in there, without an ending")

    class output_spec(TraitedSpec):
        files = traits.List(traits.Str(), desc="the note, if there is one")

    def work(self, cwd: Path) -> dict[str, Any]:
        log = note(out=Path(self.inputs.out_dir), **self.arguments("result", "destination", "pose"))
        return {"files": [] if log is None else [log]}


class WritePrior(Step):
    """`write_back.copy_folder` of a trained prior. Runs every time, as WriteBack."""

    refusable = ""
    _always_run = True

    class input_spec(FolderSpec):
        prior = Directory(exists=True, mandatory=True, desc="what Train gives")

    class output_spec(TraitedSpec):
        prior = traits.Str(desc="where it is now")

    def work(self, cwd: Path) -> dict[str, Any]:
        return {"prior": copy_folder(Path(self.inputs.prior), Path(self.inputs.out_dir) / "prior")}
