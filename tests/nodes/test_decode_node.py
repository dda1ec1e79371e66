"""VAE Decode Tiled (Animator): the core's decode on ComfyUI's VAE, whatever memory is free."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="module")
def samples() -> dict:
    return {"samples": torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(0))}


def decode(pack, models, samples, *settings, vae=None) -> torch.Tensor:
    with torch.inference_mode():
        return pack.VAEDecodeTiled.execute(samples, vae or models.vae, *settings).args[0]


@pytest.mark.parametrize("chunk", [1, 4, 16])
def test_without_overlap_it_is_the_official_chunked_decode(chunk, pack, models, samples):
    from stableanimator_core.models.vae import decode_frames

    with torch.no_grad():
        parts = [
            decode_frames(models.vae.first_stage_model.vae, part, len(part))
            for part in samples["samples"].split(chunk)
        ]
    expected = (torch.cat(parts) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    assert torch.equal(decode(pack, models, samples, chunk, 0, 0, 64), expected)


def test_the_chunk_is_part_of_the_picture(pack, models, samples):
    assert not torch.allclose(
        decode(pack, models, samples, 2, 0, 0, 64), decode(pack, models, samples, 6, 0, 0, 64)
    )


@pytest.mark.parametrize("free", [1, 10**6, 10**15])
def test_the_frames_do_not_depend_on_free_memory(free, pack, models, samples, monkeypatch):
    import comfy.model_management as mm

    expected = decode(pack, models, samples, 4, 1, 0, 64)
    monkeypatch.setattr(
        mm, "get_free_memory", lambda *args, **options: (free, free) if len(args) > 1 else free
    )
    assert torch.equal(decode(pack, models, samples, 4, 1, 0, 64), expected)


def test_overlap_and_tiles_are_those_of_the_core(pack, models, samples):
    """Its own tests show what they do; here only that the node's settings arrive in the right places."""
    from stableanimator_core.decode import DecodeOptions, decode_clip

    tall = {"samples": samples["samples"].repeat(1, 1, 2, 1)}
    network = models.vae.first_stage_model
    with torch.no_grad():
        expected = decode_clip(network.decode, tall["samples"], DecodeOptions(4, 2, 64, 16))
    assert torch.equal(decode(pack, models, tall, 4, 2, 64, 16), expected)


def test_the_image_has_a_row_for_every_frame_in_0_to_1_and_the_latent_stays(pack, models, samples):
    before = samples["samples"].clone()
    image = decode(pack, models, samples, 4, 0, 0, 64)
    assert image.shape == (6, 64, 64, 3)
    assert image.min() >= 0
    assert image.max() <= 1
    assert torch.equal(samples["samples"], before)


def test_progress_counts_the_chunks(pack, models, samples, monkeypatch):
    import comfy.utils

    told = []
    monkeypatch.setattr(
        comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, *args, **options: told.append((value, total))
    )
    decode(pack, models, samples, 4, 1, 0, 64)
    assert told == [(1, 2), (2, 2)]


def test_cancel_stops_before_the_next_chunk(pack, models, samples, monkeypatch):
    import comfy.model_management as mm

    calls = []
    network = models.vae.first_stage_model
    plain = network.decode

    def cancelling(latents):
        calls.append(1)
        mm.interrupt_current_processing()
        return plain(latents)

    monkeypatch.setattr(network, "decode", cancelling)
    with pytest.raises(mm.InterruptProcessingException):
        decode(pack, models, samples, 2, 0, 0, 64)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("settings", "what"),
    [((0, 0, 0, 64), "frame chunk"), ((4, 4, 0, 64), "frame overlap"), ((4, 0, 32, 0), "tile")]
    + [((4, 0, 64, 40), "tile overlap")],
)
def test_impossible_settings_are_refused_when_the_workflow_is_queued_and_when_it_runs(
    settings, what, pack, models, samples
):
    verdict = pack.VAEDecodeTiled.validate_inputs(*settings)
    assert isinstance(verdict, str)
    assert verdict.startswith(f"VAE Decode Tiled (Animator) - {what}: ")
    with pytest.raises(ValueError, match=f"VAE Decode Tiled \\(Animator\\) - {what}"):
        decode(pack, models, samples, *settings)


def test_good_settings_and_those_of_other_nodes_are_let_through(pack):
    assert pack.VAEDecodeTiled.validate_inputs(8, 2, 0, 64) is True
    assert pack.VAEDecodeTiled.validate_inputs(8, None, 0, 64) is True


@pytest.mark.parametrize("shape", [(0, 4, 8, 8), (2, 16, 8, 8), (1, 4, 2, 8, 8), (2, 3, 8, 8)])
def test_latents_of_other_models_are_refused_with_their_shape(shape, pack, models):
    with pytest.raises(ValueError, match="samples: has the shape"):
        decode(pack, models, {"samples": torch.zeros(shape)}, 4, 0, 0, 64)


def test_the_vae_of_another_family_is_refused(pack, models, samples):
    import comfy.sd

    other = comfy.sd.VAE(sd={"pixel_space_vae": torch.zeros(1)})
    with pytest.raises(
        ValueError, match="vae: is another family's .* Connect the VAE of Load Animator Models"
    ):
        decode(pack, models, samples, 4, 0, 0, 64, vae=other)


def test_svds_vae_of_a_core_loader_is_taken(pack, models, samples):
    """Core's own network class, narrow, in core's own VAE."""
    import comfy.ldm.models.autoencoder as autoencoder
    import comfy.sd
    from test_svd_layout import comfy_vae, randomised

    from stableanimator_core.decode import to_image

    vae = comfy.sd.VAE(sd={"pixel_space_vae": torch.zeros(1)})
    vae.first_stage_model = randomised(comfy_vae(autoencoder, 1))
    vae.latent_channels = 4
    small = {"samples": samples["samples"]}
    image = decode(pack, models, {"samples": small["samples"][:2]}, 2, 0, 0, 64, vae=vae)
    with torch.no_grad():
        expected = to_image(vae.first_stage_model.decode(small["samples"][:2]))
    torch.testing.assert_close(image, expected)
