"""Settings that cannot act, alone or beside the others: the one place that judges them. Each is an error, so that none
is ignored silently. What other rooms know comes in as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from sd_lora.config.schema import DataConfig, OptimizerConfig, RunConfig, TrainingConfig

#: where a base model is: in a local folder (as the embedded one is), in a local checkpoint file, or on the hub
Place = Literal["folder", "file", "hub"]
#: whether a setting cannot act, and the sentence for that
Rows = list[tuple[bool, str]]


@dataclass(frozen=True, kw_only=True)
class OptimizerFacts:
    """What settings depend on in an optimizer."""

    #: it has one rate for all parameters, which it finds by itself
    one_rate: bool = False
    #: its weights are an average already
    averages: bool = False
    needs_cuda: bool = False
    #: whether it has the two averages that `optimizer.betas` set
    betas: bool = True


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known before the base model is read or fetched; None: known only when it is open."""

    place: Place
    optimizer: OptimizerFacts
    #: whether the norms of the adapter's variant can be capped, and whether it needs the base's full weights
    caps_norm: bool = True
    #: whether the variant has LoRA's up matrices and ranks, and whether it has LoKr's factor
    has_up_and_ranks: bool = True
    takes_factor: bool = True
    needs_base: bool = False
    #: what the base predicts
    prediction_type: str | None = None
    #: whether a layer of a text encoder is trained
    trains_text: bool | None = None


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """What settings depend on in the images, which are trained at `side` pixels first."""

    side: int
    #: there are regularisation images
    prior: bool
    #: captions come from a metadata table
    from_table: bool
    #: a caption has the separator of tags
    tags: bool
    #: a caption has two tags that may change places, or one that may be left out
    shuffled: bool
    dropped: bool
    #: an image's captions are varied
    varied: bool
    #: an image has transparent places, or a mask in data.mask_folder
    transparent: bool
    masked: bool
    #: there are images in a folder named val, or as few other names say
    validation: bool
    #: a caption or prompt has the syntax of web UIs
    syntax: bool


def conflicts(config: RunConfig) -> list[str]:
    """What the config alone shows, a sentence each."""
    rows = _of_data(config.data) + _of_rate(config.optimizer) + _of_training(config.training) + _of_objective(config)
    if config.lora.init and config.lora.variant != "lora":
        rows.append((True, "lora.variant has no effect with lora.init: the file decides; leave one out"))
    same = config.model.preview_base == config.model.base
    rows.append((same, "model.preview_base has no effect, as it is model.base; leave it out"))
    both = config.preview.prompts and config.preview.prompts_file
    rows.append((bool(both), "preview.prompts and preview.prompts_file both say what to draw; leave one out"))
    return [*(sentence for wrong, sentence in rows if wrong), *text_conflicts(config)]


def conflicts_with(config: RunConfig, facts: Facts) -> list[str]:
    """What `facts` show besides, a sentence each; to be called before the base model is read or fetched."""
    optimizer, training = config.optimizer, config.training
    adapter = config.lora.init or f"lora.variant={config.lora.variant}"
    problems = [
        (optimizer.max_norm > 0 and not facts.caps_norm,
            f"optimizer.max_norm cannot act on {adapter}; leave it out"),
        (optimizer.plus_ratio != 1 and not facts.has_up_and_ranks,
            f"optimizer.plus_ratio cannot act on {adapter}, which has no up matrices; leave it out"),
        (config.lora.rank_dropout > 0 and not facts.has_up_and_ranks,
            f"lora.rank_dropout cannot act on {adapter}; leave it out or use lora.dropout"),
        (config.lora.factor > 0 and not facts.takes_factor,
            f"lora.factor cannot act on {adapter}, only on lora.variant=lokr; leave it out"),
        (config.model.quantize != "none" and facts.needs_base,
            f"{adapter} needs the full weights of the base model; leave model.quantize out"),
        (training.average != "none" and facts.optimizer.averages,
            f"training.average={training.average} cannot act with {optimizer.name}, which averages already; leave it "
            "out"),
        (training.zero_terminal_snr and facts.prediction_type == "epsilon",
            "training.zero_terminal_snr needs a base model with v_prediction, but this one predicts epsilon; set "
            "training.zero_terminal_snr=false"),
    ]  # fmt: skip
    return [
        *place_conflicts(config.model.base, config.model.revision, config.model.config, facts.place),
        *(sentence for wrong, sentence in problems if wrong),
        *text_conflicts(config, text=facts.trains_text),
    ]


def place_conflicts(base: str, revision: str, config: str, place: Place) -> list[str]:
    """Settings of the base model that cannot act where it is."""
    problems = [
        (revision and place != "hub",
            f'model.revision is "{revision}", but base model "{base}" is a local one; only hub models have revisions'),
        (config and place != "file",
            f'model.config is "{config}", but base model "{base}" has its own configs; remove it'),
    ]  # fmt: skip
    return [sentence for wrong, sentence in problems if wrong]


def optimizer_conflicts(config: OptimizerConfig, facts: OptimizerFacts, device: str) -> list[str]:
    """Settings of the optimizer that cannot act with the one that was chosen, or on a `device` of this type."""
    name, rate, betas = config.name, config.learning_rate, config.betas != type(config)().betas
    problems = [
        (facts.needs_cuda and device != "cuda",
            f"optimizer.name={name} needs a CUDA device, not {device}; set optimizer.name=adamw"),
        (betas and not facts.betas, f"optimizer.betas has no effect with {name}; leave it out"),
        (facts.one_rate and rate < 0.1,
            f"optimizer.learning_rate multiplies the rate that {name} finds by itself; set it to 1, but {rate:g} was "
            "given"),
        (facts.one_rate and config.text_learning_rate not in (None, rate),
            f"optimizer.text_learning_rate must be {rate:g}, as {name} has one rate for all layers, but "
            f"{config.text_learning_rate} was given"),
        (facts.one_rate and config.plus_ratio != 1,
            f"optimizer.plus_ratio cannot act with {name}, which has one rate for all layers; leave it out or set "
            "another optimizer.name"),
        (facts.averages and config.schedule != "constant",
            f"optimizer.schedule={config.schedule} cannot act with {name}, which averages instead; set "
            "optimizer.schedule=constant"),
        (facts.averages and betas and config.betas[0] == 0,
            f"optimizer.betas: {name} needs a first one above 0"),
        (facts.averages and config.max_norm > 0,
            f"optimizer.max_norm cannot act with {name}, whose weights are an average; leave it out or set another "
            "optimizer.name"),
    ]  # fmt: skip
    return [sentence for wrong, sentence in problems if wrong]


def text_conflicts(config: RunConfig, *, text: bool | None = None, more: bool = True) -> list[str]:
    """Settings of the text encoders that cannot act; `text` says whether any of their layers is trained (None: not yet
    known), `more` whether another layer is. To be called again when the number of steps has been derived."""
    steps, until, rate = config.training.steps or 0, config.training.text_steps or 0, "optimizer.text_learning_rate"
    idle = [rate] * (config.optimizer.text_learning_rate is not None) + ["training.text_steps"] * bool(until)
    much = "more than the" if until > steps else "no less than the"
    problems = [
        (until >= steps > 0,
            f"training.text_steps is {until}, {much} {steps} steps of the run; lower it or leave it out"),
        (text is False and bool(idle),
            f"{' and '.join(idle)} has no effect because no module of a text encoder is trained; "
            'add "text" to lora.targets'),
        (text is True and not more and 0 < until < steps,
            f"training.text_steps is {until}, after which nothing would be trained in the other {steps - until} "
            "steps, as every layer is in a text encoder; leave it out or add a target of the denoiser"),
    ]  # fmt: skip
    return [sentence for wrong, sentence in problems if wrong]


def validation_conflicts(training: TrainingConfig, facts: ImageFacts) -> list[str]:
    """Settings of the validation loss that change nothing for these images."""
    problems = [
        (bool(training.validate_every) and not training.hold_out and not facts.validation,
            "training.validate_every has no effect because no image is held out; set training.hold_out to the share "
            "that is, or put images into a folder named val"),
        (bool(training.hold_out) and facts.validation,
            "training.hold_out has no effect because the images of the folder for validation are held out"),
    ]  # fmt: skip
    return [sentence for wrong, sentence in problems if wrong]


def image_conflicts(data: DataConfig, facts: ImageFacts) -> list[str]:
    """Settings that change nothing for these images."""
    plain, separator = type(data)(), "commas" if data.tag_separator == "," else f'"{data.tag_separator}"'
    alone = "neither data.shuffle_tags nor data.tag_dropout is set"
    why_tags = "no tag of any caption is free for it" if facts.tags else f"no caption has {separator}"
    table = facts.from_table and not data.regularisation
    problems = [
        ("prior_weight", data.prior_weight != 1 and not facts.prior, "there are no regularisation images"),
        ("shuffle_tags", data.shuffle_tags and not facts.shuffled, why_tags),
        ("tag_dropout", data.tag_dropout > 0 and not facts.dropped, why_tags),
        *((key, getattr(data, key) != getattr(plain, key) and not facts.varied, alone)
            for key in ("caption_variants", "keep_tags", "tag_separator")),
        ("syntax", data.syntax != plain.syntax and not facts.syntax, "no caption or prompt has syntax to read"),
        ("more_resolutions", facts.side in data.more_resolutions, f"images are trained at {facts.side} pixels anyway"),
        ("alpha", data.alpha != plain.alpha and not facts.transparent, "no image has transparent places"),
        ("mask_folder", bool(data.mask_folder) and not facts.masked, "it holds no mask of these images"),
        *((key, table and getattr(data, key) != getattr(plain, key), "captions are read from the metadata")
            for key in ("caption_suffixes", "caption_lines", "captions_from")),
    ]  # fmt: skip
    return [f"data.{key} has no effect because {why}" for key, wrong, why in problems if wrong]


def _of_data(data: DataConfig) -> Rows:
    varied = data.shuffle_tags or data.tag_dropout > 0
    named = data.captions_from == "name"
    return [
        (named and data.layout == "bare",
            "data.captions_from=name cannot act with data.layout=bare, which reads no captions; leave one out"),
        *((named and getattr(data, key) != getattr(type(data)(), key),
            f"data.{key} has no effect with data.captions_from=name; leave one out")
            for key in ("caption_suffixes", "caption_lines")),
        (bool(data.mask_folder) and not data.masks,
            "data.mask_folder has no effect with data.masks=false; leave one out"),
        (varied and data.caption_variants == 1,
            "data.caption_variants=1 leaves nothing to data.shuffle_tags and data.tag_dropout; set it higher"),
        (len(set(data.more_resolutions)) < len(data.more_resolutions),
            "data.more_resolutions names a size twice; leave one out"),
    ]  # fmt: skip


def _of_rate(config: OptimizerConfig) -> Rows:
    plain, schedule = type(config)(), config.schedule
    return [
        (config.warmup == 1 and schedule != "constant",
            f"optimizer.warmup=1 leaves no step to the {schedule} schedule; lower it or set "
            "optimizer.schedule=constant"),
        (schedule == "constant" and config.final != plain.final,
            "optimizer.final has no effect with a constant schedule; leave it out or set another optimizer.schedule"),
        (schedule != "polynomial" and config.power != plain.power,
            f"optimizer.power has no effect with a {schedule} schedule; leave it out or set "
            "optimizer.schedule=polynomial"),
    ]  # fmt: skip


def _of_training(training: TrainingConfig) -> Rows:
    return [
        (training.steps is not None and training.epochs is not None,
            f"training.steps={training.steps} and training.epochs={training.epochs or 0:g} both say how long to train; "
            "leave one out"),
        (training.average != "ema" and training.ema_decay != type(training)().ema_decay,
            "training.ema_decay has no effect unless training.average=ema"),
        (bool(training.hold_out) and not training.validate_every,
            "training.hold_out has no effect alone; set training.validate_every to how often the loss is measured"),
        (bool(training.micro_batch and training.micro_batch > training.batch_size),
            f"training.micro_batch is {training.micro_batch}, more than training.batch_size, {training.batch_size}; "
            "lower it or leave it out"),
    ]  # fmt: skip


def _of_objective(config: RunConfig) -> Rows:
    training, plain = config.training, type(config.training)()
    low, high = training.timestep_range
    idle = [k for k in ("log_snr_mean", "log_snr_std") if getattr(training, k) != getattr(plain, k)]
    return [
        *((training.timesteps == "uniform",
            f"training.{key} has no effect with uniform timesteps; set training.timesteps=mixed") for key in idle),
        (training.loss != "huber" and training.huber_threshold != plain.huber_threshold,
            f"training.huber_threshold has no effect with training.loss={training.loss}; set training.loss=huber"),
        (training.weighting != "min-snr" and training.min_snr_gamma != plain.min_snr_gamma,
            f"training.min_snr_gamma has no effect with training.weighting={training.weighting}; set "
            "training.weighting=min-snr"),
        (low >= high, f"training.timestep_range is {low:g} to {high:g}, which is empty; put the smaller number first"),
        (training.zero_terminal_snr and config.model.prediction_type == "epsilon",
            "training.zero_terminal_snr cannot act on a base that predicts epsilon; leave it out"),
        (training.zero_terminal_snr and high < 1,
            f"training.zero_terminal_snr has no effect, as training.timestep_range ends at {high:g}; leave one out"),
        (training.zero_terminal_snr and training.weighting != "none",
            f"training.zero_terminal_snr has no effect with training.weighting={training.weighting}, which gives the "
            "end of the schedule no weight; leave one out"),
    ]  # fmt: skip
