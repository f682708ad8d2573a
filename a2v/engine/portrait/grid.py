"""A coarse grid over a part of the frame. Smooth fields are computed at its nodes, and interpolated linearly to the pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from a2v.engine.portrait.pictures import Array


class Grid(NamedTuple):
    """The nodes at multiples of ``step`` pixels: from ``left`` and ``top``, with ``columns`` × ``rows`` cells between them."""

    left: int
    top: int
    columns: int
    rows: int
    step: int

    @classmethod
    def over(cls, box: tuple[float, float, float, float], step: int, width: int, height: int) -> Grid:
        """Return a grid that covers a box (left, top, right, bottom) as far as it is in the frame."""
        left, top = (max(0, int(value) // (2 * step) * 2 * step) for value in box[:2])
        right, bottom = min(width, int(box[2]) + 1), min(height, int(box[3]) + 1)
        return cls(left, top, -(-max(0, right - left) // step), -(-max(0, bottom - top) // step), step)

    @property
    def slices(self) -> tuple[slice, slice]:
        """The rows and columns of the pixels, which may end before the last cell does."""
        return slice(self.top, self.top + self.rows * self.step), slice(self.left, self.left + self.columns * self.step)

    def nodes(self) -> Array:
        """Return the places of the nodes, rows × columns × 2, at the middles of pixels."""
        x = self.left + np.arange(self.columns + 1) * self.step
        y = self.top + np.arange(self.rows + 1) * self.step
        return np.stack(np.meshgrid(x, y), -1).astype(np.float32) + np.float32(0.5)

    def part(self, inner: Grid) -> tuple[slice, slice]:
        """Return the nodes of a grid within this one."""
        row, column = (inner.top - self.top) // self.step, (inner.left - self.left) // self.step
        return slice(row, row + inner.rows + 1), slice(column, column + inner.columns + 1)

    def interpolate(self, values: Array) -> Array:
        """Return the values of some fields at all pixels: fields × height × width from fields × rows × columns."""
        return np.concatenate([block for _, block in self.bands(values, self.rows)], axis=1)

    def bands(self, values: Array, cells: int = 8) -> Iterator[tuple[int, Array]]:
        """Yield the values of some fields at the pixels, in bands that fit into the CPU's cache.

        Args:
            values: Fields × rows × columns of nodes.
            cells: The number of rows of cells in a band.

        Yields:
            The first row of pixels of a band, and its values, which the next band overwrites.
        """
        step, share = self.step, np.float32(1 / self.step)
        fields = len(values)
        # Columns first, while the arrays are small; then whole rows, which are contiguous.
        wide = np.empty((fields, self.rows + 1, self.columns, step), np.float32)
        left = values[..., :-1]
        slope = (values[..., 1:] - left) * share
        for k in range(step):
            wide[..., k] = left + slope * np.float32(k)
        level = wide.reshape(fields, self.rows + 1, -1)
        rise = (level[:, 1:] - level[:, :-1]) * share
        buffer = np.empty((fields, min(cells, self.rows), step, level.shape[2]), np.float32)
        for start in range(0, self.rows, cells):
            end = min(start + cells, self.rows)
            band = buffer[:, : end - start]
            band[:, :, 0] = level[:, start:end]
            for k in range(1, step):
                np.add(band[:, :, k - 1], rise[:, start:end], out=band[:, :, k])
            yield start * step, band.reshape(fields, -1, level.shape[2])
