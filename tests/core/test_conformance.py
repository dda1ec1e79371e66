"""The conformance command: green on good goldens, red on anything else, settings read from the sidecars."""

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stableanimator_core.conformance import checks
from stableanimator_core.conformance.__main__ import main
from stableanimator_core.conformance.golden import Golden, open_golden, recipe_tensor
from stableanimator_core.conformance.run import cases_in, run_case
from stableanimator_core.conformance.thinned import load_tensors, values_of

GOLDENS = Path(__file__).parents[1] / "goldens"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with the small golden pose_net."""
    for suffix in (".json", ".safetensors"):
        shutil.copy(GOLDENS / f"pose_net{suffix}", tmp_path)
    return tmp_path


def change_sidecar(folder: Path, **values) -> None:
    path = folder / "pose_net.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_good_goldens_pass_with_a_row_for_each_comparison(copy, capsys):
    assert main([str(copy)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "all rows ok"
    assert all(line.startswith("pose_net") and line.endswith(" ok") for line in lines[:-1])
    assert len(lines) > 1


def test_a_changed_tensor_fails(copy, capsys):
    path = copy / "pose_net.safetensors"
    tensors = {name: values_of(tensor) for name, tensor in load_tensors(path).items()}
    name = next(key for key in tensors if key.startswith("output"))
    tensors[name].view(-1)[7] += 1e-3
    save_file(tensors, path)
    assert main([str(copy)]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_another_salt_in_the_sidecar_means_other_weights_and_fails(copy):
    """The stored results stay, so only a salt that is really read can make the difference."""
    change_sidecar(copy, salt="another-salt:")
    assert main([str(copy)]) == 1


def test_another_size_in_the_sidecar_is_built_and_fails(copy):
    sidecar = json.loads((copy / "pose_net.json").read_text())
    config = {**sidecar["config"], "noise_latent_channels": sidecar["config"]["noise_latent_channels"] * 2}
    change_sidecar(copy, config=config)
    assert main([str(copy)]) == 1


def test_a_case_nobody_knows_fails(copy, capsys):
    (copy / "brand_new.json").write_text('{"salt": "x"}')
    assert main([str(copy)]) == 1
    assert "no check is written" in capsys.readouterr().out


def test_a_case_that_breaks_off_fails_and_the_others_still_run(copy, capsys):
    (copy / "iresnet100.json").write_text('{"salt": "x"}')
    assert main([str(copy)]) == 1
    out = capsys.readouterr().out
    assert "broke off: " in out
    assert "pose_net" in out


def test_a_case_that_compares_nothing_fails(copy):
    shutil.copy(GOLDENS / "sigmas.json", copy)
    save_file({}, copy / "sigmas.safetensors")
    assert [row.ok for row in run_case(copy, "sigmas")] == [False]


def test_only_the_wanted_cases_run_and_a_misspelt_name_is_no_success(copy, capsys):
    (copy / "brand_new.json").write_text('{"salt": "x"}')
    assert main([str(copy), "--only", "pose_net"]) == 0
    with pytest.raises(SystemExit) as stopped:
        main([str(copy), "--only", "pose_nett"])
    assert stopped.value.code != 0
    assert "pose_nett" in capsys.readouterr().err


def test_a_folder_without_goldens_is_an_error(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path)])
    assert stopped.value.code != 0
    assert "no golden files" in capsys.readouterr().err


def test_every_golden_of_the_repository_has_a_check():
    from stableanimator_core.conformance import cases  # noqa: F401  (registers every case)

    names = cases_in(GOLDENS)
    assert len(names) > 15
    assert [name for name in names if not any(fnmatch(name, stem) for stem in checks.CASES)] == []


def test_the_recipe_makes_the_published_tensors():
    assert [row for row in run_case(GOLDENS, "recipe_check") if not row.ok] == []


def test_the_recipes_rules_follow_shape_and_name():
    assert recipe_tensor("a.weight", (400,), "s").mean() == pytest.approx(1, abs=0.05)
    assert recipe_tensor("a.bias", (400,), "s").mean() == pytest.approx(0, abs=0.05)
    assert (recipe_tensor("a.running_var", (400,), "s") >= 1).all()
    assert recipe_tensor("a.weight", (50, 400), "s").std() == pytest.approx(400**-0.5, rel=0.05)
    assert not torch.equal(recipe_tensor("a.bias", (4,), "s"), recipe_tensor("a.bias", (4,), "t"))


ROWS = {
    "relative": lambda got, golden: checks.relative("x", got, golden, 1e-3),
    "absolute": lambda got, golden: checks.absolute("x", got, golden, 1e-3),
    "close": lambda got, golden: checks.close("x", got, golden, rtol=1e-3, atol=1e-3),
    "exact": lambda got, golden: checks.exact("x", got, golden),
    "differing_share": lambda got, golden: checks.differing_share(
        "x", got, golden, beyond=1e-3, tolerance=0.01
    ),
}


@pytest.mark.parametrize("kind", ROWS)
def test_every_kind_of_row_passes_on_equal_tensors_and_fails_on_others(kind):
    golden = torch.linspace(1, 2, 50)
    assert ROWS[kind](golden.clone(), golden).ok
    assert not ROWS[kind](golden + 0.1, golden).ok
    assert not ROWS[kind](golden[:-1], golden).ok, "another shape"
    assert not ROWS[kind](golden * float("nan"), golden).ok, "NaN"


def test_a_golden_reads_its_settings_from_its_own_sidecar(copy):
    change_sidecar(copy, salt="mine:")
    golden = open_golden(copy, "pose_net")
    assert isinstance(golden, Golden)
    assert golden.salt == "mine:"
