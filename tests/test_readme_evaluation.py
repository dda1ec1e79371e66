"""README's evaluation tables are those of the committed result, and say what it says."""

from __future__ import annotations

import json

import pytest
import readme_evaluation as subject

ESTIMATE = {"count": 9, "mean": 0.021, "low": 0.01, "high": 0.032, "p": None}
CONTENT = {
    "setup": {"steps": 25},
    "rows": {"full": "the model as shipped", "reference": "copied"},
    "measures": {
        "pose": {
            "label": "pose, %",
            "form": ".1f",
            "higher_is_better": False,
            "unit_factor": 100,
            "main": True,
        },
        "gmsd": {"label": "GMSD", "form": ".3f", "higher_is_better": False, "unit_factor": 1, "main": False},
    },
    "means": {name: {"pose": ESTIMATE, "gmsd": ESTIMATE} for name in ("full", "reference", "later")},
    "differences": {
        "reference": {"pose": ESTIMATE, "gmsd": ESTIMATE},
        "later": {"pose": {**ESTIMATE, "mean": -0.01, "p": 0.0004}, "gmsd": ESTIMATE},
    },
    "targets": [
        {"promise": "a", "met": False, "found": "2"},
        {"promise": "b", "met": None, "found": ""},
    ],
    "clips": ["1", "2"],
}


def test_readme_shows_the_committed_result():
    """Neither has the tables without the other."""
    readme, path = subject.README.read_text(encoding="utf-8"), subject.FOLDER / "table.json"
    assert (subject.BEGIN in readme) == path.is_file()
    if path.is_file():
        content = json.loads(path.read_text(encoding="utf-8"))
        assert subject.filled(readme, content) == readme, "run python3 scripts/readme_evaluation.py"


def test_missed_targets_and_every_main_measure_stand_in_the_tables():
    text = subject.tables(CONTENT)
    assert "| a | 2 | **missed** |" in text and "| b | – | not measured |" in text
    assert "| `full`: the model as shipped | 2.1 (1.0 .. 3.2) |" in text and "GMSD" not in text
    assert "| `later` | -1.0 (+1.0 .. +3.2), p < 0.001 |" in text and "Means over 2 clips" in text


def test_the_tables_come_between_the_markers_and_nothing_else_changes():
    readme = f"head\n{subject.BEGIN}\nold\n{subject.END}\ntail\n"
    once = subject.filled(readme, CONTENT)
    assert once.startswith(f"head\n{subject.BEGIN}\n| target") and once.endswith(f"{subject.END}\ntail\n")
    assert "old" not in once and subject.filled(once, CONTENT) == once
    with pytest.raises(SystemExit, match="lacks the markers"):
        subject.filled("nothing", CONTENT)


def test_what_the_evaluation_writes_fits(tmp_path):
    from stableanimator_core.evaluation.summary import summarise
    from stableanimator_core.evaluation.table import write_table

    clips = {str(clip): {"psnr": 20.0 + clip, "csim": 0.5} for clip in range(3)}
    write_table(tmp_path, summarise({"full": clips, "reference": clips}), {"steps": 25}, {"full": "it"})
    text = subject.tables(json.loads((tmp_path / "table.json").read_text()))
    assert "| `full`: it | 21.00 (" in text and "Setup: steps 25." in text
