"""What the name of a folder says its images are for: a table of words, and the grammar in which people use them.

``10_reg``, ``Regularization Images``, ``reg-images-1024`` and ``real_reg_v2`` all name the same: a word of the table
among counters, sizes and words that say nothing. Another word beside it may make it a subject (``mask_man``): a doubt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

from sd_lora.data.folders.tree import key

Use = Literal["regularisation", "masks", "validation", "none"]


@dataclass(frozen=True)
class Role:
    """What the images of folders with such names are, what they are used as, and the `name` to call a folder so.

    Words are in the singular, with ``_`` between those that belong together: `words` say it alone or among words that
    say nothing, `anywhere` beside every other word too, and `alone` only by themselves, as they may be a subject.
    `perhaps` are a doubt even so, unless a sign sets the folder apart (``_old``).
    """

    what: str
    use: Use
    name: str
    words: frozenset[str]
    anywhere: frozenset[str] = frozenset()
    alone: frozenset[str] = frozenset()
    perhaps: frozenset[str] = frozenset()


def _role(what: str, use: Use, name: str, words: str, **rarer: str) -> Role:
    return Role(what, use, name, frozenset(words.split()), **{kind: frozenset(w.split()) for kind, w in rarer.items()})


#: words that trainers, their interfaces and people give; no picture of such a folder is learned from unasked
ROLES: tuple[Role, ...] = (
    _role("regularisation images", "regularisation", "reg", "reg regul class prior preservation",
        anywhere="regularisation regularization"),
    _role("masks", "masks", "masks", "mask masklabel segmentation segm cond conditioning", perhaps="matte alpha"),
    _role("validation images", "validation", "val",
        "val valid validation validate test testing eval evaluation holdout hold_out heldout held_out dev"),
    _role("sample pictures", "none", "samples",
        "sample output generated generation result preview inference grid contact_sheet extras_image",
        anywhere="txt2img img2img xyz_grid"),
    _role("pictures that steer a ControlNet", "none", "controlnet",
        "canny softedge hed control_image control_img control_picture depth_map normal_map control_map",
        anywhere="controlnet control_net controlnet_conditioning openpose", alone="control depth lineart",
        perhaps="pose"),
    _role("thumbnails", "none", "thumbs", "thumb", anywhere="thumbnail", alone="icon"),
    _role("pictures of logs", "none", "logs", "logging log_dir logging_dir tb_log lightning_log mlrun",
        anywhere="tensorboard wandb", alone="log run"),
    _role("pictures beside models", "none", "checkpoints", "ckpt checkpoint", alone="model lora weight embedding"),
    _role("a cache", "none", "cache", "cache cached latent huggingface ultralytics"),
    _role("files of a program", "none", "node_modules", "venv", anywhere="node_module site_package pycache"),
    _role("pictures that were put aside", "none", "unused",
        "backup bak trash delete deleted to_delete discard discarded reject rejected exclude excluded ignore ignored "
        "unused not_used remove removed to_remove duplicate dupe recycle",
        anywhere="recycle_bin",
        perhaps="archive archived old bad skip skipped unselected not_good sorted_out low_quality neg negative"),
)  # fmt: skip
#: words that leave what another says as it is
_IDLE = """
image img pic picture photo data set dataset folder dir directory file label map size small medium large big tiny full
half low high quality res lowres hires hd resized scaled crop cropped new real all extra raw rgb gray grey bw binary
soft inverted loss train training png jpg jpeg webp text txt encoder te tb vae xyz bin pile tmp temp version final copy
"""
_NEUTRAL = frozenset(_IDLE.split())
#: a counter, a size, a version: ``2``, ``512x512``, ``1024px``, ``v2``, ``x4``, ``b``
_COUNTER = re.compile(r"v?\d+(?:x\d+)?(?:px|k|p|x)?|x\d+|[a-z]")
#: more words than this are a sentence
_MOST_WORDS = 4


@dataclass(frozen=True)
class Meaning:
    """The `role` that a name gives a folder, whether that is `sure`, and the `rest` of its words, which say something
    else: what is to be seen."""

    role: Role
    sure: bool
    rest: str = ""


_ROLE_OF = {
    word: (kind, role)
    for role in ROLES
    for kind in ("words", "anywhere", "alone", "perhaps")
    for phrase in getattr(role, kind)
    for word in (phrase, phrase.replace("_", ""))
}
_LONGEST = max(word.count("_") for word in _ROLE_OF) + 1


def role_of(name: str) -> Role | None:
    """The role of a folder with this bare `name`, if it says one for sure."""
    meaning = meaning_of(name)
    return meaning.role if meaning and meaning.sure else None


@cache
def meaning_of(name: str) -> Meaning | None:
    """What the bare `name` of a folder says its images are for; None if it says nothing of the kind."""
    words = [word for word in _words(name) if not _COUNTER.fullmatch(word)]
    known = [_known(word) for word in words]
    says = [(*_ROLE_OF[word], number) for number, word in enumerate(known) if word in _ROLE_OF]
    rest = [word for word, plain in zip(words, known, strict=True) if not plain]
    if not says:
        return None
    sure = [role for kind, role, _ in says if kind == "anywhere" or (kind == "words" and not rest)]
    if sure:
        return Meaning(sure[-1], True, " ".join(rest))  # the last word says what it is, as in "validation samples"
    if rest:
        at_ends = [role for kind, role, place in says if kind == "words" and place in (0, len(words) - 1)]
        return Meaning(at_ends[-1], False) if at_ends and len(words) <= _MOST_WORDS else None
    kind, role, _ = says[-1]
    apart = not name[:1].isalnum()
    return Meaning(role, apart or (kind == "alone" and len(list(_words(name))) == 1))


def _words(name: str) -> Iterator[str]:
    """The words of a name in small letters: phrases of the table as one, digits apart from letters."""
    parts = [word for word in re.split(r"[\W_]+", key(name)) if word]
    pieces = [piece for part in parts for piece in ([part] if _whole(part) else re.findall(r"\d+|\D+", part))]
    while pieces:
        length = next(n for n in range(_LONGEST, 0, -1) if n == 1 or _singular("_".join(pieces[:n]), _ROLE_OF))
        yield "_".join(pieces[:length])
        del pieces[:length]


def _whole(word: str) -> bool:
    return bool(_COUNTER.fullmatch(word) or _known(word))


def _known(word: str) -> str:
    """The word of the table, or the neutral one, that this is a form of; of two in one (``testset``) that of the table.
    Empty if there is none."""
    plain = _singular(word, _ROLE_OF) or _singular(word, _NEUTRAL)
    if plain:
        return plain
    cuts = ((_singular(word[:cut], _ROLE_OF), _singular(word[cut:], _NEUTRAL)) for cut in range(3, len(word) - 2))
    return next((role for role, neutral in cuts if role and neutral), "")


def _singular(word: str, among: Iterable[str]) -> str:
    forms = (word, word.removesuffix("s"), word.removesuffix("es"))
    return next((form for form in forms if form in among), "")
