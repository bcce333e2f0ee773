"""Take the folders whose names say what their images are for out of the tree that a layout reads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from sd_lora.data.findings import Finding
from sd_lora.data.folders.kohya import repeats_of
from sd_lora.data.folders.role_names import Role, meaning_of, role_of
from sd_lora.data.folders.tree import Folder, Notes


@dataclass(frozen=True)
class Aside:
    """A `folder` that has a role, taken out of its `parent`."""

    role: Role
    folder: Folder
    parent: Folder

    @property
    def repeats(self) -> int:
        """How often its images are seen, if its name says so as kohya's do."""
        named = repeats_of(self.folder.path.name)
        return named[0] if named else 1

    @property
    def count(self) -> int:
        """How many images it holds."""
        return sum(len(folder.pictures()) for folder in self.folder.below())


def set_aside(top: Folder) -> list[Aside]:
    """Take the folders below `top` that have a role and hold images out of the tree. `top` itself has none: it was
    given."""
    aside: list[Aside] = []
    waiting = [top]
    while waiting:
        parent = waiting.pop()
        for folder in parent.folders:
            role = role_of(folder.path.name)
            if role and folder.holds_pictures():
                aside.append(Aside(role, folder, parent))
                if role.use in ("regularisation", "validation"):  # its images may have masks, or thumbnails
                    waiting.append(folder)
            else:
                waiting.append(folder)
        taken = {id(one.folder) for one in aside}
        parent.folders = [folder for folder in parent.folders if id(folder) not in taken]
    return sorted(aside, key=lambda one: one.folder.name)


def unused(one: Aside, why: str = "") -> Finding:
    """The finding on a folder whose images are not used."""
    images = "1 image is" if one.count == 1 else f"{one.count} images are"
    return Finding("folder-role", f"{one.folder.name}/", f"taken for {one.role.what}: {images} not read{why}")


def note_doubts(top: Folder, trained: Mapping[str, int], notes: Notes) -> None:
    """Note the folders below `top` whose names may mean a role, of which images are `trained` (real path of a folder →
    how many)."""
    waiting = list(reversed(top.folders))
    while waiting:
        folder = waiting.pop()
        count = sum(trained.get(os.path.realpath(inner.path), 0) for inner in folder.below())
        meaning = meaning_of(folder.path.name)
        if meaning and not meaning.sure and count:
            images = "its image is" if count == 1 else f"its {count} images are"
            what = f"{images} trained; name it {meaning.role.name} if these are {meaning.role.what}"
            notes.add("folder-unsure", f"{folder.name}/", what)
        else:
            waiting += reversed(folder.folders)
