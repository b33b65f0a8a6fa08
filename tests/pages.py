"""The pages of docs/, as tests read and run them."""

import re
from pathlib import Path

_DOCS = Path(__file__).parents[1] / "docs"
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Text(str):
    """A page or a part of it."""

    __slots__ = ()

    def section(self, title):
        """The part below a heading of the second level that begins so."""
        return Text(self[self.index(f"\n## {title}") + 1 :].partition("\n## ")[0])

    def blocks(self, kind):
        """What stands in its fences of one language."""
        return [text for found, text in _BLOCK.findall(self) if found == kind]


def page(name):
    """A page by its name without ``.md``."""
    return Text((_DOCS / f"{name}.md").read_text())
