"""Other files for the same model: smaller numbers, made here from the pulled file."""

from pathlib import Path

import onnx

from streamapp.core.errors import Refuse

INT8 = "int8"


def make_int8(source: Path, folder: Path) -> Path | None:
    """Weights of matrix products as int8 per channel, activations as the call comes.

    Of each product's activations a call has one scale, so a row depends a little on its neighbours:
    where that is promised not to be, what is measured says so and the file is not chosen.

    Args:
        source: the ONNX file.
        folder: where the variant goes.

    Returns:
        The file; None when the model has no products of float32 weights.

    Raises:
        Refuse: the file cannot be quantised.
    """
    graph = onnx.load(str(source), load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer if tensor.data_type == 1}
    products = [node for node in graph.node if node.op_type in ("MatMul", "Gemm")]
    if not any(name in weights for node in products for name in node.input):
        return None
    from onnxruntime.quantization import QuantType, quantize_dynamic

    target = folder / f"{source.stem}.{INT8}.onnx"
    try:
        quantize_dynamic(
            str(source),
            str(target),
            per_channel=True,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul", "Gemm"],
            extra_options={"DefaultTensorType": 1},
        )
    except Exception as error:  # noqa: BLE001  # the quantiser raises whatever it meets
        raise Refuse(
            "models.quantise", f"{source}: {error}", "tune it with --no-variants"
        ) from None
    return target
