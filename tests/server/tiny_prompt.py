"""Words for prompts: nodes, their inputs, one thing changed, and what the server says to it."""

from __future__ import annotations

import json
from collections.abc import Callable

from comfy_client import PromptRefused

SIDE = 64
OURS = "StableAnimator_"
Prompt = dict[str, dict]


def node(class_type: str, **values) -> dict:
    return {"class_type": class_type, "inputs": values, "_meta": {"title": class_type}}


def inputs(prompt: Prompt, class_type: str) -> dict:
    """The inputs of a prompt's only node of this kind."""
    names = (class_type, OURS + class_type)
    (found,) = [part["inputs"] for part in prompt.values() if part["class_type"] in names]
    return found


def refused(comfy, good: Prompt, change: Callable[[Prompt], object]) -> str:
    """The server's words about the changed prompt, when it is queued or when it runs."""
    prompt = json.loads(json.dumps(good))
    change(prompt)
    try:
        result = comfy.client.run(prompt)
    except PromptRefused as error:
        return str(error)
    assert result.status == "error", result
    return result.error["exception_message"]


def setting(class_type: str, **values) -> Callable[[Prompt], object]:
    return lambda prompt: inputs(prompt, class_type).update(values)


def from_a_node(class_type: str, name: str, value: int) -> Callable[[Prompt], object]:
    """A number that comes over a link, which the server does not compare with the input's range."""

    def change(prompt: Prompt) -> None:
        prompt["number"] = node("PrimitiveInt", value=value)
        inputs(prompt, class_type)[name] = ["number", 0]

    return change
