"""Runs the three networks of portraits in numpy: face detector, landmarks and segmentation.

``networks.npz`` has the weights and, as JSON, the operations of each network in the order of execution (``tools/portrait/`` makes it from
MediaPipe's models; ``NOTICE`` names their authors and licence). Pictures are arrays of height × width × channels. A convolution is one
matrix product of patches and weights (im2col). A depthwise convolution does not sum over channels, so it is computed as a sum over the few
positions of its kernel.
"""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from a2v.engine.portrait.pictures import Array


_WEIGHTS = Path(__file__).with_name("networks.npz")


class Network:
    """One of the networks, by its name: ``detector``, ``landmarks`` or ``segmentation``."""

    def __init__(self, name: str) -> None:
        graphs, weights = _load()
        graph = graphs[name]
        self._constants: dict[int, Array] = {
            number: weights[start : start + math.prod(shape)].reshape(shape).astype(np.float32)
            for number, start, shape in graph["constants"]
        }
        self._input: int = graph["input"]
        self._outputs: dict[str, int] = graph["outputs"]
        self._operations: list[dict[str, Any]] = graph["operations"]

    def run(self, picture: Array) -> dict[str, Array]:
        """Return the outputs for a picture, whose size the network determines, by name."""
        values = dict(self._constants)
        values[self._input] = picture
        for operation in self._operations:
            inputs = [values[number] for number in operation["inputs"]]
            result = _OPERATIONS[operation["kind"]](inputs, operation)
            values[operation["output"]] = np.maximum(result, 0) if operation.get("relu") else result
        return {name: values[number] for name, number in self._outputs.items()}


@cache
def _load() -> tuple[dict[str, Any], NDArray[np.float16]]:
    with np.load(_WEIGHTS) as file:
        words = file["high"].astype(np.uint16) << 8 | file["low"]
        return json.loads(file["graphs"].tobytes()), words.view(np.float16)


@cache
def get_network(name: str) -> Network:
    """Return a network, which is loaded once."""
    return Network(name)


def _padded(picture: Array, kernel: int, operation: dict[str, Any], fill: float = 0.0) -> Array:
    """Pad a picture so that the size of the output is its size divided by the stride, rounded up (TensorFlow's padding ``SAME``)."""
    if not operation["same"]:
        return picture
    widths = []
    for length in picture.shape[:2]:
        more = max((-(-length // operation["stride"]) - 1) * operation["stride"] + kernel - length, 0)
        widths.append((more // 2, more - more // 2))
    return np.pad(picture, (*widths, (0, 0)), constant_values=fill)


def _conv(inputs: list[Array], operation: dict[str, Any]) -> Array:
    picture, weights, bias = inputs
    outputs, kernel, _, _ = weights.shape
    stride = operation["stride"]
    if kernel == 1:
        patches = picture[::stride, ::stride]
    else:
        windows = sliding_window_view(_padded(picture, kernel, operation), (kernel, kernel), (0, 1))
        patches = np.moveaxis(windows[::stride, ::stride], 2, 4)
    flat = patches.reshape(-1, weights[0].size) @ weights.reshape(outputs, -1).T
    return np.asarray(flat.reshape(*patches.shape[:2], outputs) + bias, np.float32)


def _depthwise(inputs: list[Array], operation: dict[str, Any]) -> Array:
    picture, (weights,), bias = inputs
    kernel, stride = len(weights), operation["stride"]
    picture = _padded(picture, kernel, operation)
    height, width = ((length - kernel) // stride + 1 for length in picture.shape[:2])
    total = np.tile(bias, (height, width, 1))
    for y in range(kernel):
        for x in range(kernel):
            part = picture[y : y + (height - 1) * stride + 1 : stride, x : x + (width - 1) * stride + 1 : stride]
            total += part * weights[y, x]
    return total


def _max_pool(inputs: list[Array], operation: dict[str, Any]) -> Array:
    size, stride = operation["FilterHeight"], operation["stride"]
    picture = _padded(inputs[0], size, operation, -np.inf)
    return np.asarray(sliding_window_view(picture, (size, size), (0, 1))[::stride, ::stride].max((-1, -2)), np.float32)


def _resize(inputs: list[Array], operation: dict[str, Any]) -> Array:
    picture = inputs[0]
    for axis, length in enumerate(operation["shape"][1:3]):
        places = (np.arange(length, dtype=np.float32) + 0.5) * picture.shape[axis] / length - 0.5
        places = places.clip(0, picture.shape[axis] - 1)
        first = places.astype(int)
        second = np.minimum(first + 1, picture.shape[axis] - 1)
        fraction = np.expand_dims(places - first, (1, 2) if axis == 0 else (0, 2)).astype(np.float32)
        picture = picture.take(first, axis) * (1 - fraction) + picture.take(second, axis) * fraction
    return picture


def _upsample(inputs: list[Array], _: dict[str, Any]) -> Array:
    """Double the size: each pixel becomes 2 × 2 pixels of its own (a transposed convolution)."""
    picture, weights, bias = inputs
    height, width, _ = picture.shape
    outputs = weights.shape[0]
    blocks = np.einsum("yxc,ohwc->yhxwo", picture, weights)
    return np.asarray(blocks.reshape(height * 2, width * 2, outputs) + bias, np.float32)


def _sigmoid(value: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-value.clip(-80, 80))), np.float32)


_OPERATIONS: dict[str, Callable[[list[Array], dict[str, Any]], Array]] = {
    "conv": _conv,
    "depthwise": _depthwise,
    "max_pool": _max_pool,
    "resize": _resize,
    "upsample": _upsample,
    "mean": lambda inputs, _: inputs[0].mean((0, 1), keepdims=True),
    "add": lambda inputs, _: inputs[0] + inputs[1],
    "multiply": lambda inputs, _: inputs[0] * inputs[1],
    # The shapes of the models begin with the number of pictures, which is 1.
    "concatenate": lambda inputs, operation: np.concatenate(inputs, operation["Axis"] - 1),
    "reshape": lambda inputs, operation: inputs[0].reshape(operation["shape"][1:]),
    "pad": lambda inputs, operation: np.pad(inputs[0], operation["widths"][1:]),
    "prelu": lambda inputs, _: np.maximum(inputs[0], 0) + np.minimum(inputs[0], 0) * inputs[1],
    "relu": lambda inputs, _: np.maximum(inputs[0], 0),
    "hard_swish": lambda inputs, _: inputs[0] * np.clip(inputs[0] + 3, 0, 6) / 6,
    "sigmoid": lambda inputs, _: _sigmoid(inputs[0]),
}
