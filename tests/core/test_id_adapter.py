import pytest
import torch
from network_models import GOLDENS
from torch import nn

from stableanimator_core.conformance.run import run_case
from stableanimator_core.models import folded_attention
from stableanimator_core.models.folded_attention import add_spatial_cross_attention
from stableanimator_core.models.id_adapter import AdapterOptions, IDAdapter, align_distribution, id_attention

WIDTH, TOKEN_WIDTH, HEADS = 32, 24, 4


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads = HEADS
        self.to_q = nn.Linear(WIDTH, WIDTH, bias=False)
        self.to_k = nn.Linear(TOKEN_WIDTH, WIDTH, bias=False)
        self.to_v = nn.Linear(TOKEN_WIDTH, WIDTH, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(WIDTH, WIDTH)])
        self.processor = IDAdapter(WIDTH, TOKEN_WIDTH)


@pytest.fixture
def attn():
    torch.manual_seed(0)
    return Attention().double()


def written_out(attn, x, tokens, options):
    """The adapter of every frame, one frame a row: [b f s c]."""
    rows = x.flatten(0, 1)
    return x + id_attention(attn, rows, tokens.repeat_interleave(x.shape[1], 0), options).view_as(x)


def folded(attn, x, tokens, options):
    return add_spatial_cross_attention(attn, nn.Identity(), x, tokens, options)


def inputs(image_tokens=1):
    torch.manual_seed(1)
    x = torch.randn(2, 3, 20, WIDTH, dtype=torch.float64)
    return x, torch.randn(2, image_tokens + 4, TOKEN_WIDTH, dtype=torch.float64)


def test_the_adapter_gives_the_official_output():
    rows = run_case(GOLDENS, "id_attention")
    assert rows and all(row.ok for row in rows), rows


@pytest.mark.parametrize("alignment", ["full", "mean", "none"])
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("image_tokens", [1, 2])
@pytest.mark.parametrize("fold_from", [0, 10**9])
def test_folding_changes_nothing(attn, alignment, strength, image_tokens, fold_from, monkeypatch):
    monkeypatch.setattr(folded_attention, "FOLD_QUERY_FROM", fold_from)
    x, tokens = inputs(image_tokens)
    options = AdapterOptions(strength, alignment)
    expected = written_out(attn, x, tokens, options)
    torch.testing.assert_close(folded(attn, x, tokens, options), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", [written_out, folded])
def test_an_unconditional_row_gives_exactly_the_bias(attn, form):
    attn = attn.float()
    x, tokens = (t.float() for t in inputs())
    tokens[0] = 0
    out = form(attn, x, tokens, AdapterOptions())
    assert torch.equal(out[0], x[0] + attn.to_out[0].bias)


@pytest.mark.parametrize("zero", ["face tokens", "image tokens", "all tokens"])
def test_gradients_agree_and_are_finite_where_deviations_are_zero(attn, zero):
    x, tokens = inputs()
    tokens[
        :, {"face tokens": slice(1, None), "image tokens": slice(0, 1), "all tokens": slice(None)}[zero]
    ] = 0
    gradients = []
    for form in (written_out, folded):
        wanted = tokens.clone().requires_grad_()
        weight = torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view_as(x)
        (form(attn, x, wanted, AdapterOptions()) * weight).sum().backward()
        gradients.append(wanted.grad)
    assert gradients[0].isfinite().all()
    scale = gradients[0].abs().max()
    torch.testing.assert_close(gradients[1] / scale, gradients[0] / scale, rtol=1e-4, atol=1e-4)


def test_tiny_face_values_survive_half_precision(attn):
    x, tokens = inputs()
    tokens[:, 1:] *= 1e-4
    expected = written_out(attn, x, tokens, AdapterOptions())
    half = folded(attn.bfloat16(), x.bfloat16(), tokens.bfloat16(), AdapterOptions())
    assert (half - expected).abs().max() < 0.05 * expected.abs().max()


def test_full_alignment_gives_the_image_branchs_mean_and_deviation():
    face, image = 3 + 2 * torch.randn(2, 50, 8), torch.randn(2, 50, 8) * 5 - 1
    aligned = align_distribution(face, image, "full")
    torch.testing.assert_close(aligned.mean((1, 2)), image.mean((1, 2)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(aligned.std((1, 2)), image.std((1, 2)), rtol=1e-4, atol=1e-4)


def test_mean_alignment_moves_without_stretching():
    face, image = 3 + 2 * torch.randn(2, 50, 8), torch.randn(2, 50, 8)
    aligned = align_distribution(face, image, "mean")
    torch.testing.assert_close(aligned.mean((1, 2)), image.mean((1, 2)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(aligned.std((1, 2)), face.std((1, 2)), rtol=1e-4, atol=1e-4)


def test_no_alignment_leaves_the_face_branch_alone():
    face = torch.randn(2, 50, 8)
    assert align_distribution(face, torch.randn(2, 50, 8), "none") is face
