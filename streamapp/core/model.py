"""ModelRef: which model, exactly."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model as the registry resolved it; ``sha256`` is that of its main file."""

    task: str
    name: str
    version: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.task}/{self.name}@{self.version}+{self.sha256[:12]}"
