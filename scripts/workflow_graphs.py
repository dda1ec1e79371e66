"""The shipped workflows, described: see make_workflows.py."""

from __future__ import annotations

from make_workflows import Graph, Node

_ANIMATOR = "https://huggingface.co/FrancisRing/StableAnimator/resolve/main"
_FACES = "https://huggingface.co/DIAMONIK7777/antelopev2/resolve/main"
_POSES = "https://huggingface.co/yzd-v/DWPose/resolve/main"
_SVD = "https://huggingface.co/stabilityai/stable-video-diffusion-img2vid-xt/resolve/main"


def _model(name: str, url: str) -> dict[str, str]:
    return {"name": name, "url": f"{url}/{name}", "directory": "stableanimator"}


UNET = _model("unet.pth", f"{_ANIMATOR}/Animation")
POSE_NET = _model("pose_net.pth", f"{_ANIMATOR}/Animation")
FACE_ENCODER = _model("face_encoder.pth", f"{_ANIMATOR}/Animation")
SVD = _model("svd_xt.safetensors", _SVD)
RECOGNISER = _model("glintr100.onnx", _FACES)
DETECTOR = _model("scrfd_10g_bnkps.onnx", _FACES)
YOLOX = _model("yolox_l.onnx", _POSES)
DWPOSE = _model("dw-ll_ucoco_384.onnx", _POSES)
SHIPPED_MOTION = "shipped: jumping_jacks_512x512.json"


def _note(text: str, at: tuple[int, int], size: tuple[int, int]) -> Node:
    return Node(f"note at {at}", "MarkdownNote", at, {"text": text}, size=size, title="Read me")


def _motion(at: tuple[int, int], **values: int) -> list[Node]:
    """A shipped motion and its skeletons."""
    x, y = at
    return [
        Node(
            "motion",
            "StableAnimator_LoadPoseKeypoints",
            at,
            {"file": SHIPPED_MOTION, **values},
            size=(340, 150),
        ),
        Node(
            "draw",
            "StableAnimator_PoseDraw",
            (x, y + 220),
            {"width": 512, "height": 512},
            {"poses": "motion.poses"},
            (340, 150),
        ),
    ]


def _conditioned(at: tuple[int, int]) -> list[Node]:
    """Models, face, conditioning and adapter, in three columns."""
    x, y = at
    return [
        _models(at),
        *_face((x, y + 310)),
        _encode((x + 400, y), "motion.num_frames", width=512, height=512),
        _pose((x + 400, y + 500)),
        Node(
            "adapter",
            "StableAnimator_IDAdapterUNet",
            (x + 800, y),
            {},
            {"model": "models.model"},
            (320, 100),
        ),
    ]


def _models(at: tuple[int, int]) -> Node:
    return Node(
        "models",
        "StableAnimator_LoadAnimatorModels",
        at,
        {
            "unet": "unet.pth",
            "pose_net": "pose_net.pth",
            "face_encoder": "face_encoder.pth",
            "svd": "svd_xt.safetensors",
        },
        size=(340, 230),
        models=[UNET, POSE_NET, FACE_ENCODER, SVD],
    )


def _photo(at: tuple[int, int]) -> Node:
    return Node("photo", "LoadImage", at, {"image": "astronaut.png"}, size=(340, 360), title="The photo")


def _face(at: tuple[int, int]) -> list[Node]:
    """The face, and a look at which one was taken."""
    x, y = at
    return [
        Node(
            "face",
            "StableAnimator_FaceEmbed",
            at,
            {"recognizer": "glintr100.onnx", "detector": "scrfd_10g_bnkps.onnx"},
            {"image": "photo.IMAGE", "face_mask": "photo.MASK"},
            size=(340, 240),
            models=[RECOGNISER, DETECTOR],
        ),
        Node(
            "face taken",
            "PreviewImage",
            (x, y + 300),
            {},
            {"images": "face.preview"},
            (340, 250),
            title="The face",
        ),
    ]


def _encode(at: tuple[int, int], num_frames: str, more: dict[str, str] | None = None, **values: int) -> Node:
    links = {
        "clip_vision": "models.clip_vision",
        "vae": "models.vae",
        "face_encoder": "models.face_encoder",
        "image": "photo.IMAGE",
        "face": "face.face",
        "num_frames": num_frames,
        **(more or {}),
    }
    return Node("encode", "StableAnimator_ArcFaceCLIPEncode", at, values, links, size=(340, 420))


def _pose(at: tuple[int, int]) -> Node:
    links = {
        "positive": "encode.positive",
        "negative": "encode.negative",
        "pose_net": "models.pose_net",
        "poses": "draw.images",
    }
    return Node("pose", "StableAnimator_ApplyPoseNet", at, {}, links, size=(300, 190))


def _sampler(at: tuple[int, int], model: str) -> Node:
    values = {
        "seed": 23123134,
        "steps": 25,
        "cfg": 3.0,
        "sampler_name": "euler",
        "scheduler": "karras",
        "denoise": 1.0,
    }
    links = {
        "model": model,
        "positive": "pose.positive",
        "negative": "pose.negative",
        "latent_image": "encode.latent",
    }
    return Node("sampler", "KSampler", at, values, links, size=(300, 270))


def _video(at: tuple[int, int], fps: float | str, prefix: str, audio: str | None = None) -> list[Node]:
    """Decode, and save as MP4 with the rate (and the sound) of the motion."""
    x, y = at
    links = {"images": "decode.images"}
    links |= {"fps": fps} if isinstance(fps, str) else {}
    links |= {"audio": audio} if audio else {}
    return [
        Node(
            "decode",
            "StableAnimator_VAEDecodeTiled",
            (x, y),
            {"frame_chunk": 8, "frame_overlap": 2},
            {"samples": "sampler.LATENT", "vae": "models.vae"},
            size=(300, 180),
        ),
        Node(
            "video",
            "CreateVideo",
            (x, y + 240),
            {} if isinstance(fps, str) else {"fps": fps},
            links,
            size=(300, 80),
        ),
        Node(
            "save",
            "SaveVideo",
            (x, y + 380),
            {"filename_prefix": prefix},
            {"video": "video.VIDEO"},
            size=(300, 320),
        ),
    ]


_HOW_TO = """## Animate a photo

1. **The photo**: one person, face clearly seen. If the face is not found, right-click the photo,
   *Open in MaskEditor*, paint over the face.
2. **The motion**: a shipped one, or your own OpenPose JSON in ComfyUI's `input` folder.
3. Press **Run**.

Missing models are marked in red; they belong into `models/stableanimator`. Animate only people who
agreed to it. No models yet? Open **dancing-puppet**."""

_LONG = """## Long clips

**Animation Windows** cuts the clip into windows of 16 frames that all begin with the first frame.
Memory stays that of one window, time grows with the clip. More *overlap* is smoother and slower.

The noise repeats every 16 frames (*noise_window* in ArcFace + CLIP Encode), as in the official code.
No models yet? Open **dancing-puppet**."""


_GROUPS = [
    ("Photo and motion", -20, -30, 380, 960),
    ("Models and face", 380, -30, 380, 960),
    ("Conditioning", 780, -30, 380, 800),
]

ANIMATE = Graph(
    "animate-from-keypoints",
    [
        _note(_HOW_TO, (-20, -230), (780, 160)),
        _photo((0, 40)),
        *_motion((0, 480), max_frames=16, every_nth=3),
        *_conditioned((400, 40)),
        _sampler((1200, 220), "adapter.model"),
        *_video((1580, 40), 10.0, "video/StableAnimator"),
    ],
    [*_GROUPS, ("Sampling", 1180, -30, 360, 560), ("Video", 1560, -30, 340, 800)],
    "One photo and a motion from keypoints become a video.",
)

LONG = Graph(
    "long-clip",
    [
        _note(_LONG, (-20, -230), (780, 160)),
        _photo((0, 40)),
        *_motion((0, 480)),
        *_conditioned((400, 40)),
        Node(
            "windows",
            "StableAnimator_AnimationWindows",
            (1200, 200),
            {"window_size": 16, "overlap": 4},
            {"model": "adapter.model"},
            (320, 100),
        ),
        _sampler((1200, 360), "windows.model"),
        *_video((1580, 40), 30.0, "video/StableAnimator_long"),
    ],
    [*_GROUPS, ("Sampling in windows", 1180, -30, 360, 700), ("Video", 1560, -30, 340, 800)],
    "A clip longer than the model's sixteen frames, in windows.",
)

GRAPHS = [ANIMATE, LONG]
