"""ModelRef: which model, exactly."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model as the registry resolved it; ``sha256`` is that of its main file.

    ``runtime`` is what computes it where that is chosen on each machine, and the precision where
    that is not the file's own: ``onnxruntime``, ``openvino int8``; "" where it is not open.
    """

    task: str
    name: str
    version: int
    sha256: str
    runtime: str = ""

    def __str__(self) -> str:
        return f"{self.task}/{self.name}@{self.version}+{self.sha256[:12]}"
