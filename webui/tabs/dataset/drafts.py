"""One visitor's work on a dataset: what is shown, what is not saved yet, what can be undone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sd_lora.check.result import Check
from sd_lora.data.captions import trigger_phrase
from sd_lora.data.editing.editor import CaptionChanged, CaptionEditor
from sd_lora.errors import ConfigError, SdLoraError

from ...cached_files import cached_file
from .report import DUPLICATES

_LONGEST = 90


@dataclass(frozen=True)
class Draft:
    """An unsaved text, and the saved one when editing began."""

    text: str
    base: str


@dataclass
class Visit:
    """The dataset that a visitor has open, and the drafts of all datasets, by id and image name."""

    desk: Desk | None = None
    #: the id of the most recently chosen dataset
    chosen: str = ""
    drafts: dict[str, dict[str, Draft]] = field(default_factory=dict)

    def is_open(self, identity: str) -> bool:
        """Whether that dataset is open already."""
        return self.desk is not None and self.desk.identity == identity

    def open(self, identity: str, folder: Path, check: Check, trigger: str = "") -> Desk:
        """Show a checked dataset; undo and drafts survive if it was open before."""
        before = self.desk if self.is_open(identity) else None
        self.desk = Desk(identity, folder, check, self.drafts.setdefault(identity, {}), before)
        self.desk.trigger = trigger
        return self.desk

    def open_desk(self) -> Desk:
        """The desk; ConfigError if no dataset was checked."""
        if self.desk is None:
            raise ConfigError("no dataset is open; choose one first")
        return self.desk

    def keep(self, name: str, text: str) -> None:
        """Keep the field's text for an image as a draft, if it differs from what is saved."""
        if self.desk is not None and name in self.desk.bases:
            self.desk.keep(name, text)


class Desk:
    """A checked dataset: images in order, their captions as last read (`bases`), and drafts.

    Without an `editor` the captions are read-only, and `why` gives the reason.
    """

    #: the trigger word that the check was made with
    trigger = ""

    def __init__(
        self, identity: str, folder: Path, check: Check, drafts: dict[str, Draft], before: Desk | None = None
    ) -> None:
        self.identity, self.folder, self.check, self.drafts = identity, folder, check, drafts
        #: what can be undone: how many captions were saved at once, or what puts a picture back, and its name
        self.acts: list[int | tuple[Callable[[], None], str]] = before.acts if before else []
        self.rows = {row.name: row for row in check.images}
        self.names = list(self.rows)
        bases = before.bases if before else {}
        self.bases = {name: text for name, text in bases.items() if name in self.rows}
        self.editor: CaptionEditor | None = before.editor if before else None
        self.why = ""
        try:
            if self.editor is None:
                self.editor = CaptionEditor(folder)
            else:
                self.editor.refresh()
        except SdLoraError as error:
            self.editor, self.why = None, str(error)
        self._duplicates = {finding.file for finding in check.findings if finding.code in DUPLICATES}

    @property
    def pictured(self) -> int:
        """How many images have a thumbnail; they come first."""
        return sum(row.thumbnail is not None for row in self.rows.values())

    def existing(self, name: str) -> str:
        """`name`, if there is an image of that name. ConfigError."""
        if name not in self.rows:
            raise ConfigError("no picture is chosen, or it no longer exists; choose one, or check again")
        return name

    def at(self, index: object) -> str:
        """The name of the image at a place in the gallery. ConfigError."""
        if not isinstance(index, int) or not 0 <= index < len(self.names):
            raise ConfigError("that picture no longer exists; check the dataset again")
        return self.names[index]

    def beside(self, name: str, step: int) -> str:
        """The name of the image `step` places further; the first follows the last."""
        if not self.names:
            raise ConfigError("this dataset has no pictures that can be read; add some")
        if name not in self.rows:
            return self.names[0]
        return self.names[(self.names.index(name) + step) % len(self.names)]

    def uncaptioned(self, after: str = "") -> str:
        """The first picture without a caption after the one called `after`, or from the start; "" if all have one."""
        start = self.names.index(after) + 1 if after in self.rows else 0
        return next((name for name in (*self.names[start:], *self.names[:start]) if not self.caption(name)), "")

    def caption(self, name: str) -> str:
        """The first caption of a picture, without what the trigger word adds; empty if it has none."""
        phrase = trigger_phrase(self.trigger) if self.trigger else ""
        trained = (self.rows[name].captions or ("",))[0]
        return "" if trained == phrase else trained.removesuffix(f", {phrase}") if phrase else trained

    def text(self, name: str) -> tuple[str, str]:
        """The text of the field for an image, and a message. SdLoraError."""
        if self.editor is None:
            return "\n".join(self.rows[self.existing(name)].captions), f"these captions are read-only: {self.why}"
        draft = self.drafts.get(self.existing(name))
        if draft is None or name not in self.bases:
            self.bases[name] = self.editor.read(name)
        if draft is None:
            return self.bases[name], ""
        if draft.base != self.bases[name]:
            return draft.text, f"the caption of {name} was changed meanwhile; you see your own text, which is not saved"
        return draft.text, ""

    def keep(self, name: str, text: str) -> None:
        """Keep a draft, or drop it if the text is the saved one."""
        if text == self.bases[name]:
            self.drafts.pop(name, None)
        else:
            draft = self.drafts.get(name)
            self.drafts[name] = Draft(text, draft.base if draft else self.bases[name])

    def save(self, name: str, text: str) -> bool:
        """Write a caption; whether that changed it. On SdLoraError the text is kept as a draft."""
        editor = self._editing()
        if self.existing(name) not in self.bases:
            self.bases[name] = editor.read(name)
        self.keep(name, text)
        try:
            changed = editor.write(name, text)
        except CaptionChanged as error:
            raise ConfigError(f"{error} (copy your text; Discard then shows the saved one)") from error
        if changed:
            self.acts.append(1)
        self._reread(name)
        return changed

    def change_all(self, change: Callable[[str], str]) -> int:
        """Change every line of every caption, as one act that can be undone; how many captions are other ones now."""
        editor, changed = self._editing(), 0
        try:
            for name in self.names:
                lines = editor.read(name).splitlines()
                changed += editor.write(name, "\n".join(change(line) for line in lines or [""]))
                self._reread(name)
        finally:
            if changed:
                self.acts.append(changed)
        return changed

    def undo(self) -> tuple[str, str]:
        """Undo what was done last: the name of its picture, empty if that is not shown, and a message. SdLoraError if
        nothing was done, or if files were changed by others since."""
        if not self.acts:
            raise ConfigError("nothing was changed here that could be undone")
        act = self.acts.pop()
        if not isinstance(act, int):
            put_back, name = act
            put_back()
            return name, f"{name} is as it was"
        name = ""
        for _ in range(act):
            name = self._undo_caption()
        line = f"the last save of {name} is undone" if act == 1 else f"the change of {act} captions is undone"
        if name not in self.rows:
            return "", line
        return name, f"{line}; your unsaved text is kept" if name in self.drafts else line

    def _undo_caption(self) -> str:
        name = self._editing().undo()
        draft = self.drafts.get(name)
        if name in self.rows:
            self._reread(name)
            if draft is not None and draft.text != self.bases[name]:
                self.drafts[name] = Draft(draft.text, self.bases[name])
        return name

    def discard(self, name: str) -> str:
        """Drop a draft and read the caption again."""
        self._editing()
        self.existing(name)
        self._reread(name)
        return f"showing the saved caption of {name}"

    def label(self, name: str) -> str:
        """The line below a picture: marks, name and caption."""
        marks = ("✎ " if name in self.drafts else "") + ("2× · " if name in self._duplicates else "")
        line = f"{marks}{name} · {' '.join(self.caption(name).split()) or 'no caption'}"
        return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"

    def gallery(self, work: Path) -> list[tuple[str, str]]:
        """The thumbnails, as files in `work`, and their lines."""
        return [
            (_file_of(thumbnail, work), self.label(name))
            for name, row in self.rows.items()
            if (thumbnail := row.thumbnail) is not None
        ]

    def _reread(self, name: str) -> None:
        editor = self._editing()
        self.drafts.pop(name, None)
        self.bases[name] = editor.read(name)

    def _editing(self) -> CaptionEditor:
        if self.editor is None:
            raise ConfigError(self.why)
        return self.editor


def _file_of(thumbnail: bytes, work: Path) -> str:
    return str(cached_file(work, thumbnail, "picture.jpg", lambda file: file.write_bytes(thumbnail)))
