"""The shipped workflows of the second system, Animate Anyone, described: see make_workflows.py."""

from __future__ import annotations

from make_workflows import Graph, Node
from workflow_graphs import _motion, _note, _photo
from workflow_graphs_small import SHOWN, SIDE, SMALL, _puppet

_ANYONE = "https://huggingface.co/patrolli/AnimateAnyone/resolve/main"
_VAE = "https://huggingface.co/stabilityai/sd-vae-ft-mse/resolve/main"
_ENCODER = "https://huggingface.co/lambdalabs/sd-image-variations-diffusers/resolve/main"
_OFFICIAL = {
    "denoising_unet": ("denoising_unet.pth", f"{_ANYONE}/denoising_unet.pth"),
    "reference_unet": ("reference_unet.pth", f"{_ANYONE}/reference_unet.pth"),
    "motion_module": ("motion_module.pth", f"{_ANYONE}/motion_module.pth"),
    "pose_guider": ("pose_guider.pth", f"{_ANYONE}/pose_guider.pth"),
    "vae": (
        "sd-vae-ft-mse/diffusion_pytorch_model.safetensors",
        f"{_VAE}/diffusion_pytorch_model.safetensors",
    ),
    "image_encoder": ("image_encoder/pytorch_model.bin", f"{_ENCODER}/image_encoder/pytorch_model.bin"),
}

_PUPPET = """## Animate Anyone, with a drawn person

Nothing to install: press **Run**. The second system of this pack, with the **small demo model** of its own. It
knows drawn figures at 128 x 128 only, **not photos**, and had little training: it paints roughly. For photos open
**animate-anyone-photo**.

It reads clothes, hair and background out of the picture, and has no part that looks at the face. Where the face
matters most, use StableAnimator (**dancing-puppet**, **animate-from-keypoints**)."""

_PHOTO = """## Animate Anyone, with a photo

1. **The photo**: the whole person, if the skeletons show one; in the shape of the video.
2. **The motion**: a shipped one, or your own OpenPose JSON in ComfyUI's `input` folder.
3. Press **Run**.

Missing models are marked in red; they belong into `models/stableanimator`. Animate only people who agreed to it.
No models yet? Open **animate-anyone**."""


def _models(at: tuple[int, int], *, small: bool) -> Node:
    files = {role: SMALL if small else name for role, (name, _) in _OFFICIAL.items()}
    offered = [{"name": name, "url": url, "directory": "stableanimator"} for name, url in _OFFICIAL.values()]
    models = [] if small else offered
    kind = "StableAnimator_LoadAnimateAnyoneModels"
    return Node("models", kind, at, files, size=(340, 290), models=models)


def _conditioned(at: tuple[int, int], photo: str, num_frames: str, side: int) -> list[Node]:
    """Photo and skeletons become conditioning."""
    x, y = at
    photo_links = {
        "reference_net": "models.reference_net",
        "clip_vision": "models.clip_vision",
        "vae": "models.vae",
        "image": photo,
        "num_frames": num_frames,
    }
    pose_links = {
        "positive": "encode.positive",
        "negative": "encode.negative",
        "pose_guider": "models.pose_guider",
        "poses": "draw.images",
    }
    size = {"width": side, "height": side}
    return [
        Node("encode", "StableAnimator_ReferenceNetEncode", at, size, photo_links, (340, 290)),
        Node("pose", "StableAnimator_ApplyPoseGuider", (x, y + 350), {}, pose_links, (340, 190)),
    ]


def _sampled(at: tuple[int, int], cfg: float) -> list[Node]:
    """Windows, official steps, sampling."""
    x, y = at
    values = {"add_noise": True, "noise_seed": 7, "cfg": cfg}
    links = {
        "model": "windows.model",
        "positive": "pose.positive",
        "negative": "pose.negative",
        "sampler": "steps.sampler",
        "sigmas": "steps.sigmas",
        "latent_image": "encode.latent",
    }
    return [
        Node(
            "windows",
            "StableAnimator_LoopedWindows",
            at,
            {"window_size": 24, "overlap": 4, "loop": "open"},
            {"model": "models.model"},
            (320, 130),
        ),
        Node(
            "steps",
            "StableAnimator_DDIMTrailing",
            (x, y + 190),
            {"steps": 25},
            {"model": "models.model"},
            (320, 80),
        ),
        Node("sampler", "SamplerCustom", (x, y + 330), values, links, (320, 270)),
    ]


def _video(at: tuple[int, int], fps: float, prefix: str, *, enlarged: bool) -> list[Node]:
    """Decode, enlarge small pictures for the eye, save."""
    x, y = at
    frames = {"samples": "sampler.output", "vae": "models.vae"}
    size = {"upscale_method": "bicubic", "width": SHOWN, "height": SHOWN, "crop": "disabled"}
    source = {"image": "decode.IMAGE"}
    larger = Node("large", "ImageScale", (x, y + 140), size, source, (300, 170), title="Enlarge")
    pictures = {"images": "large.IMAGE" if enlarged else "decode.IMAGE"}
    return [
        Node("decode", "VAEDecode", at, {}, frames, (300, 80)),
        *([larger] if enlarged else []),
        Node("video", "CreateVideo", (x, y + 370), {"fps": fps}, pictures, (300, 80)),
        Node(
            "save",
            "SaveVideo",
            (x, y + 510),
            {"filename_prefix": prefix},
            {"video": "video.VIDEO"},
            (300, 320),
        ),
    ]


def _drawn_for_anyone(motion: list[Node]) -> list[Node]:
    """Skeletons as the official weights know them; the small demo model was trained on the other style."""
    for node in motion:
        if node.kind == "StableAnimator_PoseDraw":
            node.values["style"] = "Animate Anyone"
    return motion


def _groups(first: str) -> list[tuple[str, int, int, int, int]]:
    return [
        (first, -20, -30, 380, 900),
        ("Models", 380, -30, 380, 400),
        ("Conditioning", 780, -30, 380, 660),
        ("Sampling", 1180, -30, 360, 720),
        ("Video", 1560, -30, 340, 940),
    ]


PUPPET = Graph(
    "animate-anyone",
    [
        _note(_PUPPET, (-20, -290), (780, 230)),
        *_puppet((0, 40)),
        _models((400, 40), small=True),
        *_conditioned((800, 40), "puppet.portrait", "puppet.num_frames", SIDE),
        *_sampled((1200, 40), 2.0),
        *_video((1580, 40), 8.0, "video/AnimateAnyone_puppet", enlarged=True),
    ],
    _groups("A person and a dance"),
    "The second system, Animate Anyone, without any download: a drawn person dances.",
)

PHOTO = Graph(
    "animate-anyone-photo",
    [
        _note(_PHOTO, (-20, -290), (780, 230)),
        _photo((0, 40)),
        *_drawn_for_anyone(_motion((0, 480), max_frames=24, every_nth=2)),
        _models((400, 40), small=False),
        *_conditioned((800, 40), "photo.IMAGE", "motion.num_frames", 512),
        *_sampled((1200, 40), 3.5),
        *_video((1580, 40), 15.0, "video/AnimateAnyone", enlarged=False),
    ],
    _groups("Photo and motion"),
    "The second system, Animate Anyone: one photo and a motion become a video.",
)

GRAPHS = [PUPPET, PHOTO]
