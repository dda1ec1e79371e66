"""Thinned goldens: what is left of a result still tells a wrong value and a wrong shape; the copies stay small."""

import runpy
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stableanimator_core.conformance import checks
from stableanimator_core.conformance.golden import Golden
from stableanimator_core.conformance.run import run_case
from stableanimator_core.conformance.thinned import Sampled, load_tensors, save_thinned
from stableanimator_core.errors import InputError

TESTS = Path(__file__).parents[1]
GOLDENS = TESTS / "goldens"
STRIDE = 11
ROWS = {
    "relative": lambda got, golden: checks.relative("x", got, golden, 1e-3),
    "absolute": lambda got, golden: checks.absolute("x", got, golden, 1e-3),
    "mean_absolute": lambda got, golden: checks.mean_absolute("x", got, golden, 1e-3),
    "close": lambda got, golden: checks.close("x", got, golden, rtol=1e-3, atol=1e-3),
    "exact": lambda got, golden: checks.exact("x", got, golden),
    "differing_share": lambda got, golden: checks.differing_share(
        "x", got, golden, beyond=1e-3, tolerance=1e-2
    ),
}


@pytest.fixture
def whole() -> torch.Tensor:
    return torch.randn(3, 4, 6, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def golden(tmp_path, whole) -> Golden:
    """The same tensor in all three forms, and a picture."""
    tensors = {"full": whole, "sampled": whole, "compressed": whole, "picture": (whole > 0).byte()}
    save_thinned(tmp_path / "x.safetensors", tensors, {"sampled": STRIDE}, {"compressed", "picture"})
    return Golden("x", tmp_path, {})


@pytest.mark.parametrize("kind", ROWS)
def test_every_kind_of_row_passes_on_the_sampled_tensor_itself(kind, golden, whole):
    assert ROWS[kind](whole.clone(), golden.expected("sampled")).ok


@pytest.mark.parametrize("kind", ROWS)
def test_every_kind_of_row_fails_on_wrong_values(kind, golden, whole):
    sampled = golden.expected("sampled")
    one = whole.clone()
    one.view(-1)[5 * STRIDE] += 0.2
    assert not ROWS[kind](one, sampled).ok, "one of the elements that are stored"
    assert not ROWS[kind](whole + 0.1, sampled).ok, "all"
    assert not ROWS[kind](whole.roll(1, 0), sampled).ok, "frames in another order"
    assert not ROWS[kind](whole.roll(1, 3), sampled).ok, "a pixel to the side"


@pytest.mark.parametrize("kind", ROWS)
def test_every_kind_of_row_fails_on_a_wrong_shape_of_the_same_size(kind, golden, whole):
    """The samples alone would be the same."""
    sampled = golden.expected("sampled")
    assert not ROWS[kind](whole.reshape(4, 3, 6, 8), sampled).ok
    assert not ROWS[kind](whole[None], sampled).ok
    assert not ROWS[kind](whole[:2], sampled).ok


@pytest.mark.parametrize("kind", sorted(set(ROWS) - {"exact"}))
def test_nan_is_seen_between_the_samples_too(kind, golden, whole):
    whole.view(-1)[5 * STRIDE + 1] = float("nan")
    assert not ROWS[kind](whole, golden.expected("sampled")).ok


def test_norms_are_those_of_the_samples(golden, whole):
    row = checks.relative("x", whole + 0.5, golden.expected("sampled"), 1.0)
    assert row.error == pytest.approx(0.5 / float(whole.view(-1)[::STRIDE].abs().max()), rel=1e-5)


def test_parts_along_the_first_axes_are_sampled_too(golden, whole):
    sampled = golden.expected("sampled")
    for first, (part, expected) in enumerate(zip(whole, sampled, strict=True)):
        assert expected.shape == part.shape
        assert torch.equal(expected.of(part), expected.values)
        for second in (0, 3, -1):
            deeper = sampled[first][second]
            assert torch.equal(deeper.of(part[second]), deeper.values)
        assert not checks.absolute("x", part + 0.1, expected, 1e-3).ok
    assert sum(len(part.values) for part in sampled) == len(sampled.values)
    assert torch.equal(sampled[-1].values, sampled[2].values)
    with pytest.raises(IndexError):
        sampled[3]


def test_compressed_tensors_are_the_same_bits_and_can_be_computed_with(golden, whole):
    assert torch.equal(golden["compressed"], whole)
    assert golden["picture"].dtype == torch.uint8
    assert torch.equal(golden["picture"], (whole > 0).byte())
    assert torch.equal(golden["full"], golden.expected("full"))


def test_what_is_only_sampled_is_no_input(golden):
    with pytest.raises(InputError, match="x: sampled.*only sampled"):
        golden["sampled"]


def test_a_stride_that_leaves_out_rows_is_refused(tmp_path):
    with pytest.raises(InputError, match="another prime"):
        save_thinned(tmp_path / "x.safetensors", {"x": torch.zeros(22, 5)}, {"x": STRIDE}, ())


@pytest.fixture(scope="module")
def thin():
    return runpy.run_path(str(TESTS.parent / "scripts" / "thin_goldens.py"))["thin"]


def vae_golden(folder: Path) -> Path:
    """The repository's vae golden with its results in full, as far as they are known."""
    tensors = load_tensors(GOLDENS / "vae.safetensors")
    whole = {name: tensor for name, tensor in tensors.items() if not isinstance(tensor, Sampled)}
    folder.mkdir()
    (folder / "vae.json").write_text((GOLDENS / "vae.json").read_text())
    for name, tensor in tensors.items():
        if isinstance(tensor, Sampled):
            whole[name] = torch.zeros(tensor.shape)
            whole[name].view(-1)[:: tensor.stride] = tensor.values
    save_file(whole, str(folder / "vae.safetensors"))
    return folder


def test_the_script_samples_results_and_keeps_inputs(thin, tmp_path):
    source = vae_golden(tmp_path / "full")
    before, after = thin(source, tmp_path / "goldens")
    assert after < before / 2
    full, copy = (load_tensors(folder / "vae.safetensors") for folder in (source, tmp_path / "goldens"))
    assert set(full) == set(copy)
    assert torch.equal(copy["image"], full["image"])
    assert isinstance(copy["decoded_3"], Sampled)
    assert torch.equal(copy["decoded_3"].of(full["decoded_3"]), copy["decoded_3"].values)
    assert [row for row in run_case(tmp_path / "goldens", "vae") if not row.ok] == []
    with pytest.raises(InputError, match="only samples"):
        thin(tmp_path / "goldens", tmp_path / "again")
    with pytest.raises(InputError, match="destination"):
        thin(source, source)


def test_a_case_fails_on_a_sample_that_is_another(thin, tmp_path):
    """The conformance command, down to the stored numbers, on a file of the repository's form."""
    source = vae_golden(tmp_path / "full")
    path = source / "vae.safetensors"
    tensors = load_tensors(path)
    tensors["decoded_3"].view(-1)[62] += 0.01  # 62 is a multiple of the stride
    save_file(tensors, str(path))
    thin(source, tmp_path / "goldens")
    wrong = [row.name for row in run_case(tmp_path / "goldens", "vae") if not row.ok]
    assert wrong == ["decoded_3"]


def test_the_repositorys_goldens_stay_small_and_most_are_thinned():
    sizes = {path: path.stat().st_size for path in GOLDENS.rglob("*") if path.is_file()}
    assert len(sizes) > 80
    assert sum(sizes.values()) < 6_000_000
    forms = [load_tensors(path) for path in sizes if path.suffix == ".safetensors"]
    assert sum(isinstance(tensor, Sampled) for tensors in forms for tensor in tensors.values()) > 30
