"""Makes the tokenizer of the embedded base and teaches its text encoder to tell the world's words apart.

The encoder is trained alone, through four linear heads (subject, colour, background, style) that are thrown away; the
UNet then trains it further.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
from tokenizers import Regex as Pattern
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from benchmarks.tiny_base.stage import Stage, cosine, step_generator
from sd_lora.tinybase.world import BACKGROUNDS, BASE_STYLES, COLOURS, SUBJECTS, Scene, sample_caption, sample_scene

VOCABULARY, LENGTH = 1431, 32
STEPS, BATCH = 1600, 64
_START, _END = "<|startoftext|>", "<|endoftext|>"

#: Plain English, so that the merges cover more than the world's own words. Any other text falls back to bytes.
_ENGLISH = """
the quick painter draws every morning before breakfast because light is softest then and shadows are long
photograph portrait landscape river mountain forest village castle bridge garden window street market people woman man
child king queen dog horse bird dragon robot ship train plane bicycle table chair lamp book letter music dance winter
summer spring autumn rain wind storm cloud sunset sunrise dusk dawn evening noon dark bright warm cold old new young
ancient modern tiny large tall short round square wide narrow smooth rough golden silver black brown grey cyan magenta
style painting drawing sketch pencil charcoal oil acrylic ink paper canvas print poster comic cartoon anime abstract
minimal detailed highly quality masterpiece best artist studio cinematic lighting texture pattern fabric stone glass
metal wood leather water fire smoke earth ice sand grass leaf root branch stem petal fruit apple orange lemon bread
hatching mosaic neon watercolour halftone woodcut blueprint impasto chalkboard sepia cross stitch embroidery engraving
walking running sitting standing sleeping flying swimming holding looking smiling under over beside between behind
inside outside through around above below near far with without from into onto for and or not very more less some many
this that these those here there when where while what which who how one two three four five six seven eight nine ten
"""


def new_tokenizer() -> CLIPTokenizer:
    """CLIP's byte-level BPE, learnt from the world's captions and plain English."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Pattern(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = Pattern(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 2 - len(alphabet),
        initial_alphabet=sorted(alphabet),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    styles = sorted(BASE_STYLES)
    corpus = [sample_caption(sample_scene(i), styles[i % len(styles)], i) for i in range(4000)]
    tokenizer.train_from_iterator(corpus + _ENGLISH.split("\n") * 20, trainer)
    learnt = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in learnt["merges"]]
    # CLIP's order: bytes, bytes that end a word, merges, the two special tokens.
    letters = sorted(alphabet)
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    tokens += [a + b for a, b in merges if a + b not in set(tokens)]
    tokens += [_START, _END]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=LENGTH)  # pyright: ignore[reportArgumentType]


def save_tokenizer(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write `tokenizer.json` and, for older readers, `vocab.json` and `merges.txt`."""
    tokenizer.save_pretrained(folder)
    model = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), "utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", "utf-8")


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Token ids (n, 32) as the pipeline makes them: padded and cut to the full length."""
    ids = tokenizer(captions, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
    return ids.input_ids


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        projection_dim=128,
        hidden_act="quick_gelu",
        bos_token_id=len(tokenizer) - 2,
        eos_token_id=len(tokenizer) - 1,
        pad_token_id=len(tokenizer) - 1,
    )
    return CLIPTextModel(config)


class Heads(nn.Module):
    """Linear read-outs of the mean text state: what the caption says, as far as it says it."""

    def __init__(self) -> None:
        super().__init__()
        counts = (len(SUBJECTS), len(COLOURS), len(BACKGROUNDS), len(BASE_STYLES))
        self.readers = nn.ModuleList(nn.Linear(128, count) for count in counts)

    def loss(self, states: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy; `states` (n, 32, 128), `labels` (n, 4) with -1 where the caption is silent."""
        mean = states.mean(dim=1)
        losses = [
            nn.functional.cross_entropy(reader(mean), labels[:, i], ignore_index=-1)
            for i, reader in enumerate(self.readers)
        ]
        return torch.stack(losses).nan_to_num().mean()


class Reader(nn.Module):
    """The encoder and its heads, trained together."""

    def __init__(self, encoder: CLIPTextModel) -> None:
        super().__init__()
        self.encoder, self.heads = encoder, Heads()


def caption_labels(scene: Scene, style: str, caption: str) -> list[int]:
    """Class indices (subject, colour, background, style), -1 for what `caption` leaves out."""
    named = any(name and name in caption for name in BASE_STYLES[style])
    return [
        SUBJECTS.index(scene.subject),
        COLOURS.index(scene.colour),
        BACKGROUNDS.index(scene.background) if scene.background in caption else -1,
        list(BASE_STYLES).index(style) if named else -1,
    ]


def build(work: Path) -> tuple[CLIPTokenizer, Reader]:
    """The tokenizer, and ``encoder`` and ``heads`` trained together."""
    folder = work / "tokenizer"
    if not folder.exists():  # learnt once: the library breaks ties between equally frequent pairs at random
        save_tokenizer(new_tokenizer(), folder)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    model = Reader(new_text_encoder(tokenizer))
    styles = list(BASE_STYLES)

    def loss_of_step(step: int) -> Tensor:
        seeds = torch.randint(2**40, (BATCH,), generator=step_generator(2, step)).tolist()
        scenes = [sample_scene(seed) for seed in seeds]
        chosen = [random.Random(seed).choice(styles) for seed in seeds]
        captions = [sample_caption(*row) for row in zip(scenes, chosen, seeds, strict=True)]
        labels = torch.tensor([caption_labels(*row) for row in zip(scenes, chosen, captions, strict=True)])
        states = model.encoder(tokenize(tokenizer, captions)).last_hidden_state
        return model.heads.loss(states, labels)

    stage = Stage("text", model, work, STEPS, cosine(1e-3, STEPS))
    stage.run(loss_of_step, save_every=400)
    stage.use_average()
    return tokenizer, model
