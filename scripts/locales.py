#!/usr/bin/env python3
"""Writes locales/en/nodeDefs.json from what a real server tells about the pack's nodes.

Translators copy that file and replace the texts; a test holds it against the schemas.

    python3 scripts/locales.py           (makes the environment and starts the server itself)
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import env

REPOSITORY = Path(__file__).resolve().parent.parent
TARGET = REPOSITORY / "locales" / "en" / "nodeDefs.json"


def key(name: str) -> str:
    """The frontend looks texts up with dots replaced."""
    return name.replace(".", "_")


def is_menu(options: Any) -> bool:
    """A list of words to translate, not of files or numbers."""
    words = isinstance(options, list) and all(isinstance(option, str) for option in options)
    return bool(options) and words and not any("." in option or "/" in option for option in options)


def input_texts(name: str, spec: list) -> dict[str, Any]:
    options = spec[1] if len(spec) > 1 else {}
    texts: dict[str, Any] = {"name": options.get("display_name") or name}
    if options.get("tooltip"):
        texts["tooltip"] = options["tooltip"]
    menu = spec[0] if isinstance(spec[0], list) else options.get("options")
    if is_menu(menu):
        texts["options"] = {key(option): option for option in menu}
    return texts


def output_texts(name: str, tooltip: str | None) -> dict[str, str]:
    return {"name": name, "tooltip": tooltip} if tooltip else {"name": name}


def node_texts(info: dict[str, Any]) -> dict[str, Any]:
    """Everything of a node that a person reads."""
    texts: dict[str, Any] = {"display_name": info["display_name"]}
    if info.get("description"):
        texts["description"] = info["description"]
    specs = {**(info["input"].get("required") or {}), **(info["input"].get("optional") or {})}
    if specs:
        texts["inputs"] = {key(name): input_texts(name, spec) for name, spec in specs.items()}
    names = info.get("output_name") or []
    tooltips = [*(info.get("output_tooltips") or []), *[None] * len(names)]
    if names:
        texts["outputs"] = {str(i): output_texts(name, tooltips[i]) for i, name in enumerate(names)}
    return texts


def locale_file(object_info: dict[str, Any]) -> str:
    """The file's text, for the given part of /object_info."""
    texts = {key(node): node_texts(info) for node, info in sorted(object_info.items())}
    return json.dumps(texts, ensure_ascii=False, indent=2) + "\n"


def main() -> int:
    environment = env.find()
    if Path(sys.prefix).resolve() != environment.venv.resolve():
        environment.ensure()
        os.execv(environment.python, [str(environment.python), *sys.argv])
    from comfy_server import ask_for_nodes, own_nodes

    ours = own_nodes(ask_for_nodes(environment))
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(locale_file(ours), encoding="utf-8")
    print(f"{TARGET.relative_to(REPOSITORY)}: {len(ours)} nodes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
