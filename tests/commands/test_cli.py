"""The command line: each bad input is one sentence and exit code 2, with nothing written; good input works."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sd_lora import Adapter, load_base
from sd_lora.commands.app import main
from sd_lora.commands.console import print_plan
from sd_lora.runs.folder import RunFolder
from sd_lora.training.stopping import RunInterrupted
from sd_lora.version import __version__

QUICK = ("model.device=cpu", "training.batch_size=2", "preview.inference_steps=2")
FOREIGN = Path(__file__).parents[1] / "config" / "foreign"


class Answer(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Answer]
Refused = Callable[..., str]
Tensors = dict[str, torch.Tensor]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run a command in `tmp_path`, in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*args: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["sd-lora", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        return Answer(int(caught.value.code or 0), out, err)

    return call


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p.relative_to(folder)): (p.stat().st_size, p.stat().st_mtime_ns) for p in folder.rglob("*")}


@pytest.fixture
def refused(cli: Cli, tmp_path: Path) -> Refused:
    """Run a command that must be refused; returns its sentence."""

    def call(*args: object) -> str:
        before = listing(tmp_path)
        answer = cli(*args)
        *notes, error = answer.err.splitlines()
        assert answer.code == 2, answer
        assert error.startswith("error: "), answer.err
        assert all(line.startswith(("note: ", "warning: ")) for line in notes), answer.err
        assert "Traceback" not in answer.out
        assert listing(tmp_path) == before
        return error

    return call


@pytest.fixture
def adapter_file(random_sd_folder: Path, trained_adapter: Callable[..., Adapter], tmp_path: Path) -> Path:
    adapter = trained_adapter(load_base(random_sd_folder)[0], "attn", std=0.2)
    adapter.metadata |= {"sdlora.trigger": "zwq", "sdlora.base": "random-sd"}
    return adapter.save(tmp_path / "good.safetensors")


def rewrite(file: Path, change: Callable[[Tensors], Tensors]) -> Path:
    """A copy of an adapter with other tensors and the same metadata."""
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    target = file.with_name("changed.safetensors")
    save_file(change(load_file(file)), target, metadata)
    return target


# ---- train


def test_train_refuses_folders_it_cannot_train_on(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "nowhere does not exist" in refused("train", "nowhere", "--base", "tiny")
    assert "no images to learn from in empty" in refused("train", "empty", "--base", "tiny")


def test_train_names_a_truncated_picture(refused: Refused, image_folder: Path) -> None:
    whole = (image_folder / "02.png").read_bytes()
    (image_folder / "02.png").write_bytes(whole[: len(whole) // 2])
    error = refused("train", image_folder, "--base", "tiny")
    assert "02.png (the file is truncated" in error
    assert "data.skip_bad=true" in error


def test_train_names_a_picture_without_caption_and_the_remedy(refused: Refused, image_folder: Path) -> None:
    (image_folder / "03.txt").unlink()
    assert "1 image has no caption: 03.png; add NAME.txt" in refused("train", image_folder, "--base", "tiny")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["lora.rnak=8"], 'did you mean "lora.rank"?'),
        (["training.rank=8"], 'did you mean "lora.rank"?'),
        (["lora.rank=0"], "lora.rank"),
        (["optimizer.learning_rate=nan"], "optimizer.learning_rate"),
        (["lora.rank"], "section.key=value"),
        (["steps=20"], '"steps=20" is not an override; did you mean "training.steps=20"?'),
        (["--steps", "20"], 'no such option: --steps; did you mean "training.steps=20"?'),
        (["--lora.rank=8"], 'no such option: --lora.rank; did you mean "lora.rank=8"?'),
        (["network_dim=32"], "network_dim is kohya's name; here it is lora.rank: write lora.rank=32"),
        (["lora.network_dim=32"], "network_dim is kohya's name; here it is lora.rank: write lora.rank=32"),
        (["--network_dim", "32"], "no such option: --network_dim; network_dim is kohya's name; here it is lora.rank"),
        (["--gradient_accumulation_steps=4"], "write training.batch_size=4 training.micro_batch=1"),
        (
            ["--preset", str(FOREIGN / "kohya-flat.toml")],
            "is a config of kohya's scripts; write it as one of ours with",
        ),
        (["--preset", str(FOREIGN / "gui-locon.json")], "gui-locon.json --out mine.toml"),
        (["--preset", str(FOREIGN / "ai-toolkit-xl.yaml")], "is a config of ai-toolkit; write it as one of ours with"),
        (["--bogus"], "no such option: --bogus"),
        (
            ["--network_dim", "8", "--zzz", "--lr=1e-4"],
            "no such option: --zzz; no such option: --lr; lr is ai-toolkit's",
        ),
        (["--preset"], "option '--preset' requires an argument; give it one"),
        (["--preset", "nope"], 'no preset "nope"'),
        (
            ["--preset", "style"],
            'preset "style" is for Stable Diffusion models, but "tiny" was given; use tiny-style, or',
        ),
        (["--preset", "sdxl-style"], 'preset "style" is for Stable Diffusion models, but "tiny" was given'),
        (["--preset", "tiny-style", "--base", "mine"], 'is for the base model "tiny", but "mine" was given; use style'),
        (["--preset", "nope.toml"], "nope.toml does not exist"),
        (["--trigger", "a,b"], "data.trigger"),
        (['lora.targets=["atn"]'], 'did you mean "attn"?'),
        (["model.dtype=float16", "model.device=cpu"], "model.dtype"),
    ],
)
def test_train_refuses_bad_settings(args: list[str], said: str, refused: Refused, image_folder: Path) -> None:
    assert said in refused("train", image_folder, *args)


def test_another_trainers_name_in_place_of_the_folder_is_answered(refused: Refused) -> None:
    assert "here it is lora.rank: write lora.rank=32" in refused("train", "network_dim=32")


def test_import_config_names_what_it_cannot_read(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "flux.toml").write_text('network_module = "networks.lora_flux"\n')
    assert "only configs for Stable Diffusion 1, 2 and XL" in refused("import-config", tmp_path / "flux.toml")
    (tmp_path / "broken.toml").write_text("learning_rate = 0,0001\n")
    assert "line 1 has a decimal comma; write 0.0001" in refused("import-config", tmp_path / "broken.toml")


def test_train_refuses_what_is_no_base(refused: Refused, image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    assert "no model_index.json" in refused("train", image_folder, "--base", tmp_path / "base")
    assert "does not exist" in refused("train", image_folder, "--base", "/no/such/base")
    (tmp_path / "base" / "model_index.json").write_text('{"_class_name": "SanaPipeline"}')
    assert "is a SanaPipeline" in refused("train", image_folder, "--base", tmp_path / "base")
    (tmp_path / "base" / "model_index.json").write_text("{")
    assert "model_index.json" in refused("train", image_folder, "--base", tmp_path / "base")
    (tmp_path / "base" / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    assert "cannot be loaded" in refused("train", image_folder, "--base", tmp_path / "base")


def test_train_refuses_an_output_folder_that_exists(refused: Refused, image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert "out exists" in refused("train", image_folder, "--base", "tiny", "--out", "out")


@pytest.mark.slow
def test_train_makes_the_run_folder_and_says_what_next(
    cli: Cli, image_folder: Path, random_sd_folder: Path, tmp_path: Path
) -> None:
    answer = cli("train", image_folder, "training.steps=2", *QUICK, "--base", random_sd_folder, "--trigger", "zwq")
    assert answer.code == 0, answer
    run = tmp_path / "runs" / "images"
    assert Adapter.load(run / "adapter.safetensors").trigger == "zwq"
    for said in ("step 2/2", "runs/images/adapter.safetensors", "images/loss.png", "sd-lora preview", "load_lora_"):
        assert said in answer.out
    assert re.search(r"^about \d+ s for 2 steps, samples not counted$", answer.out, re.MULTILINE)
    assert "processes" not in answer.out
    assert "one image only" not in answer.err


@pytest.mark.slow
def test_a_run_is_repeated_and_trained_further_by_the_commands_that_are_named(
    cli: Cli, refused: Refused, image_folder: Path, random_sd_folder: Path, tmp_path: Path
) -> None:
    quick = (*QUICK, "training.steps=1", "--base", random_sd_folder, "--out", "my run")
    assert cli("train", image_folder, *quick, "lora.variant=dora").code == 0
    assert cli("train", "--preset", "my run/config.toml", "--out", "again").code == 0
    first, again = (load_file(tmp_path / run / "adapter.safetensors") for run in ("my run", "again"))
    assert all(torch.equal(first[key], again[key]) for key in first)

    said = refused("resume", "my run", "training.steps=2")
    assert "a run's settings are fixed, but training.steps=2 was given for my run" in said
    _, _, command = said.partition("to train its adapter further: ")
    answer = cli("resume", "my run")
    assert (answer.code, answer.out.startswith("my run is finished")) == (0, True)
    assert "all its steps are done, so more are another run; to train its adapter further: " in said
    assert "steps are done" not in answer.out
    assert " training.steps=1 " in command  # beside the one that is trained already
    assert command.replace(" training.steps=1", "") in answer.out
    assert cli(*shlex.split(command)[1:]).code == 0
    assert (tmp_path / "NEW" / "log.jsonl").read_text("utf-8").count("\n") == 1


def test_settings_given_to_a_run_that_is_not_finished_are_refused(cli: Cli, refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").write_text('[data]\nfolder = "images"\n', "utf-8")
    assert "leave that out to resume it as it is" in refused("resume", "run", "lora.rank=2")
    assert "or end it with --finish; either adapter can be trained further" in refused(
        "resume", "run", "training.steps=2"
    )


@pytest.mark.parametrize("args", [(), ("--preset", "tiny-style"), ("training.steps=2",)])
@pytest.mark.parametrize("command", ["train", "plan", "check"])
def test_images_must_be_given(command: str, args: tuple[str, ...], refused: Refused) -> None:
    assert "no images are given" in refused(command, *args)


@pytest.mark.parametrize("command", ["train", "plan", "check"])
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("training.average=ema", "optimizer.name=schedule-free"), "which averages already"),
        (("lora.variant=dora", "optimizer.max_norm=1"), "max_norm cannot act on lora.variant=dora"),
        (("optimizer.name=adamw8bit",), "adamw8bit needs a CUDA device"),
    ],
)
def test_settings_that_cannot_act_are_refused(
    command: str, settings: tuple[str, ...], words: str, refused: Refused, image_folder: Path
) -> None:
    assert words in refused(command, image_folder, *settings, *QUICK)


def test_a_second_ctrl_c_says_how_to_go_on(
    cli: Cli, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(run: Any, **_: object) -> None:
        RunFolder(run.path).create(run.config)
        raise KeyboardInterrupt

    monkeypatch.setattr("sd_lora.training.run.run_training", interrupted)
    answer = cli("train", image_folder, "training.steps=2", *QUICK, "--out", "my run")
    assert answer.code == 130
    assert answer.err == "stopped without saving the last steps; resume with: sd-lora resume 'my run'\n"


def test_a_run_that_goes_on_says_where(cli: Cli, image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def untrained(run: Any, **_: object) -> None:
        if not run.resumed:
            RunFolder(run.path).create(run.config)

    monkeypatch.setattr("sd_lora.training.run.run_training", untrained)
    monkeypatch.setattr("sd_lora.commands.train.print_run", lambda *_: None)
    begun, resumed = cli("train", image_folder, "training.steps=2", *QUICK, "--out", "run"), cli("resume", "run")
    assert (begun.code, resumed.code) == (0, 0)
    assert "starting over" not in begun.out
    assert resumed.out.endswith("starting over\n")


def test_the_help_of_train_names_defaults_and_the_list_of_settings(cli: Cli) -> None:
    said = cli("train", "--help").out
    assert "runs/FOLDER" in said
    assert "sd-lora presets show tiny-style --all" in said


@pytest.mark.slow
def test_a_single_image_trains_with_a_warning(cli: Cli, captioned: Any, random_sd_folder: Path, tmp_path: Path) -> None:
    folder = captioned("one", count=1)
    answer = cli("train", folder, "training.steps=2", *QUICK, "--base", random_sd_folder, "--out", "out")
    assert answer.code == 0, answer
    assert "warning: set-small: one image only" in answer.err
    assert (tmp_path / "out" / "adapter.safetensors").is_file()


@pytest.mark.parametrize("name", ["žluté fotky", 'the "best" ones', "back\\slash", "🎨 art"])
def test_folders_of_any_name_are_found(name: str, refused: Refused, captioned: Any) -> None:
    """Nothing is trained: the next problem is reported only if the folder itself was understood."""
    folder = captioned(name, count=1)
    (folder / "00.txt").unlink()
    assert "has no caption: 00.png; give a trigger word" in refused("train", folder, "--base", "tiny")


# ---- preview


@pytest.mark.slow
def test_preview_writes_a_sheet(cli: Cli, adapter_file: Path, random_sd_folder: Path, tmp_path: Path) -> None:
    prompts = ("--prompt", "a red boat, in zwq style", "--prompt", "a cup")
    answer = cli("preview", adapter_file, *prompts, "--strengths", "0.5", "--seed", 3, "--base", random_sd_folder)
    assert answer.code == 0, answer
    assert "wrote sheet.png" in answer.out
    assert 'the trigger word "zwq" is not in the prompt' in answer.err
    with Image.open(tmp_path / "sheet.png") as sheet:
        recipe = json.loads(sheet.text["sd_lora"])
    assert recipe["strengths"] == [0, 0.5]
    assert recipe["seed"] == 3


def test_preview_reads_prompts_with_options_and_from_a_file(
    cli: Cli, adapter_file: Path, random_sd_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "prompts.txt").write_text("# mine\na ((red)) boat, zwq --w 64 --h 72 --d 5\n")
    given = ("--prompts", "prompts.txt", "--prompt", "a cup, zwq --s 1 --n dark --ss ddim", "--strengths", "0")
    answer = cli("preview", adapter_file, *given, "--base", random_sd_folder, "preview.inference_steps=1")
    assert answer.code == 0, answer
    assert "((red)) is drawn as written; set data.syntax=read" in answer.err
    assert "note: --ss is left out, as samples are drawn with the base model's own scheduler\n" in answer.err
    with Image.open(tmp_path / "sheet.png") as sheet:
        recipe = json.loads(sheet.text["sd_lora"])
    assert recipe["prompts"] == ["a cup, zwq --n dark --s 1", "a ((red)) boat, zwq --w 64 --h 72 --d 5"]
    answer = cli(
        "preview", adapter_file, *given, "--base", random_sd_folder, "preview.inference_steps=1", "data.syntax=read"
    )
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert json.loads(sheet.text["sd_lora"])["prompts"][1] == "a red boat, zwq --w 64 --h 72 --d 5"


def test_preview_needs_a_prompt(refused: Refused, adapter_file: Path, random_sd_folder: Path) -> None:
    given = ("preview", adapter_file, "--base", random_sd_folder)
    assert "no prompt was given" in refused(*given)
    assert "file of prompts gone.txt cannot be read" in refused(*given, "--prompts", "gone.txt")
    assert "no prompt has syntax to read" in refused(*given, "--prompt", "a cup", "data.syntax=read")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--prompt", "a cup --ar 3"], "has the option --ar, which is not read"),
        (["--strengths", "nan"], "strength"),
        (["--strengths", "0,inf"], "strength"),
        (["--strengths", ",".join(["nan", *(str(i / 10) for i in range(40))])], "strength"),
        (["--strengths", "half"], "0, 0.5, 1"),
        (["--strengths", ""], "0, 0.5, 1"),
        (["--prompt", " "], "prompt"),
        (["--out", "no/such/folder/sheet.png"], "a folder that exists"),
        (["--out", "."], "cannot be written"),
        (["--guidance", "inf"], "guidance"),
        (["--seed", str(2**64)], "seed"),
    ],
)
def test_preview_refuses_bad_settings(
    args: list[str], said: str, refused: Refused, adapter_file: Path, random_sd_folder: Path
) -> None:
    assert said in refused("preview", adapter_file, "--prompt", "a cup, zwq", "--base", random_sd_folder, *args)


def widened(tensors: Tensors) -> Tensors:
    return {k: torch.cat([t, t], dim=1) if k.endswith("lora_down.weight") else t for k, t in tensors.items()}


def test_preview_refuses_an_adapter_of_another_base(
    refused: Refused, adapter_file: Path, random_sd_folder: Path
) -> None:
    error = refused("preview", rewrite(adapter_file, widened), "--prompt", "a cup", "--base", random_sd_folder)
    assert "another shape" in error
    assert "random-sd" in error
    assert "does not fit" in refused("preview", adapter_file, "--prompt", "a cup", "--base", "tiny")
    assert "name the base" in refused("preview", adapter_file, "--prompt", "a cup")


def without_half(tensors: Tensors) -> Tensors:
    modules = sorted({key.partition(".")[0] for key in tensors})
    return {k: t for k, t in tensors.items() if k.partition(".")[0] in modules[::2]}


def without_ups(tensors: Tensors) -> Tensors:
    return {k: t for k, t in tensors.items() if "lora_up" not in k}


def with_nan(tensors: Tensors) -> Tensors:
    tensors[sorted(tensors)[-1]].view(-1)[0] = float("nan")
    return tensors


DAMAGES = [(without_half, "are missing"), (without_ups, "has no up"), (with_nan, "NaN or infinite")]


@pytest.mark.parametrize(("change", "said"), DAMAGES)
@pytest.mark.parametrize("command", ["preview", "inspect"])
def test_damaged_adapters_are_refused(
    command: str, change: Any, said: str, refused: Refused, adapter_file: Path, random_sd_folder: Path
) -> None:
    options = ("--prompt", "a cup", "--base", random_sd_folder) if command == "preview" else ()
    assert said in refused(command, rewrite(adapter_file, change), *options)


@pytest.mark.parametrize("command", ["preview", "inspect"])
def test_a_renamed_pickle_is_never_loaded(command: str, refused: Refused, tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "evil.safetensors")
    options = ("--prompt", "a cup") if command == "preview" else ()
    assert "not a safetensors file" in refused(command, "evil.safetensors", *options)
    assert "cannot be read" in refused(command, "none.safetensors", *options)


# ---- the rest


def test_demo_refuses_an_unknown_style_and_a_folder_that_exists(refused: Refused, tmp_path: Path) -> None:
    assert 'did you mean "woodcut"' in refused("demo", "--style", "woodcat", "--out", "d")
    (tmp_path / "d").mkdir()
    assert "d exists" in refused("demo", "--out", "d")


def test_a_bug_keeps_its_traceback(cli: Cli, monkeypatch: pytest.MonkeyPatch, adapter_file: Path) -> None:
    def broken(path: Path) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr("sd_lora.tools.inspect.inspect_adapter", broken)
    monkeypatch.setattr(sys, "argv", ["sd-lora", "inspect", str(adapter_file)])
    with pytest.raises(KeyError, match="a bug"):
        main()


def test_with_json_a_usage_error_is_a_document_too(cli: Cli) -> None:
    answer = cli("plan", "pics", "--json", "--bogus")
    assert answer.code == 2
    assert json.loads(answer.out)["error"].startswith("no such option: --bogus")


def test_of_several_processes_the_first_speaks(cli: Cli, image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sd_lora.commands.main._GRACE", 0.0)
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("WORLD_SIZE", "2")
    try:
        for number, said in ((0, ("looked", "error: nowhere")), (1, ("", "error: process 1: nowhere"))):
            monkeypatch.setenv("RANK", str(number))
            assert bool(cli("presets").out) == bool(said[0])
            answer = cli("resume", "nowhere")
            assert (answer.code, answer.out) == (2, "")
            assert answer.err.startswith(said[1])
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_signal_that_stops_all_processes_is_told_by_the_first(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> None:
        raise RunInterrupted("stopped after step 3", 15)

    monkeypatch.setattr("sd_lora.tools.inspect.inspect_adapter", stopped)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for number, said in ((0, "stopped after step 3\n"), (1, "")):
        monkeypatch.setenv("RANK", str(number))
        assert cli("inspect", "a.safetensors") == Answer(143, "", said)


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (None, []),
        ("1", []),
        ("2", ["2 processes, 4 images each"]),
        ("8", ["8 processes, 1 image each"]),
        ("3", ["3 processes"]),
    ],
)
def test_the_plan_says_how_many_processes_share_the_run(
    count: str | None, said: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if count:
        monkeypatch.setenv("WORLD_SIZE", count)
    facts = {"reasons": [], "batch_size": 8, "seconds": 80.0, "steps": 40}
    monkeypatch.setattr("sd_lora.commands.console.plan_of", lambda _: facts)
    monkeypatch.setattr("sd_lora.commands.console.summary", lambda _: "photos")
    run: Any = SimpleNamespace(resumed_from=10)
    print_plan(run)
    _, *lines, last = capsys.readouterr().out.splitlines()
    assert lines == said
    assert last.startswith("about 60 s for 30 steps")


# ---- the real thing


def process(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sd_lora", *args]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_the_module_is_the_command(tmp_path: Path) -> None:
    done = process("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, f"sd-lora {__version__}")


CTRL_C = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(1)"
COMMAND = """
import typer
from sd_lora.commands.main import run

app = typer.Typer()

@app.command()
def go():
    import slow
    print("went on")

run(app)
"""


def test_ctrl_c_while_the_command_line_is_imported(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text(CTRL_C, "utf-8")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "sd_lora", "--version"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_ctrl_c_while_a_command_imports_ends_it_at_once(tmp_path: Path) -> None:
    """Even in a module that would not let an exception through, as compiled ones do not."""
    (tmp_path / "slow.py").write_text(f"try:\n    {CTRL_C}\nexcept BaseException:\n    pass\n", "utf-8")
    command = [sys.executable, "-c", COMMAND]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.slow
def test_an_error_in_a_real_process(tmp_path: Path) -> None:
    done = process("train", "nowhere", "lora.rank=0", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: lora.rank ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
