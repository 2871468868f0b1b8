"""Interfaces that compute: a scan as NIfTI, registered, sliced, reconstructed and compared; a prior trained.

from brgm_med.pipelines import Reconstruct
node = Node(Reconstruct(steps=15, threads=2), name="reconstruct")    # into a workflow of your own
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import Directory, File, InputMultiPath, OutputMultiPath, TraitedSpec, isdefined, traits

from brgm_med.errors import InputRefusedError, UsageError
from brgm_med.pipelines.reconstruct.compute import device_of
from brgm_med.pipelines.results.intervals import INTERVAL
from brgm_med.pipelines.results.nifti import measured_beside
from brgm_med.pipelines.results.publish import default_certificate
from brgm_med.pipelines.steps import super_resolve
from brgm_med.pipelines.steps.compare import evaluate
from brgm_med.pipelines.steps.convert import convert
from brgm_med.pipelines.steps.inpaint import inpaint
from brgm_med.pipelines.steps.preprocess import cut_slices, preprocess
from brgm_med.pipelines.training.slices import train_on_slices
from brgm_med.pipelines.workflow.refusals import is_refusal
from brgm_med.pipelines.workflow.step import InputSpec, ScanSpec, Step
from brgm_med.priors import AUTO, DEFAULT, population
from brgm_med.transforms.formats import stem


def scan_trait(desc: str, **metadata: Any) -> Any:
    """A file, or a folder of DICOM."""
    return traits.Either(File(exists=True), Directory(exists=True), desc=desc, **metadata)


def positive_trait(desc: str) -> Any:
    """More than 0."""
    return traits.Range(low=0.0, exclude_low=True, desc=desc)


def threads_trait(desc: str = "of torch") -> Any:
    return traits.Range(low=1, value=1, usedefault=True, desc=desc)


def missing_files_trait() -> Any:
    return traits.Bool(
        False, usedefault=True, desc="read DICOM although files beside its slices are empty, no DICOM, or not there"
    )


class Convert(Step):
    """`steps.convert`: whatever a scanner left, as NIfTI with its acquisition beside it."""

    class input_spec(InputSpec):
        scan = scan_trait("NIfTI; file, folder or zip of DICOM", mandatory=True)
        series = traits.Str(desc="which DICOM series of several: its UID or number")
        allow_missing_files = missing_files_trait()
        metadata = traits.Dict(desc="content of the JSON file beside the scan: a BIDS sidecar, a stated acquisition")
        further_scans = InputMultiPath(scan_trait("likewise"), desc="of the same head, names unlike the scan's")
        further_metadata = traits.List(traits.Dict(), desc="of the further scans, one for each")

    class output_spec(TraitedSpec):
        scan = File(exists=True, desc="NIfTI")
        further_scans = OutputMultiPath(File(exists=True), desc="NIfTI, each with a JSON file beside it")
        sidecar = File(exists=True, desc="JSON beside it: `metadata`, and the acquisition where one is stated")

    def work(self, cwd: Path) -> dict[str, Any]:
        scan, sidecar = convert(
            Path(self.inputs.scan), cwd, **self.arguments("series", "metadata", "allow_missing_files")
        )
        lists = self.arguments("further_scans", "further_metadata")
        paths = lists.get("further_scans", [])
        contents = lists.get("further_metadata") or [{}] * len(paths)
        files = self.arguments("allow_missing_files")
        pairs = zip(map(Path, paths), contents, strict=True)
        further = [convert(path, cwd, metadata=content, **files)[0] for path, content in pairs]
        return {"scan": scan, "sidecar": sidecar} | ({"further_scans": further} if further else {})


class Preprocess(Step):
    """`steps.preprocess`: reorient, register and normalise a head."""

    class input_spec(InputSpec):
        scan = File(exists=True, mandatory=True, desc="NIfTI")
        prior = traits.Str(DEFAULT, usedefault=True, desc="name or folder of the prior whose template is used")
        threads = threads_trait()

    class output_spec(TraitedSpec):
        registered = File(exists=True, desc="the head in the prior's box, RAS+, air -1, mean of the brain 0")
        pose = File(exists=True, desc="JSON: how it lies in the template, and how well it fits")

    def work(self, cwd: Path) -> dict[str, Any]:
        registered, pose = preprocess(folder=cwd, **self.arguments("scan", "prior", "threads"))
        return {"registered": registered, "pose": pose}


class Slice(Step):
    """`steps.preprocess.cut_slices`: the coronal slices of a registered head."""

    refusable = "registered"

    class input_spec(InputSpec):
        registered = File(exists=True, mandatory=True, desc="what Preprocess gives")

    class output_spec(TraitedSpec):
        slices = File(exists=True, desc="safetensors: `stack` [slices, 1, rows, columns], float16")

    def work(self, cwd: Path) -> dict[str, Any]:
        return {"slices": cut_slices(Path(self.inputs.registered), cwd)}


class Train(Step):
    """`training.slices.train_on_slices`; heads that were refused are left out. Goes on where it was interrupted."""

    refusable = "slices"
    _can_resume = True

    class input_spec(InputSpec):
        slices = traits.List(File(exists=True), mandatory=True, desc="what Slice gives, of every head")
        kimg = traits.Range(
            low=0.0, exclude_low=True, mandatory=True, desc="train until so many thousand slices have been shown"
        )
        template = traits.Str(DEFAULT, usedefault=True, desc="the prior that Preprocess registered to")
        held_out = traits.Range(low=0, desc="measure snapshots on so many last heads (default: a tenth)")
        architecture = traits.Dict(desc="fields of training.state.Architecture that differ from the default")
        seed = traits.Int(0, usedefault=True, desc="of weights, draws and augmentation")
        threads = threads_trait()
        lpips_weights = File(exists=True, desc="AlexNet weights (default: those at hand, if any)")

    class output_spec(TraitedSpec):
        prior = Directory(exists=True, desc="the bundle of the trained prior")

    def work(self, cwd: Path) -> dict[str, Any]:
        slices = [Path(s) for s in self.inputs.slices if not is_refusal(s)]
        run = self.arguments("kimg", "seed", "threads", "lpips_weights")
        data = self.arguments("template", "held_out", "architecture")
        return {"prior": train_on_slices(slices, cwd / "trained-prior", **run, **data)}


SR_ONLY = (
    *("thickness", "profile", "gap", "slice_axis", "even_odd", "noise", "same_world", "spacing", "max_memory", "dtype"),
    *("level", "samples", "roi", "preset", "project", "perceptual", "lpips_weights"),
)
"""Inputs of Reconstruct that `super_resolve` takes by these names, and `inpaint` does not."""


class Reconstruct(Step):
    """`steps.super_resolve` or `steps.inpaint`: the scan that most probably caused the one that is given."""

    class input_spec(ScanSpec):
        scan = scan_trait("the scan: NIfTI, or a folder or zip of DICOM; a JSON file beside it is read", mandatory=True)
        sidecar = File(exists=True, desc="the JSON file beside the scan: an edge to connect, so that Nipype keeps it")
        further_scans = InputMultiPath(scan_trait("likewise"), desc="further scans of the head, in one world (sr)")
        series = traits.List(
            traits.Str(), desc="UID or number of the DICOM series of each scan (default: the only one)"
        )
        allow_missing_files = missing_files_trait()
        affine = traits.Enum("auto", "sform", "qform", usedefault=True, desc="affine of NIfTI to believe; auto: both")
        thickness = traits.Either(
            positive_trait("mm"),
            traits.Enum("estimate"),
            desc="slice thickness of all scans, mm; estimate: as each looks (sr; default: JSON file or header)",
        )
        profile = traits.Enum("box", "gaussian", "trapezoid", desc="slice profile of all scans (sr; default: box)")
        gap = traits.Float(desc="gap between slices, mm, negative where they overlap (sr; default: by the thickness)")
        slice_axis = traits.Enum("R", "A", "S", desc="axis across the slices (sr; default: JSON file, or the coarsest)")
        even_odd = traits.Enum("correct", desc="bring every second slice to the level of the others (sr)")
        noise = traits.Range(
            low=0.0, desc="standard deviation of the noise, in the scan's units (sr; default: estimated)"
        )
        same_world = traits.Bool(desc="the scans share a world though their frames of reference differ (sr)")
        spacing = positive_trait(
            "voxel size of the result, mm (sr; default: the finest of the scans and a prior in use)"
        )
        dtype = traits.Enum("float32", "source", desc="voxel type of the result (sr; default: float32)")
        max_memory = positive_trait("GB, above which the scan is refused (sr; default: most of what is free)")
        level = traits.Range(low=1.0, high=99.0, desc="level of intervals, per cent: maps beside the result (sr)")
        samples = traits.Range(low=0, desc="number of samples of the truth as it may be, with intervals (sr)")
        roi = File(exists=True, desc="mask whose volume and mean intensity are stated with an interval (sr)")
        preset = traits.Enum("default", "paper", desc="paper: its own search in a population prior (sr)")
        project = traits.Bool(desc="False: a population prior's answer as it is, no measured value is kept (sr)")
        perceptual = traits.Enum(
            *("discriminator", "alex", "vgg", "none"), desc="perceptual term of a population prior's search (sr)"
        )
        lpips_weights = File(exists=True, desc="AlexNet or VGG16 weights of that term (sr; default: downloaded)")
        task = traits.Enum("sr", "inpaint", usedefault=True, desc="sr: a finer scan; inpaint: a hole filled")
        mask = File(exists=True, desc="mask of the hole: integers, what is not 0 is unknown (inpaint)")
        name = traits.Str(desc="name of the result, without folders (default: the scan's, and the task)")
        prior = traits.Str(
            AUTO,
            usedefault=True,
            desc="self: what the scan's own planes teach; name or folder: that population prior alone; auto: both (sr) "
            "or the shipped population prior (inpaint)",
        )
        steps = traits.Range(low=1, desc="steps of the MAP search, and learning in proportion (default: the task's)")
        seed = traits.Int(0, usedefault=True, desc="seed of all random numbers")
        threads = threads_trait("threads of torch; results repeat to the last bit for equal numbers of them")
        device = traits.Enum("cpu", "cuda", usedefault=True, desc="device on which torch computes")

    class output_spec(TraitedSpec):
        result = File(exists=True, desc="the result, NIfTI")
        measured = File(exists=True, desc="map of what was measured, NIfTI, NAME_measured beside the result")
        lower = File(exists=True, desc="lower bounds of the intervals, NIfTI (with level, samples or roi)")
        upper = File(exists=True, desc="upper bounds of the intervals, NIfTI (likewise)")
        std = File(exists=True, desc="standard deviation of the truth around the result, NIfTI (likewise)")
        samples = OutputMultiPath(File(exists=True), desc="samples of the truth as it may be, NIfTI (with samples)")
        certificate = File(
            exists=True, desc="certificate, JSON: what was done, and how exactly the result gives back the scan"
        )

    def work(self, cwd: Path) -> dict[str, Any]:
        scan, task, mask = Path(self.inputs.scan), self.inputs.task, self.arguments("mask").get("mask")
        name = self.arguments("name").get("name", "").rsplit("/", 1)[-1] or f"{stem(scan)}_{task}"
        out, options = cwd / f"{name}.nii.gz", self.arguments("steps", "seed", "threads", "device")
        options |= self.arguments("affine", "allow_missing_files")
        prior, further = self.inputs.prior, self.inputs.further_scans
        series = self.arguments("series").get("series", [])
        if task == "sr":
            scans = [scan, *(map(Path, further) if isdefined(further) else ())]
            device_of(self.inputs.device)
            try:
                super_resolve(scans, out, prior=prior, series=series or None, **options, **self.arguments(*SR_ONLY))
            except UsageError as error:  # of a study, an option that does not fit this scan
                if not self.inputs.keep_going:
                    raise
                raise InputRefusedError(str(error)) from error
        elif mask is None:
            raise UsageError(f"{scan}: to inpaint it, a mask is needed")
        elif stated := sorted(self.arguments("further_scans", *SR_ONLY)):
            raise UsageError(f"{scan}: to inpaint it, leave out {', '.join(stated)}")
        elif (known := population(prior)) is None:
            raise UsageError(f"{scan}: to inpaint it, a population prior is needed, not {prior}")
        else:
            inpaint(scan, mask, out, prior=known, series=series[0] if series else None, **options)
        maps = {name: out.with_name(f"{stem(out)}_{name}.nii.gz") for name in INTERVAL}
        outputs: dict[str, Any] = {"result": out, "measured": measured_beside(out)}
        outputs |= {name: path for name, path in maps.items() if path.is_file()}
        if isdefined(self.inputs.samples) and self.inputs.samples:
            numbers = range(1, self.inputs.samples + 1)
            outputs["samples"] = [out.with_name(f"{stem(out)}_sample-{number}.nii.gz") for number in numbers]
        return outputs | {"certificate": default_certificate(out)}


class Evaluate(Step):
    """`steps.compare.evaluate`: how far a result is from the truth."""

    refusable = "result"

    class input_spec(InputSpec):
        result = File(exists=True, mandatory=True, desc="a volume")
        truth = File(exists=True, mandatory=True, desc="what it should be, on the same grid")

    class output_spec(TraitedSpec):
        scores = File(exists=True, desc="JSON: psnr (dB), ssim, rmse, mae, range")

    def work(self, cwd: Path) -> dict[str, Any]:
        evaluate(Path(self.inputs.result), Path(self.inputs.truth), cwd / "scores.json")
        return {"scores": cwd / "scores.json"}
