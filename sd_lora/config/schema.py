"""The typed config of a run, as frozen dataclasses. Every default lives here and nowhere else; a preset is a TOML file
that changes some of them. The text under a setting is its help, wherever help is shown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, field
from typing import Annotated, Any, Literal, get_type_hints

import tomli_w
from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

#: validators are built when they are first used: help and completion never use one
_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, defer_build=True)


def _listed(value: object) -> object:
    """``attn,ff`` on the command line means the list of both, and ``1`` the list of that number."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return [value] if isinstance(value, int | float) else value


def _flag(value: object) -> object:
    """``yes`` and ``true`` mean the same, wherever a word is possible besides."""
    words = {**dict.fromkeys(("true", "yes", "on"), True), **dict.fromkeys(("false", "no", "off"), False)}
    return words.get(value.lower(), value) if isinstance(value, str) else value


Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Threads = Annotated[
    Annotated[int, Field(ge=1, le=1024)] | None, BeforeValidator(lambda value: None if value == "auto" else value)
]
Recompute = Annotated[Literal["ff", True, False] | None, BeforeValidator(_flag)]
Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Text = Annotated[str, Field(pattern=r"\S")]
Strengths = Annotated[tuple[float, ...], Field(min_length=1), BeforeValidator(_listed)]
Sizes = Annotated[tuple[Annotated[int, Field(ge=8, le=4096, multiple_of=8)], ...], BeforeValidator(_listed)]
Suffixes = Annotated[
    tuple[Annotated[str, Field(pattern=r"^\.[^/\\\s]+$")], ...], Field(min_length=1), BeforeValidator(_listed)
]
Trackers = Annotated[tuple[Literal["tensorboard", "wandb", "trackio"], ...], BeforeValidator(_listed)]
Targets = Annotated[tuple[Text, ...], Field(min_length=1), BeforeValidator(_listed)]


@dataclass(frozen=True, config=_STRICT)
class ModelConfig:
    """The base model: ``tiny`` (the embedded one), a diffusers pipeline folder, one ``.safetensors`` checkpoint, or the
    id of a hub model, which is the only thing ever downloaded."""

    base: str = "tiny"
    preview_base: str = ""
    """another base model that draws the samples and measures, such as a distilled one: any that adapters for `base`
    are for; it is in memory only while it draws. empty: `base` draws"""
    revision: str = ""
    """commit, tag or branch of a hub model"""
    config: str = ""
    """for one checkpoint file: a folder with the tokenizer (and configs, if its sizes are not the published ones)"""
    vae: str = ""
    """another VAE than the base model's own: a diffusers VAE folder, or a .safetensors file, on this machine"""
    prediction_type: Literal["auto", "epsilon", "v_prediction"] = "auto"
    """what the base model predicts; auto: what it says of itself"""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: bfloat16 on CUDA devices that have it, float32 elsewhere. LoRA weights are float32 always."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """auto: CUDA, else MPS (Apple's), else the CPU"""
    quantize: Literal["none", "int8", "fp8", "nf4"] = "none"
    """hold the frozen denoiser's linear layers in fewer bits; on CUDA devices, with sd-lora[cuda]"""


@dataclass(frozen=True, config=_STRICT)
class DataConfig:
    """The images and their captions."""

    folder: str = ""
    """a folder of images, or kohya's dataset TOML"""
    layout: Literal["auto", "metadata", "kohya-toml", "kohya", "sidecars", "bare"] = "auto"
    """how the folder is laid out; auto: recognised, and printed"""
    resolution: Annotated[int, Field(ge=0, le=4096, multiple_of=8)] = 0
    """side in pixels of the square whose area every training picture has; 0: the base model's own size"""
    more_resolutions: Sizes = ()
    """further sides: each image is seen at `resolution` and at these in turn"""
    buckets: bool = True
    """train images in their own shape; false: crop all to squares"""
    upscale: bool = True
    """upscale images that are smaller than trained; false: train them at their own size"""
    crops: Annotated[int, Field(ge=1, le=64)] = 4
    """positions from which an image that must be cropped is seen in turn"""
    flip: bool = True
    """mirror every second exposure, except where the caption says left, right or text"""
    trigger: Annotated[str, Field(pattern=r"^([^,\s][^,\n]*)?$")] = ""
    """the word that calls the style: captions become "<caption>, in <trigger> style" """
    default_caption: str = ""
    """used for an image without a caption; empty: a missing caption is an error, unless there is none at all"""
    captions_from: Literal["files", "name"] = "files"
    """files: captions are beside the images or in a table; name: an image's name is its caption, without counters"""
    caption_suffixes: Suffixes = (".txt", ".caption")
    """endings of caption files, the preferred one first"""
    caption_lines: Literal["each", "joined"] = "each"
    """each: every line of a caption file is a separate caption, one chosen per exposure; joined: all lines are one"""
    shuffle_tags: bool = False
    """shuffle comma-separated tags"""
    tag_separator: Annotated[str, Field(pattern=r"\S")] = ","
    """what separates the tags of a caption file; whatever it is, shuffled tags are trained with commas between them"""
    tag_dropout: Decay = 0.0
    """leave each tag out with this probability"""
    keep_tags: Annotated[int, Field(ge=0)] = 0
    """the first tags, which are never moved or left out"""
    syntax: Literal["keep", "read"] = "keep"
    """what (red hair:1.3), [x], {a|b}, <lora:x:1> and BREAK are in captions and prompts; keep: text, as written; read:
    weights and names are removed and alternatives become captions of their own"""
    caption_variants: Annotated[int, Field(ge=1, le=256)] = 8
    """how many shuffled versions of a caption are made"""
    background: Text = "white"
    """the colour behind transparent images: a name or #rrggbb"""
    alpha: Literal["background", "mask"] = "background"
    """background: transparent places are learned in that colour; mask: they are not learned"""
    masks: bool = True
    """learn only the white parts of NAME_mask.png, NAME-masklabel.png or masks/NAME.png, where there is one"""
    mask_folder: str = ""
    """a folder of masks that have the names of their images"""
    folder_roles: bool = True
    """use folders named reg, masks, val, samples, … for what they are named after; false: read them like all others"""
    regularisation: str = ""
    """a folder of regularisation images, which are trained without the trigger word"""
    prior_weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """weight of regularisation images in the loss"""
    skip_bad: bool = False
    """leave out images that cannot be read, with a warning; false: they are an error"""
    cache: str = ""
    """where encoded images and captions are kept: a folder that runs may share; empty: the run folder"""


@dataclass(frozen=True, config=_STRICT)
class LoraConfig:
    """Where LoRA layers sit and how large they are."""

    variant: Literal["lora", "dora", "loha", "lokr"] = "lora"
    """lora; dora (arXiv 2402.09353), which only diffusers applies exactly; loha (arXiv 2108.06098) and lokr (arXiv
    2309.14859), which diffusers does not read"""
    targets: Targets = ("attn", "ff")
    """groups (attn, ff, conv, proj; text, text_ff for the text encoders) or patterns such as "unet.mid_block.*" """
    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """how much a layer can learn, and how large the file is"""
    alpha: Positive = 16.0
    """a layer's change is multiplied by alpha / rank"""
    ranks: dict[str, Annotated[int, Field(ge=1, le=1024)]] = field(default_factory=dict)
    """pattern = rank, for targets that need another rank than `rank`"""
    alphas: dict[str, Positive] = field(default_factory=dict)
    """pattern = alpha, for targets that need another alpha than `alpha`"""
    factor: Annotated[int, Field(ge=0)] = 0
    """for lokr: a side of the smaller factor, where it divides the weight's; 0: two factors as equal as possible"""
    dropout: Decay = 0.0
    """share of a layer's inputs that is left out at random in each step"""
    rank_dropout: Decay = 0.0
    """share of a layer's ranks that is left out at random in each step"""
    init: str = ""
    """an adapter file to train further; its modules, ranks, alphas and variant then replace all the above"""


@dataclass(frozen=True, config=_STRICT)
class OptimizerConfig:
    """The optimizer, and how its rate rises and falls."""

    name: Literal["adamw", "adamw8bit", "adafactor", "prodigy", "schedule-free", "lion"] = "adamw"
    """adamw and adafactor are torch's own; adamw8bit needs sd-lora[cuda], the others sd-lora[optimizers]"""
    learning_rate: Positive = 1e-4
    """the peak rate; rule of thumb: 1e-4 times the square root of the batch size"""
    text_learning_rate: Positive | None = None
    """of the text encoders' layers; absent: half of `learning_rate`"""
    betas: Annotated[tuple[Decay, Decay], BeforeValidator(_listed)] = (0.9, 0.999)
    """how much of the averages of gradients and of their squares stays in each step; default: what the optimizer has
    itself"""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    """in each step every weight shrinks by this share of it, times the rate"""
    clip_norm: Positive = 1.0
    """gradients are scaled down to this norm where theirs is larger"""
    warmup: Share = 0.05
    """share of the steps in which the rate rises to its peak"""
    final: Share = 0.1
    """the rate at the last step, as a share of the peak"""
    schedule: Literal["cosine", "linear", "polynomial", "constant"] = "cosine"
    """how the rate falls after the warm-up"""
    power: Positive = 2.0
    """exponent of the polynomial schedule"""
    plus_ratio: Annotated[float, Field(ge=1)] = 1.0
    """LoRA+ (arXiv 2402.12354): the rate of the layers' up matrices as a multiple of the others'"""
    max_norm: Annotated[float, Field(ge=0)] = 0.0
    """the largest norm that a layer's change of a weight may have; 0: any"""


@dataclass(frozen=True, config=_STRICT)
class TrainingConfig:
    """How long, how, and from which noise levels."""

    steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """absent: 120 exposures of each image, 1,200 at least and 4,000 at most in all (twice that beside regularisation
    images), divided by the batch size"""
    epochs: Annotated[float, Field(gt=0, le=100_000)] | None = None
    """how many times each image is seen, its repeats counted, which sets the steps; absent: `steps` says how long"""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 1
    """images in a step, over all processes"""
    micro_batch: Count | None = None
    """how many of them a process computes at once, which costs time, saves memory and changes nothing else; absent: as
    many as fit"""
    threads: Threads = None
    """processor threads, as many again when a run is resumed, since the last bits depend on them; absent: the physical
    cores that nothing else of sd_lora uses"""
    gradient_checkpointing: Recompute = None
    """compute activations again in the backward pass instead of keeping them (ff: those of the feed-forward layers
    only, which takes less time and saves less); absent: where memory is short, as little of it as fits"""
    fast: Literal["auto", "off"] = "auto"
    """compute the base model in faster ways where they give the same gradients on this machine; off: plainly"""
    compile: bool = False
    """compile the denoiser with torch.compile; used only if its gradients are right on this machine"""
    text_steps: Count | None = None
    """train the text encoders' layers for this many steps only; absent: to the end"""
    save_every: Annotated[int, Field(ge=0)] = 0
    """keep an adapter every n steps (0: only the last)"""
    checkpoint_every: Annotated[int, Field(ge=0)] = 100
    """make a checkpoint, from which the run can be resumed, every n steps (0: only when it is stopped)"""
    keep_checkpoints: Count = 2
    """how many checkpoints stay"""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """of everything that is random in training"""
    caption_dropout: Share = 0.1
    """share of exposures trained with an empty caption"""
    weighting: Literal["none", "min-snr", "debiased"] = "none"
    """weights of noise levels: min-SNR (arXiv 2303.09556), or 1 / sqrt(SNR) (debiased, arXiv 2310.08442)"""
    min_snr_gamma: Positive = 5.0
    """for min-SNR weighting: the signal-to-noise ratio above which levels weigh less"""
    timesteps: Literal["uniform", "mixed"] = "uniform"
    """uniform, or half uniform and half log-SNR ~ N(mean, std)"""
    timestep_range: Annotated[tuple[Share, Share], BeforeValidator(_listed)] = (0.0, 1.0)
    """the share of the noise schedule that is trained, from no noise (0) to only noise (1)"""
    log_snr_mean: float = -3.0
    """for mixed timesteps: the middle of the noise levels that are drawn more often, as the log of signal to noise"""
    log_snr_std: Positive = 2.0
    """for mixed timesteps: how far they spread"""
    loss: Literal["l2", "l1", "huber"] = "l2"
    """l2, l1, or a pseudo-Huber loss that is robust against odd images where there is much noise (arXiv 2403.16728)"""
    huber_threshold: Annotated[float, Field(ge=1e-3, le=1)] = 0.1
    """the pseudo-Huber loss's threshold where there is most noise"""
    zero_terminal_snr: bool = False
    """train as if the noise schedule ended without any signal (arXiv 2305.08891); for v-prediction"""
    noise_offset: Annotated[float, Field(ge=0)] = 0.0
    """noise of a constant level added to each picture's noise, for darker and brighter pictures"""
    multires_noise: Decay = 0.0
    """coarser noises added to the noise, each with this share of the weight of the one before; 0: none"""
    input_perturbation: Annotated[float, Field(ge=0)] = 0.0
    """perturb the noise that goes into the picture, not the noise that is learnt (arXiv 2301.11706)"""
    average: Literal["none", "ema", "tail"] = "none"
    """also average the adapter over its steps: ema, or the plain mean of the last quarter (tail); in a separate file"""
    ema_decay: Decay = 0.99
    """how much of the moving average stays in each step"""
    hold_out: Decay = 0.0
    """share of the images that is held out to measure the validation loss; needless if a folder named val holds some"""
    validate_every: Annotated[int, Field(ge=0)] = 0
    """measure the validation loss every n steps and after the last (0: never)"""
    trackers: Trackers = ()
    """other places to send losses to: tensorboard, wandb, trackio"""


@dataclass(frozen=True, config=_STRICT)
class PreviewConfig:
    """The sample grids drawn while training."""

    every: Annotated[int, Field(ge=0)] = 0
    """draw a grid every n steps (0: only after the last)"""
    prompts: tuple[Text, ...] = ()
    """kohya's options may follow: --n, --w, --h, --d, --s, --l; absent: the captions of the first three images"""
    prompts_file: str = ""
    """a file of prompts instead: text with one per line, or kohya's TOML or JSON"""
    negative: str = ""
    """what not to draw, for prompts without a negative of their own (--n)"""
    strengths: Strengths = (0.0, 0.5, 1.0)
    """of the adapter, one column each; 0, the base model, always comes first"""
    guidance: Annotated[float, Field(ge=0)] = 5.0
    """classifier-free guidance scale"""
    inference_steps: Count = 25
    """denoising steps of each picture"""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """of the noise that all pictures start from"""


@dataclass(frozen=True, config=_STRICT)
class OutputConfig:
    """Where the run folder goes."""

    folder: str = ""
    """must not exist yet; empty: runs/<name of the image folder>"""
    name: str = ""
    """shown by other programs as the adapter's name; empty: the trigger word or the image folder's name"""
    dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    """of the adapter file's weights; every program reads float16"""


@dataclass(frozen=True, config=_STRICT)
class RunConfig:
    """Everything that defines a run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    preview: PreviewConfig = field(default_factory=PreviewConfig)
    output: OutputConfig = field(default_factory=OutputConfig)

    def to_toml(self) -> str:
        """The config as TOML; `read_config` of it gives an equal config."""
        return tomli_w.dumps(_without_none(asdict(self)))


SECTIONS: dict[str, type] = get_type_hints(RunConfig)


def toml_value(value: Any) -> str:
    """A value on one line, where JSON and TOML agree but for tables."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{json.dumps(key)} = {toml_value(item)}' for key, item in value.items())}}}"
    return json.dumps(value, ensure_ascii=False)


def _without_none(tree: dict[str, Any]) -> dict[str, Any]:
    return {k: _without_none(v) if isinstance(v, dict) else v for k, v in tree.items() if v is not None}
