"""The pack's nodes. Each file holds the nodes of one subject; this one only lists them."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import folders
from .adapter import AnimationWindows, IDAdapterUNet
from .decode import VAEDecodeTiled
from .encode import ApplyPoseNet, ArcFaceCLIPEncode
from .face import FaceEmbed
from .loaders import LoadAnimatorModels
from .pose import LoadPoseKeypoints, PoseDraw, SavePoseKeypoints

NODES: list[type[io.ComfyNode]] = [
    LoadAnimatorModels,
    FaceEmbed,
    ArcFaceCLIPEncode,
    LoadPoseKeypoints,
    SavePoseKeypoints,
    PoseDraw,
    ApplyPoseNet,
    IDAdapterUNet,
    AnimationWindows,
    VAEDecodeTiled,
]


class StableAnimatorExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> StableAnimatorExtension:
    folders.register()
    return StableAnimatorExtension()
