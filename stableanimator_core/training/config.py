"""TOML file to `Settings`: every key known, every value of the right kind and in range, before anything is loaded."""

from __future__ import annotations

import difflib
import json
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import torch

from ..errors import InputError
from ..preprocess import check_size
from . import anyone_config
from .anyone_settings import with_defaults
from .dropout import kept_conditions
from .settings import Settings

Table = TypeVar("Table")


def read_settings(path: str | Path) -> Settings:
    """The settings of a TOML file.

    Raises:
        InputError: no such file, no TOML, an unknown or missing key, a value of the wrong kind or out of range.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(str(path), f"cannot be read ({error.strerror})", "name the TOML file") from error
    return parse_settings(_parse_toml(text, str(path)), path.parent)


def parse_settings(tables: Mapping[str, Any], folder: str | Path) -> Settings:
    """Settings from parsed TOML; relative paths start at `folder`. Errors as `read_settings`."""
    settings = _table(Settings, with_defaults(tables), "", Path(folder))
    _check(settings)
    return settings


def check_files(settings: Settings) -> None:
    """Refuse paths that lead nowhere, all before anything is loaded.

    Raises:
        InputError: names the key and the path.
    """
    for table in ("networks", "identity", "anyone"):
        values = getattr(settings, table)
        for entry in fields(values):
            path = getattr(values, entry.name)
            if isinstance(path, Path) and not path.exists():
                raise InputError(f"{table}.{entry.name}", f"is {path}, which does not exist", "mend the path")
    if not settings.data.root.is_dir():
        raise InputError("data.root", f"is {settings.data.root}, which is no folder", "mend the path")
    for name in settings.validation.clips if settings.validation.every else ():
        folder = settings.data.root / name / "images"
        if not folder.is_dir():
            raise InputError("validation.clips", f"names {name}, but {folder} is no folder", "mend the name")


def _parse_toml(text: str, source: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ImportError as error:
            remedy = "use Python 3.11 or newer, or: pip install tomli"
            raise InputError(source, "cannot be read on Python 3.10 without tomli", remedy) from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(source, f"is no TOML ({error})", "mend that line") from error


def _table(kind: type[Table], values: Any, where: str, folder: Path) -> Table:
    if not isinstance(values, Mapping):
        raise InputError(where, f"is {values!r}", f"make it a table: [{where}]")
    hints = get_type_hints(kind)
    for key in values:
        if key not in hints:
            near = difflib.get_close_matches(key, hints, 1)
            remedy = f"use {near[0]}, or remove it" if near else f"known are {', '.join(hints)}"
            raise InputError(_named(where, key), "is no known key", remedy)
    for entry in fields(kind):  # pyright: ignore[reportArgumentType]
        required = entry.default is MISSING and entry.default_factory is MISSING
        if required and entry.name not in values:
            raise InputError(_named(where, entry.name), "is missing", "add it to the configuration file")
    converted = {key: _value(hints[key], value, _named(where, key), folder) for key, value in values.items()}
    return kind(**converted)


def _value(hint: Any, value: Any, where: str, folder: Path) -> Any:
    """`value` as the type `hint` says."""
    if is_dataclass(hint):
        return _table(hint, value, where, folder)  # pyright: ignore[reportArgumentType]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _optional(arguments, value, where, folder)
    if origin is Literal:
        if value not in arguments:
            options = ", ".join(repr(option) for option in arguments)
            raise InputError(where, f"is {value!r}", f"choose one of {options}")
        return value
    if origin is tuple:
        return _tuple(arguments, value, where, folder)
    if hint is Path and isinstance(value, str):
        return folder / Path(value).expanduser()
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    expected = origin or hint
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        raise InputError(where, f"is {value!r}", f"give {_WORDS.get(expected, expected.__name__)}")
    return value


_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "a text in quotes",
    bool: "true or false",
    Path: "a path in quotes",
    dict: "a table",
}


def _optional(arguments: tuple[Any, ...], value: Any, where: str, folder: Path) -> Any:
    """One of several types; the last error counts. An empty text leaves an optional path out."""
    kinds = [argument for argument in arguments if argument is not type(None)]
    if value == "" and type(None) in arguments:
        return None
    for kind in kinds[:-1]:
        if isinstance(value, get_origin(kind) or kind):
            return value
    return _value(kinds[-1], value, where, folder)


def _tuple(arguments: tuple[Any, ...], value: Any, where: str, folder: Path) -> tuple[Any, ...]:
    many = arguments[-1] is Ellipsis
    if not isinstance(value, list) or not (many or len(value) == len(arguments)):
        size = "a list" if many else f"a list of {len(arguments)}"
        raise InputError(where, f"is {value!r}", f"give {size}")
    kinds = [arguments[0]] * len(value) if many else list(arguments)
    return tuple(
        _value(kind, part, f"{where}[{index}]", folder)
        for index, (kind, part) in enumerate(zip(kinds, value, strict=True))
    )


def _named(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _check(settings: Settings) -> None:
    """Ranges and what belongs together.

    Raises:
        InputError: names the key.
    """
    for key, value, allowed, remedy in _ranges(settings):
        if not allowed(value):
            raise InputError(key, f"is {value}", remedy)
    if not settings.data.buckets:
        raise InputError("data.buckets", "is empty", "add a [[data.buckets]] table")
    for bucket in settings.data.buckets:
        check_size(bucket.height, bucket.width)
    kept_conditions(torch.empty(0), settings.training.dropout)
    if settings.system == "animate-anyone":
        anyone_config.check(settings)
    else:
        _check_networks(settings)
    _check_identity(settings)
    if settings.validation.every and not settings.validation.clips:
        raise InputError("validation.clips", "is empty", "name a clip folder, or set validation.every to 0")
    if settings.validation.width or settings.validation.height:
        check_size(settings.validation.height, settings.validation.width)


def _ranges(s: Settings) -> list[tuple[str, Any, Callable[[Any], bool], str]]:
    def at_least(low: float) -> tuple[Callable[[Any], bool], str]:
        return (lambda value: value >= low), f"use {low:g} or more"

    def between(low: float, high: float) -> tuple[Callable[[Any], bool], str]:
        return (lambda value: low <= value < high), f"use a number from {low:g} to below {high:g}"

    positive = (lambda value: value > 0), "use a number above 0"
    o, t = s.optimizer, s.training
    return [
        ("data.num_frames", s.data.num_frames, *at_least(1)),
        ("data.stride", s.data.stride, *at_least(1)),
        ("data.workers", s.data.workers, *at_least(0)),
        ("data.reference_noise_variants", s.data.reference_noise_variants, *at_least(0)),
        ("optimizer.learning_rate", o.learning_rate, *positive),
        ("optimizer.betas", min(o.betas), *between(0, 1)),
        ("optimizer.betas", max(o.betas), *between(0, 1)),
        ("optimizer.eps", o.eps, *positive),
        ("optimizer.weight_decay", o.weight_decay, *at_least(0)),
        ("optimizer.schedule_steps", o.schedule_steps, *at_least(0)),
        ("optimizer.warmup_steps", o.warmup_steps, *at_least(0)),
        ("optimizer.max_grad_norm", o.max_grad_norm, *at_least(0)),
        ("noise.std", s.noise.std, *positive),
        ("training.steps", t.steps, *at_least(1)),
        ("training.batch_size", t.batch_size, *at_least(1)),
        ("training.gradient_accumulation", t.gradient_accumulation, *at_least(1)),
        ("training.seed", t.seed, *at_least(0)),
        ("training.noise_augmentation", t.noise_augmentation, *at_least(0)),
        ("training.threads", t.threads, *at_least(0)),
        ("ema.decay", s.ema.decay, *between(0, 1)),
        ("checkpoints.every", s.checkpoints.every, *at_least(1)),
        ("checkpoints.keep", s.checkpoints.keep, *at_least(0)),
        ("validation.every", s.validation.every, *at_least(0)),
        ("validation.num_frames", s.validation.num_frames, *at_least(1)),
        ("validation.num_steps", s.validation.num_steps, *at_least(1)),
        ("log.every", s.log.every, *at_least(1)),
    ]


def _check_networks(settings: Settings) -> None:
    n = settings.networks
    needed: dict[str, Any] = {}
    if n.start == "svd":
        needed = {"svd": n.svd}
    elif n.start == "stableanimator":
        needed = {"unet": n.unet, "pose_net": n.pose_net, "face_encoder": n.face_encoder}
    else:
        needed = {"unet_config": n.unet_config}
    needed |= {"svd (or vae)": n.svd or n.vae, "svd (or image_encoder)": n.svd or n.image_encoder}
    for key, value in needed.items():
        if value is None:
            problem = f"is missing, and networks.start is {n.start!r}"
            raise InputError(f"networks.{key}", problem, "name it in the configuration file")
    unknown = set(n.face_encoder_config) - {"depth", "heads", "ff_mult"}
    if unknown:
        remedy = "known are depth, heads, ff_mult"
        raise InputError("networks.face_encoder_config", f"has {', '.join(sorted(unknown))}", remedy)


def _check_identity(settings: Settings) -> None:
    identity = settings.identity
    needed = {
        "insightface": ("detector", "recogniser"),
        "mask": ("recogniser",),
        "zeros": (),
    }[identity.provider]
    for key in needed:
        if getattr(identity, key) is None:
            problem = f"is missing, and identity.provider is {identity.provider!r}"
            raise InputError(f"identity.{key}", problem, "name the file")


def unet_config(settings: Settings) -> dict[str, Any]:
    """The table or JSON file `networks.unet_config`.

    Raises:
        InputError: the file is missing or holds no table.
    """
    given = settings.networks.unet_config
    if isinstance(given, dict):
        return given
    try:
        loaded = json.loads(Path(given or "").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError("networks.unet_config", f"is {given}: {error}", "name a JSON file") from error
    if not isinstance(loaded, dict):
        raise InputError("networks.unet_config", f"{given} holds no table", "write diffusers' configuration")
    return {key: value for key, value in loaded.items() if not key.startswith("_")}
