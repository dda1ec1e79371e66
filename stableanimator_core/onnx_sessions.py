"""ONNX files opened with whatever accelerator the installed onnxruntime wheel really has.

A wheel that lists CUDA is no proof that CUDA works: a session then falls back to the CPU with a line on the
console. `providers_in_use` asks the session itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import InputError, WeightsError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

CPU = "CPUExecutionProvider"
# In order of preference. TensorRT and OpenVINO compile for minutes: only when asked for by name.
PROVIDERS = {
    "cuda": "CUDAExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "cpu": CPU,
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
_AUTOMATIC = ("cuda", "rocm", "migraphx", "directml", "coreml")
_ERRORS_ONLY = 3  # onnxruntime's log severity


def available_providers() -> list[str]:
    """What the installed onnxruntime wheel offers, in its own words.

    Raises:
        ImportError: onnxruntime is missing, or two of its wheels have broken each other.
    """
    try:
        import onnxruntime

        return list(onnxruntime.get_available_providers())
    except (ImportError, AttributeError) as error:
        raise ImportError(
            "onnxruntime is missing or damaged; install one of its wheels again: "
            "pip install --force-reinstall --no-deps onnxruntime (or onnxruntime-gpu)"
        ) from error


def choose_providers(providers: str | Sequence[str] = "auto") -> list[str]:
    """onnxruntime's provider names for a wish; the CPU always comes last as the fallback.

    Args:
        providers: "auto", a short name of `PROVIDERS`, or onnxruntime's own names.

    Raises:
        InputError: the wheel lacks a provider that was asked for.
    """
    available = available_providers()
    if providers == "auto":
        chosen = [PROVIDERS[name] for name in _AUTOMATIC if PROVIDERS[name] in available][:1]
    else:
        wanted = [providers] if isinstance(providers, str) else list(providers)
        chosen = [PROVIDERS.get(name.lower(), name) for name in wanted]
    lacking = [name for name in chosen if name not in available]
    if lacking:
        raise InputError(
            "the ONNX provider",
            f"{', '.join(lacking)} is not in this onnxruntime, which has {', '.join(available)}",
            'choose "auto", or install the onnxruntime wheel that has it in place of the present one',
        )
    return [name for name in chosen if name != CPU] + [CPU]


def open_session(path: str | Path, providers: str | Sequence[str] = "auto") -> InferenceSession:
    """Open an ONNX file.

    Args:
        path: the .onnx file.
        providers: see `choose_providers`.

    Raises:
        WeightsError: no such file, not an ONNX model, or one that this onnxruntime cannot run.
        InputError: a provider that the wheel does not have.
    """
    path = check_onnx_file(path)
    chosen = choose_providers(providers)
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state  # pyright: ignore[reportAttributeAccessIssue]

    if PROVIDERS["cuda"] in chosen and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # CUDA libraries that came with torch
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    unreadable = (
        state.InvalidProtobuf,
        state.InvalidGraph,
        state.InvalidArgument,
        state.NoSuchFile,
        state.NoModel,
    )
    unusable = (state.Fail, state.NotImplemented, state.RuntimeException, state.EPFail)
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=chosen)
    except (*unreadable, *unusable) as error:
        first_line = str(error).strip().splitlines()[0]
        raise WeightsError(
            str(path),
            f"onnxruntime {onnxruntime.__version__} cannot open it ({first_line})",
            "fetch the file again and compare its size; if it is whole, update onnxruntime",
        ) from error


def providers_in_use(session: InferenceSession) -> list[str]:
    """The providers that this session really runs on, first choice first."""
    return list(session.get_providers())


def check_onnx_file(path: str | Path) -> Path:
    """The path, if it can be an ONNX file at all; looks at its first bytes only.

    Raises:
        WeightsError: it is missing, a folder, empty, a Git LFS pointer or a web page saved under this name.
    """
    path = Path(path)
    again = "fetch the file again"
    if not path.is_file():
        problem = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise WeightsError(str(path), problem, "name the .onnx file itself")
    with path.open("rb") as stream:
        start = stream.read(64).lstrip()
    if not start:
        raise WeightsError(str(path), "is empty", again)
    if start.startswith(b"version https://git-lfs"):
        raise WeightsError(
            str(path), "is only a Git LFS pointer, not the model", "run `git lfs pull`, or " + again
        )
    if start.startswith((b"<", b"{")):
        raise WeightsError(str(path), "holds text (a saved web page?), not a model", again)
    return path


def run(session: InferenceSession, inputs: np.ndarray) -> list[np.ndarray]:
    """All outputs, as float32, of a session with one input."""
    outputs = session.run(None, {session.get_inputs()[0].name: inputs})
    return [np.asarray(output, dtype=np.float32) for output in outputs]


def tensor_type(session: InferenceSession, what: str, allowed: Sequence[str] = ("float32", "float16")) -> str:
    """NumPy name of the session's first input, one of `allowed`.

    Raises:
        WeightsError: it takes another type, for example 8-bit integers.
    """
    names = {"tensor(float)": "float32", "tensor(float16)": "float16"}
    found = session.get_inputs()[0].type
    if names.get(found) not in allowed:
        raise WeightsError(what, f"takes {found} as input", "use the float32 file")
    return names[found]
