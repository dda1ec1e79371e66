"""ONNX files opened with whatever accelerator the installed onnxruntime wheel really has.

A wheel that lists CUDA is no proof that CUDA works: a session then falls back to the CPU with a line on the
console. `providers_in_use` asks the session itself.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import InputError, WeightsError

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto
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


def providers_in_use(session: InferenceSession | OnnxHeader) -> list[str]:
    """The providers that this session really runs on, first choice first; none for a mere header."""
    return [] if isinstance(session, OnnxHeader) else list(session.get_providers())


def probe_providers(providers: str | Sequence[str] = "auto") -> list[str]:
    """What a session of a one-number network really runs on: the proof that an accelerator works."""
    from onnx import TensorProto, helper, save

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "probe", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.onnx"
        save(model, str(path))
        return providers_in_use(open_session(path, providers))


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


@dataclass(frozen=True)
class TensorInfo:
    """Name, shape (numbers, or names of free axes) and type of a network's input or output."""

    name: str
    shape: list[int | str | None]
    type: str


@dataclass(frozen=True)
class OnnxHeader:
    """What an ONNX file says it takes and gives; answers like a session, but cannot run.

    Attributes:
        inputs: what it must be given.
        outputs: what it gives.
    """

    inputs: list[TensorInfo]
    outputs: list[TensorInfo]

    def get_inputs(self) -> list[TensorInfo]:
        return self.inputs

    def get_outputs(self) -> list[TensorInfo]:
        return self.outputs


def read_onnx(path: str | Path) -> ModelProto:
    """The parsed ONNX file.

    Raises:
        WeightsError: missing, or no readable ONNX file.
    """
    import onnx
    from google.protobuf.message import DecodeError

    path = check_onnx_file(path)
    try:
        return onnx.load(str(path))
    except (DecodeError, ValueError, OSError) as error:
        raise WeightsError(
            str(path), f"is no readable ONNX file ({error})", "fetch the file again"
        ) from error


def read_header(path: str | Path) -> OnnxHeader:
    """Inputs and outputs of an ONNX file, without making a session; errors as `read_onnx`."""
    graph = read_onnx(path).graph
    weights = {item.name for item in graph.initializer}
    inputs = [_described(item) for item in graph.input if item.name not in weights]
    if not inputs or not graph.output:
        raise WeightsError(str(path), "is an ONNX file without a network", "fetch the file again")
    return OnnxHeader(inputs, [_described(item) for item in graph.output])


def _described(item: ValueInfoProto) -> TensorInfo:
    kind = {1: "tensor(float)", 10: "tensor(float16)"}.get(item.type.tensor_type.elem_type, "other numbers")
    axes = item.type.tensor_type.shape.dim
    return TensorInfo(item.name, [axis.dim_param or axis.dim_value or None for axis in axes], kind)


def run(session: InferenceSession | OnnxHeader, inputs: np.ndarray) -> list[np.ndarray]:
    """All outputs, as float32, of a session with one input."""
    if isinstance(session, OnnxHeader):
        raise TypeError("a header cannot run; open the session")
    outputs = session.run(None, {session.get_inputs()[0].name: inputs})
    return [np.asarray(output, dtype=np.float32) for output in outputs]


def tensor_type(
    session: InferenceSession | OnnxHeader, what: str, allowed: Sequence[str] = ("float32", "float16")
) -> str:
    """NumPy name of the session's first input, one of `allowed`.

    Raises:
        WeightsError: it takes another type, for example 8-bit integers.
    """
    names = {"tensor(float)": "float32", "tensor(float16)": "float16"}
    found = session.get_inputs()[0].type
    if names.get(found) not in allowed:
        raise WeightsError(what, f"takes {found} as input", "use the float32 file")
    return names[found]
