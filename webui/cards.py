"""LoRAs as cards: picture, name, base model, trigger word and strength; a click chooses one."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from sd_lora.adapters.summary import AdapterSummary

from .adapter_files import picture
from .messages import escaped

#: pixels of a card's picture, and how many cards have one: it travels inside the page
_SIDE, _MOST_PICTURES = 160, 60
#: in the browser: a click sends the id of its card, and the field Find leaves the cards that have all of its words
ON_LOAD = """element.addEventListener('click', (event) => {
  const card = event.target.closest('button[data-id]');
  if (!card) return;
  element.querySelectorAll('button[data-id]').forEach((one) => one.setAttribute('aria-pressed', one === card));
  trigger('click', { id: card.dataset.id });
});
document.addEventListener('input', (event) => {
  if (!event.target.closest('#adapters-find')) return;
  const words = event.target.value.toLowerCase().split(' ').filter(Boolean);
  element.querySelectorAll('li').forEach((card) => {
    card.hidden = !words.every((word) => card.textContent.toLowerCase().includes(word));
  });
}, true);"""


def cards_html(rows: Iterable[tuple[str, str, AdapterSummary]], chosen: str) -> str:
    """A card for each (id, name, summary), the one with the id `chosen` marked; empty without any."""
    cards = [_card(row, row[0] == chosen, number < _MOST_PICTURES) for number, row in enumerate(rows)]
    return f'<ul class="cards" aria-label="LoRAs">{"".join(cards)}</ul>' if cards else ""


def _card(row: tuple[str, str, AdapterSummary], is_chosen: bool, is_pictured: bool) -> str:
    identity, name, summary = row
    url = _picture(summary.path, summary.thumbnail, _stamp(summary.thumbnail)) if is_pictured else ""
    image = f'<img src="{url}" alt="">' if url else f'<span class="blank" aria-hidden="true">{escaped(name[:1])}</span>'
    base, trigger = summary.base or summary.kind or "base model unknown", summary.trigger
    facts = [f"for {base}", f"trigger word {trigger}" if trigger else "no trigger word"]
    facts += [] if summary.strength is None else [f"strength {summary.strength:g}"]
    lines = [*facts] if not summary.problem else ["cannot be used"]
    text = "".join(f'<span dir="auto">{escaped(line)}</span>' for line in lines)
    return (
        f'<li><button type="button" data-id="{escaped(identity)}" aria-pressed="{str(is_chosen).lower()}">{image}'
        f'<b dir="auto">{escaped(name)}</b>{text}</button></li>'
    )


@lru_cache(maxsize=512)
def _picture(path: Path, thumbnail: Path | None, _stamp: int) -> str:
    """The picture of the adapter at `path` as a data URL; empty if it has none that can be read."""
    image = picture(AdapterSummary(path, thumbnail=thumbnail))
    if image is None:
        return ""
    image.thumbnail((_SIDE, _SIDE))
    content = io.BytesIO()
    image.save(content, "WEBP", quality=85)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"


def _stamp(path: Path | None) -> int:
    """The same as long as the file is not changed."""
    try:
        return path.stat().st_mtime_ns if path else 0
    except OSError:
        return 0
