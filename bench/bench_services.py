"""The services, each beside what its users would write without them, in one run.

python bench/bench_services.py               everything, about ten minutes; kept if no part breaks
python bench/bench_services.py --quick       does it work? (figures mean little, none are kept)
python bench/bench_services.py --only text   one part, nothing is kept
python bench/bench_services.py --markdown    bench/results/services.json into docs/performance.md

A part is a module of bench/services with

    AIMS              ratio -> (what it says, the aim as text)
    measure(folder, quick) -> figures, JSON; raises venvs.Unavailable or process.Failed
    ratios(figures)   of those of AIMS that were measured
    render(figures)   a Markdown table
    packages()        versions that the figures depend on
"""

import argparse
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import venvs
from report import write
from services import page, process
from tables import rewrite

#: In the order of the page.
PARTS = ("text", "integrate", "infer")


def sections() -> dict[str, ModuleType]:
    """The parts, by name."""
    return {name: import_module(f"services.{name}") for name in PARTS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing is kept")
    parser.add_argument("--markdown", action="store_true", help="rewrite the docs page's figures")
    parser.add_argument("--only", metavar="PART", choices=PARTS, help="one part, nothing is kept")
    options = parser.parse_args()
    if options.markdown:
        parts = sections()
        rewrite("services", page.BEGIN, page.END, lambda results: page.render(results, parts))
        return
    chosen = {
        name: import_module(f"services.{name}") for name in PARTS if options.only in (None, name)
    }
    with TemporaryDirectory(prefix="bench-services-") as folder:
        figures, broken = measure(chosen, Path(folder), options.quick)
    found = [chosen[name].ratios(figures[name]) for name in chosen if name in figures]
    ratios = {name: value for part in found for name, value in part.items()}
    results: dict[str, Any] = {"ratios": ratios, "figures": figures}
    if not (options.quick or options.only or broken):
        packages = [part.packages() for part in chosen.values()]
        versions = {name: number for one in packages for name, number in one.items()}
        results = write("services", ratios, figures, versions)
    print(page.render(results, chosen))
    if broken:
        sys.exit(f"broken: {', '.join(broken)}")


def measure(
    chosen: Mapping[str, ModuleType], folder: Path, quick: bool
) -> tuple[dict[str, Any], list[str]]:
    """Each part's figures, why there are none under ``not_measured``; and which parts broke."""
    figures: dict[str, Any] = {}
    away: dict[str, str] = {}
    broken: list[str] = []
    for name, part in chosen.items():
        print(f"{name} ...", file=sys.stderr, flush=True)
        own = folder / name
        own.mkdir()
        try:
            figures[name] = part.measure(own, quick)
        except (venvs.Unavailable, process.Failed) as error:
            away[name] = str(error).splitlines()[0]
            if isinstance(error, process.Failed):
                broken.append(name)
    return figures | {"not_measured": away}, broken


if __name__ == "__main__":
    main()
