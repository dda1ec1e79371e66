"""The two ONNX files of a face analysis folder, however deep the download was unpacked."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..errors import WeightsError

DETECTOR = "scrfd_10g_bnkps.onnx"
RECOGNISER = "glintr100.onnx"
_PACK = "antelopev2"
# Other insightface packs name theirs differently; any detector and recogniser of these names serve.
_DETECTORS = (DETECTOR, "det_10g.onnx", "det_*.onnx", "scrfd_*.onnx")
_RECOGNISERS = (RECOGNISER, "w600k_r50.onnx", "rec_*.onnx")


class FaceFiles(NamedTuple):
    """Paths of the face detector and of the face recogniser."""

    detector: Path
    recogniser: Path


def face_files(folder: str | Path) -> FaceFiles:
    """The detector and the recogniser in `folder`, in its `antelopev2`, or in `antelopev2/antelopev2`.

    Args:
        folder: the pack's folder, or one that holds it (also under `models`).

    Raises:
        WeightsError: none of these folders holds both; all are listed.
    """
    folder = Path(folder)
    places = [
        folder,
        folder / _PACK,
        folder / _PACK / _PACK,
        folder / "models" / _PACK,
        folder / "models" / _PACK / _PACK,
    ]
    for place in places:
        detector, recogniser = _first(place, _DETECTORS), _first(place, _RECOGNISERS)
        if detector and recogniser:
            return FaceFiles(detector, recogniser)
    searched = ", ".join(str(place) for place in places)
    raise WeightsError(
        str(folder),
        f"holds no {DETECTOR} with {RECOGNISER}; searched {searched}",
        f"put both files of {_PACK} into one of these folders",
    )


def _first(folder: Path, patterns: tuple[str, ...]) -> Path | None:
    found = (path for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_file())
    return next(found, None)
