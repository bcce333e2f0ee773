"""Folders whose names say what their images are for, in one table that every layout follows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from sd_lora.data.findings import Finding
from sd_lora.data.folders.tree import Folder, Notes, plain_name

Use = Literal["regularisation", "masks", "validation", "none"]


@dataclass(frozen=True)
class Role:
    """What the images of folders with these `names` (as `plain_name` gives them) are, and what they are used as."""

    what: str
    use: Use
    names: frozenset[str]


def _role(what: str, use: Use, names: str) -> Role:
    return Role(what, use, frozenset(names.split()))


#: names that trainers, their interfaces and people give; no picture of such a folder is learned from unasked
ROLES: tuple[Role, ...] = (
    _role("regularisation images", "regularisation",
        "reg regs reg_img reg_imgs reg_image reg_images reg_data regul regularization regularisation "
        "regularization_img regularisation_img regularization_images regularisation_images regularization_data "
        "regularisation_data class class_img class_imgs class_image class_images class_data "
        "prior prior_images prior_preservation preservation"),
    _role("masks", "masks",
        "mask masks mask_img mask_imgs mask_image mask_images masklabel masklabels mask_label mask_labels loss_mask "
        "loss_masks segmentation segmentations cond conditioning cond_img cond_images conditioning_data "
        "conditioning_img conditioning_image conditioning_images"),
    _role("validation images", "validation",
        "val valid validation validate validation_images validation_data val_images val_data test tests testing "
        "test_images test_data eval evaluation eval_images hold_out holdout held_out heldout dev"),
    _role("sample pictures", "none",
        "sample samples sample_images sample_img output outputs generated generations generated_images result "
        "results preview previews inference txt2img txt2img_images txt2img_grids img2img_images grid grids xyz_grid "
        "xyz_grids validation_samples"),
    _role("pictures that steer a ControlNet", "none",
        "control controls control_images control_img controlnet control_net canny depth depth_maps openpose lineart "
        "softedge hed"),
    _role("thumbnails", "none", "thumb thumbs thumbnail thumbnails icons"),
    _role("pictures of logs", "none",
        "log logs logging logging_dir tensorboard tb_logs wandb lightning_logs mlruns runs run"),
    _role("pictures beside models", "none",
        "model models ckpt ckpts checkpoint checkpoints lora loras weights embedding embeddings"),
    _role("a cache", "none", "cache caches cached latents latent_cache latents_cache cache_latents vae_cache "
        "text_cache huggingface ultralytics"),
    _role("pictures that were put aside", "none",
        "backup backups bak trash deleted discarded discard rejected rejects reject excluded exclude ignored ignore "
        "unused not_used removed duplicates"),
)  # fmt: skip
_BY_NAME = {name: role for role in ROLES for name in role.names}


def role_of(name: str) -> Role | None:
    """The role of a folder with this bare `name`, if it says one."""
    return _BY_NAME.get(plain_name(name))


@dataclass(frozen=True)
class Aside:
    """A `folder` that has a role, taken out of its `parent`."""

    role: Role
    folder: Folder
    parent: Folder

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


def note_unused(aside: Iterable[Aside], notes: Notes) -> None:
    """Note the folders whose images are not used for anything."""
    for one in aside:
        notes.findings.append(unused(one))


def unused(one: Aside, advice: str = "") -> Finding:
    """The finding on a folder whose images are not used."""
    images = "1 image is" if one.count == 1 else f"{one.count} images are"
    return Finding("folder-role", f"{one.folder.name}/", f"taken for {one.role.what}: {images} not read", advice)
