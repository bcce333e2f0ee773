"""Tiny captioning models with random weights, saved as real ones are; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

WORDS = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] a the cat dog house red blue tree of on in hill river boat bird what does describe "
    "detail is shown image . , ?"
)
_PIXELS = {"height": 32, "width": 32}
_SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
_VISION = {**_SMALL, "image_size": 32, "patch_size": 16}
_MARKS = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
KINDS = ("blip", "blip-2", "florence2", "git", "vision-encoder-decoder")


def _tokenizer(folder: Path, **more: Any) -> Any:
    from transformers import BertTokenizer

    (folder / "vocab.txt").write_text("\n".join(WORDS.split()), "utf-8")
    return BertTokenizer.from_pretrained(folder, model_input_names=["input_ids", "attention_mask"], **more)


def _blip(folder: Path) -> tuple[Any, Any]:
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    tokenizer = _tokenizer(folder)
    text = {**_SMALL, **_MARKS, "encoder_hidden_size": 32, "sep_token_id": 3, "max_position_embeddings": 128}
    config = BlipConfig(text_config={**text, "vocab_size": len(tokenizer)}, vision_config=_VISION)
    return BlipForConditionalGeneration(config), BlipProcessor(BlipImageProcessor(size=_PIXELS), tokenizer)


def _blip2(folder: Path) -> tuple[Any, Any]:
    from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2Processor, BlipImageProcessor

    tokenizer = _tokenizer(folder)
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    words = len(tokenizer)
    text = {
        **_MARKS, "model_type": "opt", "vocab_size": words, "hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "word_embed_proj_dim": 32, "max_position_embeddings": 128,
    }  # fmt: skip
    former = {**_SMALL, "vocab_size": words, "encoder_hidden_size": 32}
    config = Blip2Config(
        vision_config=_VISION, qformer_config=former, text_config=text, num_query_tokens=4, image_token_index=words - 1
    )
    return Blip2ForConditionalGeneration(config), Blip2Processor(BlipImageProcessor(size=_PIXELS), tokenizer)


def _florence2(folder: Path) -> tuple[Any, Any]:
    from transformers import (
        CLIPImageProcessor,
        Florence2Config,
        Florence2ForConditionalGeneration,
        Florence2Processor,
    )

    marks = {"bos_token": "[CLS]", "eos_token": "[SEP]", "extra_special_tokens": {"image_token": "<image>"}}
    tokenizer = _tokenizer(folder, **marks)
    text = {
        **_MARKS, "model_type": "bart", "vocab_size": len(tokenizer), "d_model": 32, "encoder_layers": 2,
        "decoder_layers": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "max_position_embeddings": 128, "decoder_start_token_id": 3,
    }  # fmt: skip
    vision = {
        "depths": (1, 1), "patch_size": (7, 3), "patch_stride": (4, 2), "patch_padding": (3, 1),
        "patch_prenorm": (False, True), "embed_dim": (16, 32), "num_heads": (2, 4), "num_groups": (2, 4),
        "window_size": 2, "projection_dim": 32,
    }  # fmt: skip
    config = Florence2Config(text_config=text, vision_config=vision, image_token_id=tokenizer.image_token_id)
    images = CLIPImageProcessor(size=_PIXELS, do_center_crop=False)
    images.image_seq_length = 17  # 4 × 4 patches and their mean
    return Florence2ForConditionalGeneration(config), Florence2Processor(images, tokenizer)


def _git(folder: Path) -> tuple[Any, Any]:
    from transformers import CLIPImageProcessor, GitConfig, GitForCausalLM, GitProcessor

    tokenizer = _tokenizer(folder)
    config = GitConfig(
        vision_config=_VISION, **_SMALL, **_MARKS, vocab_size=len(tokenizer), max_position_embeddings=128
    )
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=_PIXELS)
    return GitForCausalLM(config), GitProcessor(images, tokenizer)


def _encoder_decoder(folder: Path) -> tuple[Any, Any]:
    from transformers import (
        BertConfig,
        VisionEncoderDecoderConfig,
        VisionEncoderDecoderModel,
        ViTConfig,
        ViTImageProcessor,
    )

    tokenizer = _tokenizer(folder)
    decoder = BertConfig(**_SMALL, vocab_size=len(tokenizer), is_decoder=True, add_cross_attention=True)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(**_VISION), decoder)
    model = VisionEncoderDecoderModel(config)
    model.generation_config.update(decoder_start_token_id=2, pad_token_id=0, eos_token_id=3)
    tokenizer.save_pretrained(folder)
    return model, ViTImageProcessor(size=_PIXELS)


_MAKERS = dict(zip(KINDS, (_blip, _blip2, _florence2, _git, _encoder_decoder), strict=True))


def write_captioner(kind: str, folder: Path) -> Path:
    """A captioning model of one of KINDS as `save_pretrained` writes it; what it says depends on the image."""
    folder.mkdir()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, processor = _MAKERS[kind](folder)
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.data.normal_(0, 0.25)  # as made, the image hardly shows in the words
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "vocab.txt").unlink()
    return folder
