"""The shipped workflow of the face optimisation, described: see make_workflows.py."""

from __future__ import annotations

from make_workflows import Graph, Node
from workflow_graphs import _ANIMATOR, _GROUPS, DETECTOR, _conditioned, _model, _motion, _note, _photo

At = tuple[int, int]
SEED = 23123134
RECOGNISER_TORCH = _model("glintr100_torch.pth", f"{_ANIMATOR}/Animation")

_TEXT = """## Keep the face (HJB)

The same clip twice, from the same noise: left without, right with **HJB**, which pulls every face
towards the photo at each step. *HJB Report* says in numbers and in a plot what it brought.

*mode*: **exact** is the published algorithm and takes about seven times as long as the plain clip;
**late** and **fast** are shortcuts. Too sharp, glassy faces: lower the *learning_rate* or the
*iterations*. No models yet? Open **dancing-puppet**."""


def _faces(at: At) -> list[Node]:
    x, y = at
    masks = {"source": "skeleton", "width": 512, "height": 512, "padding": 0.1, "fill_gaps": 4}
    files = {"recognizer": "glintr100_torch.pth"}
    hjb = {
        "vae": "models.vae",
        "recognizer": "recognizer.recognizer",
        "image": "photo.IMAGE",
        "face": "face.face",
        "face_boxes": "faces.face_boxes",
        "sampler": "euler.SAMPLER",
    }
    return [
        Node(
            "faces",
            "StableAnimator_FaceMasks",
            (x, y),
            masks,
            {"poses": "motion.poses"},
            (320, 260),
            [DETECTOR],
        ),
        Node(
            "recognizer",
            "StableAnimator_LoadFaceRecognizer",
            (x, y + 320),
            files,
            {},
            (320, 80),
            [RECOGNISER_TORCH],
        ),
        Node("euler", "KSamplerSelect", (x, y + 450), {"sampler_name": "euler"}, {}, (320, 60)),
        Node("hjb", "StableAnimator_HJBSampler", (x, y + 560), {"mode": "exact"}, hjb, (320, 330)),
    ]


def _sample(name: str, at: At, sampler: str, title: str) -> Node:
    links = {
        "model": "adapter.model",
        "positive": "pose.positive",
        "negative": "pose.negative",
        "sampler": sampler,
        "sigmas": "sigmas.SIGMAS",
        "latent_image": "encode.latent",
    }
    return Node(name, "SamplerCustom", at, {"noise_seed": SEED, "cfg": 3.0}, links, (320, 260), title=title)


def _decode(name: str, at: At, samples: str) -> Node:
    links = {"samples": samples, "vae": "models.vae"}
    values = {"frame_chunk": 8, "frame_overlap": 2}
    return Node(name, "StableAnimator_VAEDecodeTiled", at, values, links, (320, 180))


HJB = Graph(
    "keep-the-face-hjb",
    [
        _note(_TEXT, (-20, -250), (780, 180)),
        _photo((0, 40)),
        *_motion((0, 480), max_frames=16, every_nth=3),
        *_conditioned((400, 40)),
        Node(
            "sigmas",
            "BasicScheduler",
            (1200, 200),
            {"scheduler": "karras", "steps": 25},
            {"model": "adapter.model"},
            (320, 110),
        ),
        *_faces((1200, 420)),
        _sample("plain", (1580, 40), "euler.SAMPLER", "Without HJB"),
        _sample("refined", (1580, 360), "hjb.sampler", "With HJB"),
        Node(
            "report",
            "StableAnimator_HJBReport",
            (1580, 680),
            {},
            {"hjb": "hjb.hjb", "samples": "refined.output"},
            (320, 120),
        ),
        Node("words", "PreviewAny", (1580, 860), {}, {"source": "report.report"}, (320, 160), title="Report"),
        Node("plot", "PreviewImage", (1580, 1080), {}, {"images": "report.plot"}, (320, 260), title="Plot"),
        _decode("before", (1960, 40), "plain.output"),
        _decode("after", (1960, 280), "report.samples"),
        Node(
            "both",
            "ImageStitch",
            (1960, 520),
            {"direction": "right"},
            {"image1": "before.images", "image2": "after.images"},
            (320, 150),
        ),
        Node("video", "CreateVideo", (1960, 730), {"fps": 10.0}, {"images": "both.IMAGE"}, (320, 80)),
        Node(
            "save",
            "SaveVideo",
            (1960, 870),
            {"filename_prefix": "video/StableAnimator_HJB"},
            {"video": "video.VIDEO"},
            (320, 320),
        ),
    ],
    [
        *_GROUPS,
        ("Face optimisation", 1180, -30, 360, 1360),
        ("Sampling, twice", 1560, -30, 360, 1400),
        ("Before and after", 1940, -30, 360, 1240),
    ],
    "The same clip without and with HJB face optimisation, side by side.",
)

GRAPHS = [HJB]
