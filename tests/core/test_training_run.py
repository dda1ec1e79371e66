"""Whole runs of the trainer on tiny networks: that they end, go on bit for bit, and leave the right files behind."""

import json
import os
import signal
import sys
from types import SimpleNamespace

import pytest
import torch
import training_data

from stableanimator_core.errors import InputError
from stableanimator_core.training import __main__ as command
from stableanimator_core.training import checkpoints, runtime, trainer
from stableanimator_core.training.checkpoints import PARTS, checkpoints_in
from stableanimator_core.training.trainer import Trainer, train

ENDS = {"export": "export_pth", "publish": "publish"}
"""What does not come to its end when a run is killed while writing."""


def assert_equal_states(one, other, parts=PARTS):
    for part in parts:
        left, right = training_data.state_of(one, part), training_data.state_of(other, part)
        assert left.keys() == right.keys()
        assert [key for key in left if not torch.equal(left[key], right[key])] == []


def stop_after(monkeypatch, count):
    """Send this process SIGTERM in its `count`-th step, as a scheduler would."""
    real, seen = Trainer._train_step, []

    def step(self, batches):
        seen.append(1)
        if len(seen) == count:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, batches)

    monkeypatch.setattr(Trainer, "_train_step", step)


@pytest.mark.parametrize("source", ["cache", "files"])
def test_a_run_that_a_signal_ends_goes_on_bit_for_bit(configured, monkeypatch, source):
    data = {} if source == "cache" else {"cache": ""}
    options = {"training": {"steps": 4, "gradient_accumulation": 2}, "ema": {"enabled": True}, "data": data}
    whole = train(configured("whole", **options))
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        first = train(configured("parts", **options))
    assert (first.step, first.interrupted) == (2, True)
    second = train(configured("parts", **options), "latest")
    assert (whole.step, second.step, second.interrupted) == (4, 4, False)
    assert_equal_states(whole.checkpoint, second.checkpoint)
    for name in ("ema.safetensors", "state/optimizer.bin"):
        left, right = (training_data.loaded(result.checkpoint / name) for result in (whole, second))
        assert flat(left) == pytest.approx(flat(right), abs=0, rel=0)
    lines = [
        json.loads(line) for line in (second.checkpoint.parent / "metrics.jsonl").read_text().splitlines()
    ]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]


def flat(tree):
    """Every number of nested dictionaries of tensors, as sums that differ if anything does."""
    if isinstance(tree, dict):
        return [number for key in sorted(tree, key=str) for number in flat(tree[key])]
    return [float(tree.double().sum()), float((tree.double() ** 2).sum())]


def test_the_last_checkpoints_are_kept(configured):
    settings = configured(training={"steps": 5}, checkpoints={"every": 1, "keep": 2})
    train(settings)
    assert [path.name for path in checkpoints_in(settings.output)] == [
        "checkpoint-000004",
        "checkpoint-000005",
    ]


@pytest.mark.parametrize("where", ["export", "publish"])
def test_a_run_killed_while_writing_leaves_the_checkpoint_before(configured, monkeypatch, where):
    """In the middle of its files, and when all are written but not named."""
    settings = configured(training={"steps": 2}, checkpoints={"every": 1})

    def dies(*_args, **_options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        real = trainer.publish

        def then_die(*args):
            real(*args)
            patch.setattr(trainer if where == "publish" else checkpoints, ENDS[where], dies)

        patch.setattr(trainer, "publish", then_die)
        with pytest.raises(KeyboardInterrupt):
            train(settings)
    assert [path.name for path in checkpoints_in(settings.output)] == ["checkpoint-000001"]
    assert (settings.output / ".checkpoint-000002.part" / "unet.safetensors").is_file()
    result = train(settings, "latest")
    assert result.step == 2 and (result.checkpoint / "unet.pth").is_file()
    assert not list(settings.output.glob(".checkpoint*"))


def test_a_run_is_not_written_over_another(configured):
    settings = configured(training={"steps": 2}, checkpoints={"every": 1})
    with pytest.raises(InputError, match="no checkpoint"):
        train(settings, "latest")
    train(settings)
    with pytest.raises(InputError, match="--resume"):
        train(settings)
    with pytest.raises(InputError, match="not the last"):
        train(settings, "checkpoint-000001")
    with pytest.raises(InputError, match="there are: checkpoint-000001, checkpoint-000002"):
        train(settings, "checkpoint-7")


def test_validation_shows_truth_poses_and_result(configured):
    settings = configured(
        training={"steps": 2},
        ema={"enabled": True},
        validation={"every": 2, "clips": ["rec/00001"], "num_steps": 1, "num_frames": 3},
    )
    result = train(settings)
    from PIL import Image

    with Image.open(settings.output / "validation" / "rec-00001-000002.png") as picture:
        assert picture.size == (3 * 64, 3 * 64)
    with Image.open(settings.output / "validation" / "rec-00001-000002.gif") as film:
        assert film.size == (3 * 64, 64) and film.n_frames == 3
    quiet = configured("quiet", training={"steps": 2}, ema={"enabled": True})
    assert_equal_states(result.checkpoint, train(quiet).checkpoint)  # looking changes nothing


def test_both_sizes_are_trained_and_what_is_left_out_is_listed(configured, tmp_path, training_weights):
    root = tmp_path / "animation_data"
    training_data.write_clip(root / "rec" / "00001", 5)
    spoilt = training_data.write_clip(root / "rec" / "00002", 6)
    (spoilt / "faces" / "frame_3.png").unlink()
    training_data.write_clip(root / "rec" / "00003", 1)
    training_data.write_clip(root / "vec" / "00001", 4)
    (root / "video_vec_path.txt").write_text("vec/00001\n")
    buckets = [
        {"folder": "rec", "width": 64, "height": 64},
        {"folder": "vec", "width": 64, "height": 128, "list": "video_vec_path.txt"},
    ]
    data = {"root": str(root), "buckets": buckets, "cache": ""}
    result = train(configured(data=data))
    assert result.step == 2  # one pass of each
    report = json.loads((result.checkpoint.parent / "data_report.json").read_text())
    assert {name[-9:]: frames for name, frames in report["used"].items()} == {"rec/00001": 5, "vec/00001": 4}
    assert {name[-9:] for name in report["skipped"]} == {"rec/00002", "rec/00003"}
    assert report["dropped_frames"][str(spoilt)][0] == "frame_3: face mask missing"
    log = (result.checkpoint.parent / "train.log").read_text()
    assert "2 clip folders with 9 frames are used" in log and "rec/00003: 1 frames in a row" in log


class Board:
    """TensorBoard's writer, as far as it is used."""

    made = []

    def __init__(self, folder, purge_step):
        self.folder, self.first, self.scalars, self.images = folder, purge_step, [], {}
        Board.made.append(self)

    def add_scalar(self, name, value, step):
        self.scalars.append((name, step, value))

    def add_image(self, name, picture, step, dataformats):
        assert dataformats == "HWC" and picture.dtype == "uint8"
        self.images[name, step] = picture.shape

    def close(self):
        self.closed = True


def test_tensorboard_gets_curves_and_pictures_where_it_is_installed(configured, monkeypatch):
    module = "torch.utils.tensorboard.writer"
    monkeypatch.setattr(Board, "made", [])
    monkeypatch.setitem(sys.modules, module, SimpleNamespace(SummaryWriter=Board))
    validation = {"every": 2, "clips": ["rec/00001"], "num_steps": 1, "num_frames": 2}
    settings = configured(log={"tensorboard": True, "every": 1}, validation=validation)
    train(settings)
    (board,) = Board.made
    assert board.folder == str(settings.output / "tensorboard") and board.closed
    lines = [json.loads(line) for line in (settings.output / "metrics.jsonl").read_text().splitlines()]
    losses = [(step, value) for name, step, value in board.scalars if name == "train/loss"]
    assert losses == [(line["step"], line["loss"]) for line in lines if "loss" in line]
    assert "train/psnr_rec/00001" in {name for name, _, _ in board.scalars}
    assert board.images == {("validation/rec/00001", 2): (3 * 64, 2 * 64, 3)}


def test_without_tensorboard_a_run_says_so_and_goes_on(configured, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)
    settings = configured(log={"tensorboard": True})
    assert train(settings).step == 2
    assert "TensorBoard is not installed" in (settings.output / "train.log").read_text()


def test_a_loss_that_is_no_number_stops_the_run_and_is_not_saved(configured, monkeypatch):
    settings = configured(training={"steps": 2})
    monkeypatch.setattr(Trainer, "_train_step", lambda self, batches: torch.tensor(float("nan")))
    with pytest.raises(InputError, match="the loss: is nan at step 1"):
        train(settings)
    assert not checkpoints_in(settings.output)


def test_the_command_says_what_is_wrong_and_how_to_install_accelerate(
    tmp_path, monkeypatch, capsys, configured
):
    (tmp_path / "bad.toml").write_text("outputs = 1\n")
    assert command.main([str(tmp_path / "bad.toml")]) == 2
    assert "Use output" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(InputError, match="pip install"):
        runtime.make_accelerator(configured())
