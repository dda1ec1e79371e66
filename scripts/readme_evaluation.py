#!/usr/bin/env python3
"""Writes the evaluation's tables of README.md from docs/evaluation/table.json.

    python3 scripts/readme_evaluation.py            from what is there
    python3 scripts/readme_evaluation.py OUT        takes table and pictures from an evaluation's folder first

They stand between the two markers below; a test holds them against the file.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
README, FOLDER = REPOSITORY / "README.md", REPOSITORY / "docs" / "evaluation"
BEGIN, END = "<!-- evaluation: python3 scripts/readme_evaluation.py -->", "<!-- /evaluation -->"
TAKEN = ("table.json", "sheet.png", "differences.png")
BASELINE = "full"


def number(measure: Mapping[str, Any], value: float | None, *, signed: bool = False) -> str:
    """A value as its measure is written."""
    if value is None:
        return "–"
    return format(value * measure["unit_factor"], ("+" if signed else "") + measure["form"])


def cell(measure: Mapping[str, Any], estimate: Mapping[str, Any], *, signed: bool = False) -> str:
    """Mean, interval and p of an estimate."""
    if not estimate["count"]:
        return "–"
    text = number(measure, estimate["mean"], signed=signed)
    if estimate["low"] is not None and estimate["low"] != estimate["high"]:
        low, high = (number(measure, estimate[end], signed=signed) for end in ("low", "high"))
        text += f" ({low} .. {high})"
    if estimate["p"] is not None:
        text += ", p < 0.001" if estimate["p"] < 0.001 else f", p = {estimate['p']:.2g}"
    return text


def rows(
    measures: Mapping[str, Any],
    found: Mapping[str, Any],
    names: Sequence[str],
    words: Mapping[str, str],
    *,
    signed: bool = False,
) -> list[str]:
    """A table with a line for each of the names that has been measured."""
    heads = [f"{m['label']} {'↑' if m['higher_is_better'] else '↓'}" for m in measures.values()]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
    for name in names:
        if name in found:
            cells = [cell(measure, found[name][key], signed=signed) for key, measure in measures.items()]
            about = f": {words[name]}" if words.get(name) else ""
            lines.append(f"| `{name}`{about} | {' | '.join(cells)} |")
    return lines


def tables(content: Mapping[str, Any]) -> str:
    """Targets, means, differences and settings as Markdown."""
    measures = {key: measure for key, measure in content["measures"].items() if measure["main"]}
    words = content["rows"]
    names = [*words, *(name for name in content["means"] if name not in words)]
    verdicts = {True: "met", False: "**missed**", None: "not measured"}
    lines = ["| target | found | |", "|---|---|---|"]
    lines += [f"| {t['promise']} | {t['found'] or '–'} | {verdicts[t['met']]} |" for t in content["targets"]]
    lines += ["", f"Means over {len(content['clips'])} clips, with 95 % intervals:", ""]
    lines += rows(measures, content["means"], names, words)
    lines += ["", f"Paired differences to `{BASELINE}`, clip by clip:", ""]
    compared = [name for name in names if name != "reference"]
    lines += rows(measures, content["differences"], compared, {}, signed=True)
    setup = ", ".join(f"{key} {value}" for key, value in content["setup"].items())
    return "\n".join([*lines, "", f"Setup: {setup}."])


def filled(readme: str, content: Mapping[str, Any]) -> str:
    """README with the tables between the markers."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"README.md lacks the markers {BEGIN} and {END}")
    return f"{before}{begin}\n{tables(content)}\n{end}{after}"


def main(arguments: list[str]) -> None:
    if arguments:
        FOLDER.mkdir(parents=True, exist_ok=True)
        for name in TAKEN:
            shutil.copyfile(Path(arguments[0]) / name, FOLDER / name)
    content = json.loads((FOLDER / "table.json").read_text(encoding="utf-8"))
    README.write_text(filled(README.read_text(encoding="utf-8"), content), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
