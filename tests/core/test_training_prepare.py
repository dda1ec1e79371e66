"""Videos become a training set: on small lossless videos, with detectors that can be planned.

The stand-ins see a person where red is bright, a second one where green is, the same standing figure in
every picture, and a face in every bright cell of 32x32 pixels (of 640).
"""

from __future__ import annotations

import json
import logging
from fractions import Fraction
from pathlib import Path

import av
import figure_standin
import numpy as np
import pytest
import standins
import torch
from PIL import Image, ImageFilter

from stableanimator_core.errors import InputError, WeightsError
from stableanimator_core.face.analysis import FaceDetector
from stableanimator_core.pose.draw import draw_frame
from stableanimator_core.pose.dwpose import open_dwpose
from stableanimator_core.pose.keypoints import load_pose_json
from stableanimator_core.pose.people import Frame, Person
from stableanimator_core.training import prepare as command
from stableanimator_core.training import prepare_checks as checks
from stableanimator_core.training.frames import draw_clip
from stableanimator_core.training.prepare import Networks, main, open_networks, prepare
from stableanimator_core.training.prepare_cuts import CutDetector
from stableanimator_core.training.prepare_settings import Settings
from stableanimator_core.training.prepare_source import Source, find_sources, read_frames, upright
from stableanimator_core.training.prepare_store import Dataset, open_dataset

FACE = (255, 120, 255)  # bright enough for the face detector, and without green for one person only
SIDE = 320
TWO_PEOPLE = ((40, 60, 280, 600), (360, 60, 600, 600))


def scene(seed: int = 0, size: tuple[int, int] = (SIDE, SIDE), face: bool = True, person: bool = True):
    """A dark textured picture (height, width), with a bright face of 64 pixels, a person without one, or
    nobody.
    """
    height, width = size
    image = np.random.RandomState(seed).randint(0, 100, (height, width, 3)).astype(np.uint8)
    row, column = height // 5, width // 2 - 32
    if person and face:
        image[row : row + 64, column : column + 64] = FACE
    elif person:
        image[row : row + 3, column : column + 3] = FACE
    return image


def other_scene() -> np.ndarray:
    """A place of its own: all brighter, so that nothing stays as it was."""
    image = scene(seed=9)
    dark = image.max(axis=-1) < 120
    image[dark] = image[dark] // 4 + np.array([10, 95, 95], dtype=np.uint8)
    return image


def two_people() -> np.ndarray:
    image = scene()
    image[10:13, 10:13] = (0, 255, 0)
    return image


def blurred() -> np.ndarray:
    return np.asarray(Image.fromarray(scene()).filter(ImageFilter.GaussianBlur(8)))


def write_video(path: Path, frames: list[np.ndarray], rate: int = 8, codec: str = "ffv1") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "bgr0" if codec == "ffv1" else "yuv420p"
        stream.time_base = Fraction(1, rate)
        if codec != "ffv1":
            stream.bit_rate = 8_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    figure_standin.write_detectors(folder)
    standins.yolox(folder / "yolox_l.onnx", (standins.PERSON, TWO_PEOPLE[1]))
    standins.scrfd(folder / "scrfd_10g_bnkps.onnx")
    return folder


@pytest.fixture(scope="module")
def networks(models) -> Networks:
    dwpose = open_dwpose(models / "yolox_l.onnx", models / "dw-ll_ucoco_384.onnx", providers="cpu")
    return Networks(dwpose, FaceDetector(models / "scrfd_10g_bnkps.onnx", "cpu"))


@pytest.fixture(scope="module")
def made(networks, tmp_path_factory) -> Path:
    """A set made of one good video of 18 frames with a face in all but frames 3 and 4."""
    folder = tmp_path_factory.mktemp("made")
    frames = [scene(face=number not in (3, 4)) for number in range(18)]
    prepare([write_video(folder / "videos/dance.mkv", frames)], folder / "set", networks)
    return folder / "set"


def small(**changes) -> Settings:
    """Settings for short tests; pictures stay as small as they are."""
    defaults = {"size": "original", "min_frames": 3, "bridge": 0, "min_sharpness": 0.0, "cut_threshold": 1.0}
    return Settings(**{**defaults, **changes})


def dropped(folder: Path) -> dict[str, list[list[int]]]:
    """Reason -> ranges, of a set of one video."""
    (entry,) = json.loads((folder / "report.json").read_text())["videos"].values()
    return {reason: what["ranges"] for reason, what in entry["dropped"].items()}


def tree(folder: Path) -> dict[str, bytes]:
    """What a trainer reads, and poses."""
    files = [path for name in ("rec", "vec") for path in (folder / name).rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


class Interrupting:
    """A detector of people that is interrupted at its n-th frame, and counts."""

    def __init__(self, dwpose, stop: int | None = None):
        self.dwpose, self.stop, self.calls = dwpose, stop, 0

    def detect_people(self, image):
        self.calls += 1
        if self.stop is not None and self.calls > self.stop:
            raise KeyboardInterrupt
        return self.dwpose.detect_people(image)


def test_a_video_becomes_the_official_layout(made):
    clip = made / "rec/00001"
    names = {f"frame_{number}.png" for number in range(18)}
    for part in ("images", "poses", "faces"):
        assert {path.name for path in (clip / part).iterdir()} == names
    assert (made / "video_rec_path.txt").read_text() == f"{clip.as_posix()}\n"
    assert (made / "video_vec_path.txt").read_text() == ""
    assert not [path for path in made.iterdir() if path.name == ".prepare_work"]


def test_pictures_are_the_frames_at_the_sets_size(made):
    with Image.open(made / "rec/00001/images/frame_7.png") as picture:
        wanted = Image.fromarray(scene()).resize((512, 512), Image.Resampling.BICUBIC)
        assert picture.mode == "RGB" and np.array_equal(np.asarray(picture), np.asarray(wanted))


def test_masks_are_the_detectors_boxes_filled_with_255_in_one_channel(made, networks):
    with Image.open(made / "rec/00001/images/frame_0.png") as picture:
        faces = networks.faces.find_faces(np.asarray(picture))
    wanted = np.zeros((512, 512), dtype=np.uint8)
    for face in faces:
        left, top, right, bottom = (int(value) for value in face.corners)
        wanted[top : bottom + 1, left : right + 1] = 255
    with Image.open(made / "rec/00001/faces/frame_0.png") as mask:
        assert mask.mode == "L" and 0 < wanted.mean() < 60
        assert np.array_equal(np.asarray(mask), wanted)


def test_a_frame_without_a_face_gets_an_all_white_mask_and_is_listed(made):
    for number in (3, 4):
        with Image.open(made / f"rec/00001/faces/frame_{number}.png") as mask:
            assert (np.asarray(mask) == 255).all()
    assert json.loads((made / "rec/00001/clip.json").read_text())["frames_without_face"] == [3, 4]
    assert "2 without a face" in (made / "report.txt").read_text()


def test_skeletons_can_be_drawn_again_from_the_kept_poses(made):
    poses = load_pose_json(made / "rec/00001/poses.json")
    assert len(poses) == 18 and (poses[0].width, poses[0].height) == (512, 512)
    with Image.open(made / "rec/00001/poses/frame_5.png") as drawn:
        pixels = np.asarray(drawn)
    assert pixels.any() and np.array_equal(pixels, draw_frame(poses[5], 512, 512))


def test_the_set_can_be_sampled_for_training(made):
    clip = Path((made / "video_rec_path.txt").read_text().splitlines()[0])
    drawn = draw_clip(len(list((clip / "images").iterdir())), torch.Generator().manual_seed(0))
    for part, mode in (("images", "RGB"), ("poses", "RGB"), ("faces", "L")):
        for number in (*drawn.frames, drawn.reference):
            with Image.open(clip / part / f"frame_{number}.png") as picture:
                assert (picture.size, picture.mode) == ((512, 512), mode)


def test_a_portrait_video_goes_into_the_other_set(networks, tmp_path):
    video = write_video(tmp_path / "tall.mp4", [scene(size=(512, 288))] * 3, codec="mpeg4")
    report = prepare(
        [video], tmp_path / "set", networks, small(min_joints=0, size="set"), relative_lists=True
    )
    assert report.clips == {"rec": 0, "vec": 1}
    assert (tmp_path / "set/video_vec_path.txt").read_text() == "vec/00001\n"
    for part in ("images", "poses", "faces"):
        with Image.open(tmp_path / f"set/vec/00001/{part}/frame_0.png") as picture:
            assert picture.size == (576, 1024)


@pytest.mark.parametrize(
    ("height", "width", "changes", "scaled", "final"),
    [
        (720, 1280, {}, (512, 910), (512, 512)),
        (1280, 720, {}, (1024, 576), (1024, 576)),
        (1000, 700, {}, (1024, 717), (1024, 576)),
        (720, 1280, {"fit": "stretch"}, (512, 512), (512, 512)),
        (720, 1280, {"size": "original"}, (720, 1280), (720, 720)),
        (720, 1280, {"size": "original", "image_set": "vec"}, (720, 1280), (720, 405)),
        (720, 1280, {"size": "original", "fit": "stretch"}, (720, 1280), (720, 1280)),
    ],
)
def test_frames_are_scaled_and_cut_to_the_sets_aspect(height, width, changes, scaled, final):
    placement = checks.place(height, width, Settings(**changes))
    assert (placement.scaled, placement.final) == (scaled, final)


def test_the_cut_follows_the_person_and_poses_follow_the_cut(networks, tmp_path):
    video = write_video(tmp_path / "wide.mkv", [scene(size=(SIDE, 2 * SIDE))] * 3)
    prepare([video], tmp_path / "set", networks, small())
    (whole,) = networks.dwpose.detect_people(scene(size=(SIDE, 2 * SIDE)))[:1]
    kept = load_pose_json(tmp_path / "set/rec/00001/poses.json")[0].people[0]
    moved = kept.body * SIDE - whole.body * [2 * SIDE, SIDE]  # pixels, by joint
    assert np.abs(moved - moved[0]).max() < 0.01 and abs(moved[0, 1]) < 0.01
    with Image.open(tmp_path / "set/rec/00001/images/frame_0.png") as picture:
        column = -round(moved[0, 0])
        wanted = scene(size=(SIDE, 2 * SIDE))[:, column : column + SIDE]
        assert np.array_equal(np.asarray(picture), wanted)
    left, _, right, _ = kept.box()
    assert abs((left + right) / 2 - 0.5) < 0.01 or column in (0, SIDE)


@pytest.mark.parametrize(
    ("bad", "changes", "reason"),
    [
        (lambda: scene(person=False), {}, checks.NO_PERSON),
        (two_people, {}, checks.SEVERAL_PEOPLE),
        (lambda: scene(face=False), {"no_face": "drop"}, checks.FACE_ABSENT),
        (blurred, {"min_sharpness": 20.0}, checks.BLURRED),
    ],
)
def test_a_bad_frame_ends_a_clip_and_is_reported(networks, tmp_path, bad, changes, reason):
    frames = [scene()] * 3 + [bad()] * 2 + [scene()] * 4
    report = prepare([write_video(tmp_path / "a.mkv", frames)], tmp_path / "set", networks, small(**changes))
    assert dropped(tmp_path / "set") == {reason: [[3, 4]]}
    (entry,) = report.videos.values()
    spans = [(clip["frames"], clip["first"], clip["last"]) for clip in entry.clips]
    assert spans == [(3, 0, 2), (4, 5, 8)]
    text = (tmp_path / "set/report.txt").read_text()
    assert f"dropped, {reason}: 2 frames (3-4)" in text and "7 kept" in text


@pytest.mark.parametrize(
    ("frames", "changes", "reason"),
    [
        ([scene()] * 3, {"min_face": 0.2}, checks.FACE_TOO_SMALL),
        ([scene()] * 2, {}, checks.TOO_SHORT),
        ([scene()] + [scene(face=False)] * 2, {}, checks.FACE_ABSENT),
        ([scene(size=(640, 320))] * 3, {"image_set": "rec", "min_joints": 17}, checks.JOINTS_MISSING),
    ],
)
def test_a_clip_that_is_not_good_enough_is_dropped_whole(networks, tmp_path, frames, changes, reason):
    video = write_video(tmp_path / "a.mkv", frames)
    report = prepare([video], tmp_path / "set", networks, small(**changes))
    assert dropped(tmp_path / "set") == {reason: [[0, len(frames) - 1]]}
    assert report.clips == {"rec": 0, "vec": 0} and report.dropped == {reason: len(frames)}


def test_few_bad_frames_can_be_left_out_without_a_new_clip(networks, tmp_path):
    frames = [scene()] * 3 + [scene(person=False)] * 2 + [scene()] * 3
    prepare([write_video(tmp_path / "a.mkv", frames)], tmp_path / "set", networks, small(bridge=2))
    about = json.loads((tmp_path / "set/rec/00001/clip.json").read_text())
    assert about["source_frames"] == [0, 1, 2, 5, 6, 7]
    assert sorted(path.name for path in (tmp_path / "set/rec").iterdir()) == ["00001"]


def test_a_second_person_is_allowed_where_one_is_chosen(networks, tmp_path):
    video = write_video(tmp_path / "a.mkv", [two_people()] * 3)
    prepare([video], tmp_path / "set", networks, small(person="largest"))
    poses = load_pose_json(tmp_path / "set/rec/00001/poses.json")
    assert [len(frame.people) for frame in poses] == [1, 1, 1]


def test_a_cut_divides_a_video(networks, tmp_path):
    frames = [scene(number) for number in range(4)] + [other_scene()] * 4
    report = prepare(
        [write_video(tmp_path / "a.mkv", frames)], tmp_path / "set", networks, small(cut_threshold=0.08)
    )
    (entry,) = report.videos.values()
    assert [(clip["first"], clip["last"]) for clip in entry.clips] == [(0, 3), (4, 7)]
    assert entry.cuts == [4] and "cut before 4" in report.as_text()


def test_cuts_are_told_from_motion_and_from_a_shaken_camera():
    def seen(frames):
        detector = CutDetector()
        return [number for number, frame in enumerate(frames) if detector.is_cut(frame)]

    moving = []
    for step in range(12):
        image = scene()
        image[100:250, 20 * step : 20 * step + 80] = 230
        moving.append(image)
    bars = np.uint8(np.arange(SIDE) // 40 % 2 * 200)
    shaken = [np.repeat(np.roll(bars, 16 * k)[None, :, None], SIDE, 0).repeat(3, 2) for k in range(12)]
    brighter = [np.clip(scene().astype(int) + 3 * step, 0, 255).astype(np.uint8) for step in range(12)]
    assert seen(moving) == [] and seen(brighter) == []
    assert seen(shaken)[1:] == []  # only its begin can be taken for a cut
    assert seen(moving + [other_scene()] * 3) == [12]


def test_long_takes_are_divided(networks, tmp_path):
    video = write_video(tmp_path / "a.mkv", [scene()] * 8)
    report = prepare([video], tmp_path / "set", networks, small(max_frames=3))
    (entry,) = report.videos.values()
    assert [(clip["first"], clip["last"]) for clip in entry.clips] == [(0, 2), (3, 5)]
    assert dropped(tmp_path / "set") == {checks.TOO_SHORT: [[6, 7]]}


def test_a_video_is_thinned_by_its_own_times(tmp_path):
    video = write_video(tmp_path / "a.mkv", [scene()] * 12, rate=24)
    assert [frame.number for frame in read_frames(Source(video), fps=8)] == [0, 3, 6, 9]
    assert [frame.number for frame in read_frames(Source(video), fps=8, start=5)] == [6, 9]
    assert len(list(read_frames(Source(video), fps=60))) == 12


def test_a_folder_of_pictures_is_a_video_in_the_order_of_numbers(networks, tmp_path):
    folder = tmp_path / "shots"
    folder.mkdir()
    for number in range(11):
        Image.fromarray(scene(number)).save(folder / f"f{number}.png")
    (folder / "f4.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    report = prepare([tmp_path], tmp_path / "set", networks, small())
    assert dropped(tmp_path / "set") == {checks.UNREADABLE: [[4, 4]]}
    (entry,) = report.videos.values()
    assert [(clip["first"], clip["last"]) for clip in entry.clips] == [(0, 3), (5, 10)]
    with Image.open(tmp_path / "set/rec/00002/images/frame_5.png") as last:  # f10, not f9
        assert np.array_equal(np.asarray(last), scene(10))


def test_a_bad_video_is_listed_and_the_next_one_is_done(networks, tmp_path):
    videos = tmp_path / "videos"
    good = write_video(videos / "2.mkv", [scene()] * 3)
    (videos / "1.mp4").write_bytes(b"not a video at all")
    whole = write_video(videos / "3.mkv", [scene(seed) for seed in range(8)]).read_bytes()
    (videos / "3.mkv").write_bytes(whole[: len(whole) // 2])
    (videos / "4.mkv").write_bytes(b"")
    report = prepare([videos], tmp_path / "set", networks, small())
    kept = {Path(key).name: len(entry.clips) for key, entry in report.videos.items()}
    assert kept == {"1.mp4": 0, "2.mkv": 1, "3.mkv": 1, "4.mkv": 0}
    problems = {Path(key).name: entry.problem for key, entry in report.videos.items()}
    assert "cannot be opened" in problems["1.mp4"] and "cannot be opened" in problems["4.mkv"]
    assert problems["2.mkv"] == "" and good.exists()
    assert problems["1.mp4"] in (tmp_path / "set/report.txt").read_text()


def test_what_is_done_is_passed_over_until_it_changes(networks, tmp_path):
    video = write_video(tmp_path / "a.mkv", [scene()] * 4)
    prepare([video], tmp_path / "set", networks, small())
    before = tree(tmp_path / "set")
    counted = Networks(Interrupting(networks.dwpose), networks.faces)
    said: list[str] = []
    prepare([video], tmp_path / "set", counted, small(), say=said.append)
    prepare([video], tmp_path / "set", counted, small(min_joints=9), say=said.append)
    assert counted.dwpose.calls == 0 and tree(tmp_path / "set") == before
    assert "done before" in said[1] and "--again" in said[-1]
    write_video(video, [scene(1)] * 5)
    prepare([video], tmp_path / "set", counted, small())
    assert counted.dwpose.calls == 5
    prepare([video], tmp_path / "set", counted, small(), again=True)
    assert counted.dwpose.calls == 10
    clips = [path.name for path in (tmp_path / "set/rec").iterdir()]
    assert len(clips) == 1 and (tmp_path / "set/video_rec_path.txt").read_text().count("\n") == 1


@pytest.mark.parametrize("stop", [2, 4, 6, 9])
def test_an_interrupted_run_leaves_whole_clips_and_goes_on(networks, tmp_path, stop):
    video = write_video(tmp_path / "a.mkv", [scene(seed) for seed in range(9)])
    settings = small(max_frames=3)
    prepare([video], tmp_path / "whole", networks, settings)
    out = tmp_path / "set"
    stopped = Networks(Interrupting(networks.dwpose, stop), networks.faces)
    if stop < 9:
        with pytest.raises(KeyboardInterrupt):
            prepare([video], out, stopped, settings)
        assert not (out / ".prepare_work").exists()
        assert len((out / "video_rec_path.txt").read_text().splitlines()) == stop // 3
        assert {key: value for key, value in tree(tmp_path / "whole").items() if key in tree(out)} == tree(
            out
        )
    resumed = Networks(Interrupting(networks.dwpose), networks.faces)
    prepare([video], out, resumed, settings)
    assert resumed.dwpose.calls == 9 - (stop // 3 * 3 if stop < 9 else 0)
    assert tree(out) == tree(tmp_path / "whole")
    assert dropped(out) == dropped(tmp_path / "whole")


@pytest.mark.parametrize("moment", ["rename", "manifest"])
def test_a_kill_between_the_steps_of_taking_in_loses_and_doubles_nothing(
    networks, tmp_path, monkeypatch, moment
):
    frames = [scene()] * 3 + [scene(person=False)] + [scene(1)] * 3
    video, out = write_video(tmp_path / "a.mkv", frames), tmp_path / "set"
    prepare([video], tmp_path / "whole", networks, small())
    calls = []

    def killed(original):
        def call(self, *arguments):
            calls.append(moment)
            if len(calls) == 2:  # after the first clip is in its place; saving a new entry is the first save
                raise RuntimeError("killed")
            return original(self, *arguments)

        return call

    name = {"rename": "_place", "manifest": "save"}[moment]
    with monkeypatch.context() as patched:
        patched.setattr(Dataset, name, killed(getattr(Dataset, name)))
        with pytest.raises(RuntimeError, match="killed"):
            prepare([video], out, networks, small())
    assert tree(out)  # something is there that the manifest does not know
    prepare([video], out, networks, small())
    assert sorted(tree(out).values()) == sorted(tree(tmp_path / "whole").values())
    assert len((out / "video_rec_path.txt").read_text().splitlines()) == 2


def test_clips_of_others_are_listed_and_never_touched(networks, tmp_path):
    foreign = tmp_path / "set/rec/00007"
    (foreign / "images").mkdir(parents=True)
    (foreign / "images/frame_0.png").write_bytes(b"mine")
    prepare([write_video(tmp_path / "a.mkv", [scene()] * 3)], tmp_path / "set", networks, small())
    names = [Path(line).name for line in (tmp_path / "set/video_rec_path.txt").read_text().splitlines()]
    assert names == ["00007", "00008"] and (foreign / "images/frame_0.png").read_bytes() == b"mine"


def test_no_name_leads_out_of_the_data_set(networks, tmp_path):
    for name in ("a..mkv", "a\nb; rm.mkv", "%2e%2e%2f.mkv"):
        write_video(tmp_path / "in" / name, [scene()] * 3)
    out = tmp_path / "deep/set"
    prepare([tmp_path / "in"], out, networks, small())
    assert sorted(path.name for path in (out / "rec").iterdir()) == ["00001", "00002", "00003"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "in"]
    assert "a?b; rm.mkv" in (out / "report.txt").read_text()

    precious = tmp_path / "precious/images"
    precious.mkdir(parents=True)
    manifest = json.loads((out / "prepare.json").read_text())
    for entry in manifest["videos"].values():
        entry["clips"] = [{**entry["clips"][0], "name": "../../precious"}]
    (out / "prepare.json").write_text(json.dumps(manifest))
    prepare([tmp_path / "in"], out, networks, small(), again=True)
    assert precious.exists()


def test_the_data_set_itself_is_not_taken_for_videos(networks, tmp_path):
    write_video(tmp_path / "a.mkv", [scene()] * 3)
    for _ in range(2):
        report = prepare([tmp_path], tmp_path / "set", networks, small())
    assert [Path(key).name for key in report.videos] == ["a.mkv"]


def test_two_runs_cannot_share_a_data_set(networks, tmp_path):
    video = write_video(tmp_path / "a.mkv", [scene()] * 3)
    with open_dataset(tmp_path / "set"), pytest.raises(InputError, match="in use by another run"):
        prepare([video], tmp_path / "set", networks, small())


def test_a_damaged_manifest_is_named_and_kept(networks, tmp_path):
    video = write_video(tmp_path / "a.mkv", [scene()] * 3)
    (tmp_path / "set").mkdir()
    (tmp_path / "set/prepare.json").write_text('{"version": 1, "vid')
    with pytest.raises(InputError, match=r"prepare.json: is not a manifest"):
        prepare([video], tmp_path / "set", networks, small())
    assert (tmp_path / "set/prepare.json").read_text() == '{"version": 1, "vid'


def test_the_command_finds_its_networks_and_reports(models, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    video = write_video(tmp_path / "a.mkv", [scene()] * 3)
    arguments = [str(video), "--out", str(tmp_path / "set"), "--models", str(models), "--provider", "cpu"]
    assert main([*arguments, "--min-frames", "3", "--relative-lists"]) == 0
    assert "Clips: 1 in rec, 0 in vec." in caplog.text
    assert (tmp_path / "set/video_rec_path.txt").read_text() == "rec/00001\n"
    assert main([*arguments[:2], str(tmp_path / "none"), *arguments[3:]]) == 1  # 3 frames are too short


def test_an_interrupted_command_says_how_to_go_on(models, tmp_path, caplog, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "prepare", interrupted)
    video = write_video(tmp_path / "a.mkv", [scene()])
    assert main([str(video), "--out", str(tmp_path / "set"), "--models", str(models)]) == 130
    assert "the same command goes on" in caplog.text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--min-frames", "20", "--max-frames", "18"], "--max-frames"),
        (["--min-face", "1.5"], "--min-face: is 1.5"),
        (["--fps", "-3"], "--fps"),
    ],
)
def test_impossible_options_are_refused_before_anything_is_made(tmp_path, models, caplog, options, words):
    arguments = [str(tmp_path), "--out", str(tmp_path / "set"), "--models", str(models), *options]
    assert main(arguments) == 2
    assert words in caplog.text and not (tmp_path / "set").exists()


def test_missing_networks_and_videos_are_named(tmp_path):
    with pytest.raises(WeightsError, match=r"yolox_l(.|\n)*dw-ll_ucoco_384(.|\n)*scrfd_10g"):
        open_networks([tmp_path])
    with pytest.raises(InputError, match="does not exist"):
        find_sources([tmp_path / "nowhere"], tmp_path / "set")
    with pytest.raises(InputError, match="hold no videos"):
        find_sources([tmp_path], tmp_path / "set")


def test_a_phones_rotation_is_counter_clockwise():
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    assert np.array_equal(upright(image, 90)[:, 0], image[0, ::-1])
    assert np.array_equal(upright(image, -90), upright(image, 270))
    assert upright(image, 0) is not None and np.array_equal(upright(image, 0), image)


def test_a_person_at_the_edge_lacks_the_joints_outside():
    body = np.column_stack([np.linspace(0.5, 1.5, 18), np.full(18, 0.5)])  # nine joints lie inside
    frame = Frame((Person(body=body, body_score=np.ones(18)),), 512, 512)
    assert checks.joints_problem(frame, Settings(min_joints=9)) == ""
    assert checks.joints_problem(frame, Settings(min_joints=10)) == checks.JOINTS_MISSING
