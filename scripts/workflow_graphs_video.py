"""The shipped workflows that begin with a video, described: see make_workflows.py."""

from __future__ import annotations

from make_workflows import Graph, Node
from workflow_graphs import DWPOSE, YOLOX, _encode, _face, _models, _note, _photo, _pose, _sampler, _video

At = tuple[int, int]


def _fitted(at: At) -> Node:
    """The photo at the size of the video, so that photo, skeleton and video agree."""
    values = {"upscale_method": "lanczos", "width": 512, "height": 512, "crop": "center"}
    links = {"image": "photo.IMAGE"}
    return Node("fitted", "ImageScale", at, values, links, (340, 170), title="Size of the video")


def _driving(at: At, length: int) -> list[Node]:
    """The video, its frames, and how many of them."""
    x, y = at
    return [
        Node("driving", "LoadVideo", (x, y), {"file": "people.mp4"}, {}, (340, 320), title="The video"),
        Node("parts", "GetVideoComponents", (x, y + 380), {}, {"video": "driving.VIDEO"}, (340, 80)),
        Node(
            "part",
            "ImageFromBatch",
            (x, y + 510),
            {"batch_index": 0, "length": length},
            {"image": "parts.images"},
            (340, 100),
            title="How many frames",
        ),
    ]


def _extract(name: str, at: At, images: str, title: str) -> Node:
    files = {"detector": "yolox_l.onnx", "estimator": "dw-ll_ucoco_384.onnx"}
    links = {"images": images}
    models = [YOLOX, DWPOSE]
    return Node(name, "StableAnimator_DWPoseExtract", at, files, links, (340, 220), models, title)


def _aligned(at: At) -> list[Node]:
    """One person of the clip, laid over the photo, with pictures and words to judge it by."""
    x, y = at
    align = {
        "poses": "select.poses",
        "reference": "photo pose.poses",
        "reference_image": "fitted.IMAGE",
    }
    return [
        Node(
            "select",
            "StableAnimator_PoseSelect",
            (x, y),
            {"how": "tracked", "fill_gaps": 8},
            {"poses": "clip pose.poses"},
            (340, 220),
        ),
        Node("align", "StableAnimator_PoseAlign", (x, y + 280), {}, align, (340, 260)),
        Node("who", "PreviewAny", (x + 400, 40), {}, {"source": "select.report"}, (370, 200), title="Frames"),
        Node(
            "fit",
            "PreviewAny",
            (x + 800, 40),
            {},
            {"source": "align.report"},
            (370, 200),
            title="Does it fit?",
        ),
        Node("sheet", "PreviewImage", (x + 400, 300), {}, {"images": "align.overlay"}, (770, 340)),
    ]


def _draw(at: At) -> Node:
    links = {"poses": "align.poses", "width": "size.width", "height": "size.height"}
    return Node("draw", "StableAnimator_PoseDraw", at, {}, links, (340, 150))


def _size(at: At) -> Node:
    return Node("size", "GetImageSize", at, {}, {"image": "fitted.IMAGE"}, (340, 80))


_FROM_VIDEO = """## Animate from video

1. **The photo**: one person, face clearly seen. **The video**: one person moving; if there are several,
   *Pose Select* follows the one seen most.
2. **How many frames** limits a first try; set it to 4096 for the whole clip. *Size of the video* crops
   the photo.
3. Press **Run**. The overlay comes before the long part: white is the photo's pose, coloured the motion.
   **Cancel** if it does not fit, and try another *mode* in *Pose Align*.

The video keeps the clip's frame rate and sound. Animate only people who agreed to it.
No models yet? Open **dancing-puppet**."""

_PREVIEW = """## Does the motion fit the photo?

No heavy model: only the pose networks run, so settings can be tried in seconds. The first, the worst
and the last frame are shown over the photo; white is the photo's own pose.

**FIT OK**: go on with *animate-from-video*. **CHECK** and **BAD** say what is off. Try mode *limbs* for
other proportions, choose *fit first / last frame* (advanced) where the person stands as in the photo,
or take another photo. No models yet? Open **dancing-puppet**."""


FROM_VIDEO = Graph(
    "animate-from-video",
    [
        _note(_FROM_VIDEO, (0, -320), (740, 280)),
        _photo((0, 40)),
        _fitted((0, 440)),
        *_driving((0, 670), 64),
        _size((0, 1330)),
        _extract("photo pose", (400, 40), "fitted.IMAGE", "Pose of the photo"),
        _extract("clip pose", (400, 320), "part.IMAGE", "Poses of the video"),
        *_aligned((400, 610)),
        _draw((400, 1210)),
        _models((1620, 40)),
        *_face((1620, 350)),
        _encode(
            (2020, 40),
            "clip pose.num_frames",
            {"image": "fitted.IMAGE", "width": "size.width", "height": "size.height"},
        ),
        _pose((2020, 540)),
        Node(
            "adapter", "StableAnimator_IDAdapterUNet", (2420, 40), {}, {"model": "models.model"}, (300, 100)
        ),
        Node(
            "windows",
            "StableAnimator_AnimationWindows",
            (2420, 200),
            {"window_size": 16, "overlap": 4},
            {"model": "adapter.model"},
            (300, 100),
        ),
        _sampler((2420, 360), "windows.model"),
        *_video((2780, 40), "parts.fps", "video/StableAnimator_from_video", "parts.audio"),
    ],
    [
        ("Photo and video", -20, -30, 380, 1460),
        ("Poses, laid over the photo", 380, -30, 1200, 1460),
        ("Models and face", 1600, -30, 380, 960),
        ("Conditioning", 2000, -30, 380, 800),
        ("Sampling in windows", 2400, -30, 340, 700),
        ("Video", 2760, -30, 340, 800),
    ],
    "A photo and a video of somebody moving become a video, with the clip's sound and frame rate.",
)

PREVIEW = Graph(
    "align-and-preview-poses",
    [
        _note(_PREVIEW, (0, -300), (740, 260)),
        _photo((0, 40)),
        _fitted((0, 440)),
        *_driving((0, 670), 120),
        _size((0, 1330)),
        _extract("photo pose", (400, 40), "fitted.IMAGE", "Pose of the photo"),
        _extract("clip pose", (400, 320), "part.IMAGE", "Poses of the video"),
        *_aligned((400, 610)),
        _draw((400, 1210)),
        Node("skeletons", "PreviewImage", (800, 700), {}, {"images": "draw.images"}, (770, 480)),
        Node(
            "keep",
            "StableAnimator_SavePoseKeypoints",
            (400, 1450),
            {"filename_prefix": "poses/aligned"},
            {"poses": "align.poses"},
            (340, 90),
        ),
    ],
    [
        ("Photo and video", -20, -30, 380, 1460),
        ("Poses, laid over the photo", 380, -30, 1200, 1620),
    ],
    "Shows how a video's motion fits the person of a photo, before any heavy model runs.",
)

GRAPHS = [FROM_VIDEO, PREVIEW]
