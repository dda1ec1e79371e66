"""Weight files on disk: read what is only numbers, refuse what could run code, write without leaving halves.

Two containers are known: safetensors (mapped into memory, read when touched) and PyTorch's own (`.pth`,
`.pt`, `.bin`, `.ckpt`), which is a pickle and therefore only ever opened with `weights_only=True`.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import WeightsError

SUFFIXES = (".safetensors", ".sft", ".pth", ".pt", ".bin", ".ckpt")
"""Endings of files that `read_weights` opens."""

_WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
_LONGEST_HEADER = 100_000_000  # bytes; safetensors' own limit
_PREFIXES = ("module.", "_orig_mod.")  # left by DataParallel and by torch.compile
# A damaged pickle is a random program for the unpickler: any of these can come out.
_DAMAGE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    struct.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    ImportError,
    MemoryError,
)


@dataclass(frozen=True)
class Weights:
    """The contents of one weight file.

    Attributes:
        state: key -> tensor on the CPU, as stored (dtype, shape).
        metadata: the text entries of a safetensors header; empty for pickles.
    """

    state: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def config(self) -> dict[str, Any] | None:
        """The model's configuration, if the file carries one (metadata entry "config", JSON)."""
        try:
            config = json.loads(self.metadata.get("config", "null"))
        except json.JSONDecodeError:
            return None
        return config if isinstance(config, dict) else None


def read_weights(path: str | Path) -> Weights:
    """Read a state dict. The tensors are mapped, not copied, where the container allows it.

    Wrappers such as `{"state_dict": ...}` and the prefix `module.` are taken off. The content decides what
    the file is, not its ending.

    Args:
        path: the file.

    Raises:
        WeightsError: missing, empty, cut short, foreign, or a pickle that holds more than tensors.
    """
    path = Path(path)
    head = _first_bytes(path)
    # Tensors made in inference mode could never take part in a gradient, wherever they are used later.
    with torch.inference_mode(False):
        if _looks_like_pickle(head):
            return Weights(_unwrapped(_unpickle(path), path))
        return _read_safetensors(path, head)


def save_weights(
    path: str | Path, state: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file: completely or not at all.

    Args:
        path: where to; an existing file is replaced at the end, in one step.
        state: key -> tensor, any device; tensors that share memory are written once each.
        metadata: text entries for the header.

    Raises:
        WeightsError: the folder cannot be written or the disk is full.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        permissions = part.stat().st_mode
        save_file(_separate(state), str(part), metadata=dict(metadata or {}))
        part.chmod(permissions)  # safetensors makes files that only their owner may read
        os.replace(part, path)
    except (OSError, SafetensorError) as error:
        remedy = "check that the folder can be written and has room"
        raise WeightsError(str(path), f"could not be written ({error})", remedy) from error
    finally:
        part.unlink(missing_ok=True)


def _separate(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """CPU copies where needed, so that every tensor is contiguous and owns its memory."""
    seen: set[int] = set()
    result = {}
    for key, tensor in state.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != tensor.nbytes:
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        result[key] = tensor
    return result


def _looks_like_pickle(head: bytes) -> bool:
    """A safetensors file may begin with the same bytes, which there are the length of its header."""
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LONGEST_HEADER:
        return False
    return head.startswith(b"PK") or head[:1] == b"\x80"


def _first_bytes(path: Path) -> bytes:
    if not path.exists():
        raise WeightsError(str(path), "there is no such file", "check the name, or download it again")
    if path.is_dir():
        raise WeightsError(str(path), "is a folder, not a weight file", "name the file inside it")
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise WeightsError(str(path), f"cannot be read ({error})", "check the file's permissions") from error
    if not head:
        raise WeightsError(str(path), "is empty (0 bytes)", "download it again")
    return head


def _read_safetensors(path: Path, head: bytes) -> Weights:
    from safetensors import SafetensorError, safe_open

    _check_safetensors_length(path, head)
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
            return Weights(state, dict(file.metadata() or {}))
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError, AttributeError) as error:
        raise _foreign(path, head) from error


def _check_safetensors_length(path: Path, head: bytes) -> None:
    """Compare the file's size with what its header promises, to tell "cut short" from "something else"."""
    size = path.stat().st_size
    header_size = int.from_bytes(head[:8], "little")
    if len(head) < 9 or head[8:9] != b"{" or header_size > _LONGEST_HEADER:
        raise _foreign(path, head)
    with path.open("rb") as file:
        raw = file.read(8 + header_size)[8:]
    expected = 8 + header_size
    if len(raw) == header_size:
        try:
            entries = json.loads(raw)
            ends = [entry["data_offsets"][1] for key, entry in entries.items() if key != "__metadata__"]
            expected += max(ends, default=0)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise _foreign(path, head) from error
    if size < expected:
        problem = f"is cut short: it has {size:,} bytes, its header promises {expected:,}"
        raise WeightsError(str(path), problem, "the download stopped early; download it again")


def _foreign(path: Path, head: bytes) -> WeightsError:
    text = head.lstrip()[:60].lower()
    problem, remedy = "is not a weight file, or is damaged", "download it again, as .safetensors or .pth"
    if text.startswith(b"version https://git-lfs"):
        problem = "is only a Git LFS pointer, not the weights"
        remedy = "fetch the real file (`git lfs pull`) or download it from its page"
    elif text.startswith((b"<!doctype", b"<html", b"<?xml")):
        problem = "is a web page, not the weights"
        remedy = (
            "the download link asked for a login or licence; open it in a browser and save the file itself"
        )
    elif text.startswith((b"{", b"[")):
        problem = "is a JSON text, not the weights"
    return WeightsError(str(path), problem, remedy)


def _unpickle(path: Path) -> Any:
    try:
        if zipfile.is_zipfile(path):
            # By path for the mapping; but torch takes a path that ends so for a safetensors file.
            mapped = path.suffix.lower() != ".safetensors"
            with path.open("rb") as file:
                source = str(path) if mapped else file
                return torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refused(path, error) from error
    except _DAMAGE as error:
        remedy = "the download stopped early or failed; download it again"
        raise WeightsError(str(path), "is cut short or damaged", remedy) from error


def _refused(path: Path, error: Exception) -> WeightsError:
    """The restricted unpickler's complaint in plain words: program code inside, or garbage."""
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    if named is None:
        problem = "is damaged, or a pickle that holds more than tensors; nothing of it was run"
        return WeightsError(str(path), problem, "download the official file, or a .safetensors version of it")
    return WeightsError(
        str(path),
        f"holds program code ({named[1]}), not only tensors; nothing of it was run",
        "use the official file or a .safetensors version of it, and distrust the place this one came from",
    )


def _unwrapped(loaded: Any, path: Path) -> dict[str, Tensor]:
    for name in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(name), Mapping):
            loaded = loaded[name]
    if not isinstance(loaded, Mapping) or not loaded:
        problem = f"holds {_described(loaded)} instead of named tensors"
        raise WeightsError(str(path), problem, "save the model's state_dict() and use that")
    others = [
        key for key, value in loaded.items() if not (isinstance(key, str) and isinstance(value, Tensor))
    ]
    if others:
        problem = f"holds entries that are not tensors: {', '.join(str(key) for key in others[:3])}"
        raise WeightsError(str(path), problem, "save the model's state_dict() alone and use that")
    state = dict(loaded)
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): tensor for key, tensor in state.items()}
    return state


def _described(loaded: Any) -> str:
    return "nothing" if isinstance(loaded, Mapping) else f"a {type(loaded).__name__}"
