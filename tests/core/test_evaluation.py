"""Statistics against known cases; pairing, resuming, tables and the whole command on random networks."""

from __future__ import annotations

import json

import numpy as np
import pytest
from evaluation_models import FRAMES, Planted, made_up_clip, noise, write_weights

from stableanimator_core import small_model
from stableanimator_core.errors import InputError, WeightsError
from stableanimator_core.evaluation.__main__ import main
from stableanimator_core.evaluation.judging import Judge
from stableanimator_core.evaluation.networks import Networks
from stableanimator_core.evaluation.running import run
from stableanimator_core.evaluation.statistics import mean_with_interval, paired_difference
from stableanimator_core.evaluation.stored import Stored
from stableanimator_core.evaluation.summary import other_people, summarise
from stableanimator_core.evaluation.sweep import parse_axes, proposal, sweep_systems
from stableanimator_core.evaluation.systems import Settings, known_systems
from stableanimator_core.evaluation.table import markdown, write_table
from stableanimator_core.hjb.options import HJBOptions
from stableanimator_core.pipeline import AnimationOptions

PLAN = {"frames": FRAMES}
QUICK = Settings(AnimationOptions(num_steps=2), HJBOptions(iterations=1))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def networks(weights):
    return Networks.load(weights)


def opened(folder, *, resume=False, judges="j") -> Stored:
    stored = Stored(folder, PLAN, judges)
    stored.open(resume=resume)
    return stored


def results_of(**systems: list[float]) -> dict:
    """Results with the same value for PSNR and likeness, one clip for each value."""
    return {
        name: {
            str(clip): {"psnr": value, "csim": value, "csim_climbed": value, "pose": 0.02}
            for clip, value in enumerate(values)
        }
        for name, values in systems.items()
    }


def test_the_sign_flip_p_is_exact_for_few_clips():
    better = paired_difference([1.0, 2.0, 3.0, 4.0, 5.0], [0.0] * 5)
    assert better.p == pytest.approx(2 / 2**5)  # only all signs kept or all turned are as extreme
    assert better.mean == 3 and better.low < 3 < better.high
    assert paired_difference([1.0, -1.0], [0.0, 0.0]).p == 1


def test_p_is_uniform_where_there_is_no_difference():
    rng = np.random.default_rng(0)
    values = [paired_difference(rng.normal(size=8), rng.normal(size=8)).p for _ in range(60)]
    assert 0.3 < np.mean(values) < 0.7
    assert np.mean(np.array(values) < 0.1) < 0.25


def test_the_interval_is_near_the_normal_one_for_many_values():
    values = np.random.default_rng(1).normal(5, 2, 400)
    found = mean_with_interval(values.tolist())
    half = 1.96 * values.std(ddof=1) / 20
    assert found.low == pytest.approx(values.mean() - half, abs=0.02)
    assert found.high == pytest.approx(values.mean() + half, abs=0.02)
    assert mean_with_interval(values.tolist()) == found  # fixed seed


def test_pairing_finds_a_small_gain_under_a_large_spread():
    rng = np.random.default_rng(2)
    clips = rng.normal(20, 5, 12)
    better = clips + 0.2 + rng.normal(0, 0.05, 12)
    assert paired_difference(better.tolist(), clips.tolist()).p < 0.01
    assert paired_difference(better.tolist(), clips[::-1].tolist()).p > 0.1


@pytest.mark.parametrize("values", [[], [1.0], [2.0, 2.0, 2.0]])
def test_few_and_equal_values_give_no_false_interval(values):
    found = mean_with_interval(values)
    assert found.count == len(values)
    assert (found.low, found.high) == (2.0, 2.0) if len(values) == 3 else np.isnan(found.low)


def test_a_planted_better_system_wins_and_a_worse_one_loses(networks, tmp_path):
    clips = [made_up_clip(number) for number in range(8)]
    planted = [Planted(name, clips, error) for name, error in (("full", 20), ("better", 5), ("worse", 60))]
    summary = summarise(run(clips, planted, networks, opened(tmp_path)))
    for measure in ("psnr", "face_psnr", "csim_truth", "csim_climbed_truth"):
        assert summary.differences["better"][measure].mean > 0 > summary.differences["worse"][measure].mean
        assert summary.differences["better"][measure].p == pytest.approx(2 / 2**8)
    assert summary.differences["better"]["features"].mean < 0
    assert summary.differences["better"]["psnr"].count == 8


def test_an_interrupted_run_goes_on_and_computes_nothing_twice(networks, tmp_path):
    clips = [made_up_clip(number) for number in range(3)]
    systems = [Planted("full", clips, 10), Planted("other", clips, 20)]

    def interrupt(progress):
        if (progress.clip, progress.system) == ("1", "full"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(clips, systems, networks, opened(tmp_path), on_result=interrupt)
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"system": "full", "cl')  # cut short
    with pytest.raises(InputError, match="--resume"):
        opened(tmp_path)
    results = run(clips, systems, networks, opened(tmp_path, resume=True))
    assert [system.calls for system in systems] == [3, 3]
    whole = run(
        clips, [Planted("full", clips, 10), Planted("other", clips, 20)], networks, opened(tmp_path / "b")
    )
    assert results == whole


def test_new_judges_judge_the_kept_frames(networks, tmp_path):
    clips = [made_up_clip()]
    system = Planted("full", clips, 10)
    run(clips, [system], networks, opened(tmp_path))
    again = opened(tmp_path, resume=True, judges="other")
    assert again.results() == {}
    assert run(clips, [system], networks, again)["full"]
    assert system.calls == 1


def test_frames_of_other_weights_or_settings_are_not_mixed(networks, tmp_path):
    clips = [made_up_clip()]
    run(clips, [Planted("full", clips, 10)], networks, opened(tmp_path))
    changed = Planted("full", clips, 10, fingerprint="other settings")
    with pytest.raises(InputError, match="other weights or settings"):
        run(clips, [changed], networks, opened(tmp_path, resume=True))
    import shutil

    shutil.rmtree(tmp_path / "frames" / "full")
    run(clips, [changed], networks, opened(tmp_path, resume=True))
    assert changed.calls == 1  # the old line in results.jsonl does not count


def test_clips_of_another_kind_need_another_folder(tmp_path):
    opened(tmp_path)
    with pytest.raises(InputError, match="other clips"):
        Stored(tmp_path, {"frames": 16}, "j").open(resume=True)


def test_other_people_are_compared_across_clips_alone():
    def faces(direction: int) -> dict:
        vector = np.eye(3)[direction]
        return {"csim_reference": vector, "csim_frames": np.stack([vector, np.full(3, np.nan)])}

    found = other_people({"a": faces(0), "b": faces(1), "c": faces(1)})
    assert found["a"]["csim"] == 0 and found["b"]["csim"] == pytest.approx(0.5)
    assert other_people({"a": faces(0)}) == {}


def test_targets_are_said_plainly():
    up, down = list(np.linspace(20, 21, 9)), list(np.linspace(15, 16, 9))
    met = summarise(results_of(full=up, reference=down, no_adapter=down))
    assert [target.met for target in met.targets] == [True, True, True, None, None, None]
    missed = summarise(results_of(full=down, reference=down, no_adapter=up))
    assert [target.met for target in missed.targets] == [False, True, False, None, None, None]
    text = markdown(missed, {"frames": 8}, {"full": "the model"})
    assert "2 of 6 targets are MISSED" in text and "not measured" in text
    assert "All measured targets are met" in markdown(met, {}, {})


def test_few_clips_are_no_proof():
    few = summarise(results_of(full=[2.0, 3.0, 4.0], no_adapter=[1.0, 1.0, 1.0]))
    target = next(target for target in few.targets if "face branch" in target.promise)
    assert target.met is False and "p = 0.25" in target.found


def test_the_table_holds_means_intervals_differences_and_every_row(tmp_path):
    results = results_of(full=[2.0, 3.0, 4.0, 5.0], reference=[1.0, 1.0, 2.0, 2.0], new=[2.5, 3.5, 4.5, 5.5])
    summary = summarise(results)
    write_table(tmp_path, summary, {"steps": 25}, known_systems())
    text = (tmp_path / "table.md").read_text()
    means, differences = text.split("## Paired differences")[:2]
    assert "`full` | 4 | 3.50 (" in means and "`new` | 4 | 4.00 (" in means
    assert "`new` | 4 | +0.50, p 0.12" in differences and "steps 25" in text
    numbers = json.loads((tmp_path / "table.json").read_text())
    assert numbers["gain"]["psnr"]["mean"] == pytest.approx(2)
    assert numbers["gain"]["ssim"]["mean"] is None


def test_the_bounds_are_the_truth_and_its_way_through_the_vae(networks, tmp_path):
    clip = made_up_clip()
    results = run([clip], [], networks, opened(tmp_path))
    assert results["truth"]["0"]["psnr"] is None and results["truth"]["0"]["csim"] is not None
    expected = Judge(networks, clip).measures(Judge(networks, clip).reconstructed())
    assert results["vae"]["0"] == expected


def test_without_judges_their_columns_are_empty(weights, tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    for name in ("unet", "pose_net", "face_encoder", "face_recognizer"):
        (folder / f"{name}.safetensors").symlink_to(weights / f"{name}.safetensors")
    (folder / "SVD").symlink_to(weights / "SVD")
    measures = Judge(Networks.load(folder), made_up_clip()).measures(noise(5, FRAMES, 64, 64))
    assert measures["pose"] is None and measures["csim"] is None and measures["csim_climbed"] is not None
    assert small_model.missing(folder) == list(small_model.JUDGE_FILES)


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(WeightsError, match="lacks unet.safetensors"):
        Networks.load(tmp_path)


def test_a_sweep_crosses_its_axes_and_the_judge_takes_no_part(networks, weights):
    axes = parse_axes(["guidance=1,2", "steps=3"])
    systems = sweep_systems(axes, networks, QUICK)
    assert [system.name for system in systems] == ["guidance1_steps3", "guidance2_steps3"]
    assert [system.options.guidance for system in systems] == [(1, 1), (2, 2)]
    assert sweep_systems({"hjb_rate": [0.5]}, networks, QUICK)[0].hjb.learning_rate == 0.5
    assert Networks.load(weights, with_judge=False).judge is None
    with pytest.raises(InputError, match="axes are"):
        parse_axes(["colour=3"])
    with pytest.raises(InputError, match="not understood"):
        parse_axes(["steps=few"])


def test_a_sweep_of_animate_anyone_has_its_own_guidance():
    networks, settings = Networks.load(small_model.folder(), with_judge=False), Settings()
    systems = sweep_systems({"anyone_guidance": [1, 2], "steps": [4]}, networks, settings)
    assert [system.name for system in systems] == ["anyone_guidance1_steps4", "anyone_guidance2_steps4"]
    assert [(s.options.guidance, s.options.num_steps) for s in systems] == [(1, 4), (2, 4)]
    assert len({system.fingerprint for system in systems}) == 2
    with pytest.raises(InputError, match="has no strength"):
        sweep_systems({"anyone_guidance": [1], "strength": [1]}, networks, settings)


def test_the_proposal_is_the_likest_of_those_near_the_best_picture():
    def row(psnr: float, likeness: float) -> dict:
        return {"0": {"psnr": psnr, "csim_climbed": likeness}, "1": {"psnr": psnr, "csim_climbed": likeness}}

    results = {"sharp": row(20.0, 0.5), "alike": row(19.8, 0.7), "odd": row(15.0, 0.9)}
    assert proposal(results) == "alike"
    assert proposal({}) is None


def test_the_command_writes_table_plots_and_sheet_and_resumes(weights, tmp_path, capsys):
    words = f"--weights {weights} --out {tmp_path} --clips 1 --frames 2 --size 64 --steps 1".split()
    words += ["--variants", "reference", "full"]
    assert main(words) == 0
    assert "MISSED" in capsys.readouterr().out
    for name in ("table.md", "table.json", "means.png", "differences.png", "sheet.png", "results.jsonl"):
        assert (tmp_path / name).stat().st_size > 0
    lines = (tmp_path / "results.jsonl").read_text()
    assert main([*words, "--resume"]) == 0
    assert (tmp_path / "results.jsonl").read_text() == lines
    with pytest.raises(SystemExit):
        main(words)
    assert "holds results" in capsys.readouterr().err
