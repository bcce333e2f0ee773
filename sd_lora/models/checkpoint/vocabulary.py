"""The vocabulary of CLIP, found on this machine: checkpoint files do not hold it and this project does not ship it."""

from __future__ import annotations

import gzip
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sd_lora.errors import BaseModelError

VOCABULARY_SIZE, LENGTH = 49_408, 77
START, END = "<|startoftext|>", "<|endoftext|>"
#: what captions are padded with: by CLIP's encoder, and by the OpenCLIP encoders of SD2 and SDXL
PAD, OPENCLIP_PAD = END, "!"
_FILES = ("vocab.json", "merges.txt")
_OPENCLIP_FILE, _MAX_TEXT = "bpe_simple_vocab_16e6.txt.gz", 16 * 2**20
_WAYS = (
    "name a folder with tokenizer/vocab.json and tokenizer/merges.txt as model.config, or download any Stable "
    "Diffusion into the hub's cache, or install open_clip_torch"
)


def clip_tokenizer(
    folder: Path | None = None,
    name: str = "tokenizer",
    *,
    pad: str = PAD,
    size: int = VOCABULARY_SIZE,
    length: int = LENGTH,
) -> Any:
    """A CLIPTokenizer of `size` words that pads with `pad` and cuts at `length` words. Never uses the network.

    From `folder` (its sub-folder `name`, or ``tokenizer``), else the hub's cache, else an installed open_clip_torch.
    Another size than CLIP's can only come from the folder, and keeps the padding it was saved with. Raises
    BaseModelError if there is none of this size.
    """
    from transformers import CLIPTokenizer

    given = _tokenizer_folder(folder, name)
    if given is not None:
        try:
            tokenizer: Any = CLIPTokenizer.from_pretrained(given, local_files_only=True)
        except Exception as error:  # damaged JSON or merges raise many kinds
            reason = str(error).strip().split("\n")[0]
            raise BaseModelError(f"tokenizer {given} cannot be read: {reason}") from error
        _check_size(str(given), len(tokenizer), size)
    elif size != VOCABULARY_SIZE:
        raise BaseModelError(f"{folder} has a text encoder of {size} words but no tokenizer; add its tokenizer folder")
    else:
        where, vocabulary, merges = _from_this_machine()
        tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges)  # type: ignore[arg-type]
        _check_size(where, len(tokenizer), size)
    if size == VOCABULARY_SIZE:
        tokenizer.pad_token = pad
    tokenizer.model_max_length = min(tokenizer.model_max_length, length)
    return tokenizer


def _check_size(where: str, words: int, size: int) -> None:
    if words != size:
        raise BaseModelError(
            f"tokenizer {where} has {words:,} words, but the text encoder knows {size:,}; name a folder with the "
            "complete tokenizer as model.config"
        )


def _tokenizer_folder(folder: Path | None, name: str) -> Path | None:
    """The tokenizer folder in the user's `folder`, or None if it has none."""
    for path in [folder / name, folder / "tokenizer"] if folder else []:
        if path.is_dir():
            # Without these files transformers would build a tokenizer of two words that reads every caption alike.
            if all((path / file).is_file() for file in _FILES) or (path / "tokenizer.json").is_file():
                return path
            raise BaseModelError(f"tokenizer {path} has no {' and no '.join(_FILES)}; add them from the base's folder")
    return None


def _from_this_machine() -> tuple[str, dict[str, int], list[tuple[str, str]]]:
    for folder in _cached():
        try:
            vocabulary = json.loads((folder / _FILES[0]).read_text("utf-8"))
            merges = _merges((folder / _FILES[1]).read_text("utf-8"))
        except (OSError, ValueError):
            continue
        if len(vocabulary) == VOCABULARY_SIZE and vocabulary.get(END) == VOCABULARY_SIZE - 1:
            return str(folder), vocabulary, merges
    spec = importlib.util.find_spec("open_clip")  # finds the package without running it
    for place in (spec.submodule_search_locations or []) if spec else []:
        file = Path(place) / _OPENCLIP_FILE
        if file.is_file():
            return str(file), *_from_openclip(file)
    raise BaseModelError(f"the vocabulary of CLIP is not on this machine; {_WAYS}")


def _cached() -> Iterator[Path]:
    """Folders in the hub's cache that have a tokenizer's files, CLIP's own first."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    for pattern in ("models--openai--clip-vit-large-patch14/snapshots/*", "models--*/snapshots/*/tokenizer"):
        for folder in sorted(cache.glob(pattern)):
            if all((folder / file).is_file() for file in _FILES):
                yield folder


def _merges(text: str) -> list[tuple[str, str]]:
    pairs = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#version")]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError("a merge does not have two parts")
    return [(first, second) for first, second in pairs]


def _from_openclip(file: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's words from its list of merges: bytes, bytes that end a word, merges in order, and two marks."""
    wanted = VOCABULARY_SIZE - 2 * 256 - 2
    try:
        with gzip.open(file, "rb") as packed:
            lines = packed.read(_MAX_TEXT).decode("utf-8").split("\n")
        merges = _merges("\n".join(lines[1 : 1 + wanted]))  # the first line names the version, later ones are not used
    except (OSError, EOFError, ValueError) as error:
        raise BaseModelError(f"the vocabulary {file} is damaged: {error}; install open_clip_torch again") from error
    letters = _letters()
    words = [*letters, *(f"{letter}</w>" for letter in letters), *(a + b for a, b in merges), START, END]
    return {word: i for i, word in enumerate(words)}, merges


def _letters() -> list[str]:
    """The 256 bytes as letters in CLIP's order: printable ones as they are, then the others from 256 on."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = 256 - len(plain)
    return [chr(code) for code in plain] + [chr(256 + i) for i in range(others)]
