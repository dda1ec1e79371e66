#!/usr/bin/env python3
"""Makes every picture of Demo Puppet and the small demo model that the documents show.

    python3 scripts/puppet_pictures.py                 runs scripts/demo.py first, once for each of its workflows
    python3 scripts/puppet_pictures.py --demos DIR     takes the results of such runs: DIR/NAME of each workflow
    python3 scripts/puppet_pictures.py --no-results    what needs no weights; the thumbnails show skeletons

Writes web/docs/puppets.jpg and the thumbnails of the workflows below, and from results docs/contact_sheet.jpg and
docs/dancing_puppet.gif.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import env

if TYPE_CHECKING:
    from PIL.Image import Image

REPOSITORY = Path(__file__).resolve().parent.parent
PERSON, MOTION = 1_000_014, 1_000_006  # the node's defaults
SHOWN = [
    (PERSON, "half"),
    (1_000_003, "half"),
    (1_000_042, "half"),
    (1_000_077, "knees"),
    (1_000_021, "full"),
]
THUMBNAIL_FRAMES, SKELETONS_AT = (5, 10), 512
DANCE = "dancing-puppet"
CAPTIONS = {
    DANCE: "needs no downloads: a drawn person dances, made by the small demo model",
    "animate-anyone": "Animate Anyone, needs no downloads: made by its small demo model",
}
"""Of the thumbnails, by workflow."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--demos", type=Path, help="folder with the output of a demo of each workflow")
    source.add_argument("--no-results", action="store_true", help="only what needs no weights")
    return parser.parse_args()


def people() -> Image:
    """Some of the people, by their numbers, in every framing."""
    from make_doc_pictures import PLAIN, strip
    from PIL import Image

    from stableanimator_core.puppets.demo import demo_puppet

    drawn = [
        (demo_puppet(person, person - 8, 1, 256, framing).portrait, f"{person}, {framing}", PLAIN)
        for person, framing in SHOWN
    ]
    return Image.fromarray(strip(drawn, side=192))


def skeletons() -> list[Image]:
    """The portrait and what leads it, without results."""
    from PIL import Image

    from stableanimator_core.pose.draw import draw_clip
    from stableanimator_core.puppets.demo import demo_puppet

    puppet = demo_puppet(PERSON, MOTION, 16, 256)
    drawn = draw_clip(puppet.motion, SKELETONS_AT, SKELETONS_AT)
    return [
        Image.fromarray(picture) for picture in (puppet.portrait, drawn[2], *drawn[THUMBNAIL_FRAMES[0] :: 5])
    ]


def results(demo: Path) -> list[Image]:
    """The portrait, and skeleton and result of some frames, from a demo's folder."""
    import demo_prompt
    from PIL import Image

    def frame(kind: str, number: int) -> Image.Image:
        return Image.open(sorted((demo / kind).glob("*.png"))[number])

    pairs = [frame(kind, at) for at in THUMBNAIL_FRAMES for kind in (demo_prompt.POSES, demo_prompt.RESULT)]
    return [frame(demo_prompt.PHOTO, 0), *pairs]


def thumbnail(pictures: list[Image], caption: str) -> Image:
    from make_thumbnails import SIDE, row
    from PIL import Image

    return row(
        [picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS) for picture in pictures],
        caption,
    )


def save(picture: Image, path: str) -> None:
    picture.convert("RGB").save(REPOSITORY / path, quality=85, optimize=True)
    print(path)


def run_demo(workflow: str, out: Path) -> None:
    command = [sys.executable, REPOSITORY / "scripts" / "demo.py", "--out", out]
    subprocess.run([*command, "--workflow", REPOSITORY / "workflows" / f"{workflow}.json"], check=True)


def main() -> int:
    options = arguments()
    environment = env.find()
    if Path(sys.prefix).resolve() != environment.venv.resolve():
        environment.ensure()
        os.execv(environment.python, [str(environment.python), *sys.argv])
    from PIL import Image
    from test import importable_core

    sys.path.append(str(importable_core()))
    save(people(), "web/docs/puppets.jpg")
    if options.no_results:
        for workflow in CAPTIONS:
            save(
                thumbnail(skeletons(), "needs no downloads: a drawn person dances"),
                f"workflows/{workflow}.jpg",
            )
        return 0
    demos = options.demos or REPOSITORY / "demo_output"
    for workflow, caption in CAPTIONS.items():
        if options.demos is None:
            run_demo(workflow, demos / workflow)
        save(thumbnail(results(demos / workflow), caption), f"workflows/{workflow}.jpg")
    save(Image.open(demos / DANCE / "contact_sheet.png"), "docs/contact_sheet.jpg")
    shutil.copyfile(demos / DANCE / "side_by_side.gif", REPOSITORY / "docs/dancing_puppet.gif")
    return 0


if __name__ == "__main__":
    sys.exit(main())
