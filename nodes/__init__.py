"""The pack's nodes. Each file holds the nodes of one subject; this one only lists them."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import folders
from .adapter import AnimationWindows, IDAdapterUNet
from .anyone_encode import ApplyPoseGuider, ReferenceNetEncode
from .anyone_loader import LoadAnimateAnyoneModels
from .anyone_sampler import DDIMTrailing
from .anyone_windows import LoopedWindows
from .decode import VAEDecodeTiled
from .demo_puppet import DemoPuppet
from .doctor import ModelDoctor
from .dwpose import DWPoseExtract
from .encode import ApplyPoseNet, ArcFaceCLIPEncode
from .face import FaceEmbed
from .face_masks import FaceMasks
from .hjb import HJBModel, HJBReport, HJBSampler, LoadFaceRecognizer
from .loaders import LoadAnimatorModels
from .pose import LoadPoseKeypoints, PoseDraw, SavePoseKeypoints
from .pose_align import PoseAlign
from .pose_edit import PoseSelect

NODES: list[type[io.ComfyNode]] = [
    LoadAnimatorModels,
    ModelDoctor,
    FaceEmbed,
    ArcFaceCLIPEncode,
    DWPoseExtract,
    PoseSelect,
    PoseAlign,
    LoadPoseKeypoints,
    SavePoseKeypoints,
    PoseDraw,
    FaceMasks,
    ApplyPoseNet,
    IDAdapterUNet,
    AnimationWindows,
    LoadFaceRecognizer,
    HJBSampler,
    HJBModel,
    HJBReport,
    VAEDecodeTiled,
    LoadAnimateAnyoneModels,
    ReferenceNetEncode,
    ApplyPoseGuider,
    LoopedWindows,
    DDIMTrailing,
    DemoPuppet,
]


class StableAnimatorExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> StableAnimatorExtension:
    folders.register()
    return StableAnimatorExtension()
