"""What programs may call over HTTP (docs/page.md): the list of adapters, and previews; any number may call at once."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import anyio.from_thread
import gradio as gr

from sd_lora.preview.events import PreviewCell, PreviewStopped
from sd_lora.preview.recipe import png_bytes

from .messages import plain_error, with_errors_shown
from .preview_fields import PreviewFields
from .site import Site


def add(site: Site) -> None:
    """Add the endpoints ``/adapters`` and ``/preview``, inside the page's ``with``."""

    def adapters() -> list[dict[str, str]]:
        """The adapters that the page lists: id and name."""
        return [{"id": identity, "name": site.name_of(path)} for identity, path in site.adapters().items()]

    def preview(
        prompts: list[str],
        adapters: list[str],
        strengths: str = "0, 0.5, 1",
        seed: int = 0,
        steps: int = 25,
        guidance: float = 5.0,
        width: int = 0,
        height: int = 0,
        negative: str = "",
        request: gr.Request | None = None,
    ) -> dict[str, Any]:
        """Draw prompts at several strengths of adapters, given by id; 0, the base model, always comes first. A width or
        height of 0 is that of the base model. Returns pictures with prompt, strength, recipe, and PNG in base64."""
        fields = PreviewFields(adapters, _lines(prompts), strengths, seed, steps, guidance, width, height, negative)
        return {"pictures": _drawn(site, fields, request)}

    # Not queued: the service itself draws them one by one, and answers "busy" when too many wait.
    for endpoint in (adapters, preview):
        handler = with_errors_shown(endpoint, plain_error)
        gr.api(handler, api_name=endpoint.__name__, queue=False, concurrency_limit=None)


def _drawn(site: Site, fields: PreviewFields, request: gr.Request | None) -> list[dict[str, Any]]:
    """The pictures of a job, row by row; drawing stops once the caller has left."""
    job, cells = fields.job(site), list[PreviewCell]()
    for event in site.service.draw(job, sketched=False):
        if isinstance(event, PreviewCell):
            cells.append(event)
        if _has_left(request):
            raise PreviewStopped("the caller has left")
    pictures = []
    for cell in sorted(cells, key=lambda cell: (cell.row, cell.column)):
        recipe = site.service.recipe(job, cell.row, cell.column, hashes=cell.hashes)
        content = base64.b64encode(png_bytes(cell.image, recipe)).decode()
        pictures.append({"prompt": recipe["prompt"], "strength": recipe["strength"], "recipe": recipe, "png": content})
    return pictures


def _has_left(request: gr.Request | None) -> bool:
    """Whether the caller no longer waits for the answer."""
    connection = getattr(request, "request", None)
    return connection is not None and anyio.from_thread.run(connection.is_disconnected)


def _lines(prompts: Sequence[str]) -> str:
    return "\n".join(" ".join(str(prompt).split()) for prompt in prompts)
