"""A grid of pictures, and the labelled sheet that shows it: strengths above, prompts at the left. No torch."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from sd_lora.preview.recipe import png_bytes
from sd_lora.storage.atomic import write_atomically

_MARGIN, _GAP, _HEADER, _SMALLEST = 16, 8, 34, 176
_INK, _PAPER, _LABEL = (32, 32, 36), (255, 255, 255), 190


@dataclass(frozen=True)
class PreviewGrid:
    """`images[row][column]`: one row per prompt, one column per strength, all from one seed; `recipe` says how."""

    prompts: tuple[str, ...]
    strengths: tuple[float, ...]
    images: tuple[tuple[Image.Image, ...], ...]
    recipe: Mapping[str, Any]

    def sheet(self) -> Image.Image:
        """The labelled sheet: strengths above the columns, prompts beside the rows."""
        return draw_sheet(self.images, [f"strength {s:g}" for s in self.strengths], self.prompts)

    def _repr_png_(self) -> bytes:
        """The sheet, as a notebook shows the grid."""
        return png_bytes(self.sheet(), self.recipe)

    def __repr__(self) -> str:
        """``PreviewGrid(2 prompts × strengths 0, 0.5, 1)``."""
        prompts = f"{len(self.prompts)} prompt{'' if len(self.prompts) == 1 else 's'}"
        return f"PreviewGrid({prompts} × strengths {', '.join(f'{s:g}' for s in self.strengths)})"

    def save(self, path: str | Path) -> Path:
        """Write the sheet as a PNG that carries its recipe in the text chunk ``sd_lora`` (JSON)."""
        path = Path(path)
        write_atomically(path, self._repr_png_())
        return path


def draw_sheet(images: Sequence[Sequence[Image.Image]], columns: Sequence[str], rows: Sequence[str]) -> Image.Image:
    """A sheet of `images[row][column]`; small pictures are enlarged so that a person can see them. Rows may differ in
    size."""
    scale = max(1, -(-_SMALLEST // images[0][0].width))
    width = scale * max(row[0].width for row in images)
    heights = [scale * row[0].height for row in images]
    label = _LABEL if any(rows) else 0
    sheet_size = (
        2 * _MARGIN + label + len(columns) * (width + _GAP) - _GAP,
        2 * _MARGIN + _HEADER + sum(height + _GAP for height in heights) - _GAP,
    )
    sheet = Image.new("RGB", sheet_size, _PAPER)
    draw, font, small = ImageDraw.Draw(sheet), ImageFont.load_default(17), ImageFont.load_default(15)
    for index, title in enumerate(columns):
        middle = _MARGIN + label + index * (width + _GAP) + width // 2
        draw.text((middle, _MARGIN + _HEADER // 2 - 4), title, fill=_INK, font=font, anchor="mm")
    top = _MARGIN + _HEADER
    for title, pictures, height in zip(rows, images, heights, strict=True):
        wrapped = "\n".join(textwrap.wrap(title, 23)[:8])
        draw.multiline_text((_MARGIN, top + height // 2), wrapped, fill=_INK, font=small, anchor="lm", spacing=5)
        for column, picture in enumerate(pictures):
            left = _MARGIN + label + column * (width + _GAP)
            own = (picture.width * scale, picture.height * scale)
            sheet.paste(picture.resize(own, Image.Resampling.LANCZOS), (left, top))
        top += height + _GAP
    return sheet


def cells_of(sheet: Image.Image, rows: int, columns: int) -> list[list[Image.Image]]:
    """The pictures of a labelled sheet as it shows them, by row and column. ValueError if it does not have so many, or
    they differ in size."""
    width = sheet.width - 2 * _MARGIN - _LABEL + _GAP
    height = sheet.height - 2 * _MARGIN - _HEADER + _GAP
    if not rows or not columns or width % columns or height % rows:
        raise ValueError(f"the sheet is not one of {rows} × {columns} pictures of one size")
    across, down = width // columns, height // rows
    corners = [[(_MARGIN + _LABEL + c * across, _MARGIN + _HEADER + r * down) for c in range(columns)]
               for r in range(rows)]  # fmt: skip
    return [[sheet.crop((x, y, x + across - _GAP, y + down - _GAP)) for x, y in row] for row in corners]
