"""One visitor's work on the captions of a dataset: what is shown, what is not saved yet, what can be taken back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sd_lora.check.result import Check
from sd_lora.data.editing.editor import CaptionChanged, CaptionEditor
from sd_lora.errors import ConfigError, SdLoraError

from ...picture_files import kept_file
from .report import DUPLICATES

_LONGEST = 90


@dataclass(frozen=True)
class Draft:
    """A text that is not saved, and the one that was read when it was begun."""

    text: str
    base: str


@dataclass
class Visit:
    """What a visitor has before them, and the drafts of all datasets, by id and image name."""

    desk: Desk | None = None
    #: the id of the dataset that was chosen last
    wanted: str = ""
    drafts: dict[str, dict[str, Draft]] = field(default_factory=dict)

    def is_open(self, identity: str) -> bool:
        """Whether that dataset is before the visitor already."""
        return self.desk is not None and self.desk.identity == identity

    def open(self, identity: str, folder: Path, check: Check) -> Desk:
        """Show a dataset that was checked; what can be taken back and what is not saved stays."""
        before = self.desk if self.is_open(identity) else None
        self.desk = Desk(identity, folder, check, self.drafts.setdefault(identity, {}), before)
        return self.desk

    def known(self) -> Desk:
        """The desk; ConfigError if no dataset was checked."""
        if self.desk is None:
            raise ConfigError("no dataset is open; choose one and check it first")
        return self.desk

    def keep(self, name: str, text: str) -> None:
        """Keep what stands in the field for an image, if that is not what is saved."""
        if self.desk is not None and name in self.desk.bases:
            self.desk.keep(name, text)


class Desk:
    """A checked dataset: images in order, their captions as they were read (`bases`), and drafts.

    Without an `editor` its captions can only be looked at, and `why` says so.
    """

    def __init__(
        self, identity: str, folder: Path, check: Check, drafts: dict[str, Draft], before: Desk | None = None
    ) -> None:
        self.identity, self.check, self.drafts = identity, check, drafts
        self.rows = {row.name: row for row in check.images}
        self.names = list(self.rows)
        read = before.bases if before else {}
        self.bases = {name: text for name, text in read.items() if name in self.rows}
        self.saved: dict[str, str] = {}
        self.editor: CaptionEditor | None = before.editor if before else None
        self.why = ""
        try:
            if self.editor is None:
                self.editor = CaptionEditor(folder)
            else:
                self.editor.refresh()
        except SdLoraError as error:
            self.editor, self.why = None, str(error)
        self._twice = {finding.file for finding in check.findings if finding.code in DUPLICATES}

    @property
    def pictured(self) -> int:
        """How many images have a thumbnail; they come first."""
        return sum(row.thumbnail is not None for row in self.rows.values())

    def named(self, name: str) -> str:
        """`name`, if an image is called so. ConfigError."""
        if name not in self.rows:
            raise ConfigError("no picture is chosen, or it is not there any more; choose one, or check again")
        return name

    def at(self, index: object) -> str:
        """The name of the image at a place in the gallery. ConfigError."""
        if not isinstance(index, int) or not 0 <= index < len(self.names):
            raise ConfigError("that picture is not there any more; check the dataset again")
        return self.names[index]

    def beside(self, name: str, step: int) -> str:
        """The name of the image `step` places on, around the end."""
        if not self.names:
            raise ConfigError("this dataset has no pictures that can be read; add some")
        if name not in self.rows:
            return self.names[0]
        return self.names[(self.names.index(name) + step) % len(self.names)]

    def text(self, name: str) -> tuple[str, str]:
        """What is to stand in the field for an image, and what is to be said of it. SdLoraError."""
        if self.editor is None:
            return "\n".join(self.rows[self.named(name)].captions), f"these captions can only be read: {self.why}"
        draft = self.drafts.get(self.named(name))
        if draft is None or name not in self.bases:
            self.bases[name] = self.editor.read(name)
        if draft is None:
            return self.bases[name], ""
        if draft.base != self.bases[name]:
            return draft.text, f"the caption of {name} was changed meanwhile; what you see is yours and not saved"
        return draft.text, ""

    def keep(self, name: str, text: str) -> None:
        """Note a draft, or that there is none any more."""
        if text == self.bases[name]:
            self.drafts.pop(name, None)
        else:
            began = self.drafts.get(name)
            self.drafts[name] = Draft(text, began.base if began else self.bases[name])

    def save(self, name: str, text: str) -> str:
        """Write a caption; what to say of that. SdLoraError, and the text is kept as a draft."""
        editor = self._editing()
        if self.named(name) not in self.bases:
            self.bases[name] = editor.read(name)
        self.keep(name, text)
        try:
            changed = editor.write(name, text)
        except CaptionChanged as error:
            raise ConfigError(f"{error} (copy your text, then Discard shows what is there)") from error
        self._fresh(name)
        return f"{name} saved" if changed else f"the caption of {name} is that already"

    def undo(self) -> tuple[str, str]:
        """Take the last change back: the name of its image, if that is shown, and what to say."""
        editor = self._editing()
        name = editor.undo()
        if name not in self.rows:
            return "", f"the caption of {name} is again what it was; check again to see that picture"
        draft = self.drafts.get(name)
        self._fresh(name)
        if draft is not None and draft.text != self.bases[name]:
            self.drafts[name] = Draft(draft.text, self.bases[name])
            return name, f"the caption of {name} is again what it was; your unsaved text is kept here"
        return name, f"the caption of {name} is again what it was"

    def discard(self, name: str) -> str:
        """Drop a draft and read the caption anew."""
        self._editing()
        self.named(name)
        self._fresh(name)
        return f"the caption of {name} as it is saved"

    def label(self, name: str) -> str:
        """The line below a picture: marks, name and caption."""
        marks = ("✎ " if name in self.drafts else "") + ("2× · " if name in self._twice else "")
        caption = self.saved.get(name, (self.rows[name].captions or ("",))[0])
        line = f"{marks}{name} · {' '.join(caption.split()) or 'no caption'}"
        return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"

    def gallery(self, work: Path) -> list[tuple[str, str]]:
        """The pictures that can be shown, as files in `work`, and their lines."""
        return [
            (kept_file(work, thumbnail, "picture.jpg", lambda content=thumbnail: content), self.label(name))
            for name, row in self.rows.items()
            if (thumbnail := row.thumbnail) is not None
        ]

    def _fresh(self, name: str) -> None:
        editor = self._editing()
        self.drafts.pop(name, None)
        self.bases[name] = self.saved[name] = editor.read(name)

    def _editing(self) -> CaptionEditor:
        if self.editor is None:
            raise ConfigError(self.why)
        return self.editor
