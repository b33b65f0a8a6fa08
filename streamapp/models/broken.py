"""What is declared wrongly: it is kept by name, and refused where it is used."""

from typing import NamedTuple

from streamapp.core.errors import Refuse


class Broken(NamedTuple):
    """A manifest (``task/name@3``), a file of aliases (``task/name``) or one alias of it.

    ``said`` names its file and what is wrong with it.
    """

    name: str
    file: str
    said: Refuse

    @property
    def error(self) -> Refuse:
        """To be raised: one that is raised again and again would keep every caller's frames."""
        return Refuse(self.said.code, self.said.message, self.said.fix)

    def __str__(self) -> str:
        return f"{self.name} cannot be used: {self.said}"
