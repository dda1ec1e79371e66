"""A workflow as the frontend saves it (nodes, links, widget values by position) -> the API form of /prompt.

The browser does this in JavaScript (`app.graphToPrompt`); here /object_info is enough, so that the
demo needs no browser. A browser test holds both against each other for every shipped workflow.

    python scripts/workflow_api.py workflow.json object_info.json > prompt.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NEVER, BYPASS = 2, 4  # modes of a node besides "always"
COMMENTS = ("Note", "MarkdownNote")
WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
SEEDS = ("seed", "noise_seed")
UPLOADS = ("image_upload", "video_upload", "audio_upload", "animated_image_upload")


class WorkflowError(ValueError):
    """The workflow has something that cannot be turned into a prompt here."""


def to_api(workflow: dict[str, Any], object_info: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The prompt: per node id its class, its inputs and its title.

    Raises:
        WorkflowError: a node type the server does not know, or a subgraph, which is not supported here.
    """
    if (workflow.get("definitions") or {}).get("subgraphs"):
        raise WorkflowError("the workflow has a subgraph; only flat workflows can be converted here")
    nodes = {node["id"]: node for node in workflow["nodes"]}
    links = {link[0]: link for link in map(as_list, workflow["links"])}
    prompt = {}
    for node in sorted(workflow["nodes"], key=lambda node: node.get("order", 0)):
        if node["type"] in (*COMMENTS, "Reroute", "PrimitiveNode") or node.get("mode") in (NEVER, BYPASS):
            continue
        if node["type"] not in object_info:
            raise WorkflowError(f"the server has no node type {node['type']!r} (node {node['id']})")
        info = object_info[node["type"]]
        title = node.get("title") or info.get("display_name") or node["type"]
        inputs = {**widget_values(node, info), **linked_inputs(node, nodes, links)}
        prompt[str(node["id"])] = {"inputs": inputs, "class_type": node["type"], "_meta": {"title": title}}
    return prompt


def as_list(link: list | dict) -> list:
    """[id, origin, origin slot, target, target slot, type] from either form of a saved link."""
    if isinstance(link, list):
        return link
    return [link[key] for key in ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")]


def inputs_in_order(info: dict[str, Any]) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Name, type and options of a node type's inputs, in the order of their widgets."""
    for part in ("required", "optional"):
        specs = info["input"].get(part) or {}
        for name in (info.get("input_order") or {}).get(part) or specs:
            spec = specs[name]
            yield name, spec[0], spec[1] if len(spec) > 1 and isinstance(spec[1], dict) else {}


def widget_names(info: dict[str, Any]) -> list[str | None]:
    """What each place of `widgets_values` holds: an input's name; None for the frontend's own widgets."""
    names: list[str | None] = []
    for name, kind, options in inputs_in_order(info):
        is_widget = isinstance(kind, list) or kind in WIDGET_TYPES
        if not is_widget or options.get("forceInput"):
            continue
        names.append(name)
        if options.get("control_after_generate") or (kind == "INT" and name in SEEDS):
            names.append(None)  # "randomize", "fixed", ...
        if any(options.get(upload) for upload in UPLOADS):
            names.append(None)  # the upload button
    return names


def widget_values(node: dict[str, Any], info: dict[str, Any]) -> dict[str, Any]:
    values = node.get("widgets_values") or []
    if isinstance(values, dict):
        return dict(values)
    return {name: value for name, value in zip(widget_names(info), values, strict=False) if name is not None}


def linked_inputs(node: dict[str, Any], nodes: dict[Any, Any], links: dict[Any, list]) -> dict[str, list]:
    linked = {}
    for socket in node.get("inputs") or []:
        if socket.get("link") is None:
            continue
        origin, slot = source_of(links[socket["link"]], nodes, links)
        if nodes[origin].get("mode") == BYPASS:
            raise WorkflowError(f"node {origin} is bypassed; only muted nodes can be converted here")
        if nodes[origin].get("mode") != NEVER:
            linked[socket["name"]] = [str(origin), slot]
    return linked


def source_of(link: list, nodes: dict[Any, Any], links: dict[Any, list]) -> tuple[Any, int]:
    """The node and output that a link really comes from, behind any Reroute."""
    origin, slot = link[1], link[2]
    while nodes[origin]["type"] == "Reroute":
        before = nodes[origin]["inputs"][0]["link"]
        if before is None:
            raise WorkflowError(f"Reroute {origin} has nothing on its input")
        origin, slot = links[before][1], links[before][2]
    return origin, slot


if __name__ == "__main__":
    given = [json.loads(Path(path).read_text(encoding="utf-8")) for path in sys.argv[1:3]]
    json.dump(to_api(*given), sys.stdout, indent=2)
