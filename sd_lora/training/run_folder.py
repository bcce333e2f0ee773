"""The run folder: config, log, loss curve, sample grids and adapters, each written as it comes."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from sd_lora.config import RunConfig
from sd_lora.errors import ConfigError
from sd_lora.training.loop import StepReport


class RunFolder:
    """Holds ``config.toml``, ``log.jsonl``, ``loss.png``, ``samples/``, ``adapters/``, ``adapter.safetensors`` with its
    sidecars, and ``diffusers/``, the same adapter for a hub."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.adapter, self.export = path / "adapter.safetensors", path / "diffusers"
        self.config, self.log, self.loss_curve = path / "config.toml", path / "log.jsonl", path / "loss.png"
        self._reports: list[StepReport] = []

    @staticmethod
    def check_free(path: Path) -> None:
        """ConfigError if `path` exists already or cannot be made."""
        try:
            taken = path.exists() or path.is_symlink()
        except OSError as error:
            raise ConfigError(f"output folder {path} cannot be made: {error.strerror}") from error
        if taken:
            raise ConfigError(f"output folder {path} exists; name a new one with --out, or remove it")
        parent = next(p for p in path.absolute().parents if p.exists())
        if not parent.is_dir():
            raise ConfigError(
                f"output folder {path} cannot be made because {parent} is a file; name another with --out"
            )

    @classmethod
    def create(cls, path: Path, config: RunConfig) -> RunFolder:
        cls.check_free(path)
        try:
            (path / "samples").mkdir(parents=True)
            folder = cls(path)
            folder.config.write_text(config.to_toml(), "utf-8")
        except OSError as error:
            raise ConfigError(f"output folder {path} cannot be written: {error.strerror}") from error
        return folder

    def sample_sheet(self, step: int) -> Path:
        return self.path / "samples" / f"step-{step:06d}.png"

    def kept_adapter(self, step: int) -> Path:
        (self.path / "adapters").mkdir(exist_ok=True)
        return self.path / "adapters" / f"step-{step:06d}.safetensors"

    def record(self, report: StepReport) -> None:
        """Append one line to the log."""
        self._reports.append(report)
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(report)) + "\n")

    def draw_loss(self) -> None:
        """Write ``loss.png``: the loss of every step and its running mean."""
        from matplotlib.figure import Figure

        steps = [report.step for report in self._reports]
        losses = [report.loss for report in self._reports]
        width = max(1, len(losses) // 20)
        smooth = [sum(losses[max(0, i - width + 1) : i + 1]) / min(width, i + 1) for i in range(len(losses))]
        figure = Figure(figsize=(8, 4), dpi=100, layout="constrained")
        axes = figure.subplots()
        axes.plot(steps, losses, color="#b8c4d6", linewidth=0.8, label="each step")
        axes.plot(steps, smooth, color="#20478f", linewidth=2, label=f"mean of {width} steps")
        axes.set(xlabel="step", ylabel="loss", title="Training loss", ylim=(0, None))
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(self.loss_curve)
