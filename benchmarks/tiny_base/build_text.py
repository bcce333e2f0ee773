"""Makes the tokenizer of the embedded base and teaches its text encoder to tell the world's words apart.

The encoder is trained alone, through heads that are thrown away; the UNet then trains it further. Each head reads one
*thing* of the caption (the first subject, the second, the scene) from one mixture of token states, so that a colour
must be told from the same place as the subject that has it.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Regex as Pattern
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from benchmarks.tiny_base.stage import SNAPSHOTS, Stage, cosine, step_generator
from sd_lora.tinybase.world import (
    BACKGROUNDS,
    BASE_STYLES,
    COLOURS,
    LIGHTS,
    SIDES,
    SIZES,
    SUBJECTS,
    Scene,
    sample_caption,
    sample_scene,
)

VOCABULARY, LENGTH, WIDTH = 1431, 32, 128
STEPS, BATCH = 600, 64
NONE = "nothing"
#: What a caption may say, thing by thing. "nothing" is a pair's missing half.
THINGS: tuple[dict[str, Sequence[str]], ...] = (
    {"subject": SUBJECTS, "colour": COLOURS, "size": SIZES, "side": SIDES},
    {"second": (*SUBJECTS, NONE), "second_colour": (*COLOURS, NONE)},
    {"background": BACKGROUNDS, "light": LIGHTS, "style": tuple(BASE_STYLES)},
)
QUESTIONS = [question for thing in THINGS for question in thing]
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
        hidden_size=WIDTH,
        intermediate_size=WIDTH * 4,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        projection_dim=WIDTH,
        hidden_act="quick_gelu",
        bos_token_id=len(tokenizer) - 2,
        eos_token_id=len(tokenizer) - 1,
        pad_token_id=len(tokenizer) - 1,
    )
    return CLIPTextModel(config)


class Heads(nn.Module):
    """Linear read-outs of three learnt mixtures of the token states: what the caption says, as far as it says it."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Linear(WIDTH, len(THINGS), bias=False)
        self.readers = nn.ModuleList(
            nn.Linear(WIDTH, sum(len(answers) for answers in thing.values())) for thing in THINGS
        )

    def forward(self, states: Tensor) -> list[Tensor]:
        """Logits (n, answers) of every question; `states` (n, 32, 128)."""
        pooled = self.queries(states).softmax(dim=1).transpose(1, 2) @ states  # (n, things, 128)
        logits: list[Tensor] = []
        for i, (thing, reader) in enumerate(zip(THINGS, self.readers, strict=True)):
            logits += reader(pooled[:, i]).split([len(answers) for answers in thing.values()], dim=1)
        return logits

    def loss(self, states: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy; `labels` (n, questions) with -1 where the caption is silent."""
        losses = [
            nn.functional.cross_entropy(logits, labels[:, i], ignore_index=-1) for i, logits in enumerate(self(states))
        ]
        return torch.stack(losses).nan_to_num().mean()


class Reader(nn.Module):
    """The encoder and its heads, trained together."""

    def __init__(self, encoder: CLIPTextModel) -> None:
        super().__init__()
        self.encoder, self.heads = encoder, Heads()


def caption_labels(scene: Scene, style: str, caption: str) -> list[int]:
    """The answers to all questions as class indices, -1 for what `caption` may have left out."""
    said = {
        "subject": scene.subject,
        "colour": scene.colour,
        "size": next((size for size in SIZES[1:] if size in caption.split()), ""),
        "side": next((side for side in SIDES[1:] if side in caption), ""),
        "second": scene.second or NONE,
        "second_colour": scene.second_colour or NONE,
        "background": scene.background if scene.background in caption else None,
        "light": next((light for light in LIGHTS[1:] if light in caption), ""),
        "style": style if any(name and name in caption for name in BASE_STYLES[style]) else None,
    }
    answers = {question: options for thing in THINGS for question, options in thing.items()}
    return [-1 if said[q] is None else list(answers[q]).index(str(said[q])) for q in QUESTIONS]


def build(work: Path) -> tuple[CLIPTokenizer, Reader]:
    """The tokenizer, and ``encoder`` and ``heads`` trained together."""
    folder = work / "tokenizer"
    kept = SNAPSHOTS / "tokenizer"  # learnt once: the library breaks ties between equally frequent pairs at random
    if not folder.exists():
        if kept.exists():
            shutil.copytree(kept, folder)
        else:
            save_tokenizer(new_tokenizer(), folder)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    model = Reader(new_text_encoder(tokenizer))

    def loss_of_step(step: int) -> Tensor:
        seeds = torch.randint(2**40, (BATCH,), generator=step_generator(2, step)).tolist()
        captions, labels = read_out(seeds)
        states = model.encoder(tokenize(tokenizer, captions)).last_hidden_state
        return model.heads.loss(states, labels)

    stage = Stage("text", model, work, STEPS, cosine(1e-3, STEPS))
    stage.run(loss_of_step, save_every=400)
    stage.use_average()
    return tokenizer, model


def read_out(seeds: list[int]) -> tuple[list[str], Tensor]:
    """A caption and its labels (n, questions) for each seed, half of them pairs, in a style drawn from the seed."""
    styles = list(BASE_STYLES)
    captions, labels = [], []
    for seed in seeds:
        scene, style = sample_scene(seed, pair=seed % 2 == 0), random.Random(seed).choice(styles)
        captions.append(sample_caption(scene, style, seed))
        labels.append(caption_labels(scene, style, captions[-1]))
    return captions, torch.tensor(labels)
