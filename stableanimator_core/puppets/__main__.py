"""python -m stableanimator_core.puppets DIR: a training set of puppets, in the layout that training reads."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import InputError
from .training_set import HELD_OUT, write_set


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m stableanimator_core.puppets", description=__doc__)
    parser.add_argument("folder", type=Path, help="where to write")
    parser.add_argument("--persons", type=int, default=50, help="how many people")
    parser.add_argument("--clips", type=int, help="how many clips; one for each person if left out")
    parser.add_argument("--frames", type=int, default=20, help="frames of a clip")
    parser.add_argument("--size", type=int, default=128, help="side of the pictures")
    parser.add_argument(
        "--first", type=int, default=0, help=f"first number; from {HELD_OUT} on they are held out"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--name", default="rec", help="of the folder that holds the clips")
    options = parser.parse_args(arguments)
    clips = options.persons if options.clips is None else options.clips
    sizes = (options.persons, clips, options.frames, options.size)
    try:
        write_set(options.folder, *sizes, options.first, options.workers, options.name)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
