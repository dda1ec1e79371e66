"""Bad input in the real server: refused in words that name node, input and way out, and the server goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest
from comfy_client import PromptRefused
from tiny_prompt import SIDE, Prompt, from_a_node, inputs, node, refused, setting

pytestmark = pytest.mark.usefixtures("alive_afterwards")


def pictures(class_type: str, name: str, **source) -> Callable[[Prompt], object]:
    """Pictures of one brightness, from core's mask nodes, in place of an input."""
    values = {"value": 0.5, "width": SIDE, "height": SIDE, **source}
    batch = values.pop("batch", 1)

    def change(prompt: Prompt) -> None:
        prompt["mask"] = node("SolidMask", **values)
        prompt["one"] = node("MaskToImage", mask=["mask", 0])
        prompt["pictures"] = node("RepeatImageBatch", image=["one", 0], amount=batch)
        inputs(prompt, class_type)[name] = ["pictures", 0]

    return change


def other_vae(class_type: str) -> Callable[[Prompt], object]:
    def change(prompt: Prompt) -> None:
        prompt["vae"] = node("VAELoader", vae_name="pixel_space")
        inputs(prompt, class_type)["vae"] = ["vae", 0]

    return change


ENCODE, POSE, DECODE = "ArcFace + CLIP Encode - ", "Apply PoseNet - ", "VAE Decode Tiled (Animator) - "
WINDOWS, LOAD_POSES = "Animation Windows - ", "Load Pose Keypoints - "
CASES = {
    "width": (
        setting("ArcFaceCLIPEncode", width=100),
        ENCODE + "size: 100 x 64 is not a multiple of 64 on both sides. Use 128 x 64, the nearest that is",
    ),
    "height over a link": (
        from_a_node("ArcFaceCLIPEncode", "height", 500),
        "Use 64 x 512, the nearest that is",
    ),
    "no frame": (setting("ArcFaceCLIPEncode", num_frames=0), "num_frames"),
    "no frame over a link": (from_a_node("ArcFaceCLIPEncode", "num_frames", 0), ENCODE + "num_frames: is 0"),
    "more frames than skeletons": (
        setting("ArcFaceCLIPEncode", num_frames=5),
        "pose images: are 2 frames of 64 x 64 (32 channels), the latent has 5 frames of 64 x 64 (32 channels). "
        "Give both the same number of frames",
    ),
    "fewer frames than skeletons": (setting("ArcFaceCLIPEncode", num_frames=1), "the latent has 1 frames"),
    "nan in the photo": (
        pictures("ArcFaceCLIPEncode", "image", value="nan"),
        ENCODE + "image: has NaN or infinite pixels in frame 0. Check the node that made the picture",
    ),
    "nan in the face photo": (pictures("FaceEmbed", "image", value="nan"), "Face Embed - image: has NaN"),
    "nan in the skeletons": (
        pictures("ApplyPoseNet", "poses", value="nan", batch=2),
        POSE + "poses: has NaN",
    ),
    "two photos": (
        pictures("ArcFaceCLIPEncode", "image", batch=2),
        ENCODE + "image: is a batch of 2 pictures",
    ),
    "skeletons of another shape": (
        pictures("ApplyPoseNet", "poses", width=128, batch=2),
        POSE + "pose images: are 128 x 64, the output is 64 x 64: the skeleton would be stretched",
    ),
    "a latent of another size": (
        lambda prompt: (
            prompt.update(empty=node("EmptyLatentImage", width=128, height=64, batch_size=2)),
            inputs(prompt, "KSampler").update(latent_image=["empty", 0]),
        ),
        "latent: is 128 x 64, the conditioning was made for 64 x 64. Use the LATENT of the same ArcFace + CLIP Encode",
    ),
    "another vae to encode": (other_vae("ArcFaceCLIPEncode"), ENCODE + "vae: is another family's"),
    "another vae to decode": (other_vae("VAEDecodeTiled"), DECODE + "vae: is another family's"),
    "window of one": (setting("AnimationWindows", window_size=1), WINDOWS + "window_size: is 1. Set it to 2"),
    "overlap of a window": (
        setting("AnimationWindows", overlap=16),
        WINDOWS + "overlap: is 16 for windows of 16 frames, which leaves frames without a window. "
        "Set it between 1 and 15",
    ),
    "overlap over a link": (from_a_node("AnimationWindows", "overlap", -3), WINDOWS + "overlap: is -3"),
    "decode overlap": (
        setting("VAEDecodeTiled", frame_chunk=4, frame_overlap=4),
        DECODE + "frame overlap: is 4 for chunks of 4 frames. Use 0 to 3",
    ),
    "decode overlap over a link": (
        from_a_node("VAEDecodeTiled", "frame_overlap", 99),
        DECODE + "frame overlap: is 99",
    ),
    "tile": (
        setting("VAEDecodeTiled", tile=64, tile_overlap=40),
        DECODE + "tile overlap: is 40 for tiles of 64",
    ),
    "alignment": (
        setting("IDAdapterUNet", alignment="wild"),
        "ID Adapter U-Net - alignment: is 'wild'. Choose one of",
    ),
    "dtype": (
        setting("LoadAnimatorModels", weight_dtype="fp4"),
        "Load Animator Models - weight_dtype: is 'fp4'",
    ),
    "fit": (setting("PoseDraw", fit="squash"), "Pose Draw - fit"),
    "face choice": (
        setting("FaceEmbed", choice="prettiest"),
        "Face Embed - choice: is 'prettiest'. Choose one of",
    ),
    "no-face policy": (setting("FaceEmbed", no_face="guess"), "Face Embed - no_face: is 'guess'"),
    "missing unet": (
        setting("LoadAnimatorModels", unet="gone.pth"),
        "Load Animator Models - unet: 'gone.pth' was not",
    ),
    "missing svd": (
        setting("LoadAnimatorModels", svd="gone/"),
        "Load Animator Models - svd: 'gone/' was not found in",
    ),
    "missing recogniser": (
        setting("FaceEmbed", recognizer="gone.onnx"),
        "Face Embed - recognizer: 'gone.onnx' was not",
    ),
    "beyond the motion": (
        setting("LoadPoseKeypoints", first_frame=9999),
        LOAD_POSES + "first_frame: is 9999",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_refused_in_words(case, comfy, good):
    change, words = CASES[case]
    assert words in refused(comfy, good, change)


@pytest.mark.parametrize("case", ["window of one", "overlap of a window", "decode overlap", "tile"])
def test_impossible_settings_are_refused_when_the_workflow_is_queued(case, comfy, good):
    prompt = json.loads(json.dumps(good))
    CASES[case][0](prompt)
    with pytest.raises(PromptRefused):
        comfy.client.queue(prompt)


def test_impossible_windows_over_a_link_are_refused_before_the_sampler_starts(comfy, good):
    prompt = json.loads(json.dumps(good))
    CASES["overlap over a link"][0](prompt)
    inputs(prompt, "KSampler")["seed"] = time.time_ns() % 10**9
    events: list[dict] = []
    result = comfy.client.run(prompt, on_event=events.append)
    assert result.error["node_type"] == "StableAnimator_AnimationWindows"
    executed = {event["data"]["node"] for event in events if event["type"] == "executing"}
    assert not executed & {name for name, part in prompt.items() if part["class_type"] == "KSampler"}


def test_one_frame_works(comfy, good):
    prompt = json.loads(json.dumps(good))
    inputs(prompt, "LoadPoseKeypoints")["max_frames"] = 1
    assert comfy.client.run(prompt).status == "success"
