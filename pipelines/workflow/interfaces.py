"""The steps as Nipype interfaces: shells without logic, which hash what they are given by content, folders too.

    from brgm_med.pipelines import Reconstruct
    node = Node(Reconstruct(steps=15, threads=2), name="reconstruct")    # into a workflow of your own

A scan that is refused ends a node with InputRefusedError. With `keep_going` it does not: the node's outputs are then a
small file NAME_refused.json that says why, every later interface hands it on, and the other scans of a study go on.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

os.environ.setdefault("NIPYPE_NO_ET", "1")  # Nipype asks the network for newer versions otherwise

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    Directory,
    File,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from brgm_med._version import __version__
from brgm_med.errors import InputRefusedError
from brgm_med.pipelines.workflow.refusals import is_refusal, write_refusal
from brgm_med.priors.bundle import DEFAULT_PRIOR
from brgm_med.processes import die_with_parent

LOG = "brgm-med.log"
"""What a step prints goes into this file of its working folder."""


def content_of(path: str) -> str:
    """A hash of a folder's content: of a prior its identity, else names and contents of all files in it."""
    from brgm_med.files import digest

    identity = Path(path) / "configs" / "metadata.json"
    if identity.is_file():
        return digest(identity)
    hashed = hashlib.sha256()
    for file in sorted(p for p in Path(path).rglob("*") if p.is_file()):
        hashed.update(f"{file.relative_to(path).as_posix()} {digest(file)}\n".encode())
    return hashed.hexdigest()


class InputSpec(BaseInterfaceInputSpec):
    """What all steps are given."""

    keep_going = traits.Bool(False, usedefault=True, desc="a refused scan gives a refusal instead of an error")
    software = traits.Str(
        f"{__version__} {__name__}",
        usedefault=True,
        desc="a newer version does its work anew; so does one that calls these classes by another module's name, as "
        "the pickled results of an older one do",
    )

    def _get_sorteddict(
        self, objekt: Any, dictwithhash: bool = False, hash_method: str | None = None, hash_files: bool = True
    ) -> Any:
        """As Nipype's, and a folder (given by its whole path) counts by what it holds."""
        if hash_files and isinstance(objekt, str) and os.path.isabs(objekt) and os.path.isdir(objekt):
            found = content_of(objekt)
            return (objekt, found) if dictwithhash else found
        return super()._get_sorteddict(objekt, dictwithhash, hash_method, hash_files)


class Step(SimpleInterface):
    """An interface whose `work(cwd)` calls a plain function and returns its outputs by name.

    `given` names the input that may be a refusal instead of a file; empty: the step deals with those itself.
    """

    given = "scan"

    def work(self, cwd: Path) -> dict[str, Any]:
        raise NotImplementedError

    def arguments(self, *names: str) -> dict[str, Any]:
        """The inputs `names` that are set, and not empty, as keyword arguments."""
        found = {name: getattr(self.inputs, name) for name in names}
        return {name: value for name, value in found.items() if isdefined(value) and value not in ("", {})}

    def _run_interface(self, runtime: Any) -> Any:
        die_with_parent()
        cwd, given = Path(runtime.cwd), getattr(self.inputs, self.given) if self.given else None
        if isinstance(given, str) and is_refusal(given):
            self._refuse(Path(given))
            return runtime
        try:
            with open(cwd / LOG, "w") as log, redirect_stdout(log), redirect_stderr(log):
                self._results.update(self.work(cwd))
        except InputRefusedError as error:
            if not self.inputs.keep_going or not isinstance(given, str):
                raise
            self._refuse(write_refusal(cwd, Path(given), type(self).__name__.lower(), error))
        return runtime

    def _refuse(self, refusal: Path) -> None:
        self._results.update(dict.fromkeys(self.output_spec().copyable_trait_names(), str(refusal)))


class ConvertInputSpec(InputSpec):
    scan = traits.Either(
        File(exists=True), Directory(exists=True), mandatory=True, desc="NIfTI; file, folder or zip of DICOM"
    )
    series = traits.Str(desc="which DICOM series of several: its UID or number")
    metadata = traits.Dict(desc="content of the JSON file beside the scan: a BIDS sidecar, a stated acquisition")


class ConvertOutputSpec(TraitedSpec):
    scan = File(exists=True, desc="NIfTI")
    sidecar = File(exists=True, desc="JSON beside it: `metadata`, and the acquisition where one is stated")


class Convert(Step):
    """`steps.convert`: whatever a scanner left, as NIfTI with its acquisition beside it."""

    input_spec, output_spec = ConvertInputSpec, ConvertOutputSpec

    def work(self, cwd: Path) -> dict[str, Any]:
        from brgm_med.pipelines.steps.convert import convert

        scan, sidecar = convert(Path(self.inputs.scan), cwd, **self.arguments("series", "metadata"))
        return {"scan": str(scan), "sidecar": str(sidecar)}


class PreprocessInputSpec(InputSpec):
    scan = File(exists=True, mandatory=True, desc="NIfTI")
    prior = traits.Str(DEFAULT_PRIOR, usedefault=True, desc="name or folder of the prior whose template is used")
    threads = traits.Int(1, usedefault=True, desc="of torch")


class PreprocessOutputSpec(TraitedSpec):
    registered = File(exists=True, desc="the head in the prior's box, RAS+, air -1, mean of the brain 0")
    pose = File(exists=True, desc="JSON: how it lies in the template, and how well it fits")


class Preprocess(Step):
    """`steps.preprocess`: reorient, register and normalise a head."""

    input_spec, output_spec = PreprocessInputSpec, PreprocessOutputSpec

    def work(self, cwd: Path) -> dict[str, Any]:
        from brgm_med.pipelines.steps.preprocess import preprocess

        registered, pose = preprocess(Path(self.inputs.scan), cwd, **self.arguments("prior", "threads"))
        return {"registered": str(registered), "pose": str(pose)}


class SliceInputSpec(InputSpec):
    registered = File(exists=True, mandatory=True, desc="what Preprocess gives")


class SliceOutputSpec(TraitedSpec):
    slices = File(exists=True, desc="safetensors: `stack` [slices, 1, rows, columns], float16")


class Slice(Step):
    """`steps.preprocess.cut_slices`: the coronal slices of a registered head."""

    input_spec, output_spec, given = SliceInputSpec, SliceOutputSpec, "registered"

    def work(self, cwd: Path) -> dict[str, Any]:
        from brgm_med.pipelines.steps.preprocess import cut_slices

        return {"slices": str(cut_slices(Path(self.inputs.registered), cwd))}


class TrainInputSpec(InputSpec):
    slices = traits.List(File(exists=True), mandatory=True, desc="what Slice gives, of every head")
    kimg = traits.Float(mandatory=True, desc="train until so many thousand slices have been shown")
    template = traits.Str(DEFAULT_PRIOR, usedefault=True, desc="the prior that Preprocess registered to")
    held_out = traits.Int(desc="measure snapshots on so many last heads (default: a tenth)")
    architecture = traits.Dict(desc="fields of training.state.Architecture that differ from the default")
    seed = traits.Int(0, usedefault=True, desc="of weights, draws and augmentation")
    threads = traits.Int(1, usedefault=True, desc="of torch")
    lpips_weights = File(exists=True, desc="AlexNet weights (default: those at hand, if any)")


class TrainOutputSpec(TraitedSpec):
    prior = Directory(exists=True, desc="the bundle of the trained prior")


class Train(Step):
    """`training.slices.train_on_slices`; heads that were refused are left out. Goes on where it was interrupted."""

    input_spec, output_spec, given = TrainInputSpec, TrainOutputSpec, "slices"
    _can_resume = True

    def work(self, cwd: Path) -> dict[str, Any]:
        from brgm_med.pipelines.training.slices import train_on_slices

        slices = [Path(s) for s in self.inputs.slices if not is_refusal(s)]
        names = ("kimg", "template", "held_out", "architecture", "seed", "threads")
        options = self.arguments(*names)
        if isdefined(self.inputs.lpips_weights):
            options["lpips_weights"] = Path(self.inputs.lpips_weights)
        return {"prior": str(train_on_slices(slices, cwd / "trained-prior", **options))}


class ReconstructInputSpec(InputSpec):
    scan = traits.Either(
        File(exists=True), Directory(exists=True), mandatory=True, desc="NIfTI or DICOM, a sidecar beside it is read"
    )
    sidecar = File(exists=True, desc="that sidecar: only so that a change of it is noticed")
    task = traits.Enum("sr", "inpaint", usedefault=True, desc="a finer scan, or a hole filled")
    mask = File(exists=True, desc="to inpaint: integers, what is not 0 is unknown")
    name = traits.Str(desc="of the result, folders before it are left out (default: the scan's, and the task)")
    prior = traits.Str(DEFAULT_PRIOR, usedefault=True, desc="name or folder of the prior")
    steps = traits.Int(desc="of the MAP search (default: the task's own)")
    seed = traits.Int(0, usedefault=True, desc="of all random numbers")
    threads = traits.Int(1, usedefault=True, desc="of torch; results repeat to the last bit for equal numbers of them")
    device = traits.Enum("cpu", "cuda", usedefault=True, desc="where torch computes")


class ReconstructOutputSpec(TraitedSpec):
    result = File(exists=True, desc="NIfTI; where there is a map of what was measured, NAME_measured is beside it")
    certificate = File(exists=True, desc="JSON: what was done, and how exactly the result gives back the scan")


class Reconstruct(Step):
    """`steps.super_resolve` or `steps.inpaint`: the scan that most probably caused the one that is given."""

    input_spec, output_spec = ReconstructInputSpec, ReconstructOutputSpec

    def work(self, cwd: Path) -> dict[str, Any]:
        from brgm_med.pipelines.steps.reconstruct import reconstruct

        options = self.arguments("task", "prior", "steps", "seed", "threads", "device")
        mask = Path(self.inputs.mask) if isdefined(self.inputs.mask) else None
        name = self.inputs.name.rsplit("/", 1)[-1] if isdefined(self.inputs.name) else None
        result, certificate = reconstruct(Path(self.inputs.scan), cwd, mask=mask, name=name, **options)
        return {"result": str(result), "certificate": str(certificate)}


class WriteDicomInputSpec(InputSpec):
    result = File(exists=True, mandatory=True, desc="what Reconstruct gives")
    certificate = File(exists=True, mandatory=True, desc="the result's")
    source = traits.Either(File(exists=True), Directory(exists=True), mandatory=True, desc="the scan as it came")
    series = traits.Str(desc="which DICOM series of several")
    task = traits.Enum("sr", "inpaint", usedefault=True, desc="what was done")
    uid_seed = traits.Str(desc="UIDs are made of this and the image (default: at random)")


class WriteDicomOutputSpec(TraitedSpec):
    dicom = traits.Str(desc="folder of the derived series; empty where the source is no MR in DICOM")


class WriteDicom(Step):
    """`steps.write_dicom`: the result as a derived series, where the scan came as DICOM."""

    input_spec, output_spec, given = WriteDicomInputSpec, WriteDicomOutputSpec, "result"

    def work(self, cwd: Path) -> dict[str, Any]:
        from brgm_med.pipelines.steps.write_dicom import write_dicom
        from brgm_med.transforms.formats import dicom, for_reading

        source = Path(self.inputs.source)
        options = self.arguments("task", "series", "uid_seed")
        if not isinstance(for_reading(source), dicom.Reader):
            return {"dicom": ""}
        result, certificate = Path(self.inputs.result), Path(self.inputs.certificate)
        made = write_dicom(result, source, cwd / "series", certificate=certificate, **options)
        return {"dicom": "" if made is None else str(made)}


class OutputFolderSpec(InputSpec):
    """What steps are given that write into the folder of derivatives. What that holds already is no input."""

    out_dir = traits.Str(mandatory=True, desc="the folder of derivatives; made if need be")

    def _get_sorteddict(self, *given: Any, **options: Any) -> Any:
        return BaseInterfaceInputSpec._get_sorteddict(self, *given, **options)


class WriteBackInputSpec(OutputFolderSpec):
    result = File(exists=True, mandatory=True, desc="what Reconstruct gives")
    certificate = File(exists=True, mandatory=True, desc="the result's")
    dicom = traits.Str(desc="what WriteDicom gives")
    report = File(exists=True, desc="what Report gives")
    destination = traits.Str(mandatory=True, desc="name of the derivative in there, without an ending")
    sidecar = traits.Dict(desc="what its JSON file says besides the certificate")


class WriteBackOutputSpec(TraitedSpec):
    files = traits.List(traits.Str(), desc="what is there now")


class WriteBack(Step):
    """`write_back.write_back`. Runs every time, so that what is missing among the derivatives is put back."""

    input_spec, output_spec, given = WriteBackInputSpec, WriteBackOutputSpec, ""
    _always_run = True

    def work(self, cwd: Path) -> dict[str, Any]:
        from brgm_med.pipelines.workflow.write_back import write_back

        given = self.inputs
        dicom = given.dicom if isdefined(given.dicom) else ""
        refused = is_refusal(dicom)
        files = write_back(
            Path(dicom if refused else given.result),
            Path(given.certificate),
            Path(given.out_dir),
            given.destination,
            sidecar=given.sidecar if isdefined(given.sidecar) else None,
            dicom=Path(dicom) if dicom and not refused else None,
            report=Path(given.report) if isdefined(given.report) else None,
        )
        return {"files": [str(f) for f in files]}


class NoteInputSpec(OutputFolderSpec):
    result = File(exists=True, mandatory=True, desc="what a step gives, perhaps a refusal")
    pose = File(exists=True, desc="what Preprocess gives")
    destination = traits.Str(mandatory=True, desc="name of the scan's derivative in there, without an ending")


class NoteOutputSpec(TraitedSpec):
    files = traits.List(traits.Str(), desc="the note, if there is one")


class Note(Step):
    """`write_back.note`: of a scan without a derivative of its own, how it was registered, or why it was refused."""

    input_spec, output_spec, given = NoteInputSpec, NoteOutputSpec, ""
    _always_run = True

    def work(self, cwd: Path) -> dict[str, Any]:
        from brgm_med.pipelines.workflow.write_back import note

        given = self.inputs
        pose = Path(given.pose) if isdefined(given.pose) else None
        found = note(Path(given.result), Path(given.out_dir), given.destination, pose)
        return {"files": [] if found is None else [str(found)]}


class WritePriorInputSpec(OutputFolderSpec):
    prior = Directory(exists=True, mandatory=True, desc="what Train gives")


class WritePriorOutputSpec(TraitedSpec):
    prior = traits.Str(desc="where it is now")


class WritePrior(Step):
    """`write_back.copy_folder` of a trained prior. Runs every time, as WriteBack."""

    input_spec, output_spec, given = WritePriorInputSpec, WritePriorOutputSpec, ""
    _always_run = True

    def work(self, cwd: Path) -> dict[str, Any]:
        from brgm_med.pipelines.workflow.write_back import copy_folder

        return {"prior": str(copy_folder(Path(self.inputs.prior), Path(self.inputs.out_dir) / "prior"))}


class ReportInputSpec(InputSpec):
    scan = File(exists=True, mandatory=True, desc="what Reconstruct was given")
    result = File(exists=True, mandatory=True, desc="what it gives")
    certificate = File(exists=True, mandatory=True, desc="the result's")
    mask = File(exists=True, desc="of what was inpainted")
    prior = traits.Str(DEFAULT_PRIOR, usedefault=True, desc="name or folder of the prior")
    title = traits.Str(desc="the subject's name (default: the result's)")


class ReportOutputSpec(TraitedSpec):
    report = File(exists=True, desc="one HTML file that needs nothing else")


class Report(Step):
    """`report.subject_report`: what a person reads of a result."""

    input_spec, output_spec, given = ReportInputSpec, ReportOutputSpec, "result"

    def work(self, cwd: Path) -> dict[str, Any]:
        from brgm_med.pipelines.report import subject_report
        from brgm_med.pipelines.results.nifti import measured_beside

        result = Path(self.inputs.result)
        measured = measured_beside(result)
        report = subject_report(
            cwd / "report.html",
            scan=Path(self.inputs.scan),
            result=result,
            certificate=Path(self.inputs.certificate),
            measured=measured if measured.is_file() else None,
            mask=Path(self.inputs.mask) if isdefined(self.inputs.mask) else None,
            **self.arguments("prior", "title"),
        )
        return {"report": str(report)}


class EvaluateInputSpec(InputSpec):
    result = File(exists=True, mandatory=True, desc="a volume")
    truth = File(exists=True, mandatory=True, desc="what it should be, on the same grid")


class EvaluateOutputSpec(TraitedSpec):
    scores = File(exists=True, desc="JSON: psnr (dB), ssim, rmse, mae, range")


class Evaluate(Step):
    """`steps.compare.evaluate`: how far a result is from the truth."""

    input_spec, output_spec, given = EvaluateInputSpec, EvaluateOutputSpec, "result"

    def work(self, cwd: Path) -> dict[str, Any]:
        from brgm_med.pipelines.steps.compare import evaluate

        out = cwd / "scores.json"
        evaluate(Path(self.inputs.result), Path(self.inputs.truth), out)
        return {"scores": str(out)}
