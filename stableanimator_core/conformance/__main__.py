"""python -m stableanimator_core.conformance DIR [DIR ...] [--only NAME]: run every golden case of the folders."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import InputError
from .run import cases_in, run_case


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m stableanimator_core.conformance", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="folders of golden files")
    parser.add_argument("--only", nargs="*", help="names of cases; all if left out")
    options = parser.parse_args(arguments)
    try:
        chosen = _chosen(options.folders, options.only)
    except InputError as error:
        parser.error(str(error))
    failures = 0
    for folder, name in chosen:
        for row in run_case(folder, name):
            failures += not row.ok
            verdict = "ok" if row.ok else "FAILED"
            print(
                f"{name:18} {row.name:44} {row.error:10.3e} <= {row.tolerance:8.1e} {row.unit:10} {verdict}"
            )
    print(f"{failures} failed" if failures else "all rows ok")
    return 1 if failures else 0


def _chosen(folders: list[Path], only: list[str] | None) -> list[tuple[Path, str]]:
    """Folder and name of every case to run.

    Raises:
        InputError: a folder without cases, or a wanted name that no folder has.
    """
    found = [(folder, name) for folder in folders for name in cases_in(folder)]
    unknown = set(only or ()) - {name for _, name in found}
    if unknown:
        names = ", ".join(sorted({name for _, name in found}))
        raise InputError("--only", f"no folder has {', '.join(sorted(unknown))}", f"choose among {names}")
    return [(folder, name) for folder, name in found if not only or name in only]


if __name__ == "__main__":
    sys.exit(main())
