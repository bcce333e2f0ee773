"""Draw pictures side by side with labels: strengths above, prompts at the left."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

_MARGIN, _GAP, _HEADER, _SMALLEST = 16, 8, 34, 176
_INK, _PAPER, _LABEL = (32, 32, 36), (255, 255, 255), 190


def draw_sheet(images: Sequence[Sequence[Image.Image]], columns: Sequence[str], rows: Sequence[str]) -> Image.Image:
    """A sheet of `images[row][column]`; small pictures are enlarged so that a person can see them."""
    first = images[0][0]
    scale = max(1, -(-_SMALLEST // first.width))
    width, height = first.width * scale, first.height * scale
    label = _LABEL if any(rows) else 0
    sheet_size = (
        2 * _MARGIN + label + len(columns) * (width + _GAP) - _GAP,
        2 * _MARGIN + _HEADER + len(rows) * (height + _GAP) - _GAP,
    )
    sheet = Image.new("RGB", sheet_size, _PAPER)
    draw, font, small = ImageDraw.Draw(sheet), ImageFont.load_default(17), ImageFont.load_default(15)
    for index, title in enumerate(columns):
        middle = _MARGIN + label + index * (width + _GAP) + width // 2
        draw.text((middle, _MARGIN + _HEADER // 2 - 4), title, fill=_INK, font=font, anchor="mm")
    for row, (title, pictures) in enumerate(zip(rows, images, strict=True)):
        top = _MARGIN + _HEADER + row * (height + _GAP)
        wrapped = "\n".join(textwrap.wrap(title, 23)[:8])
        draw.multiline_text((_MARGIN, top + height // 2), wrapped, fill=_INK, font=small, anchor="lm", spacing=5)
        for column, picture in enumerate(pictures):
            left = _MARGIN + label + column * (width + _GAP)
            sheet.paste(picture.resize((width, height), Image.Resampling.LANCZOS), (left, top))
    return sheet
