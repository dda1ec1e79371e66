"""The README and the help pages tell the truth: tables, links, sizes, commands and the example."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import tomllib
from PIL import Image

from stableanimator_core import download
from stableanimator_core.weights.locate import KNOWN_FILES

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PAGES = sorted(REPOSITORY.glob("*.md")) + sorted((REPOSITORY / "web/docs").glob("*.md"))
PICTURES = sorted((REPOSITORY / "web/docs").glob("*.jpg"))
LINK = re.compile(r"\]\(([^)\s]+)\)")
LARGEST_PICTURE, ALL_PICTURES = 150_000, 2_000_000


def example() -> str:
    between = README.split("<!-- example -->")[1].split("<!-- /example -->")[0]
    return between.split("```python")[1].split("```")[0].strip()


def headings(text: str) -> set[str]:
    """Anchors as the usual Markdown viewers make them."""
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_node_tables_are_those_of_the_schemas(object_info):
    import readme_tables

    assert readme_tables.filled(README, object_info) == README, "run python3 scripts/readme_tables.py"


def test_every_node_has_its_heading_and_every_input_its_row(object_info):
    for info in object_info.values():
        assert f"\n### {info['display_name']}\n" in README
        for name in info["input_order"].get("required", []):
            assert f"| **{name}**" in README, (info["display_name"], name)


def test_a_table_cell_cannot_break_the_table():
    import readme_tables

    row = readme_tables.input_row("a", ["INT", {"min": 0, "max": 3, "tooltip": "x | y\nz"}], optional=True)
    assert row == "| **a** (optional) | `INT` 0 to 3 |  | x \\| y z |"
    with pytest.raises(ValueError, match="README.md needs"):
        readme_tables.filled("no markers", {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_links_to_in_the_repository_exists(page):
    text = page.read_text(encoding="utf-8")
    for link in LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in headings(target.read_text(encoding="utf-8")), link


def test_every_help_picture_is_shown_and_small():
    shown = {link for page in PAGES for link in LINK.findall(page.read_text(encoding="utf-8"))}
    for picture in PICTURES:
        assert picture.name in shown or f"web/docs/{picture.name}" in shown, f"nobody shows {picture.name}"
        assert picture.stat().st_size < LARGEST_PICTURE, picture.name
    assert sum(picture.stat().st_size for picture in PICTURES) < ALL_PICTURES


def test_every_help_picture_has_words_for_those_who_cannot_see_it():
    for page in PAGES:
        for words in re.findall(r"!\[([^\]]*)\]", page.read_text(encoding="utf-8")):
            assert len(words.split()) >= 3, page.name


@pytest.mark.parametrize("role", KNOWN_FILES)
def test_every_model_file_is_listed_with_size_licence_and_address(role):
    known = KNOWN_FILES[role]
    row = next(line for line in README.splitlines() if line.startswith(f"| [`{known.names[0]}`]"))
    assert f"({known.url})" in row
    assert f"| {known.size / 1e6:,.1f} MB |" in row
    assert row.endswith(f"| {known.licence} |")
    for name in known.names:
        assert f"`{name}`" in row


def test_the_file_tree_is_the_one_the_downloader_makes():
    tree = README.split("ComfyUI/models/stableanimator/\n")[1].split("```")[0]
    folder, places = "", set()
    for line in tree.splitlines():
        name = re.sub(r"^[│├└─ ]+", "", line).split()[0]
        if name.endswith("/"):
            folder = name
        else:
            places.add(folder + name)
    made = {f"{file.folder}/{file.path}".lstrip("/") for file in download.HUB_FILES.values()}
    assert places == made


def test_the_named_commands_exist():
    for module in set(re.findall(r"python -m (stableanimator_core\.\w+)", README.replace("\n", " "))):
        file = REPOSITORY / module.replace(".", "/")
        assert file.with_suffix(".py").exists() or (file / "__main__.py").exists(), module
    for script in set(re.findall(r"python3? ((?:scripts|benchmarks)/\w+\.py)", README)):
        assert (REPOSITORY / script).exists(), script


def test_every_shipped_workflow_is_listed():
    for workflow in (REPOSITORY / "workflows").glob("*.json"):
        assert f"(workflows/{workflow.name})" in README, workflow.name


def test_the_example_is_eight_lines_and_runs(tmp_path, monkeypatch):
    """With small random weights, at 64 x 64 and on two frames."""
    import standins

    from stableanimator_core import demo_weights

    code = example()
    lines = [line for line in code.splitlines() if line and not line.startswith(("import", "from"))]
    assert len(lines) == 8
    models = tmp_path / "models/stableanimator"
    models.mkdir(parents=True)
    demo_weights.write(models)
    standins.official_tree(models)
    (tmp_path / "assets").symlink_to(REPOSITORY / "assets", target_is_directory=True)
    photo = np.zeros((640, 640, 3), np.uint8)
    photo[320:352, 320:352] = 255  # what the stand-in detector takes for a face
    Image.fromarray(photo).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    small = re.sub(r"\b512\b", "64", code).replace("[:16]", "[:2]")
    exec(compile(small, "README.md", "exec"), {})  # noqa: S102  (it is our own README)
    made = Image.open(tmp_path / "animation.gif")
    assert made.size == (64, 64) and made.n_frames == 2


def test_the_changelog_has_this_version():
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert f"## [{version}]" in (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_dependency_that_the_pack_imports_is_justified():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    files = [
        path for folder in ("stableanimator_core", "nodes") for path in (REPOSITORY / folder).rglob("*.py")
    ]
    code = "\n".join(path.read_text(encoding="utf-8") for path in files)
    for dependency in project["dependencies"]:
        name = re.match(r"[\w-]+", dependency).group()
        if re.search(rf"^\s*(import|from) {name}\b", code, flags=re.MULTILINE):
            assert f"| `{name}` |" in README, name


def test_scripts_of_the_documents_need_nothing_but_python_before_the_environment_is_made():
    """They start on a bare machine."""
    at_top = re.compile(r"^(?:import|from) (\w+)", flags=re.MULTILINE)
    for name in ("readme_tables", "make_doc_pictures"):
        text = (REPOSITORY / "scripts" / f"{name}.py").read_text(encoding="utf-8")
        assert set(at_top.findall(text)) <= {*sys.stdlib_module_names, "env", "locales"}, name
