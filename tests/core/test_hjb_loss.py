"""The identity loss behind the optimiser: exact by chunks, faces anywhere, every precision."""

from __future__ import annotations

import pytest
import torch
from hjb_models import boxes_for, noise, tiny_decoder, tiny_embedder, tiny_loss
from torch.nn.functional import cosine_similarity

from stableanimator_core.errors import InputError, NoFaceError
from stableanimator_core.hjb.crop import boxes_of_masks, displayed, face_crop, identity_of_portrait
from stableanimator_core.hjb.decoder import CHECKPOINTING
from stableanimator_core.hjb.identity_loss import faces_of_clip
from stableanimator_core.hjb.regions import Box, face_region


def whole_graph(
    latents: torch.Tensor, boxes: list[list[Box]], chunk: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and gradient by one graph over the whole clip through diffusers' own decoder."""
    decoder, embedder, identity = tiny_decoder(), tiny_embedder(), noise(1, 8, seed=3)
    variable = latents.clone().requires_grad_()
    parts = [decoder(part / 0.18215, torch.zeros(1, len(part)), len(part)) for part in variable.split(chunk)]
    pictures = ((torch.cat(parts) / 2 + 0.5).clamp(0, 1) - 0.5) / 0.5
    faces = [face_crop(picture, box[0]) for picture, box in zip(pictures, boxes, strict=True) if box]
    loss = (1 - cosine_similarity(embedder(torch.cat(faces)), identity)).abs().mean()
    return loss.detach(), torch.autograd.grad(loss, variable)[0]


@pytest.mark.parametrize("chunk", [2, 3, 8])
@pytest.mark.parametrize("checkpointing", ["none", "activations", "resblock"])
def test_going_back_chunk_by_chunk_equals_going_back_through_the_whole_clip(chunk, checkpointing):
    latents, boxes = noise(5, 4, 8, 8) * 0.2, boxes_for(5)
    boxes[1] = []
    loss, gradient = tiny_loss(latents, boxes=boxes, chunk=chunk, checkpointing=checkpointing)(latents)
    expected_loss, expected = whole_graph(latents, boxes, chunk)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    assert expected.abs().max() > 0


def test_frames_without_a_face_are_left_out_and_their_chunk_is_not_decoded():
    latents = noise(4, 4, 8, 8)
    boxes = [[Box(10, 30, 10, 30)], [], [], []]
    loss = tiny_loss(latents, boxes=boxes, chunk=2)
    calls = []
    loss.decoder.conv_in.register_forward_hook(lambda module, inputs, output: calls.append(len(output)))
    _, gradient = loss(latents)
    assert calls == [2]
    assert gradient[:2].abs().max() > 0 and not gradient[2:].any()
    assert loss.cosines.isnan().tolist() == [False, True, True, True]


@pytest.mark.parametrize("box", [Box(0, 64, 0, 64), Box(63, 64, 63, 64), Box(-20, 10, 50, 90)], ids=str)
def test_faces_at_the_border_and_of_any_size_work_also_in_one_frame(box):
    latents = noise(1, 4, 8, 8)
    value, gradient = tiny_loss(latents, boxes=[[box]])(latents)
    assert torch.isfinite(value) and torch.isfinite(gradient).all()


def test_several_faces_are_joined_as_published_or_averaged():
    latents, a, b = noise(1, 4, 8, 8), Box(0, 20, 0, 20), Box(30, 60, 40, 60)
    joined, _ = tiny_loss(latents, boxes=[[a, b]])(latents)
    around, _ = tiny_loss(latents, boxes=[[Box(0, 60, 0, 60)]])(latents)
    assert torch.equal(joined, around)
    loss = tiny_loss(latents, boxes=[[a, b]], several="mean")
    mean, _ = loss(latents)
    each = [tiny_loss(latents, boxes=[[box]])(latents)[0] for box in (a, b)]
    torch.testing.assert_close(mean, sum(each) / 2)
    torch.testing.assert_close(loss.cosines[0], 1 - mean)


@pytest.mark.parametrize("checkpointing", CHECKPOINTING)
def test_a_crop_gives_the_loss_of_the_whole_picture_and_moves_only_latents_under_the_face(checkpointing):
    latents, boxes = noise(3, 4, 8, 8), boxes_for(3)
    whole, _ = tiny_loss(latents, boxes=boxes)(latents)
    part, gradient = tiny_loss(latents, boxes=boxes, crop=True, checkpointing=checkpointing, margin=1)(
        latents
    )
    torch.testing.assert_close(part, whole, rtol=1e-4, atol=1e-5)
    region = face_region(boxes, 8, 8, 1).expand_as(gradient).bool()
    assert not gradient[~region].any() and gradient[region].all()
    assert 0 < region.float().mean() < 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_decoder_gives_nearly_the_same_gradient_in_float32(dtype):
    latents = noise(2, 4, 8, 8)
    _, expected = tiny_loss(latents, checkpointing="activations")(latents)
    _, gradient = tiny_loss(latents, checkpointing="activations", dtype=dtype)(latents)
    assert gradient.dtype == torch.float32
    assert cosine_similarity(gradient.flatten(), expected.flatten(), dim=0) > 0.98


def test_a_gradient_too_small_for_float16_is_not_lost():
    latents = noise(2, 4, 8, 8)
    loss = tiny_loss(latents, dtype=torch.float16)
    loss.embedder[-1].weight.mul_(1e-3)  # type: ignore[operator, union-attr]
    loss.embedder[-1].bias.copy_(noise(8) * 30)  # type: ignore[operator, union-attr]
    _, gradient = loss(latents)
    assert (gradient != 0).float().mean() > 0.9


def test_a_chunk_whose_gradient_is_not_finite_is_left_out_with_a_warning():
    latents = noise(4, 4, 8, 8)
    latents[3, 0, 0, 0] = float("nan")
    warnings: list[str] = []
    _, gradient = tiny_loss(latents, chunk=2, on_warning=warnings.append)(latents)
    assert gradient[:2].any() and not gradient[2:].any()
    assert "frames 2 to 3" in warnings[0]


def test_measuring_gives_the_cosines_the_loss_is_made_of():
    latents = noise(3, 4, 8, 8)
    loss = tiny_loss(latents, chunk=2)
    value, _ = loss(latents)
    torch.testing.assert_close(1 - loss.measure(latents).mean(), value, rtol=1e-4, atol=1e-5)


def test_no_face_at_all_and_a_wrong_number_of_boxes_are_refused_by_name():
    with pytest.raises(NoFaceError, match="64x48"):
        faces_of_clip([[], [Box(50, 60, 0, 5)]], 48, 64)
    latents = noise(3, 4, 8, 8)
    with pytest.raises(InputError, match="for 2 frames, the clip has 3"):
        tiny_loss(latents, boxes=boxes_for(2))(latents)


def test_boxes_of_masks_hold_the_corners_and_only_pixels_that_are_one():
    masks = torch.zeros(2, 20, 30)
    masks[0, 3:8, 10:12] = 1
    masks[0, 0, 0] = 0.99
    assert boxes_of_masks(masks) == [[Box(3, 8, 10, 12)], []]
    assert Box.around(10.2, 3.0, 11.9, 7.5) == Box(3, 8, 10, 12)


def test_saturated_pixels_have_no_gradient():
    decoded = torch.tensor([-1.5, -0.5, 0.5, 1.5], requires_grad=True)
    displayed(decoded).sum().backward()
    assert decoded.grad.tolist() == [0, 1, 1, 0]  # type: ignore[union-attr]


def test_the_identity_of_a_portrait_is_that_of_its_cropped_face():
    portrait, box = noise(3, 40, 50), Box(5, 30, 10, 35)
    identity = identity_of_portrait(tiny_embedder(), portrait, box)
    torch.testing.assert_close(identity, tiny_embedder()(face_crop(portrait, box)))
    with pytest.raises(InputError, match="outside the portrait"):
        identity_of_portrait(tiny_embedder(), portrait, Box(100, 120, 0, 5))
