"""A PyTorch module to ONNX, by ``torch.export``; the extra ``[torch-export]`` has what it takes.

``[build]`` names what makes the module: ``options.module = "package.module:Name"``, a class or
function that is called with ``options.arguments``, and the fetched source is its state:

- ``.safetensors``: arrays only, nothing in it can run;
- anything else is read by ``torch.load(weights_only=True)``, which runs nothing either.

A file that ``torch.export.save`` wrote (``.pt2``) brings its graph and needs no module, but
``trust = true``: torch does not promise that reading one runs nothing.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from streamapp.core.errors import Refuse
from streamapp.models.builders import Built
from streamapp.models.builders.comparing import Original, compared, feeds_for, needs
from streamapp.models.manifest import Manifest
from streamapp.models.session import Array, parse_signature

VERSION = 1
OPSET = 21
_PACKAGES = ["torch", "onnxscript"]


def build(manifest: Manifest, source: Path, folder: Path) -> Built:
    """Export with the manifest's inputs, sizes that it leaves open free, and compare.

    Raises:
        Refuse: no signature, no such module, other weights, torch is not installed, or the two
            differ.
    """
    try:
        import onnxscript  # noqa: F401  # the exporter writes by it
        import torch
    except ImportError as error:
        raise needs(manifest, "torch-export", error) from None
    inputs, outputs = parse_signature(manifest.inputs), parse_signature(manifest.outputs)
    if not inputs or not outputs:
        raise Refuse(
            "models.signature",
            f"{manifest.full_name} declares no signature",
            "write [inputs] and [outputs]: an export follows them",
        )
    module = _module(torch, manifest, source)
    feeds = feeds_for(manifest, inputs)
    given = tuple(torch.from_numpy(np.ascontiguousarray(feeds[t.name])) for t in inputs)
    free = torch.export.Dim.AUTO
    shapes = [dict.fromkeys(_free(tensor.shape), free) for tensor in inputs]
    try:
        torch.onnx.export(
            module,
            given,
            str(folder / manifest.model),
            input_names=[tensor.name for tensor in inputs],
            output_names=[tensor.name for tensor in outputs],
            dynamic_shapes=tuple(shapes),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    except Exception as error:  # noqa: BLE001  # torch has errors of many bases
        why = str(error).split("\n", 1)[0]
        raise Refuse(
            "models.conversion",
            f"{manifest.full_name}: torch.onnx cannot export it: {why}",
            "export it to ONNX yourself",
        ) from None
    names = [tensor.name for tensor in outputs]
    return compared(manifest, folder, _original(torch, module, inputs, names), _PACKAGES)


def _free(shape: tuple[int, ...]) -> list[int]:
    return [place for place, size in enumerate(shape) if size < 0]


def _module(torch: Any, manifest: Manifest, source: Path) -> Any:
    """The module with its weights, to be evaluated."""
    assert manifest.build is not None  # noqa: S101  # the caller looked
    if source.suffix == ".pt2":
        if not manifest.build.trust:
            raise Refuse(
                "models.trust",
                f"{manifest.full_name}: {source.name} may run code when it is read",
                "if you know who made it, set trust = true in [build]; its sha256 stays proven",
            )
        return torch.export.load(str(source)).module()
    options = manifest.build.options
    path, _, name = str(options.get("module", "")).partition(":")
    if not path or not name:
        raise Refuse(
            "models.builder",
            f"{manifest.full_name}: [build] does not say whose weights {source.name} are",
            'set options.module = "package.module:Name" in [build]',
        )
    try:
        module = getattr(import_module(path), name)(**options.get("arguments", {}))
        module.load_state_dict(_state(torch, source))
    except Exception as error:  # noqa: BLE001  # a user's own code
        raise Refuse(
            "models.builder",
            f"{manifest.full_name}: {path}:{name} and {source.name}: {error}",
            "install the package that has the module, and name the one of these weights",
        ) from None
    return module.eval()


def _state(torch: Any, source: Path) -> Mapping[str, Any]:
    if source.suffix == ".safetensors":
        from safetensors.torch import load_file

        found: Mapping[str, Any] = load_file(str(source))
    else:
        found = torch.load(str(source), map_location="cpu", weights_only=True)
    return found


def _original(torch: Any, module: Any, inputs: Any, names: list[str]) -> Original:
    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        with torch.no_grad():
            given = [torch.from_numpy(np.ascontiguousarray(feeds[t.name])) for t in inputs]
            found = module(*given)
        some = found if isinstance(found, tuple | list) else [found]
        return {name: value.numpy() for name, value in zip(names, some, strict=True)}

    return run
