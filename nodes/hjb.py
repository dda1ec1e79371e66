"""HJB face optimisation: Load Face Recognizer, HJB Sampler, HJB Model, HJB Report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import comfy.patcher_extension
import comfy.samplers
import torch
from comfy_api.latest import io

from ..stableanimator_core.errors import InputError, NoFaceError
from ..stableanimator_core.face.embed import FaceIdentity
from ..stableanimator_core.preprocess import check_pictures, from_uint8, to_uint8
from . import folders, small
from .anyone_model import expect_own_model
from .base import CATEGORY, AnimatorNode, advanced
from .hjb_run import HJBRun, HJBSamplerFunction, sampler_wrapper
from .inputs import recogniser_input
from .managed import ManagedNetwork
from .sockets import FaceBoxesSocket, FaceRecogniserSocket, FaceSocket, HJBSocket, expect, one_of

if TYPE_CHECKING:
    from ..stableanimator_core.hjb.options import HJBOptions

_MODES = ["exact", "late", "fast"]
_WRAPPER = "stableanimator_hjb"


class LoadFaceRecognizer(AnimatorNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StableAnimator_LoadFaceRecognizer",
            display_name="Load Face Recognizer",
            category=f"{CATEGORY}/loaders",
            description="Loads ArcFace as a network that gradients can flow through, for HJB.",
            inputs=[
                recogniser_input(
                    "glintr100_torch.pth",
                    folders.TORCH_ENDINGS + folders.ONNX_ENDINGS,
                    "glintr100_torch.pth, or glintr100.onnx of antelopev2: the weights are read out of it. The small "
                    "demo model has its own.",
                ),
            ],
            outputs=[
                FaceRecogniserSocket.Output(
                    display_name="recognizer", tooltip="For HJB Sampler or HJB Model."
                )
            ],
        )

    @classmethod
    def execute(cls, recognizer: str) -> io.NodeOutput:
        from ..stableanimator_core.weights.load import load_face_recognizer

        path = folders.resolve(recognizer, folders.FACE_FOLDERS, "recognizer")
        network = load_face_recognizer(path, dtype=torch.float32)
        return io.NodeOutput(ManagedNetwork(network, small.family_of_recogniser(recognizer, network)))


def _inputs() -> list[Any]:
    """What HJB needs, the same for both ways of using it."""
    return [
        io.Vae.Input(
            "vae", tooltip="The model's own VAE, of its loader: each update decodes the clip with it."
        ),
        FaceRecogniserSocket.Input("recognizer", tooltip="From Load Face Recognizer."),
        io.Image.Input("image", tooltip="The reference photo, the same as in Face Embed."),
        FaceSocket.Input("face", tooltip="From Face Embed: where the face is in the photo."),
        FaceBoxesSocket.Input(
            "face_boxes", tooltip="From Face Masks: where the face is in each frame of the video."
        ),
        io.Combo.Input(
            "mode",
            options=_MODES,
            default="exact",
            tooltip="exact: the published algorithm, about six times the sampling time on top. late: only the last "
            "steps, where it changes anything you see. fast: late, and only around the face.",
        ),
        io.Int.Input(
            "iterations",
            default=3,
            min=0,
            max=50,
            tooltip="Updates in each step. More pulls harder towards the photo and takes longer; 0 switches HJB off.",
        ),
        io.Float.Input(
            "learning_rate",
            default=0.1,
            min=0.001,
            max=1.0,
            step=0.005,
            round=False,
            tooltip="Size of an update. Too high gives sharp, glassy faces; too low does nothing.",
        ),
        advanced(
            io.Float.Input(
                "start_percent",
                default=0.0,
                min=0.0,
                max=1.0,
                step=0.01,
                tooltip="First active step, as a share.",
            )
        ),
        advanced(
            io.Float.Input(
                "end_percent",
                default=0.8,
                min=0.0,
                max=1.0,
                step=0.01,
                tooltip="Last active step, as a share. 0.8 of 25 is step 20, as published; the last steps only polish.",
            )
        ),
        advanced(
            io.Int.Input(
                "chunk",
                default=4,
                min=1,
                max=64,
                tooltip="Frames decoded together. More costs memory; 4 is published.",
            )
        ),
        advanced(
            io.Float.Input(
                "budget_gib",
                default=0.0,
                min=0.0,
                max=512.0,
                step=0.5,
                tooltip="Memory HJB may use, in GiB; it then takes the fastest exact way that fits. 0: what is free.",
            )
        ),
    ]


class HJBSampler(AnimatorNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StableAnimator_HJBSampler",
            display_name="HJB Sampler",
            category=f"{CATEGORY}/sampling",
            description="A sampler that pulls every face towards the photo at each step (HJB). Works with "
            "samplers of one model call a step: euler (the paper's), dpmpp_2m, ddim, res_multistep, lcm; samplers of "
            "several calls work, and cost as many times more.",
            inputs=[
                *_inputs(),
                io.Sampler.Input(
                    "sampler", optional=True, tooltip="The sampler that takes the steps; euler if left open."
                ),
            ],
            outputs=[
                io.Sampler.Output(
                    "refining", display_name="sampler", tooltip="For SamplerCustom or SamplerCustomAdvanced."
                ),
                HJBSocket.Output(display_name="hjb", tooltip="For HJB Report."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, vae, recognizer, image, face, face_boxes, sampler=None, **settings: Any
    ) -> io.NodeOutput:
        run = _run(cls, vae, recognizer, image, face, face_boxes, settings)
        sampler = comfy.samplers.sampler_object("euler") if sampler is None else sampler
        return io.NodeOutput(HJBSamplerFunction(sampler, run), run)


class HJBModel(AnimatorNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StableAnimator_HJBModel",
            display_name="HJB Model",
            category=f"{CATEGORY}/sampling",
            description="The same face optimisation as a patch on the model, so that the plain KSampler has it.",
            inputs=[
                io.Model.Input("model", tooltip="The animation model, after all other patches."),
                *_inputs(),
            ],
            outputs=[
                io.Model.Output("patched", display_name="model", tooltip="For KSampler."),
                HJBSocket.Output(display_name="hjb", tooltip="For HJB Report."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model, vae, recognizer, image, face, face_boxes, **settings: Any) -> io.NodeOutput:
        expect_own_model(model)
        run = _run(cls, vae, recognizer, image, face, face_boxes, settings)
        run.check_model(model.model)
        patched = model.clone()
        kind = comfy.patcher_extension.WrappersMP.SAMPLER_SAMPLE
        patched.remove_wrappers_with_key(kind, _WRAPPER)
        patched.add_wrapper_with_key(kind, _WRAPPER, sampler_wrapper(run))
        return io.NodeOutput(patched, run)


class HJBReport(AnimatorNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StableAnimator_HJBReport",
            display_name="HJB Report",
            category=f"{CATEGORY}/sampling",
            description="After the sampling: how much closer to the photo each face came, as numbers and as a picture.",
            inputs=[
                HJBSocket.Input("hjb", tooltip="From HJB Sampler or HJB Model."),
                io.Latent.Input("samples", tooltip="The sampled clip, so that this runs after the sampling."),
            ],
            outputs=[
                io.Latent.Output(
                    "same_samples", display_name="samples", tooltip="The same clip, for the decoder."
                ),
                io.Image.Output(
                    display_name="plot",
                    tooltip="Loss of every update, and likeness of every frame before and after.",
                ),
                io.String.Output(display_name="report", tooltip="The same in words. Connect Preview Any."),
                io.Float.Output(
                    display_name="likeness",
                    tooltip="Mean cosine to the face of the photo at the end, -1 to 1.",
                ),
            ],
        )

    @classmethod
    def execute(cls, hjb, samples) -> io.NodeOutput:
        from ..stableanimator_core.hjb.plot import plot_report
        from ..stableanimator_core.hjb.report import mean_cosine

        report = expect(hjb, HJBRun, "hjb", "HJB Sampler or HJB Model").refiner.report
        likeness = mean_cosine(report.steps[-1].last_seen) if report.steps else None
        plot = from_uint8(plot_report(report)[None])
        return io.NodeOutput(samples, plot, report.summary(), 0.0 if likeness is None else likeness)


def _run(
    node: type[AnimatorNode],
    vae: Any,
    recogniser: Any,
    image: torch.Tensor,
    face: Any,
    face_boxes: Any,
    settings: dict,
) -> HJBRun:
    expect(recogniser, ManagedNetwork, "recognizer", "Load Face Recognizer")
    expect(face, FaceIdentity, "face", "Face Embed")
    small.expect_same_family(
        "recognizer", recogniser.family, "Face Embed's", face.family, "Load Face Recognizer and Face Embed"
    )
    identity = _identity(recogniser, image, face)
    unique_id = getattr(getattr(node, "hidden", None), "unique_id", None) or ""
    return HJBRun(vae, recogniser, identity, face_boxes, _options(**settings), unique_id)


def _options(
    mode: str,
    iterations: int,
    learning_rate: float,
    start_percent: float,
    end_percent: float,
    chunk: int,
    budget_gib: float,
) -> HJBOptions:
    from ..stableanimator_core.hjb.options import HJBOptions

    return HJBOptions(
        mode=one_of("mode", mode, _MODES),
        iterations=iterations,
        learning_rate=learning_rate,
        start_percent=start_percent,
        end_percent=end_percent,
        chunk=chunk,
        budget_gib=budget_gib or None,
    )


def _identity(recogniser: ManagedNetwork, image: torch.Tensor, face: FaceIdentity) -> torch.Tensor:
    """The photo's face by the network that is optimised through: cut out by its box, not aligned, as published."""
    from ..stableanimator_core.face.boxes import box_of
    from ..stableanimator_core.hjb.crop import identity_of_portrait

    if face.corners is None:
        raise NoFaceError("face", "has no face in the photo", "HJB needs one: use a photo with a clear face")
    photos = to_uint8(check_pictures(image, "image"))
    portrait = from_uint8(photos[:1])[0].permute(2, 0, 1) * 2 - 1
    height, width = portrait.shape[-2:]
    box = box_of(face.corners)
    if box.top >= height or box.left >= width:
        raise InputError(
            "image", f"is {width} x {height}, smaller than the face's place", "connect Face Embed's photo"
        )
    return identity_of_portrait(recogniser, portrait, box)
