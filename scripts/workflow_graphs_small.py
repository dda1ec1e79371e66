"""The shipped workflow that needs no model files, described: see make_workflows.py."""

from __future__ import annotations

from make_workflows import Graph, Node
from workflow_graphs import _note, _pose

SMALL = "small demo model (puppets, 128x128)"
NO_DETECTOR = "none, the face mask says where"
SIDE, DRAWN, SHOWN = 128, 512, 512  # the model's size, the skeletons' before they are shrunk, the video's

_TEXT = """## A dancing puppet

Nothing to install: press **Run**. *Demo Puppet* draws a person and a dance; the **small demo model** that
comes with the pack animates the portrait. It holds on to the face as well as so small a model can: best near the
portrait's own pose. Other numbers in *person* and *motion_seed* give other people and dances.

The small model was trained on such drawn figures only, at 128 x 128: **it cannot animate photos**. For those
add *Model Doctor*, get the official files it lists, and open **animate-from-keypoints**: the same nodes, other
entries in the menus."""


def _puppet(at: tuple[int, int]) -> list[Node]:
    """The person, a look at it, and the skeletons of the dance."""
    x, y = at
    size = {"width": DRAWN, "height": DRAWN}
    return [
        Node("puppet", "StableAnimator_DemoPuppet", at, {}, {}, (340, 240)),
        Node("who", "PreviewImage", (x, y + 300), {}, {"images": "puppet.portrait"}, (340, 250), title="Who"),
        Node("draw", "StableAnimator_PoseDraw", (x, y + 610), size, {"poses": "puppet.motion"}, (340, 150)),
    ]


def _models(at: tuple[int, int]) -> list[Node]:
    x, y = at
    files = dict.fromkeys(("unet", "pose_net", "face_encoder", "svd"), SMALL)
    face = {"recognizer": SMALL, "detector": NO_DETECTOR}
    person = {"image": "puppet.portrait", "face_mask": "puppet.face_mask"}
    return [
        Node("models", "StableAnimator_LoadAnimatorModels", at, files, {}, (340, 230)),
        Node("face", "StableAnimator_FaceEmbed", (x, y + 310), face, person, (340, 240)),
    ]


def _encode(at: tuple[int, int]) -> Node:
    links = {
        "clip_vision": "models.clip_vision",
        "vae": "models.vae",
        "face_encoder": "models.face_encoder",
        "image": "puppet.portrait",
        "face": "face.face",
        "num_frames": "puppet.num_frames",
    }
    size = {"width": SIDE, "height": SIDE}
    return Node("encode", "StableAnimator_ArcFaceCLIPEncode", at, size, links, (340, 420))


def _sampled(at: tuple[int, int]) -> list[Node]:
    x, y = at
    values = {
        "seed": 7,
        "steps": 20,
        "cfg": 1.5,
        "sampler_name": "euler",
        "scheduler": "karras",
        "denoise": 1.0,
    }
    links = {
        "model": "adapter.model",
        "positive": "pose.positive",
        "negative": "pose.negative",
        "latent_image": "encode.latent",
    }
    return [
        Node("adapter", "StableAnimator_IDAdapterUNet", at, {}, {"model": "models.model"}, (320, 100)),
        Node("sampler", "KSampler", (x, y + 180), values, links, (320, 270)),
    ]


def _video(at: tuple[int, int]) -> list[Node]:
    """Decode, enlarge for the eye, save."""
    x, y = at
    chunks = {"frame_chunk": 16, "frame_overlap": 2}
    frames = {"samples": "sampler.LATENT", "vae": "models.vae"}
    enlarged = {"upscale_method": "bicubic", "width": SHOWN, "height": SHOWN, "crop": "disabled"}
    prefix = {"filename_prefix": "video/StableAnimator_puppet"}
    return [
        Node("decode", "StableAnimator_VAEDecodeTiled", at, chunks, frames, (300, 180)),
        Node(
            "large",
            "ImageScale",
            (x, y + 240),
            enlarged,
            {"image": "decode.images"},
            (300, 170),
            title="Enlarge",
        ),
        Node("video", "CreateVideo", (x, y + 470), {"fps": 8.0}, {"images": "large.IMAGE"}, (300, 80)),
        Node("save", "SaveVideo", (x, y + 610), prefix, {"video": "video.VIDEO"}, (300, 320)),
    ]


PUPPET = Graph(
    "dancing-puppet",
    [
        _note(_TEXT, (-20, -240), (780, 180)),
        *_puppet((0, 40)),
        *_models((400, 40)),
        _encode((800, 40)),
        _pose((800, 540)),
        *_sampled((1200, 40)),
        *_video((1580, 40)),
    ],
    [
        ("A person and a dance", -20, -30, 380, 860),
        ("Models and face", 380, -30, 380, 860),
        ("Conditioning", 780, -30, 380, 860),
        ("Sampling", 1180, -30, 360, 560),
        ("Video", 1560, -30, 340, 1040),
    ],
    "Runs without any download: a drawn person dances, with the small demo model that comes with the pack.",
)

GRAPHS = [PUPPET]
