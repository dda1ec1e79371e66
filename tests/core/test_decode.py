"""Latents into frames: temporal chunks, cross-fades, tiles, bounded memory."""

import gc

import pytest
import torch

from stableanimator_core.decode import DecodeOptions, decode_clip, decode_stream
from stableanimator_core.demo_weights import VAE
from stableanimator_core.errors import InputError
from stableanimator_core.models.vae import build_vae, decode_frames


def enlarged(latents: torch.Tensor) -> torch.Tensor:
    """A decoder without memory: each latent cell becomes 8 x 8 pixels."""
    return latents[:, :3].repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)


def temporal(latents: torch.Tensor) -> torch.Tensor:
    """A decoder whose frames know each other: each one is mixed with the mean of its chunk."""
    return enlarged(latents + latents.mean(dim=0, keepdim=True)) / 2


def noise(frames: int, height: int = 8, width: int = 8) -> torch.Tensor:
    return torch.rand(frames, 4, height, width, generator=torch.Generator().manual_seed(frames)) - 0.5


def as_image(pixels: torch.Tensor) -> torch.Tensor:
    return (pixels / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)


@pytest.mark.parametrize("chunk", [1, 4, 8, 16])
@pytest.mark.parametrize("frames", [1, 3, 10, 16])
def test_without_overlap_each_chunk_is_decoded_by_itself(chunk, frames):
    latents = noise(frames)
    expected = torch.cat([as_image(temporal(part)) for part in latents.split(chunk)])
    assert torch.equal(decode_clip(temporal, latents, DecodeOptions(chunk=chunk)), expected)


def test_a_real_decoder_without_overlap_equals_the_official_chunks_to_the_bit():
    torch.manual_seed(0)
    vae = build_vae(VAE).eval()
    latents = noise(10)
    with torch.no_grad():
        ours = decode_clip(lambda part: decode_frames(vae, part, len(part)), latents, DecodeOptions(chunk=4))
        official = torch.cat([decode_frames(vae, part, len(part)) for part in latents.split(4)])
    assert torch.equal(ours, as_image(official))


def cross_faded(latents: torch.Tensor, chunk: int, overlap: int) -> torch.Tensor:
    """Frame by frame: each new chunk fades in over the frames that were there before."""
    frames: dict[int, torch.Tensor] = {}
    start = 0
    while True:
        stop = min(start + chunk, len(latents))
        decoded = temporal(latents[start:stop])
        for place, frame in enumerate(range(start, stop)):
            new = decoded[place]
            share = (place + 1) / (overlap + 1)
            frames[frame] = frames[frame] * (1 - share) + new * share if frame in frames else new
        if stop == len(latents):
            return as_image(torch.stack([frames[frame] for frame in range(len(latents))]))
        start = stop - overlap


@pytest.mark.parametrize(("chunk", "overlap"), [(4, 1), (4, 2), (4, 3), (8, 2), (16, 4)])
@pytest.mark.parametrize("frames", [3, 11, 16])
def test_overlapping_chunks_are_cross_faded(chunk, overlap, frames):
    latents = noise(frames)
    ours = decode_clip(temporal, latents, DecodeOptions(chunk=chunk, overlap=overlap))
    torch.testing.assert_close(ours, cross_faded(latents, chunk, overlap))


def test_overlap_makes_a_seam_in_time_smaller():
    latents = torch.cat([torch.full((4, 4, 8, 8), -0.4), torch.full((12, 4, 8, 8), 0.4)])
    jumps = [
        decode_clip(temporal, latents, DecodeOptions(chunk=8, overlap=overlap)).diff(dim=0)[7:].abs().max()
        for overlap in (0, 4)
    ]
    assert jumps[1] < jumps[0]


@pytest.mark.parametrize(("tile", "overlap"), [(64, 0), (64, 16), (64, 32), (72, 36), (128, 64)])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (16, 24), (19, 9)])
def test_tiles_of_a_decoder_without_memory_equal_the_whole(tile, overlap, height, width):
    latents = noise(3, height, width)
    tiled = decode_clip(enlarged, latents, DecodeOptions(tile=tile, tile_overlap=overlap))
    torch.testing.assert_close(tiled, as_image(enlarged(latents)), rtol=0, atol=1e-6)


def test_feathered_tiles_always_weigh_one_together():
    """Each tile answers with the same number, so any hole or double weight would show."""
    latents = noise(2, 21, 34)
    options = DecodeOptions(tile=80, tile_overlap=24)
    image = decode_clip(
        lambda part: torch.full((len(part), 3, *(8 * s for s in part.shape[2:])), 0.5), latents, options
    )
    torch.testing.assert_close(image, torch.full_like(image, 0.75), rtol=0, atol=1e-6)


def test_tiles_fade_into_each_other_without_a_step():
    """Every tile answers with a number of its own: along the seam the picture climbs in small steps."""
    answers = iter([-1.0, 1.0])

    def decode(part):
        return torch.full((len(part), 3, *(8 * side for side in part.shape[2:])), next(answers))

    row = decode_clip(decode, noise(1, 8, 12), DecodeOptions(tile=64, tile_overlap=32))[0, 0, :, 0]
    assert row[0] == 0
    assert row[-1] == 1
    assert row.diff().max() < 0.05
    assert (row.diff() >= 0).all()


def test_every_tile_has_the_same_size_so_that_the_decoder_sees_no_thin_strip():
    shapes = set()

    def decode(part):
        shapes.add(tuple(part.shape[2:]))
        return enlarged(part)

    decode_clip(decode, noise(1, 17, 25), DecodeOptions(tile=64, tile_overlap=16))
    assert shapes == {(8, 8)}


def test_a_frame_smaller_than_a_tile_is_decoded_whole():
    calls = []
    options = DecodeOptions(tile=64, tile_overlap=32)
    decode_clip(lambda part: calls.append(part.shape) or enlarged(part), noise(2), options)
    assert calls == [(2, 4, 8, 8)]


def test_a_thousand_frames_stream_in_the_memory_of_a_few_chunks():
    """All tensors alive are counted at every chunk, along the whole clip."""
    frame, chunk = 3 * 64 * 64, 8
    latents = torch.zeros(1, 4, 8, 8).expand(1000, -1, -1, -1)
    held: list[int] = []

    def decode(part):
        held.append(sum(t.numel() for t in gc.get_objects() if type(t) is torch.Tensor and t.dim() == 4))
        return temporal(part)

    gc.collect()
    gc.freeze()  # what was there before is not counted
    try:
        lengths = [
            len(block) for block in decode_stream(decode, latents, DecodeOptions(chunk=chunk, overlap=2))
        ]
    finally:
        gc.unfreeze()
    assert sum(lengths) == 1000
    assert max(lengths) <= chunk
    assert len(held) > 100
    assert held[-1] <= held[2], "memory grows along the clip"
    assert 0 < max(held) <= 3 * chunk * frame


def test_the_decoder_is_asked_only_when_frames_are_wanted():
    calls = []
    stream = decode_stream(lambda part: calls.append(1) or enlarged(part), noise(12), DecodeOptions(chunk=4))
    next(stream)
    assert len(calls) == 1


def test_latents_and_the_decoders_own_tensor_are_not_changed():
    latents = noise(9)
    kept, answer = latents.clone(), torch.zeros(4, 3, 64, 64)
    answers = []

    def decode(part):
        answers.append(answer[: len(part)].clone())
        return answers[-1]

    decode_clip(decode, latents, DecodeOptions(chunk=4, overlap=2))
    assert torch.equal(latents, kept)
    assert not any(tensor.any() for tensor in answers)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_decoder_gives_float32_frames(dtype):
    image = decode_clip(lambda part: enlarged(part).to(dtype), noise(3), DecodeOptions(chunk=2, overlap=1))
    assert image.dtype == torch.float32


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"chunk": 0}, "frame chunk"),
        ({"chunk": 4, "overlap": 4}, "frame overlap"),
        ({"overlap": -1}, "frame overlap"),
    ]
    + [({"tile": 32}, "tile"), ({"tile": 64, "tile_overlap": 40}, "tile overlap")]
    + [({"tile": 64, "tile_overlap": -8}, "tile overlap")],
)
def test_impossible_settings_are_refused_by_name_before_anything_is_decoded(settings, what):
    calls = []
    with pytest.raises(InputError) as caught:
        decode_clip(calls.append, noise(3), DecodeOptions(**settings))
    assert caught.value.what == what
    assert not calls


def test_no_frame_at_all_is_refused():
    with pytest.raises(InputError, match="no frame"):
        decode_clip(enlarged, noise(3)[:0])
