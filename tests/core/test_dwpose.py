"""DWPose on stand-in networks through the real onnxruntime, and its pre-/post-processing against the
goldens.
"""

from pathlib import Path

import numpy as np
import pytest
import standins
import torch

from stableanimator_core.conformance.cases import perception
from stableanimator_core.conformance.golden import open_golden
from stableanimator_core.errors import InputError, WeightsError
from stableanimator_core.onnx_sessions import choose_providers, open_session, providers_in_use
from stableanimator_core.pose.dwpose import DWPose, open_dwpose
from stableanimator_core.pose.dwpose_detector import letterbox, suppress
from stableanimator_core.pose.dwpose_warp import warp_affine

GOLDENS = Path(__file__).parents[1] / "goldens"
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    return standins.official_tree(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def dwpose(files) -> DWPose:
    return open_dwpose(files / "DWPose/yolox_l.onnx", files / "DWPose/dw-ll_ucoco_384.onnx", providers="cpu")


def dot(x: int, y: int, size: tuple[int, int] = (480, 480), colour=WHITE) -> np.ndarray:
    """A black picture (height, width) with a bright dot of 3x3 pixels centred at x, y."""
    image = np.zeros((*size, 3), dtype=np.uint8)
    image[y - 1 : y + 2, x - 1 : x + 2] = colour
    return image


@pytest.mark.parametrize("name", ["wholebody", "dwpose_onnx"])
def test_processing_equals_the_official_code(name):
    golden = open_golden(GOLDENS, name)
    check = {"wholebody": perception.check_wholebody, "dwpose_onnx": perception.check_dwpose_onnx}[name]
    rows = list(check(golden))
    assert len(rows) == {"wholebody": 27, "dwpose_onnx": 36}[name]
    assert [row for row in rows if not row.ok] == []


@pytest.mark.parametrize(("x", "y"), [(240, 100), (130, 400), (350, 300)])
def test_joints_come_back_at_their_place_in_the_picture(dwpose, x, y):
    (person,) = dwpose.detect_people(dot(x, y))
    for part in ("body", "face", "left_hand", "right_hand"):
        points, scores = person.part(part)
        pixels = points * 480
        assert np.abs(pixels - [x, y]).max() < 1.5
        assert scores.min() > 0.3 and scores.dtype == points.dtype == np.float64


def test_a_picture_that_is_not_square_is_placed_right(dwpose):
    (person,) = dwpose.detect_people(dot(100, 200, (640, 320)))  # the box reaches x = 480 in 640, so 320 here
    assert np.abs(person.body * [320, 640] - [100, 200]).max() < 1.5


def test_nobody_in_the_frame_gives_nobody(dwpose):
    assert dwpose.detect_people(np.zeros((480, 480, 3), dtype=np.uint8)) == ()


def test_the_official_way_sees_a_person_in_an_empty_frame(files):
    names = (files / "DWPose/yolox_l.onnx", files / "DWPose/dw-ll_ucoco_384.onnx")
    official = open_dwpose(*names, providers="cpu", no_person="official")
    assert len(official.detect_people(np.zeros((480, 480, 3), dtype=np.uint8))) == 1


def test_two_people_come_in_order_of_their_score(tmp_path, files):
    boxes = ((40, 60, 280, 600), (360, 60, 600, 600))
    standins.yolox(tmp_path / "two.onnx", boxes)
    both = open_dwpose(tmp_path / "two.onnx", files / "DWPose/dw-ll_ucoco_384.onnx", providers="cpu")
    image = dot(120, 240, colour=(200, 0, 0))  # person 0 by red, person 1 by green
    image[239:242, 359:362] = GREEN
    first, second = both.detect_people(image)
    assert abs(first.body[0, 0] * 480 - 360) < 2
    assert abs(second.body[0, 0] * 480 - 120) < 2


def test_overlapping_boxes_of_one_person_are_one(tmp_path, files):
    boxes = ((160, 60, 480, 600), (170, 90, 490, 620))
    standins.yolox(tmp_path / "twice.onnx", boxes)
    model = open_dwpose(tmp_path / "twice.onnx", files / "DWPose/dw-ll_ucoco_384.onnx", providers="cpu")
    assert len(model.detect_people(dot(240, 240))) == 1


def test_suppression_counts_the_last_pixel_of_a_box():
    # With the extra pixel 5 of 11 columns are shared (0.4545 of the union), without it 4 of 11 would be
    # (0.36).
    boxes = np.array([[0, 0, 7, 9], [3, 0, 10, 9]], dtype=np.float32)
    scores = np.array([0.9, 0.8], dtype=np.float32)
    assert suppress(boxes, scores, 0.45) == [0]
    assert suppress(boxes, scores, 0.46) == [0, 1]


@pytest.mark.parametrize(("channels", "found"), [("rgb", 1), ("bgr", 0)])
def test_the_channel_order_reaches_the_detector_only(files, channels, found):
    names = (files / "DWPose/yolox_l.onnx", files / "DWPose/dw-ll_ucoco_384.onnx")
    model = open_dwpose(*names, providers="cpu", channels=channels)
    assert len(model.detect_people(dot(240, 240, colour=RED))) == found
    assert len(model.detect_people(dot(240, 240, colour=BLUE))) == 1 - found


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_the_pose_network_always_sees_rgb(files, channels):
    names = (files / "DWPose/yolox_l.onnx", files / "DWPose/dw-ll_ucoco_384.onnx")
    model = open_dwpose(*names, providers="cpu", channels=channels)
    recorded = model.estimator.session = Counted(model.estimator.session)
    image = np.full((480, 480, 3), (255, 0, 200), dtype=np.uint8)
    model.detect_people(image)
    red, green, blue = recorded.fed[0, :, 192, 144]
    assert red == pytest.approx((255 - 123.675) / 58.395)
    assert green == pytest.approx(-116.28 / 57.12)
    assert blue == pytest.approx((200 - 103.53) / 57.375)


@pytest.mark.parametrize(("batch", "calls"), [("n", 1), (1, 2)])
def test_people_share_a_call_where_the_file_allows(tmp_path, batch, calls):
    standins.yolox(tmp_path / "two.onnx", ((40, 60, 280, 600), (360, 60, 600, 600)))
    standins.simcc(tmp_path / "pose.onnx", batch=batch)
    model = open_dwpose(tmp_path / "two.onnx", tmp_path / "pose.onnx", providers="cpu")
    counted = Counted(model.estimator.session)
    model.estimator.session = counted
    people = model.detect_people(dot(240, 240, colour=(255, 255, 0)))
    assert (len(people), counted.calls) == (2, calls)


def test_several_frames_share_a_call_and_give_the_same(tmp_path, files):
    standins.yolox(tmp_path / "batched.onnx", batch="n")
    frames = np.stack(
        [dot(200, 200), np.zeros((480, 480, 3), np.uint8), dot(300, 100), dot(200, 400), dot(240, 240)]
    )
    names = (tmp_path / "batched.onnx", files / "DWPose/dw-ll_ucoco_384.onnx")
    single, together = (open_dwpose(*names, providers="cpu", frames_per_call=count) for count in (1, 3))
    seen: list[int] = []
    detector = together.detector.session = Counted(together.detector.session)
    clips = single.extract_poses(frames), together.extract_poses(frames, seen.append)
    assert seen == [0, 1, 2, 3, 4]
    assert detector.calls == 2
    assert [len(frame.people) for frame in clips[0]] == [1, 0, 1, 1, 1]
    for one, other in zip(*clips, strict=True):
        assert (one.width, one.height) == (480, 480)
        assert [p.body.tolist() for p in one.people] == [p.body.tolist() for p in other.people]


def test_extraction_stops_when_the_callback_raises(dwpose):
    class Cancelled(Exception):
        pass

    def cancel(index: int) -> None:
        if index == 1:
            raise Cancelled

    counted = dwpose.detector.session = Counted(dwpose.detector.session)
    with pytest.raises(Cancelled):
        dwpose.extract_poses(np.stack([dot(240, 240)] * 4), cancel)
    dwpose.detector.session = counted.session
    assert counted.calls == 2


def test_pictures_from_0_to_1_give_the_same_and_stay_as_they_are(dwpose):
    image = dot(240, 100)
    floats = torch.from_numpy(image).float() / 255
    before = floats.clone()
    (one,), (other,) = dwpose.detect_people(image), dwpose.detect_people(floats)
    assert np.array_equal(one.body, other.body)
    assert torch.equal(floats, before)


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (np.zeros((2, 64, 64), np.uint8), "shape"),
        (np.zeros((2, 64, 64, 1), np.uint8), "colour"),
        (np.zeros((0, 64, 64, 3), np.uint8), "no frame"),
        (np.full((2, 64, 64, 3), np.nan, np.float32), "NaN or infinite pixels in frames 0, 1"),
        (np.zeros((1, 4, 64, 3), np.uint8), "64x4"),
        (np.zeros((1, 16, 4096, 3), np.uint8), "4096x16"),
        (np.zeros((1, 64, 64, 3), np.int64), "int64"),
    ],
)
def test_unusable_pictures_are_refused_before_the_network_runs(dwpose, frames, words):
    counted = dwpose.detector.session = Counted(dwpose.detector.session)
    with pytest.raises(InputError, match=words):
        dwpose.extract_poses(frames)
    dwpose.detector.session = counted.session
    assert counted.calls == 0


@pytest.mark.parametrize("option", [{"channels": "grb"}, {"no_person": "crash"}])
def test_unknown_options_are_named(files, option):
    with pytest.raises(InputError, match=next(iter(option.values()))):
        open_dwpose(files / "DWPose/yolox_l.onnx", files / "DWPose/dw-ll_ucoco_384.onnx", **option)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist"),
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer"),
        (b"<!DOCTYPE html>", "web page"),
        (b"\x08\x08\x12\x07pytorchXXXX\xff\xff\xff", "cannot open it"),
    ],
)
def test_an_unreadable_onnx_file_is_named(tmp_path, content, words):
    path = tmp_path / "yolox_l.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=words) as caught:
        open_session(path)
    assert str(path) in str(caught.value)


def test_a_truncated_onnx_file_is_named(tmp_path, files):
    whole = (files / "antelopev2/glintr100.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="cannot open it"):
        open_session(tmp_path / "cut.onnx", "cpu")


def test_networks_of_other_shapes_are_refused(tmp_path, files):
    detector, estimator = (
        open_session(files / f"DWPose/{n}.onnx", "cpu") for n in ("yolox_l", "dw-ll_ucoco_384")
    )
    with pytest.raises(WeightsError, match="a YOLOX detector takes"):
        DWPose(estimator, estimator)
    with pytest.raises(WeightsError, match="DWPose takes"):
        DWPose(detector, detector)
    standins.simcc(tmp_path / "body_only.onnx", joints=17)
    with pytest.raises(WeightsError, match="17"):
        DWPose(detector, open_session(tmp_path / "body_only.onnx", "cpu"))


def test_a_smaller_yolox_works_too(tmp_path, files):
    standins.yolox(tmp_path / "small.onnx", ((104, 40, 312, 400),), size=416)
    model = open_dwpose(tmp_path / "small.onnx", files / "DWPose/dw-ll_ucoco_384.onnx", providers="cpu")
    (person,) = model.detect_people(dot(200, 200))
    assert np.abs(person.body * 480 - 200).max() < 1.5


def test_a_provider_the_wheel_lacks_is_refused_and_the_cpu_is_reported():
    with pytest.raises(InputError, match="RknpuExecutionProvider is not in this onnxruntime"):
        choose_providers("RknpuExecutionProvider")
    assert choose_providers("cpu") == ["CPUExecutionProvider"]
    assert choose_providers("auto")[-1] == "CPUExecutionProvider"


def test_the_reported_provider_is_the_sessions_own(files):
    session = open_session(files / "DWPose/yolox_l.onnx", "cpu")
    assert providers_in_use(session) == session.get_providers() == ["CPUExecutionProvider"]


def test_letterbox_puts_the_picture_top_left_on_grey():
    frames = np.full((1, 100, 200, 3), 10, np.uint8)
    padded, ratio = letterbox(frames, (640, 640))
    assert (padded.shape, padded.dtype, ratio) == ((1, 3, 640, 640), np.float32, 3.2)
    assert (padded[0, :, :320] == 10).all() and (padded[0, :, 320:] == 114).all()


def test_warping_agrees_with_opencv_up_to_its_rounding():
    import cv2

    image = np.random.RandomState(0).randint(0, 256, (60, 80, 3)).astype(np.uint8)
    smooth = cv2.GaussianBlur(image, (0, 0), 3)
    matrix = np.array([[1.7, 0.2, -9.3], [-0.1, 1.4, 5.1]])
    difference = cv2.warpAffine(smooth, matrix, (90, 70)).astype(int) - warp_affine(smooth, matrix, 70, 90)
    inside = difference[8:-8, 12:-12]
    assert np.abs(inside).max() <= 3


def test_importing_the_pose_package_loads_no_heavy_library():
    import subprocess
    import sys

    code = (
        "import sys\n"
        "from stableanimator_core.pose import dwpose\n"
        "from stableanimator_core.face import boxes, embed, onnx_weights\n"
        "from stableanimator_core import doctor, download\n"
        "heavy = {'cv2', 'onnxruntime', 'onnx', 'insightface', 'scipy', 'skimage', 'huggingface_hub'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


class Counted:
    """A session that counts its calls and keeps what it was fed last."""

    def __init__(self, session):
        self.session, self.calls = session, 0

    def __getattr__(self, name):
        return getattr(self.session, name)

    def run(self, *arguments):
        self.calls += 1
        (self.fed,) = arguments[1].values()
        return self.session.run(*arguments)
