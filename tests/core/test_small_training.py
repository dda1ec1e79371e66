"""The small networks' trainers, on a tiny store of painted figures."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from stableanimator_core.errors import InputError, WeightsError
from stableanimator_core.evaluation.joint_detector import JointDetector, load_joint_detector, soft_argmax
from stableanimator_core.face.embed import embed_face
from stableanimator_core.face.recognisers import TorchRecogniser
from stableanimator_core.models.face_encoder import FaceEncoder
from stableanimator_core.models.pose_net import PoseNet
from stableanimator_core.models.vae import SCALING_FACTOR
from stableanimator_core.pose.people import Frame, Person
from stableanimator_core.puppets.__main__ import main as puppets_main
from stableanimator_core.training.small import loop
from stableanimator_core.training.small.__main__ import main, make_stage
from stableanimator_core.training.small.face_start import Faces, pretrain, read_faces
from stableanimator_core.training.small.face_start import main as face_start_main
from stableanimator_core.training.small.faces import crop_face
from stableanimator_core.training.small.halve import halve
from stableanimator_core.training.small.image_encoder import ImageEncoderStage
from stableanimator_core.training.small.loop import Budget, train
from stableanimator_core.training.small.normalised_vae import NormalisedVAE, folded
from stableanimator_core.training.small.pose_start import filters_of, normalise_filters, read_skeletons
from stableanimator_core.training.small.pose_start import main as pose_start_main
from stableanimator_core.training.small.recogniser import ArcFaceHead, verification
from stableanimator_core.training.small.store import (
    HELD_OUT_FROM,
    FrameStore,
    StorePlan,
    build_store,
    open_store,
)
from stableanimator_core.training.small.vae import CONFIG, Phase, VAEStage, linear_colour_loss
from stableanimator_core.weights.animate_anyone import load_pose_guider
from stableanimator_core.weights.files import read_weights, save_weights
from stableanimator_core.weights.load import (
    load_face_encoder,
    load_face_recognizer,
    load_image_encoder,
    load_pose_net,
    load_vae,
)

PLAN = StorePlan(persons=6, held_out=3, clips=2, num_frames=2, size=64)
_PHASES = (Phase(0.5, 32, 4), Phase(1.0, 64, 2, temporal=True))


@dataclass
class _Clip:
    frames: np.ndarray
    face_masks: np.ndarray
    face_boxes: np.ndarray
    poses: list[Frame]


def paint_clip(person_seed: int, motion_seed: int, num_frames: int, size: int) -> _Clip:
    """A coloured face on a coloured body; it moves to the right."""
    look, motion = np.random.default_rng(person_seed), np.random.default_rng(motion_seed)
    skin, body = look.integers(0, 256, (2, 3))
    frames = np.full((num_frames, size, size, 3), motion.integers(0, 256, 3), dtype=np.uint8)
    masks, boxes, poses = np.zeros((num_frames, size, size), np.uint8), [], []
    for number in range(num_frames):
        left, top, side = 12 + 2 * number, 6, 24
        frames[number, top + side :, left - 6 : left + side + 6] = body
        frames[number, top : top + side, left : left + side] = skin
        masks[number, top : top + side, left : left + side] = 255
        boxes.append([left, top, left + side, top + side])
        joints = np.array([left + 12, top + 12]) / size + np.linspace(0, 0.3, 18)[:, None] * [0.2, 1]
        poses.append(Frame((Person(body=joints, body_score=np.ones(18)),), size, size))
    return _Clip(frames, masks, np.array(boxes, dtype=float), poses)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FrameStore:
    return build_store(tmp_path_factory.mktemp("store"), PLAN, make_clip=paint_clip, workers=0)


def small_stage(name: str, store: FrameStore) -> loop.Stage:
    if name == "vae":
        return VAEStage(store, config={**CONFIG, "block_out_channels": [32] * 4}, phases=_PHASES)
    stage = make_stage(name, store, 0)
    stage.batch = 8  # pyright: ignore[reportAttributeAccessIssue]
    return stage


def test_the_store_keeps_what_was_painted_and_holds_people_out(store: FrameStore):
    assert store.frames.shape == (36, 64, 64, 3)
    assert len(store.training) == 24 and len(store.held_out) == 12
    assert (store.people[store.held_out] >= HELD_OUT_FROM).all()
    clip = paint_clip(*PLAN.seeds_of(5), 2, 64)
    assert np.array_equal(store.frames[10:12], clip.frames)
    assert np.array_equal(store.boxes[10:12], clip.face_boxes)
    assert np.allclose(store.joints[10], clip.poses[0].people[0].body)


def test_motions_are_never_shared():
    seeds = [PLAN.seeds_of(clip) for clip in range(PLAN.num_clips)]
    assert len({motion for _, motion in seeds}) == len(seeds)


def test_an_interrupted_store_goes_on(tmp_path: Path):
    def stop(done: int, number: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_store(tmp_path, PLAN, make_clip=paint_clip, workers=0, on_clip=stop)
    with pytest.raises(InputError, match="lacks 15 of 18"):
        open_store(tmp_path)
    calls = []
    build_store(tmp_path, PLAN, make_clip=paint_clip, workers=0, on_clip=lambda done, _: calls.append(done))
    assert calls[0] == 4 and calls[-1] == 18
    with pytest.raises(InputError, match="another plan"):
        build_store(tmp_path, StorePlan(persons=1), make_clip=paint_clip)


@pytest.mark.parametrize("name", ["vae", "image-encoder", "recogniser", "judge", "joints"])
def test_every_stage_trains_logs_and_writes_a_file_that_loads(name: str, store: FrameStore, tmp_path: Path):
    stage = small_stage(name, store)
    measures = train(stage, tmp_path, Budget(steps=3))
    assert measures and all(isinstance(value, float | int) for value in measures.values())
    with (tmp_path / "logs" / f"{stage.name}_held_out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert int(rows[-1]["step"]) == 3 and set(measures) < set(rows[-1])
    (path,) = stage.export(tmp_path, torch.float16)
    loader = {
        "vae": load_vae,
        "image-encoder": load_image_encoder,
        "recogniser": load_face_recognizer,
        "judge": load_face_recognizer,
        "joints": load_joint_detector,
    }[name]
    place = tmp_path / "SVD" if name in ("vae", "image-encoder") else path
    assert next(loader(place, dtype=torch.float32).parameters()).dtype == torch.float32


@pytest.mark.parametrize("name", ["vae", "image-encoder", "recogniser", "joints"])
def test_the_loss_of_one_batch_falls(name: str, store: FrameStore):
    stage = small_stage(name, store)
    stage.network.train()
    optimiser = torch.optim.AdamW(stage.network.parameters(), 2e-3)
    values = []
    for _ in range(12):
        loss = torch.stack(list(stage.losses(np.random.default_rng(0), 0.0).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        values.append(loss.item())
    assert min(values[-3:]) < 0.85 * values[0]


def test_an_interrupted_run_ends_where_an_uninterrupted_one_ends(store: FrameStore, tmp_path: Path):
    whole = small_stage("joints", store)
    train(whole, tmp_path / "whole", Budget(steps=4))

    cut = small_stage("joints", store)
    cut.evaluate = lambda: {}  # pyright: ignore[reportAttributeAccessIssue]
    steps, losses = [], cut.losses

    def stopping(random: np.random.Generator, progress: float):
        steps.append(progress)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return losses(random, progress)

    cut.losses = stopping  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(KeyboardInterrupt):
        train(cut, tmp_path / "cut", Budget(steps=4), checkpoint_seconds=-1)
    resumed = small_stage("joints", store)
    train(resumed, tmp_path / "cut", Budget(steps=4))
    for key, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[key]), key


def test_the_folded_vae_gives_unit_latents_after_the_scaling_factor():
    network = NormalisedVAE({**CONFIG, "block_out_channels": [32] * 4}).eval()
    pixels = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        network.freeze([pixels])
        mean, log_variance = network.encode(pixels)
        vae = folded(network)
        posterior = vae.encode(pixels).latent_dist  # pyright: ignore[reportAttributeAccessIssue]
        shown = vae.decode(posterior.mode(), num_frames=2).sample  # pyright: ignore[reportAttributeAccessIssue]
        torch.testing.assert_close(posterior.mode() * SCALING_FACTOR, mean)
        torch.testing.assert_close(posterior.std * SCALING_FACTOR, (log_variance / 2).exp())
        torch.testing.assert_close(shown, network.decode(mean, 2), atol=1e-4, rtol=1e-4)
    assert mean.std(dim=(0, 2, 3)).sub(1).abs().max() < 0.01


def test_temporal_layers_begin_as_the_identity():
    network = NormalisedVAE({**CONFIG, "block_out_channels": [32] * 4}).eval()
    latents = torch.randn(3, 4, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(network.decode(latents, 3), network.decode_spatially(latents))


def test_colours_that_lie_straight_in_the_latents_cost_nothing():
    colours = torch.rand(2, 3, 4, 4) * 2 - 1
    latents = torch.cat([2 * colours + 0.5, torch.randn(2, 1, 4, 4)], dim=1)
    pixels = colours.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    assert linear_colour_loss(latents, pixels) < 0.02 < linear_colour_loss(torch.randn(2, 4, 4, 4), pixels)


def test_the_image_encoders_file_holds_the_norm_that_training_used(store: FrameStore, tmp_path: Path):
    stage = ImageEncoderStage(store, batch=8)
    train(stage, tmp_path, Budget(steps=4))
    stage.export(tmp_path, torch.float32)
    pixels = torch.randn(3, 3, 224, 224)
    with torch.no_grad():
        expected = stage.network.eval()["norm"](stage.encoder(pixels).image_embeds)
        found = load_image_encoder(tmp_path / "SVD")(pixels).image_embeds
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_recognisers_learn_from_the_crop_that_face_embed_makes(store: FrameStore):
    class Nobody(TorchRecogniser):
        def __init__(self) -> None: ...

        def embed(self, crops: np.ndarray) -> torch.Tensor:
            return torch.zeros(len(crops), 512)

    box = (3.5, 6.0, 40.0, 30.0)
    frame = np.array(store.frames[3])
    assert np.array_equal(crop_face(frame, np.array(box)), embed_face([frame], Nobody(), corners=box).crop)
    assert crop_face(frame, np.array(box), stretched=True).shape == (112, 112, 3)


def test_the_margin_makes_the_right_person_harder():
    head = ArcFaceHead(4, 8)
    identities, people = torch.randn(5, 8), torch.tensor([0, 1, 2, 3, 0])
    assert head(identities, people, 0.35) > head(identities, people, 0.0)


def test_verification_tells_perfect_from_random_vectors():
    people = torch.arange(20).repeat_interleave(3)
    perfect = verification(*[torch.eye(20)[people]] * 2, people)
    assert perfect["accuracy"] == pytest.approx(1) and perfect["cosine_same"] == pytest.approx(1)
    vectors = torch.randn(60, 64, generator=torch.Generator().manual_seed(0))
    assert 0.3 < verification(vectors, vectors, people)["eer"] < 0.7


def test_soft_argmax_finds_the_middle_of_a_cell():
    logits = torch.zeros(1, 1, 32, 32)
    logits[0, 0, 7, 20] = 50
    torch.testing.assert_close(soft_argmax(logits)[0, 0], torch.tensor([20.5 / 32, 7.5 / 32]))


def test_the_joint_detector_takes_any_size_and_refuses_other_files(tmp_path: Path):
    joints = JointDetector().eval().locate(torch.rand(2, 3, 96, 160))
    assert joints.points.shape == (2, 18, 2) and joints.scores.shape == (2, 18)
    assert joints.points.min() > 0 and joints.points.max() < 1
    (tmp_path / "other.pth").write_bytes(b"no weights")
    with pytest.raises(WeightsError):
        load_joint_detector(tmp_path / "other.pth")
    with pytest.raises(InputError):
        JointDetector().locate(torch.rand(3, 8, 8))


def test_the_command_renders_puppets_and_trains_on_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    sizes = ["--persons", "2", "--held-out", "2", "--clips", "1", "--frames", "1", "--threads", "1"]
    main(["store", "--out", str(tmp_path), *sizes])
    threads = str(torch.get_num_threads())
    main(["joints", "--out", str(tmp_path), "--steps", "1", "--threads", threads])
    assert (tmp_path / "joints.safetensors").exists()
    assert "joints.safetensors" in capsys.readouterr().out


def test_shipped_files_are_half_as_wide_and_keep_their_configuration(tmp_path: Path):
    state = {"weight": torch.randn(64, 64), "steps": torch.tensor([7])}
    save_weights(tmp_path / "run" / "unet.safetensors", state, {"config": '{"width": 64}'})
    save_weights(tmp_path / "run" / "ema.safetensors", state)
    (written,) = halve(tmp_path / "run", tmp_path / "out")
    shipped = read_weights(written)
    assert written.name == "unet.safetensors" and shipped.config == {"width": 64}
    assert shipped.state["weight"].dtype == torch.float16 and shipped.state["steps"].dtype == torch.int64
    torch.testing.assert_close(shipped.state["weight"].float(), state["weight"], atol=1e-3, rtol=1e-3)
    with pytest.raises(InputError, match="holds no"):
        halve(tmp_path / "out" / "nowhere", tmp_path)


def test_a_normalised_pose_net_answers_to_thin_lines_as_strongly_as_to_thick_ones(tmp_path: Path):
    main_of_puppets = ["--persons", "2", "--frames", "1", "--size", "64", "--workers", "1"]
    puppets_main([str(tmp_path), *main_of_puppets])
    poses = read_skeletons(tmp_path, 2) * 2 - 1
    torch.manual_seed(0)
    official, normalised = PoseNet(64), PoseNet(64)
    normalise_filters(filters_of(normalised), poses)
    assert official.conv_layers(poses).std(dim=(0, 2, 3)).mean() < 0.1
    assert normalised.conv_layers(poses).std(dim=(0, 2, 3)).mean() > 0.3
    assert not normalised(poses).any()  # training still starts without pose
    pose_start_main([str(tmp_path), str(tmp_path / "start.safetensors"), "--width", "64"])
    assert load_pose_net(tmp_path / "start.safetensors")(poses).shape == (2, 64, 8, 8)
    guider = ["--guider", "8", "16", "16", "24"]
    pose_start_main([str(tmp_path), str(tmp_path / "guider.safetensors"), "--width", "64", *guider])
    features = load_pose_guider(tmp_path / "guider.safetensors").conv_in(poses / 2 + 0.5)
    assert features.std(dim=(0, 2, 3)).mean() == pytest.approx(1, abs=0.05)
    with pytest.raises(InputError, match="holds no"):
        read_skeletons(tmp_path / "nowhere")


def test_a_face_encoder_learns_to_keep_apart_who_and_what_it_sees(tmp_path: Path):
    generator = torch.Generator().manual_seed(0)
    faces = Faces(torch.randn(64, 512, generator=generator), torch.randn(64, 64, generator=generator))
    encoder = FaceEncoder(token_width=64, image_width=64, depth=1)
    assert not encoder(faces.identities, faces.embeddings[:, None]).any()  # the official start
    assert pretrain(encoder, faces, 60) < 1.0  # 2 is chance
    with torch.no_grad():
        one_picture = encoder(faces.identities, faces.embeddings[:1, None].expand(64, -1, -1))
    assert one_picture.std(dim=0).mean() > 0.3
    (tmp_path / "cache").mkdir()
    frames = {
        "identity": torch.cat([faces.identities[:3], torch.zeros(1, 512)]),
        "image_embedding": faces.embeddings[:4],
    }
    save_weights(tmp_path / "cache" / "00001-a.safetensors", frames)
    assert len(read_faces(tmp_path / "cache").identities) == 3  # the frame without a face teaches nothing
    face_start_main(
        [str(tmp_path / "cache"), str(tmp_path / "start.safetensors"), "--width", "64", "--steps", "2"]
    )
    assert load_face_encoder(tmp_path / "start.safetensors").token_width == 64
    with pytest.raises(InputError, match="holds no"):
        read_faces(tmp_path / "nowhere")
