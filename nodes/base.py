"""Shared by every node: errors that name the node, inputs that work on old and new ComfyUI."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from comfy_api.latest import io

from ..stableanimator_core.errors import InputError

CATEGORY = "StableAnimator"

_Input = TypeVar("_Input")


class AnimatorNode(io.ComfyNode):
    """A node whose `InputError`s begin with its display name, so that the message alone says where to look."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        execute = cls.__dict__.get("execute")
        # ComfyUI runs locked copies of the class, whose method is wrapped already.
        if execute is not None and not hasattr(execute.__func__, "__wrapped__"):
            cls.execute = classmethod(_naming_the_node(execute.__func__))


def _naming_the_node(execute: Callable[..., io.NodeOutput]) -> Callable[..., io.NodeOutput]:
    @functools.wraps(execute)
    def named(cls: type[AnimatorNode], *args: Any, **kwargs: Any) -> io.NodeOutput:
        try:
            return execute(cls, *args, **kwargs)
        except InputError as error:
            error.args = (f"{cls.define_schema().display_name} - {error}",)
            raise

    return named


def refusal(node: type[AnimatorNode], check: Callable[[], object]) -> bool | str:
    """For `validate_inputs`: True, or what `check` complains about, in the words `execute` would use."""
    try:
        check()
    except InputError as error:
        return f"{node.define_schema().display_name} - {error}"
    return True


def advanced(node_input: _Input) -> _Input:
    """Fold an input under "Show advanced inputs" where the frontend can; elsewhere it stays visible.

    The keyword `advanced=` exists from ComfyUI 0.10 on and is a TypeError before; this way works on both.
    """
    extra = getattr(node_input, "extra_dict", None)
    if isinstance(extra, dict):
        extra["advanced"] = True
    return node_input


def say(node: type[AnimatorNode], text: str) -> None:
    """Tell the person at the screen, on the node itself, and the log; the run goes on."""
    logging.warning("%s: %s", node.define_schema().display_name, text)
    show_progress_text(text, getattr(getattr(node, "hidden", None), "unique_id", None))


def show_progress_text(text: str, unique_id: str | None) -> None:
    """Show a line on the node `unique_id` while it runs; nothing happens outside of a server."""
    server = getattr(sys.modules.get("server"), "PromptServer", None)
    instance = getattr(server, "instance", None)
    if instance is not None and unique_id:
        instance.send_progress_text(text, unique_id)
