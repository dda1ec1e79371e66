#!/usr/bin/env python3
"""Write workflows/*.json from the descriptions in `workflow_graphs*.py` and a server's /object_info.

    python3 scripts/make_workflows.py

Saved workflows hold widget values by position; this keeps them right when a node gains an input.
"""

from __future__ import annotations

import json
import os
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import env
from workflow_api import SEEDS, UPLOADS, WIDGET_TYPES, inputs_in_order

FOLDER = Path(__file__).resolve().parent.parent / "workflows"
PACK_ID, PACK_VERSION = "stableanimator", "0.1.0"


@dataclass
class Node:
    """One node of a description.

    Attributes:
        name: how links of the same description call it.
        kind: node id.
        at: left and top on the canvas.
        values: widget values by input name; the rest keep their defaults.
        links: input name -> "node.output name" of another node.
        size: width and height on the canvas.
        models: the `properties.models` entries, so that the frontend can say what is missing.
        title: another title than the node's own.
    """

    name: str
    kind: str
    at: tuple[int, int]
    values: dict[str, Any] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    size: tuple[int, int] = (300, 120)
    models: list[dict[str, str]] = field(default_factory=list)
    title: str | None = None


@dataclass
class Graph:
    """One workflow: file name, nodes, and coloured groups (title, x, y, width, height)."""

    name: str
    nodes: list[Node]
    groups: list[tuple[str, int, int, int, int]]
    description: str


def to_workflow(graph: Graph, object_info: dict[str, Any]) -> dict[str, Any]:
    """The form that the frontend saves and loads."""
    numbers = {node.name: number for number, node in enumerate(graph.nodes, start=1)}
    saved = {node.name: _saved_node(node, numbers[node.name], object_info) for node in graph.nodes}
    links = []
    for node in graph.nodes:
        for input_name, source in node.links.items():
            origin, _, output_name = source.partition(".")
            slot, output = _output(saved[origin], output_name, source)
            target_slot = _input_slot(saved[node.name], input_name, node, object_info)
            link = len(links) + 1
            output["links"].append(link)
            saved[node.name]["inputs"][target_slot]["link"] = link
            links.append([link, numbers[origin], slot, numbers[node.name], target_slot, output["type"]])
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"stableanimator/{graph.name}")),
        "revision": 0,
        "last_node_id": len(graph.nodes),
        "last_link_id": len(links),
        "nodes": list(saved.values()),
        "links": links,
        "groups": [
            {
                "id": number,
                "title": title,
                "bounding": list(box),
                "color": "#3f789e",
                "font_size": 24,
                "flags": {},
            }
            for number, (title, *box) in enumerate(graph.groups, start=1)
        ],
        "config": {},
        "extra": {"ds": {"scale": 0.7, "offset": [40, 60]}, "description": graph.description},
        "version": 0.4,
    }


def _saved_node(node: Node, number: int, object_info: dict[str, Any]) -> dict[str, Any]:
    if node.kind == "MarkdownNote":
        return _frame(node, number) | {"inputs": [], "outputs": [], "widgets_values": [node.values["text"]]}
    info = object_info[node.kind]
    unknown = set(node.values) - {name for name, _, _ in inputs_in_order(info)}
    if unknown:
        raise SystemExit(f"{node.kind} has no input {', '.join(sorted(unknown))}")
    outputs = [
        {"name": name, "type": kind, "links": []}
        for name, kind in zip(info["output_name"], info["output"], strict=True)
    ]
    values: list[Any] = []
    sockets = []
    for name, kind, options in inputs_in_order(info):
        if _is_widget(kind):
            values += _widget(name, kind, options, node.values)
        else:
            sockets.append({"name": name, "type": kind, "link": None} | _optional(name, info))
    properties = {"Node name for S&R": node.kind}
    if info["python_module"].startswith("custom_nodes."):
        properties |= {"cnr_id": PACK_ID, "ver": PACK_VERSION}
    else:
        properties |= {"cnr_id": "comfy-core"}
    if node.models:
        properties["models"] = node.models
    saved = _frame(node, number) | {"inputs": sockets, "outputs": outputs, "widgets_values": values}
    return saved | {"properties": properties}


def _frame(node: Node, number: int) -> dict[str, Any]:
    frame = {
        "id": number,
        "type": node.kind,
        "pos": list(node.at),
        "size": list(node.size),
        "flags": {},
        "order": number - 1,
        "mode": 0,
        "properties": {},
    }
    return frame | ({"title": node.title} if node.title else {})


def _is_widget(kind: Any) -> bool:
    return isinstance(kind, list) or kind in WIDGET_TYPES


def _optional(name: str, info: dict[str, Any]) -> dict[str, int]:
    return {"shape": 7} if name in (info["input"].get("optional") or {}) else {}


def _widget(name: str, kind: Any, options: dict[str, Any], values: dict[str, Any]) -> list[Any]:
    """The saved values of one widget: seeds and uploads take two."""
    choices = (kind if isinstance(kind, list) else options.get("options")) or [""]  # empty: no files yet
    fallback = (
        choices[0]
        if isinstance(kind, list) or kind == "COMBO"
        else {"STRING": "", "BOOLEAN": False}.get(kind, 0)
    )
    value = values.get(name, options.get("default", fallback))
    if options.get("control_after_generate") or name in SEEDS:
        return [value, "fixed"]
    if any(options.get(upload) for upload in UPLOADS):
        return [value, "image"]
    return [value]


def _output(saved: dict[str, Any], name: str, source: str) -> tuple[int, dict[str, Any]]:
    for slot, output in enumerate(saved["outputs"]):
        if output["name"] == name:
            return slot, output
    raise SystemExit(
        f"{source}: {saved['type']} has the outputs {[output['name'] for output in saved['outputs']]}"
    )


def _input_slot(saved: dict[str, Any], name: str, node: Node, object_info: dict[str, Any]) -> int:
    """The slot of an input; a widget that is linked gets one."""
    for slot, entry in enumerate(saved["inputs"]):
        if entry["name"] == name:
            return slot
    kinds = {known: kind for known, kind, _ in inputs_in_order(object_info[node.kind])}
    if name not in kinds:
        raise SystemExit(f"{node.kind} has no input {name}")
    saved["inputs"].append({"name": name, "type": kinds[name], "widget": {"name": name}, "link": None})
    return len(saved["inputs"]) - 1


def main() -> int:
    environment = env.find()
    if Path(sys.prefix).resolve() != environment.venv.resolve():
        environment.ensure()
        os.execv(environment.python, [str(environment.python), *sys.argv])
    import workflow_graphs
    import workflow_graphs_anyone
    import workflow_graphs_hjb
    import workflow_graphs_small
    import workflow_graphs_video
    from comfy_server import ask_for_nodes

    object_info = ask_for_nodes(environment)
    stable = (workflow_graphs_small, workflow_graphs, workflow_graphs_video, workflow_graphs_hjb)
    files = (*stable, workflow_graphs_anyone)
    for graph in (graph for file in files for graph in file.GRAPHS):
        workflow = to_workflow(graph, object_info)
        (FOLDER / f"{graph.name}.json").write_text(json.dumps(workflow, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
