"""Base models that the page can be opened on, what the present one is, and how the page changes to another.

There is one base model at a time: to change it the page's program starts itself again. Runs are programs of their own,
fields are kept in browsers, so nothing is lost.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import gradio as gr

from sd_lora.errors import ConfigError, SdLoraError, some
from sd_lora.models.checkpoint.kind import detect
from sd_lora.models.families import ModelFamily, family_of_checkpoint, family_of_class
from sd_lora.models.sources import base_place, class_of_folder
from sd_lora.tinybase.world import SUBJECTS, sample_scene

from .components import EXAMPLE_PROMPT, html_field, on
from .messages import escaped, status_html
from .site import Site

EMBEDDED = "tiny"
#: seconds in which a browser gets its answer before the program starts again
_ANSWERED = 1.0
#: in the browser: wait until the program has gone and is there again
_AWAIT = """() => {
  if (!document.querySelector('#base-status')?.textContent.trim()) return;
  let gone = false;
  const look = async () => {
    try {
      await fetch('config', { cache: 'no-store' });
      if (gone) { location.reload(); return; }
    } catch { gone = true; }
    setTimeout(look, 400);
  };
  look();
}"""


def bases_in(folder: Path) -> list[Path]:
    """The base models in a folder, sorted: pipeline folders and checkpoint files of families that are known."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise ConfigError(f"the folder of models, {folder}, cannot be read: {error.strerror}; name another") from error
    return [path for path in entries if not path.name.startswith(".") and family_of_base(str(path))]


def family_of_base(base: str) -> ModelFamily | None:
    """The family of a base model, as far as its files say, which are not loaded."""
    path = Path(base).expanduser()
    if base_place(base) == "folder":
        return family_of_class(class_of_folder(path))
    try:
        return family_of_checkpoint(detect(path).kind) if path.is_file() else None
    except SdLoraError:
        return None


def presets_for(base: str) -> tuple[str, ...]:
    """The presets for a base model's family, the usual one first; none if the family shows only when it is loaded."""
    family = None if base == EMBEDDED else family_of_base(base)
    return family.presets if family else ()


def about(base: str) -> str:
    """What a base model is; empty if that shows only when it is loaded."""
    if base == EMBEDDED:
        things = some([f"{'an' if subject[0] in 'aeiou' else 'a'} {subject}" for subject in SUBJECTS], 6)
        return f"The built-in practice model: it draws small scenes with one thing in them, {things}."
    family = family_of_base(base)
    return f"A base model of the family {family.title}." if family else ""


def example_prompts(base: str) -> tuple[str, str]:
    """Two prompts from the world of a base model."""
    if base == EMBEDDED:
        return sample_scene(1).caption, sample_scene(4).caption
    return EXAMPLE_PROMPT, "a small white cat on a table"


def header(site: Site) -> None:
    """The title, what the base model is and, if there are others, a list of them."""
    name, what = site.service.base, about(site.base)
    about_it = f'<p class="about">{escaped(what)}</p>' if what else ""
    title = f'<h1 class="title">sd_lora <span>on {escaped(name)}</span></h1>{about_it}'
    if not site.models:
        gr.HTML(title, padding=False)
        return
    with gr.Row(equal_height=True):
        gr.HTML(title, padding=False, min_width=300)
        choices = [(EMBEDDED, EMBEDDED), *((path.stem, str(path)) for path in site.models)]
        choices += [] if site.base in dict(choices).values() else [(site.service.base, site.base)]
        ids = [(label, site.id_of(Path(base))) for label, base in choices]
        field = gr.Dropdown(ids, value=site.id_of(Path(site.base)), label="Base model", elem_id="base", min_width=260)
    status = html_field("base-status", status_html(""))
    by_id = {site.id_of(Path(base)): (label, base) for label, base in choices}

    def change(identity: str) -> str:
        """The program starts again on another base model."""
        if identity not in by_id:
            raise ConfigError("that base model is not in the list; choose another")
        label, base = by_id[identity]
        if base == site.base:
            return status_html("")
        if site.restart is None:
            raise ConfigError(f"this page cannot change its base model; start another with --base {label}")
        site.restart(base)
        return status_html(f"loading the base model {label}; the page comes back by itself …")

    on(on(field.input, change, field, status).success, None, js=_AWAIT)


def restarting(work: Path, port: int, command: Sequence[str] = ()) -> Callable[[str], None]:
    """What starts this program again on another base model and the same `port`, when its answer has reached the
    browser; `command` is how it was started."""

    def restart(base: str) -> None:
        threading.Thread(target=_replace, args=(command_on(base, port, command or sys.orig_argv), work)).start()

    return restart


def command_on(base: str, port: int, command: Sequence[str]) -> list[str]:
    """The command that starts the program again on another base model."""
    kept, skips = [], False
    for word in command:
        if not skips and not word.startswith(("--base=", "--port=")) and word not in ("--base", "--port"):
            kept.append(word)
        skips = not skips and word in ("--base", "--port")
    return [*kept, "--base", base, "--port", str(port)]


def _replace(command: Sequence[str], work: Path) -> NoReturn:
    time.sleep(_ANSWERED)
    shutil.rmtree(work, ignore_errors=True)
    os.execv(sys.executable, [sys.executable, *command[1:]])
