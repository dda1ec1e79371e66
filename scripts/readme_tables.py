#!/usr/bin/env python3
"""Writes the node tables of README.md from what a real server tells about the pack's nodes.

    python3 scripts/readme_tables.py           (makes the environment and starts the server itself)

They stand between the two markers below; a test holds them against the schemas.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import env

from locales import is_menu

REPOSITORY = Path(__file__).resolve().parent.parent
README = REPOSITORY / "README.md"
BEGIN, END = "<!-- nodes: python3 scripts/readme_tables.py -->", "<!-- /nodes -->"
UNLIMITED = 1 << 32


def plain(text: str) -> str:
    """Safe inside a table cell."""
    return " ".join(text.replace("|", "\\|").split())


def kind(spec: list) -> str:
    """The type of an input; of a menu its words, of a number its limits."""
    options = spec[1] if len(spec) > 1 else {}
    menu = spec[0] if isinstance(spec[0], list) else options.get("options")
    if isinstance(menu, list):
        return ", ".join(f"`{word}`" for word in menu) if is_menu(menu) else "a file"
    low, high = options.get("min"), options.get("max")
    limits = f" {low:g} to {high:g}" if low is not None and high is not None and high < UNLIMITED else ""
    return f"`{spec[0]}`{limits}"


def default(spec: list) -> str:
    options = spec[1] if len(spec) > 1 else {}
    menu = spec[0] if isinstance(spec[0], list) else options.get("options")
    if isinstance(menu, list) and not is_menu(menu):
        return ""  # which file is the default differs between machines
    value = options.get("default")
    if value is None and menu:
        value = menu[0]
    return "" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def input_row(name: str, spec: list, *, optional: bool) -> str:
    options = spec[1] if len(spec) > 1 else {}
    marks = [word for word, on in (("optional", optional), ("advanced", options.get("advanced"))) if on]
    label = f"**{name}**" + (f" ({', '.join(marks)})" if marks else "")
    return f"| {label} | {kind(spec)} | {default(spec)} | {plain(options.get('tooltip', ''))} |"


def output_row(name: str, kind_of: str, tooltip: str | None) -> str:
    return f"| **{name}** | `{kind_of}` | {plain(tooltip or '')} |"


def node_section(node: str, info: dict[str, Any]) -> str:
    """Heading, description, link to the help page, and the tables of one node."""
    lines = [f"### {info['display_name']}", ""]
    lines += [f"{plain(info['description'])} ([help](web/docs/{node}.md))", ""]
    rows = [
        input_row(name, spec, optional=part == "optional")
        for part in ("required", "optional")
        for name, spec in (info["input"].get(part) or {}).items()
    ]
    if rows:
        lines += ["| input | type | default | what it does |", "|---|---|---|---|", *rows, ""]
    names, tooltips = info.get("output_name") or [], info.get("output_tooltips") or []
    tooltips = tooltips or [None] * len(names)
    if names:
        rows = [output_row(*row) for row in zip(names, info["output"], tooltips, strict=True)]
        lines += ["| output | type | what it is |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


def sections(object_info: dict[str, Any]) -> str:
    """All nodes, in the order of `nodes/__init__.py`."""
    return "\n".join(node_section(node, info) for node, info in object_info.items())


def filled(readme: str, object_info: dict[str, Any]) -> str:
    """The README with the tables of these nodes.

    Raises:
        ValueError: the markers are not there, once each and in order.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"README.md needs {BEGIN} and {END}, once each")
    return f"{before}{BEGIN}\n\n{sections(object_info)}\n{END}{after}"


def main() -> int:
    environment = env.find()
    if Path(sys.prefix).resolve() != environment.venv.resolve():
        environment.ensure()
        os.execv(environment.python, [str(environment.python), *sys.argv])
    from comfy_server import ask_for_nodes, own_nodes

    ours = own_nodes(ask_for_nodes(environment))
    README.write_text(filled(README.read_text(encoding="utf-8"), ours), encoding="utf-8")
    print(f"{README.relative_to(REPOSITORY)}: {len(ours)} nodes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
