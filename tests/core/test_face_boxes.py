"""Face boxes and masks: from a detector, from skeletons, from painted masks."""

import numpy as np
import pytest
import standins
import torch

from stableanimator_core.errors import InputError
from stableanimator_core.face.analysis import FaceDetector
from stableanimator_core.face.boxes import (
    box_of,
    boxes_from_detector,
    boxes_from_masks,
    boxes_from_skeleton,
    boxes_to_masks,
    fill_gaps,
    frames_without_face,
    pad_boxes,
)
from stableanimator_core.hjb.regions import Box
from stableanimator_core.pose.people import Frame, Person


def person(face=None, face_score=0.9, head=None, head_score=0.9) -> Person:
    """A person with face points spread over a box (x0, y0, x1, y1) and head joints at given places, in
    fractions.
    """
    result = Person()
    if face is not None:
        x0, y0, x1, y1 = face
        angle = np.linspace(0, 2 * np.pi, 69)[:-1]
        x, y = (x0 + x1) / 2 + (x1 - x0) / 2 * np.cos(angle), (y0 + y1) / 2 + (y1 - y0) / 2 * np.sin(angle)
        result = result.with_part("face", np.stack([x, y], 1), np.full(68, face_score))
    if head is not None:
        body, score = np.zeros((18, 2)), np.zeros(18)
        body[[0, 14, 15, 16, 17]], score[[0, 14, 15, 16, 17]] = head, head_score
        result = result.with_part("body", body, score)
    return result


def frame(*people: Person) -> Frame:
    return Frame(people, 400, 200)


def test_the_official_convention_truncates_corners_and_includes_them():
    import cv2

    corners = (10.9, 20.2, 30.7, 40.999)
    official = np.zeros((64, 64), np.uint8)
    cv2.rectangle(official, (10, 20), (30, 40), 255, thickness=cv2.FILLED)
    assert box_of(corners) == Box(top=20, bottom=41, left=10, right=31)
    assert torch.equal(
        boxes_to_masks([[box_of(corners)]], 64, 64)[0] * 255, torch.from_numpy(official).float()
    )


def test_masks_and_boxes_turn_into_each_other():
    boxes = [[Box(2, 9, 3, 20)], [], [Box(0, 4, 0, 4), Box(10, 30, 12, 40)]]
    masks = boxes_to_masks(boxes, 30, 40)
    assert masks.shape == (3, 30, 40) and masks.dtype == torch.float32
    assert boxes_from_masks(masks) == boxes
    assert boxes_from_masks(masks.numpy()[0]) == [boxes[0]]


def test_a_frame_without_a_face_has_an_empty_mask():
    masks = boxes_to_masks([[], [Box(1, 2, 1, 2)]], 8, 8)
    assert masks[0].sum() == 0 and masks[1].sum() == 1
    assert frames_without_face([[], [Box(1, 2, 1, 2)], []]) == [0, 2]


def test_the_union_is_the_official_single_box():
    masks = boxes_to_masks([[Box(0, 4, 0, 4), Box(10, 30, 12, 40)]], 30, 40)
    assert boxes_from_masks(masks, union=True) == [[Box(0, 30, 0, 40)]]


def test_only_full_white_counts_unless_a_threshold_is_given():
    mask = torch.zeros(1, 20, 20)
    mask[0, 5:15, 5:15] = 0.6
    mask[0, 8:10, 8:12] = 1
    assert boxes_from_masks(mask) == [[Box(8, 10, 8, 12)]]
    assert boxes_from_masks(mask, threshold=0.5) == [[Box(5, 15, 5, 15)]]


def test_parts_that_touch_at_a_corner_are_one():
    mask = torch.zeros(1, 8, 8)
    mask[0, 2, 2] = mask[0, 3, 3] = 1
    assert boxes_from_masks(mask) == [[Box(2, 4, 2, 4)]]


def test_an_all_white_frame_counts_as_one_without_a_face():
    masks = torch.zeros(2, 8, 8)
    masks[0] = 1
    masks[1, 2:4, 2:4] = 1
    assert boxes_from_masks(masks) == [[], [Box(2, 4, 2, 4)]]


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        (torch.ones(2, 8, 8), "every frame"),
        (torch.zeros(2, 8, 8, 3), "shape"),
        (torch.full((1, 8, 8), torch.nan), "NaN"),
    ],
)
def test_useless_masks_are_refused(masks, words):
    with pytest.raises(InputError, match=words):
        boxes_from_masks(masks)


def test_every_face_the_detector_sees_gets_a_box_and_others_none(tmp_path):
    detector = FaceDetector(standins.scrfd(tmp_path / "d.onnx"), "cpu")
    frames = np.zeros((3, 640, 640, 3), np.uint8)
    frames[0, 320:352, 96:128] = 255
    frames[2, :32, :32] = frames[2, 608:, 608:] = 255
    seen: list[int] = []
    boxes = boxes_from_detector(detector, frames, on_frame=seen.append)
    assert boxes[0] == [Box(320, 353, 96, 129)]
    assert boxes[1] == []
    assert sorted(boxes[2]) == [Box(0, 33, 0, 33), Box(608, 640, 608, 640)]
    assert seen == [0, 1, 2]


def test_skeleton_boxes_lie_around_the_face_points():
    boxes = boxes_from_skeleton([frame(person((0.25, 0.2, 0.5, 0.6)))], 200, 400)
    assert boxes == [[Box(40, 121, 100, 201)]]


def test_skeleton_boxes_follow_the_size_of_the_video_not_of_the_skeleton():
    boxes = boxes_from_skeleton([frame(person((0.25, 0.2, 0.5, 0.6)))], 100, 100)
    assert boxes == [[Box(20, 61, 25, 51)]]


def test_weak_face_points_give_no_box():
    assert boxes_from_skeleton([frame(person((0.25, 0.2, 0.5, 0.6), face_score=0.3)), frame()], 200, 400) == [
        [],
        [],
    ]


def test_without_face_points_the_head_joints_serve():
    head = [(0.5, 0.32), (0.48, 0.3), (0.52, 0.3), (0.45, 0.31), (0.55, 0.31)]
    (boxes,) = boxes_from_skeleton([frame(person(head=head))], 200, 400)
    assert len(boxes) == 1
    assert boxes[0].left < 180 and boxes[0].right > 220  # wider than from ear to ear
    assert 0.8 < (boxes[0].bottom - boxes[0].top) / (boxes[0].right - boxes[0].left) < 1.25
    assert boxes_from_skeleton([frame(person(head=head, head_score=0.2))], 200, 400) == [[]]


def test_one_person_can_be_picked():
    clip = [
        frame(person((0.1, 0.2, 0.2, 0.4)), person((0.6, 0.2, 0.7, 0.4))),
        frame(person((0.1, 0.2, 0.2, 0.4))),
    ]
    both, second = boxes_from_skeleton(clip, 200, 400), boxes_from_skeleton(clip, 200, 400, person=1)
    assert [len(boxes) for boxes in both] == [2, 1]
    assert second == [[both[0][1]], []]


def test_faces_outside_the_frame_are_cut_or_left_out():
    clip = [frame(person((-0.1, -0.1, 0.1, 0.1))), frame(person((1.1, 0.2, 1.3, 0.4)))]
    assert boxes_from_skeleton(clip, 200, 400) == [[Box(0, 21, 0, 41)], []]


def test_padding_grows_by_a_share_of_the_box_and_stays_inside():
    assert pad_boxes([[Box(10, 30, 20, 40)], []], 0.1, 100, 41) == [[Box(8, 32, 18, 41)], []]


def test_short_gaps_are_filled_in_a_straight_line():
    a, b = Box(0, 10, 0, 10), Box(30, 40, 60, 70)
    assert fill_gaps([[a], [], [], [b]], 2) == [[a], [Box(10, 20, 20, 30)], [Box(20, 30, 40, 50)], [b]]


def test_long_gaps_and_ends_stay_empty_and_the_input_as_it_is():
    a = Box(0, 10, 0, 10)
    boxes = [[], [a], [], [], [], [a], []]
    assert fill_gaps(boxes, 2) == boxes
    filled = fill_gaps(boxes, 3)
    assert [len(row) for row in filled] == [0, 1, 1, 1, 1, 1, 0]
    assert [len(row) for row in boxes] == [0, 1, 0, 0, 0, 1, 0]


def test_two_faces_keep_their_own_paths_through_a_gap():
    left, right = Box(0, 10, 0, 10), Box(0, 10, 90, 100)
    filled = fill_gaps([[left, right], [], [right, left]], 1)
    assert sorted(filled[1]) == [left, right]
    assert fill_gaps([[left, right], [], [right]], 1)[1] == [right]
