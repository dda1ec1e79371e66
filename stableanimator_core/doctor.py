"""The model doctor: which files are there, whether they are what they are called, and what runs them.

    python -m stableanimator_core.doctor [--models DIR ...] [--hash]

Looks at file headers and indices only, never loads a network, never fetches anything.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .doctor_layouts import hash_note, layout_of
from .errors import InputError, WeightsError
from .weights.locate import KNOWN_FILES, OWN_FILES, STABLEANIMATOR, KnownFile, survey

OPTIONAL = {
    "face_recognizer": "its numbers can be read out of glintr100.onnx",
}
"""role -> why the file may be missing."""

_SIZE_TOLERANCE = 0.01  # some published sizes are known as rounded numbers only
_LIBRARIES = (
    "torch",
    "diffusers",
    "transformers",
    "insightface",
    "onnx",
    "opencv-python-headless",
    "opencv-python",
)
_ONNX_WHEELS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-rocm",
)


@dataclass(frozen=True)
class Row:
    """What is known of one file.

    Attributes:
        role: what it serves as, a key of `KNOWN_FILES`.
        label: its name for people.
        path: where it was found; None if it was not.
        size: bytes on disk, 0 if not found.
        published_size: bytes of the official file.
        layout: what its contents are, in words.
        problem: what is wrong, "" if nothing is.
        remedy: what to do about it.
        licence: one line.
        others: further copies, which are not used.
        needed: whether a system that is in use needs the file.
    """

    role: str
    label: str
    path: Path | None
    size: int
    published_size: int
    layout: str
    problem: str
    remedy: str
    licence: str
    others: tuple[Path, ...] = ()
    needed: bool = True

    @property
    def state(self) -> str:
        """ "ok", "bad" (there, but unusable), "missing", or "optional" (missing, but not needed)."""
        if self.path is None:
            return "missing" if self.needed and self.role not in OPTIONAL else "optional"
        return "bad" if self.problem else "ok"


def examine(roots: Iterable[str | Path], *, check_hashes: bool = False) -> list[Row]:
    """One row for every file the project can use.

    Files of a system of which nothing is there are optional; of an empty folder those of Animate Anyone.

    Args:
        roots: folders to search, themselves and below.
        check_hashes: read the files whole and compare their SHA-256 where one is published; takes minutes.
    """
    roots = [Path(root) for root in roots]
    found = survey(roots)
    used = _systems_in_use(found)
    return [
        _row(known, found[role], check_hashes, not known.system or known.system in used)
        for role, known in KNOWN_FILES.items()
    ]


def _systems_in_use(found: Mapping[str, Sequence[Path]]) -> set[str]:
    used = {system for system, roles in OWN_FILES.items() if any(found[role] for role in roles)}
    return used or {STABLEANIMATOR}


def provider_lines() -> list[str]:
    """Which onnxruntime is installed, what it offers, and what a session really runs on."""
    from .onnx_sessions import available_providers, probe_providers

    wheels = [name for name in _ONNX_WHEELS if _version(name)]
    named = ", ".join(f"{name} {_version(name)}" for name in wheels) or "none installed"
    try:
        lines = [f"onnxruntime: {named}; offers {', '.join(available_providers())}"]
        lines.append(f"onnxruntime: a session really runs on {', '.join(probe_providers())}")
    except (ImportError, InputError) as error:
        lines = [f"onnxruntime: {named}. {error}"]
    if len(wheels) > 1:
        lines.append(
            "onnxruntime: two wheels share one folder, the one installed last wins; keep one: "
            f"pip uninstall -y {' '.join(wheels)}, then install the one you want"
        )
    return lines


def library_lines() -> list[str]:
    """The versions of the libraries in use."""
    found = [f"{name} {_version(name)}" for name in _LIBRARIES if _version(name)]
    lacking = [name for name in ("insightface", "onnx", "scipy") if not _version(name)]
    lines = [f"libraries: {', '.join(found)}"]
    if lacking:
        lines.append(f"libraries: {', '.join(lacking)} missing; run: pip install {' '.join(lacking)}")
    return lines


def as_text(rows: Sequence[Row], roots: Iterable[str | Path], notes: Iterable[str] = ()) -> str:
    """The examination for people.

    Args:
        rows: of `examine`.
        roots: the folders that were searched.
        notes: further lines, for example `provider_lines()`.
    """
    blocks = [line for row in rows for line in _row_lines(row)]
    counts = {
        state: sum(row.state == state for row in rows) for state in ("ok", "bad", "missing", "optional")
    }
    summary = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    searched = [f"  {root}{'' if Path(root).is_dir() else ' (no such folder)'}" for root in roots] or [
        "  nowhere"
    ]
    return "\n".join([*blocks, "", f"{summary}.", "Searched, and all folders below:", *searched, *notes])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m stableanimator_core.doctor", description="Checks weight files."
    )
    parser.add_argument(
        "--models", nargs="+", type=Path, default=[Path("models"), Path("checkpoints")], metavar="DIR"
    )
    parser.add_argument(
        "--hash", action="store_true", help="also compare published SHA-256 sums; takes minutes"
    )
    options = parser.parse_args(arguments)
    rows = examine(options.models, check_hashes=options.hash)
    sys.stdout.write(as_text(rows, options.models, [*provider_lines(), *library_lines()]) + "\n")
    return 1 if any(row.state in ("bad", "missing") for row in rows) else 0


def _row(known: KnownFile, places: Sequence[Path], check_hash: bool, needed: bool) -> Row:
    if not places:
        remedy = f"get {known.names[0]} from {known.url}"
        why = OPTIONAL.get(known.role, "" if needed else f"only {known.system} needs it")
        remedy = f"{why}; or {remedy}" if why else remedy
        return Row(
            known.role,
            known.label,
            None,
            0,
            known.size,
            "",
            "not found",
            remedy,
            known.licence,
            needed=needed,
        )
    path, *others = places
    layout = problem = remedy = ""
    try:
        layout = layout_of(path, known.role)
        if check_hash:
            layout += f", {hash_note(path, known)}"
    except WeightsError as error:
        problem, remedy = error.problem, error.remedy
    size = _size_of(path)
    return Row(
        known.role, known.label, path, size, known.size, layout, problem, remedy, known.licence, tuple(others)
    )


def _size_of(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _row_lines(row: Row) -> list[str]:
    lines = [f"[{row.state:^8}] {row.label}"]
    if row.path is None:
        lines.append(f"           {row.problem}: {row.remedy} ({_megabytes(row.published_size)})")
    else:
        lines.append(f"           {row.path}")
        lines.append(f"           {_megabytes(row.size)}{_size_note(row)}; {row.layout or row.problem}")
        if row.problem:
            lines.append(f"           {row.remedy}")
        if row.others:
            lines.append(f"           not used: {', '.join(str(path) for path in row.others)}")
    lines.append(f"           licence: {row.licence}")
    return lines


def _size_note(row: Row) -> str:
    if row.path is None or abs(row.size - row.published_size) <= _SIZE_TOLERANCE * row.published_size:
        return " as published"
    return f" (published: {_megabytes(row.published_size)})"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
