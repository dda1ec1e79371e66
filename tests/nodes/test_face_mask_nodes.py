"""Face Masks and Face Embed inside ComfyUI, with the real insightface code on stand-in networks."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import standins
import torch

MOTION = Path(__file__).parents[2] / "assets" / "motion" / "jumping_jacks_512x512.json"
BGR, RGB = "BGR (as trained)", "RGB (as the official script)"


@pytest.fixture(scope="module", autouse=True)
def networks(pack) -> Path:
    """antelopev2 as its archive unpacks, one folder in another."""
    folder = pack.base / "models" / "insightface" / "models" / "antelopev2" / "antelopev2"
    folder.mkdir(parents=True, exist_ok=True)
    standins.scrfd(folder / "scrfd_10g_bnkps.onnx")
    standins.arcface(folder / "glintr100.onnx")
    return folder


@pytest.fixture(scope="module")
def jumping() -> list[dict]:
    return json.loads(MOTION.read_text())


@pytest.fixture
def said(pack, monkeypatch) -> list[str]:
    texts: list[str] = []
    for file in ("nodes.face_masks", "nodes.face"):
        monkeypatch.setattr(pack.module(file), "say", lambda node, text: texts.append(text))
    return texts


def masks(pack, source, width=512, height=512, padding=0.0, fill_gaps=0, fit="contain", **inputs):
    detector = inputs.pop("detector", "scrfd_10g_bnkps.onnx")
    channels = inputs.pop("channels", BGR)
    return pack.FaceMasks.execute(
        source, width, height, padding, fill_gaps, fit, detector, channels, **inputs
    ).args


def bright_cell(row: int, column: int, colour=(255, 255, 255), side: int = 640) -> torch.Tensor:
    """A black picture with one bright 32x32 cell, in which the stand-in sees a face."""
    image = torch.zeros(1, side, side, 3)
    image[0, 32 * row : 32 * row + 32, 32 * column : 32 * column + 32] = torch.tensor(colour) / 255
    return image


def faceless(frame: dict) -> dict:
    frame = copy.deepcopy(frame)
    for person in frame["people"]:
        person["face_keypoints_2d"] = None
        body = np.array(person["pose_keypoints_2d"]).reshape(-1, 3)
        body[[0, 14, 15, 16, 17]] = 0
        person["pose_keypoints_2d"] = body.ravel().tolist()
    return frame


# Face Masks


def test_the_skeletons_face_points_lie_in_the_box_of_the_video(pack, jumping):
    boxes, mask, report = masks(pack, "skeleton", 256, 256, poses=jumping[:3])
    assert mask.shape == (3, 256, 256) and set(mask.unique().tolist()) == {0.0, 1.0}
    face = np.array(jumping[1]["people"][0]["face_keypoints_2d"]).reshape(-1, 3)[:68, :2] / 2
    ((box,),) = (boxes[1],)
    assert (face >= [box.left, box.top]).all() and (face <= [box.right, box.bottom]).all()
    assert abs((box.right - box.left) - np.ptp(face[:, 0])) < 3
    assert report == "3 of 3 frames have a face"


def test_the_boxes_follow_the_fit_of_pose_draw(pack, jumping):
    (contained,), *_ = masks(pack, "skeleton", 512, 256, poses=jumping[:1])
    (stretched,), *_ = masks(pack, "skeleton", 512, 256, fit="stretch", poses=jumping[:1])
    wide = stretched[0].right - stretched[0].left
    assert contained[0].right - contained[0].left == pytest.approx(wide / 2, abs=2)
    assert (contained[0].left + contained[0].right) / 2 == pytest.approx(256 + (264 - 256) / 2, abs=6)


def test_frames_without_a_face_are_left_out_listed_and_never_all_ones(pack, jumping, said):
    poses = [faceless(frame) if number in (1, 2) else frame for number, frame in enumerate(jumping[:5])]
    boxes, mask, report = masks(pack, "skeleton", poses=poses)
    assert [len(frame) for frame in boxes] == [1, 0, 0, 1, 1]
    assert mask[1].sum() == mask[2].sum() == 0
    assert report.splitlines() == ["3 of 5 frames have a face", "left out, no face: 1-2"]
    assert said == ["left out, no face: 1-2"]


def test_short_gaps_are_filled_when_asked_for(pack, jumping, said):
    poses = [faceless(frame) if number in (1, 2) else frame for number, frame in enumerate(jumping[:5])]
    boxes, mask, report = masks(pack, "skeleton", fill_gaps=2, poses=poses)
    assert all(frame for frame in boxes) and (mask.flatten(1).sum(1) > 0).all()
    assert "interpolated: 1-2" in report and not said


def test_padding_makes_the_box_larger_on_each_side(pack, jumping):
    (plain,), *_ = masks(pack, "skeleton", poses=jumping[:1])
    (padded,), *_ = masks(pack, "skeleton", padding=0.5, poses=jumping[:1])
    wide = plain[0].right - plain[0].left
    assert padded[0].left == pytest.approx(plain[0].left - wide / 2, abs=1)
    assert padded[0].right == pytest.approx(plain[0].right + wide / 2, abs=1)


def test_the_detector_sees_every_driving_frame_and_its_boxes_are_scaled_to_the_video(pack, said):
    images = torch.cat([bright_cell(5, 10), torch.zeros(1, 640, 640, 3), bright_cell(8, 2)])
    boxes, mask, report = masks(pack, "detector", 320, 320, images=images)
    assert [len(frame) for frame in boxes] == [1, 0, 1]
    box = boxes[0][0]
    assert (box.left, box.top) == (160, 80) and box.right - box.left == pytest.approx(16, abs=1)
    assert mask[1].sum() == 0 and "left out, no face: 1" in report


def test_a_painted_mask_gives_the_box_around_it(pack):
    painted = torch.zeros(2, 100, 200)
    painted[0, 20:40, 50:90] = 0.8
    boxes, mask, _ = masks(pack, "mask", 400, 200, mask=painted)
    assert boxes[0] == [(40, 80, 100, 180)] and boxes[1] == []
    assert mask[0].sum() == 40 * 80


def test_a_box_is_cut_where_it_leaves_the_video(pack):
    painted = torch.zeros(1, 100, 200)
    painted[0, 20:40, :30] = 1
    boxes, mask, _ = masks(pack, "mask", 128, 128, fit="cover", mask=painted)
    assert boxes == [[]] and mask.sum() == 0


@pytest.mark.parametrize("source", ["skeleton", "detector", "mask"])
def test_what_the_source_needs_is_asked_for_by_name(pack, source):
    wanted = {"skeleton": "Pose Align", "detector": "driving frames", "mask": "mask for each frame"}[source]
    with pytest.raises(ValueError, match=wanted) as caught:
        masks(pack, source)
    assert str(caught.value).startswith("Face Masks - ")


@pytest.mark.parametrize(
    ("source", "inputs", "words"),
    [
        ("guess", {}, "one of skeleton"),
        ("mask", {"mask": torch.ones(2, 64, 64)}, "every frame completely"),
        ("mask", {"mask": torch.full((1, 64, 64), float("nan"))}, "NaN"),
        ("mask", {"mask": torch.rand(2, 3, 4, 5)}, "shape"),
        ("detector", {"images": torch.full((1, 64, 64, 3), float("nan"))}, "NaN"),
        ("detector", {"images": torch.rand(1, 64, 64, 3), "detector": "../x.onnx"}, "not found"),
        ("detector", {"images": torch.rand(1, 64, 64, 3), "channels": "GRB"}, "channels"),
        ("detector", {"images": torch.rand(1, 64, 64, 3), "detector": "glintr100.onnx"}, "glintr100"),
        ("mask", {"mask": torch.zeros(1, 64, 64), "fit": "bend"}, "fit"),
        ("skeleton", {"poses": "[{"}, "JSON"),
    ],
)
def test_bad_input_is_refused_in_words(pack, source, inputs, words):
    with pytest.raises(ValueError, match=words):
        masks(pack, source, **inputs)


# Face Embed


def embed(pack, image, recognizer="glintr100.onnx", **settings):
    values = {
        "choice": "largest",
        "index": 0,
        "channels": BGR,
        "no_face": "error",
        "face_mask": None,
    } | settings
    detector = values.pop("detector", "scrfd_10g_bnkps.onnx")
    return pack.FaceEmbed.execute(image, recognizer, detector, **values).args


@pytest.mark.parametrize("place", ["insightface/antelopev2", "stableanimator/antelopev2/antelopev2"])
def test_the_face_files_are_offered_however_deep_they_were_unpacked(pack, core_comfy, place):
    import folder_paths

    folder = Path(folder_paths.models_dir) / place
    folder.mkdir(parents=True, exist_ok=True)
    name = f"scrfd_{place.count('/')}.onnx"
    standins.scrfd(folder / name)
    folders = pack.module("nodes.folders")
    offered = folders.file_choices(folders.FACE_FOLDERS, "", "scrfd", endings=folders.ONNX_ENDINGS)
    assert f"{place.split('/', 1)[1]}/{name}" in offered
    assert folders.resolve(name, folders.FACE_FOLDERS, "detector") == folder / name


def test_the_identity_has_512_numbers_and_the_preview_shows_the_box(pack):
    face, preview = embed(pack, bright_cell(5, 10))
    assert face.identity.shape == (512,) and face.identity.norm() != pytest.approx(1.0)
    assert preview.shape == (1, 640, 640, 3)
    green = (preview[0, ..., 1] > 0.7) & (preview[0, ..., 0] < 0.2)
    assert green.any() and green.nonzero()[:, 0].min() == pytest.approx(160, abs=2)


def test_several_photos_are_averaged(pack):
    one, two = bright_cell(5, 10), bright_cell(5, 10, (255, 200, 230))
    each = [embed(pack, photo)[0].identity for photo in (one, two)]
    both = embed(pack, torch.cat([one, two]))[0].identity
    assert torch.allclose(both, (each[0] + each[1]) / 2, atol=1e-5)


def test_the_colour_order_changes_the_identity(pack):
    photo = bright_cell(5, 10, (255, 220, 200))
    assert not torch.allclose(embed(pack, photo)[0].identity, embed(pack, photo, channels=RGB)[0].identity)


@pytest.mark.parametrize(("index", "left"), [(0, 64), (1, 480)])
def test_a_face_can_be_chosen_by_number_from_the_left(pack, index, left):
    photo = torch.maximum(bright_cell(5, 2), bright_cell(9, 15))
    assert embed(pack, photo, choice="index", index=index)[0].corners[0] == pytest.approx(left, abs=1)


def test_no_face_stops_by_default_and_says_what_to_do(pack):
    with pytest.raises(ValueError, match="Face Embed - .*no face"):
        embed(pack, torch.zeros(1, 128, 128, 3))


@pytest.mark.parametrize("policy", ["without identity", "official zeros"])
def test_going_on_without_a_face_is_said_aloud(pack, said, policy):
    face, _ = embed(pack, torch.zeros(1, 128, 128, 3), no_face=policy)
    assert any("NO FACE" in text for text in said)
    assert face.identity is None if policy == "without identity" else not face.identity.any()


def test_a_painted_mask_needs_no_detector(pack, said):
    mask = torch.zeros(1, 128, 128)
    mask[0, 30:60, 40:80] = 1
    face, _ = embed(pack, torch.rand(1, 128, 128, 3), detector="missing.onnx", face_mask=mask)
    assert face.corners == (40, 30, 80, 60) and face.identity.shape == (512,)


def test_a_missing_detector_is_named_with_every_place_searched(pack):
    with pytest.raises(ValueError, match=r"missing\.onnx.*insightface"):
        embed(pack, bright_cell(5, 10), detector="missing.onnx")


def test_a_recogniser_in_torch_serves_as_well(pack):
    face, _ = embed(pack, bright_cell(5, 10), recognizer="face_recognizer.safetensors")
    assert face.identity.shape == (512,) and torch.isfinite(face.identity).all()


def test_a_box_in_numbers_says_the_same_as_a_painted_mask(pack):
    photo = bright_cell(5, 10)
    mask = torch.zeros(1, 640, 640)
    mask[:, 150:260, 300:420] = 1
    painted = embed(pack, photo, face_mask=mask)[0]
    typed = embed(pack, photo, face_box="300, 150, 420, 260")[0]
    assert typed.corners == painted.corners
    assert torch.equal(typed.identity, painted.identity)


@pytest.mark.parametrize("text", ["1, 2, 3", "left, top, right, bottom", "900, 900, 950, 950"])
def test_a_box_that_is_none_is_refused(pack, text):
    error = pack.module("stableanimator_core.errors").InputError
    with pytest.raises(error, match="box"):
        embed(pack, bright_cell(5, 10), face_box=text)
