"""The idea alone: Adam down any identity loss."""

from __future__ import annotations

import pytest
import torch
from hjb_models import noise
from torch import nn
from torch.nn.functional import cosine_similarity

from stableanimator_core.hjb.refine import Iteration, differentiate, refine_x0


def toy_loss():
    torch.manual_seed(3)
    embed, reference = nn.Linear(8, 4), noise(1, 4, seed=5)
    return lambda latents: (1 - cosine_similarity(embed(latents), reference, dim=-1)).mean()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_refining_lowers_the_loss_in_every_autograd_mode_and_leaves_x0_alone(mode):
    loss = toy_loss()
    with mode():
        x0 = noise(3, 8)
        before = x0.clone()
        refined = refine_x0(x0, differentiate(loss), iterations=20, learning_rate=0.1)
        assert loss(refined) < loss(x0) - 0.1
        assert torch.equal(x0, before)
        assert not refined.requires_grad


def test_it_is_the_published_adam_step():
    x0, loss = noise(3, 8), toy_loss()
    published = x0.clone().requires_grad_()
    optimizer = torch.optim.Adam([published], lr=0.06)
    for _ in range(3):
        optimizer.zero_grad()
        loss(published).backward()
        optimizer.step()
    assert torch.equal(
        refine_x0(x0, differentiate(loss), iterations=3, learning_rate=0.06), published.detach()
    )


def test_half_precision_latents_come_back_in_their_dtype_but_are_moved_in_float32():
    seen = []

    def loss(latents):
        seen.append(latents.dtype)
        return latents.square().mean()

    refined = refine_x0(noise(2, 8).bfloat16(), differentiate(loss), iterations=2, learning_rate=0.1)
    assert refined.dtype == torch.bfloat16
    assert seen == [torch.float32, torch.float32]


@pytest.mark.parametrize(
    ("value", "why"), [(float("nan"), "not finite"), (float("inf"), "not finite"), (0.0, "zero")]
)
def test_an_unusable_gradient_is_skipped_and_reported(value, why):
    told: list[Iteration] = []
    gradients = iter([torch.full((2, 3), value), torch.ones(2, 3)])
    refined = refine_x0(
        torch.zeros(2, 3),
        lambda latents: (torch.tensor(1.0), next(gradients)),
        iterations=2,
        learning_rate=0.1,
        on_iteration=told.append,
    )
    assert why in told[0].skipped and told[1].skipped == ""
    torch.testing.assert_close(refined, torch.full((2, 3), -0.1))


def test_no_iterations_change_nothing():
    x0 = noise(2, 8)
    assert torch.equal(refine_x0(x0, differentiate(toy_loss()), iterations=0, learning_rate=0.1), x0)


def test_an_error_in_the_callback_cancels_between_iterations():
    calls = []

    def cancel(iteration: Iteration) -> None:
        calls.append(iteration.index)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refine_x0(
            noise(2, 8), differentiate(toy_loss()), iterations=5, learning_rate=0.1, on_iteration=cancel
        )
    assert calls == [0]
