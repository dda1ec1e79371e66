"""One denoising prediction: guidance per frame, pose for one half only, cancel between windows."""

from types import SimpleNamespace

import pytest
import torch

from stableanimator_core import guidance
from stableanimator_core.conditioning import Conditioning, added_time_ids
from stableanimator_core.models.unet import AdapterOptions
from stableanimator_core.windows import anchored_windows

FRAMES, SIDE = 6, 2


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[SimpleNamespace]:
    """What the network was called with; it answers 1 for the unconditional half and 3 for the other."""
    seen = []

    def network(unet, sample, timestep, tokens, added_time_ids, *, pose_features, adapter):
        seen.append(
            SimpleNamespace(
                sample=sample, timestep=timestep, tokens=tokens, pose=pose_features, adapter=adapter
            )
        )
        answer = torch.ones(2, sample.shape[1], 4, *sample.shape[-2:])
        answer[1] = 3
        return answer

    monkeypatch.setattr(guidance, "denoise", network)
    return seen


def denoiser(**changes) -> guidance.GuidedDenoiser:
    image_latents = torch.full((1, 4, SIDE, SIDE), 5.0)
    pair = Conditioning(torch.ones(1, 5, 8), image_latents, added_time_ids(7, 127, 0.02)).both_halves()
    settings = {
        "unet": torch.nn.Linear(1, 1),
        "conditioning": pair,
        "pose_features": torch.arange(1.0, FRAMES + 1).view(-1, 1, 1, 1).expand(-1, 2, SIDE, SIDE),
        "windows": anchored_windows(FRAMES, 4, 2),
        "guidance": guidance.guidance_per_frame(1.0, 3.0, FRAMES),
    }
    return guidance.GuidedDenoiser(**{**settings, **changes})


def test_guidance_goes_linearly_from_the_first_frame_to_the_last():
    assert guidance.guidance_per_frame(1.0, 3.0, 5).tolist() == pytest.approx([1, 1.5, 2, 2.5, 3])
    assert guidance.guidance_per_frame(3.0, 3.0, 2).tolist() == [3, 3]
    assert guidance.guidance_per_frame(2.0, 3.0, 1).tolist() == [2]


def test_each_frame_is_guided_by_its_own_strength(calls):
    v = denoiser().v_prediction(torch.zeros(FRAMES, 4, SIDE, SIDE), torch.tensor(1.0))
    assert v[:, 0, 0, 0].tolist() == pytest.approx([1 + g * 2 for g in (1, 1.4, 1.8, 2.2, 2.6, 3)])


def test_both_halves_go_in_as_one_batch_and_only_one_has_a_pose(calls):
    denoiser()(torch.zeros(FRAMES, 4, SIDE, SIDE), torch.tensor(1.0), 0)
    assert len(calls) == 2
    for call, window in zip(calls, [[0, 1, 2, 3], [0, 3, 4, 5]], strict=True):
        assert call.sample.shape == (2, 4, 8, SIDE, SIDE)
        assert not call.pose[:4].any()
        assert call.pose[4:, 0, 0, 0].tolist() == [frame + 1 for frame in window]


def test_noisy_latents_are_scaled_and_the_image_latents_stand_beside_them(calls):
    latents = torch.full((FRAMES, 4, SIDE, SIDE), 10.0)
    denoiser()(latents, torch.tensor(3.0), 0)
    sample = calls[0].sample
    torch.testing.assert_close(sample[:, :, :4], torch.full_like(sample[:, :, :4], 10 / 10**0.5))
    assert not sample[0, :, 4:].any()
    assert (sample[1, :, 4:] == 5).all()


def test_the_network_gets_the_adapters_options_and_one_noise_level_for_each_half(calls):
    options = AdapterOptions(strength=0.5, alignment="mean")
    denoiser(adapter=options)(torch.zeros(FRAMES, 4, SIDE, SIDE), torch.tensor(torch.e), 0)
    assert calls[0].adapter == options
    assert calls[0].timestep.tolist() == pytest.approx([0.25, 0.25])


def test_an_error_before_a_window_cancels_without_running_it(calls):
    def cancel():
        if calls:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        denoiser(on_window=cancel)(torch.zeros(FRAMES, 4, SIDE, SIDE), torch.tensor(1.0), 0)
    assert len(calls) == 1
