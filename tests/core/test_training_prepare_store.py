"""The training set's folder stays whole: stopped runs, killed runs, bad names, two runs, the command."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from prepare_videos import (
    Interrupting,
    dropped,
    open_models,
    scene,
    small,
    tree,
    write_models,
    write_video,
)

from stableanimator_core.errors import InputError, WeightsError
from stableanimator_core.training import prepare as command
from stableanimator_core.training.prepare import Networks, main, open_networks, prepare
from stableanimator_core.training.prepare_source import find_sources
from stableanimator_core.training.prepare_store import Dataset, open_dataset


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def networks(models) -> Networks:
    return open_models(models)


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


def test_doing_a_video_again_can_be_stopped_too(networks, tmp_path):
    video = write_video(tmp_path / "a.mkv", [scene()] * 3)
    prepare([video], tmp_path / "set", networks, small())
    before = tree(tmp_path / "set")
    stopped = Networks(Interrupting(networks.dwpose, 1), networks.faces)
    with pytest.raises(KeyboardInterrupt):
        prepare([video], tmp_path / "set", stopped, small(), again=True)
    prepare([video], tmp_path / "set", networks, small())
    assert tree(tmp_path / "set") == before


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
