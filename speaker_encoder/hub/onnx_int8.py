"""An ONNX file with some products in int8, their scales found while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

_ALREADY_INFERRED = ("onnx.quant.pre_process", "onnxruntime.quant")
"""Keeps the quantiser from asking for what the exporter has done."""


def quantize_onnx(path: Path, operators: Sequence[str] = ("MatMul",)) -> Path:
    """Writes a file beside it in which products with weights are of int8.

    Weights have a scale for each output, activations one that is found for each input: for all of
    a batch together, so utterances are to be embedded one at a time. The products of the
    spectrogram stay in float32: power has too large a range.

    Args:
        path: of what ``write_onnx`` wrote.
        operators: of ONNX whose products are changed; "MatMul" is every linear layer.

    Returns:
        The new file.
    """
    import onnx
    from onnxruntime.quantization import quantize_dynamic

    model = onnx.load(path)
    del model.graph.value_info[:]  # shapes of the exported batch; the quantiser infers its own
    model.metadata_props.add(key=_ALREADY_INFERRED[0], value=_ALREADY_INFERRED[1])
    shapes = {weight.name: list(weight.dims) for weight in model.graph.initializer}
    of_spectrogram = [
        node.name
        for node in model.graph.node
        if (node.op_type == "Conv" and shapes.get(node.input[1], [0, 1])[1] == 1)
        or (node.op_type == "MatMul" and node.input[1].endswith("filters"))
    ]
    target = path.with_name(f"{'-'.join(operators).lower()}-int8.onnx")
    quantize_dynamic(
        model, target, list(operators), per_channel=True, nodes_to_exclude=of_spectrogram
    )
    return target
