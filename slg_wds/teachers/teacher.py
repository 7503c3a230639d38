"""uint8 crops -> logits, on one device, in one precision."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from slg_wds.console import counted
from slg_wds.errors import SlgWdsError, TeacherError, TeacherOutputError, UsageError
from slg_wds.teachers.built import BuiltModel
from slg_wds.teachers.faults import device_faults
from slg_wds.teachers.forwards.backends import current_device, gpu_settings
from slg_wds.teachers.forwards.casting import cast_weights
from slg_wds.teachers.forwards.functions import compiled, lay_out_weights, low_precision, plain_forward
from slg_wds.teachers.forwards.graph import GraphedForward, graphed
from slg_wds.teachers.forwards.scenes import scenes
from slg_wds.teachers.preprocessing import Preprocessing
from slg_wds.teachers.weights import one_line

if TYPE_CHECKING:
    import torch

    from slg_wds.teachers.forwards.functions import Run

PRECISIONS = ("fp32", "tf32", "bf16", "fp16")


class Teacher:
    """One model on its device, ready to label crops. Any thread may call it, but only one at a time.

    Attributes:
        name: `source:architecture`.
        source: `timm`, `pytorch` or `private`.
        arch, weights_digest, hidden_digest, code_digest: which model it is: see `BuiltModel`.
        class_folders: what its weights file says of class folders: see `BuiltModel`.
        weights_from, preprocessing_from: where weights and preprocessing come from, in words.
        preprocessing: input size, normalisation and resize.
        module: the model itself.
        num_classes: C, the width of its output.
        device: where it runs and where its crops must be.
        precision: one of PRECISIONS.
        compiled: whether it runs through torch.compile.
        weights_cast: whether its weights are kept in the low precision, which changes no bit of the logits.
        no_graph: why there is no CUDA graph of its forward; "" if there is one, None if none was asked for.
    """

    def __init__(
        self,
        model: BuiltModel,
        source: str,
        preprocessing: Preprocessing,
        preprocessing_from: str,
        *,
        device: torch.device,
        precision: str,
        compile: bool,
    ) -> None:
        """Move the model to the device and run it on two black images.

        Its module is changed in place: float32, evaluation mode, frozen, in the fastest memory layout that it can use.

        Args:
            model: its module takes float32 [N,3,S,S] and returns logits [N,C], or an object that has them as `logits`.
            source: `timm`, `pytorch` or `private`.
            preprocessing: its input size is S.
            preprocessing_from: where the preprocessing comes from, in words.
            device: where the model is to run.
            precision: one of PRECISIONS.
            compile: whether the first call of `logits` compiles the model (torch.compile).

        Raises:
            TeacherError: the model does not run; TeacherOutputError: its output is not finite logits [N,C].
            DeviceError: the device failed.
        """
        self.name = f"{source}:{model.arch}"
        self.source, self.arch = source, model.arch
        self.weights_digest, self.weights_from = model.digest, model.weights_from
        self.hidden_digest, self.code_digest = model.hidden_digest, model.code_digest
        self.class_folders = model.class_folders
        self.preprocessing, self.preprocessing_from = preprocessing, preprocessing_from
        self.device, self.precision, self.compiled = device, precision, compile
        self.module = module = model.module
        # All weights in float32: autocast lowers the precision per operation.
        with device_faults(device, f"{self.name} could not be set up"):
            module.float().to(device)
            module.eval()  # not chained: an overridden eval() may return None
            module.requires_grad_(False)
            forward = plain_forward(module, preprocessing, device, precision)
            self.num_classes, self._layout = self._probe(forward)
            # The compiler fuses the casts with other work, so that casting beforehand gains nothing there.
            self.weights_cast = not compile and self._cast_weights(forward)
        self._run = compiled(forward) if compile else forward
        self._graph: GraphedForward | None = None
        self.no_graph: str | None = None

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Run one forward, without waiting for the device.

        Args:
            images: uint8 [N,3,S,S] on the teacher's device. A compiled teacher is compiled again for each new N.

        Returns:
            float32 [N,C]. Values may be NaN or infinite: looking at them here would wait for the device.

        Raises:
            DeviceError: the device failed.
            TeacherError: the forward failed; TeacherOutputError: the output has another shape.
        """
        import torch

        side = self.preprocessing.input_size
        if images.dtype != torch.uint8 or images.shape[1:] != (3, side, side):
            raise TeacherError(
                f"{self.name} takes uint8 [N,3,{side},{side}], not {images.dtype} {list(images.shape)}"
            )
        try:
            with self._forward(images):
                run = self._graph if self._graph is not None and self._graph.fits(images) else self._run
                out: torch.Tensor = run(images.contiguous(memory_format=self._layout))
        except SlgWdsError:
            raise
        except Exception as error:
            raise self._failure(images, error) from error
        if out.shape != (len(images), self.num_classes):
            raise TeacherOutputError(
                f"{self.name} returns {list(out.shape)} for {len(images)} images, not "
                f"[{len(images)}, {self.num_classes}]"
            )
        return out

    def use_graph(self, rows: int) -> None:
        """Run forwards of `rows` crops as a CUDA graph from now on, if that gives the same bits; see `no_graph`.

        Raises:
            DeviceError: the device failed.
        """
        import torch

        side = self.preprocessing.input_size
        pattern = torch.arange(rows) % min(rows, 8)
        batches = [scenes(8, side, seed)[pattern].to(self.device) for seed in (4, 5)]
        batches = [batch.contiguous(memory_format=self._layout) for batch in batches]
        with current_device(str(self.device)), self._forward(batches[0]):
            self._graph, self.no_graph = graphed(self._run, batches)
            torch.cuda.synchronize(self.device)  # raises the error of a device that the recording has broken

    def describe(self) -> dict[str, Any]:
        """Return what decides the labels, as JSON values: this teacher's part of a label set's identity."""
        hidden = {} if self.hidden_digest is None else {"hidden_sha256": self.hidden_digest}
        return {
            "source": self.source,
            "arch": self.arch,
            "weights_sha256": self.weights_digest,
            **hidden,
            **self.preprocessing.identity(),
        }

    def provenance(self) -> dict[str, Any]:
        """Return what is recorded but decides no label, as JSON values."""
        return {
            "crop_pct": self.preprocessing.crop_pct,
            "weights_from": self.weights_from,
            "preprocessing_from": self.preprocessing_from,
        }

    def __str__(self) -> str:
        outputs = counted(self.num_classes, "output")
        return (
            f"{self.name}, {outputs}, weights {self.weights_digest[:12]} from {self.weights_from}; "
            f"{self.preprocessing} (from {self.preprocessing_from})"
        )

    @contextlib.contextmanager
    def _forward(self, images: torch.Tensor) -> Iterator[None]:
        import torch

        settings = gpu_settings(self.device, self.precision)
        with torch.inference_mode(), settings, device_faults(self.device, self._failed(images)):
            yield

    def _cast_weights(self, forward: Run) -> bool:
        low = low_precision(self.precision)
        if low is None:
            return False
        images = scenes(2, self.preprocessing.input_size, 4).to(self.device)
        images = images.contiguous(memory_format=self._layout)
        with self._forward(images):
            return cast_weights(self.module, low, lambda: forward(images))

    def _probe(self, forward: Run) -> tuple[int, torch.memory_format]:
        """Run two black images. Return C and the memory layout that the model can work in."""
        import torch

        side = self.preprocessing.input_size
        images = torch.zeros(2, 3, side, side, dtype=torch.uint8, device=self.device)
        first: TeacherError | None = None
        # channels_last is 1.5 to 2 times as fast, but a model that calls view() on its activations cannot use it.
        for layout in (torch.channels_last, torch.contiguous_format):
            lay_out_weights(self.module, layout)
            try:
                with self._forward(images):
                    out = forward(images.contiguous(memory_format=layout))
            except SlgWdsError:
                raise
            except Exception as error:
                first = first or self._failure(images, error)
                continue
            return self._check_output(out), layout
        assert first is not None
        raise first

    def _check_output(self, out: Any) -> int:
        import torch

        if not isinstance(out, torch.Tensor):
            held = f" of {', '.join(map(str, out))}" if isinstance(out, Mapping) else ""
            raise TeacherOutputError(
                f"{self.name} returns {type(out).__name__}{held}, not a tensor [N, classes]",
                hint="return the logits alone, or an object that has them as `.logits` or ['logits']",
            )
        if out.ndim != 2 or out.shape[0] != 2 or out.shape[1] < 1:
            raise TeacherOutputError(f"{self.name} returns {list(out.shape)} for 2 images, not [2, classes]")
        if not bool(out.isfinite().all()):
            raise TeacherOutputError(
                f"{self.name} returns values that are not finite for black images at {self.precision}",
                # Without an option: the commands that ask the teachers of a set again have none for it.
                hint="at fp32 they may be finite" if self.precision != "fp32" else None,
            )
        return int(out.shape[1])

    def _failure(self, images: torch.Tensor, error: Exception) -> TeacherError:
        compiler = any(name in type(error).__module__ for name in ("dynamo", "inductor"))
        hint = "leave out --compile" if compiler else None
        return TeacherError(f"{self._failed(images)}: {one_line(error)}", hint=hint)

    def _failed(self, images: torch.Tensor) -> str:
        return f"{self.name} failed on uint8 {list(images.shape)} at {self.precision}"


def check_precision(precision: str, device: torch.device) -> None:
    """Raise UsageError for a precision that is unknown, or that the device lacks or is slower at than fp32."""
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}", hint=f"known are {', '.join(PRECISIONS)}")
    if precision == "fp16" and device.type == "cpu":
        raise UsageError("fp16 on a CPU is many times slower than fp32", hint="use --precision bf16 or fp32")
    if precision == "tf32" and device.type != "cuda":
        raise UsageError(
            f"--precision tf32 is for GPUs, not {device.type}", hint="use --precision fp32 or bf16"
        )
