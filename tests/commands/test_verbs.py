"""Each verb of the table has help in plain English, a line in the README, a mention in docs/, and runs once here."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
from rows import every_row
from small_captioners import write_captioner
from small_runs import write_images
from typer.testing import CliRunner

from sd_lora.commands.app import VERBS, app
from sd_lora.tinybase.folder import demo_scenes

ROOT = Path(__file__).parents[2]
QUICK = (
    "training.steps=1 training.batch_size=2 lora.rank=2 lora.targets=attn model.device=cpu preview.inference_steps=1"
)
#: verb → its arguments, and something it prints; words in capitals are paths
RUNS = {
    "demo": (
        "--out OUT training.steps=1 training.batch_size=1 preview.inference_steps=1 preview.strengths=1",
        "strength sheet",
    ),
    "train": (f"PHOTOS --base BASE --trigger zwq --out OUT {QUICK}", "Next: sd-lora preview"),
    "resume": ("RUN", "is finished"),
    "plan": (f"PHOTOS --base BASE {QUICK}", "1 steps of 2 images"),
    "presets": ("show tiny-style --all", "[training]"),
    "import-config": ("OTHER.toml --out NEW.toml", "Next: sd-lora train FOLDER --preset NEW.toml --base BASE"),
    "check": (f"PHOTOS --base BASE {QUICK}", "plan for base model"),
    "caption": ("BARE --model CAPTIONER --device cpu", "wrote 3 captions"),
    "preview": ("ADAPTER --prompt zwq --base BASE --out SHEET.png preview.inference_steps=1", "wrote SHEET.png"),
    "webui": ("--base BASE --runs RUNS --port 0", "page of BASE"),
    "evaluate": ("ADAPTER --base BASE --references STYLE --steps 1 --guidance 1", "4 references (STYLE)"),
    "select": ("CHOSEN --references STYLE --strengths 1", "chosen: step 1 at 1"),
    "calibrate": ("--base BASE --pictures 48 --steps 1 --guidance 1", "BASE is calibrated by 48 of its pictures"),
    "inspect": ("ADAPTER", "zwq"),
    "verify": ("ADAPTER --base BASE", "loads completely"),
    "convert": ("ADAPTER --layout diffusers --out NEW.safetensors", "rank 2, diffusers keys"),
    "merge": ("ADAPTER ADAPTER --weights 1,0.5 --out NEW.safetensors", "rank 4, kohya keys"),
    "resize": ("ADAPTER --rank 1 --out NEW.safetensors", "error of the entire change"),
    "fuse": ("ADAPTER --base BASE --out NEW", "wrote NEW"),
    "completion": ("bash", "complete -o default -F _sd_lora sd-lora"),
    "extract": ("--base BASE --tuned TUNED --rank 1 --targets attn --out NEW.safetensors", "modules, rank 1"),
}
STILTED = re.compile(r"\b(told|tells?|lies?|lay|anew|afresh|wholly|thereof|whence|hence|beforehand|goes?|going) ")


def invoke(verb: str, arguments: str) -> str:
    done = CliRunner().invoke(app, [verb, *arguments.split()], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, random_sd_folder: Path) -> Path:
    """The paths that `RUNS` names: images, a base model and a tuned one, a finished run, its adapter, a captioner."""
    folder = tmp_path_factory.mktemp("verbs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_images(folder / "PHOTOS")
        for caption in write_images(folder / "BARE").glob("*.txt"):
            caption.unlink()
        write_captioner("blip", folder / "CAPTIONER")
        (folder / "OTHER.toml").write_text("network_dim = 32\nmax_train_steps = 800\n")
        (folder / "BASE").symlink_to(random_sd_folder)
        invoke("train", f"PHOTOS --base BASE --trigger zwq --out RUN optimizer.learning_rate=0.1 {QUICK}")
        (folder / "ADAPTER").symlink_to("RUN/adapter.safetensors")
        shutil.copytree(folder / "RUN", folder / "CHOSEN")
        write_images(folder / "STYLE", 4)
        invoke("calibrate", RUNS["calibrate"][0])
        invoke("fuse", "ADAPTER --base BASE --out TUNED --dtype float32")
    return folder


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_runs(verb: str, stage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in stage.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sd_lora.commands.demo.STRENGTHS", (1.0,))
    monkeypatch.setattr("sd_lora.evaluation.tiny_measures.unseen_scenes", lambda *_, **__: demo_scenes(1))
    monkeypatch.setattr("sd_lora.evaluation.tiny_measures.measure_style", lambda *_, **__: [])
    monkeypatch.setattr("sd_lora.webui.app.end_at_signals", lambda _: None)
    monkeypatch.setattr("sd_lora.webui.app.launch", lambda site, **_: print("page of", site.base))
    arguments, answer = RUNS[verb]
    assert answer in invoke(verb, arguments)


@every_row("verb", VERBS)
def test_each_verb_says_in_one_plain_sentence_what_it_does(verb: str) -> None:
    command: Any = typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined]
    summary, *_ = (command.help or "").split("\n\n")
    assert re.fullmatch(r"[A-Z][a-z]+,? [^.!?]+\.", summary), f"{verb}: {summary!r} is no single sentence"
    for text in (command.help, *(parameter.help for parameter in command.params)):
        assert text, f"a parameter of {verb} has no help"
        assert not STILTED.search(text), text


@every_row("verb", VERBS)
def test_each_verb_is_in_the_readme_and_in_the_docs(verb: str) -> None:
    readme = "".join(re.findall(r"^```\w*\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.M | re.S))
    assert re.search(rf"sd-lora {verb}\b", readme), f"no code block of the README has `sd-lora {verb}`"
    docs = "".join(page.read_text("utf-8") for page in (ROOT / "docs").glob("*.md"))
    assert f"sd-lora {verb}" in docs, f"no page in docs/ has `sd-lora {verb}`"


def test_the_help_lists_each_verb_in_its_group() -> None:
    text = invoke("--help", "")
    for verb, (_, group) in VERBS.items():
        assert f"─ {group} ─" in text
        assert re.search(rf"^│ {verb} ", text, re.MULTILINE)


def test_train_prints_what_happens_as_lines_of_json(stage: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(stage)
    out = tmp_path / "out"
    settings = QUICK.replace("training.steps=1", "training.steps=2")
    lines = invoke("train", f"PHOTOS --base BASE --trigger zwq --out {out} --json {settings}").splitlines()
    events = [json.loads(line) for line in lines if line.startswith("{")]
    assert len(events) == len([line for line in lines if not line.startswith("warning:")])
    kinds = [event["event"] for event in events]
    assert kinds[0] == "plan"
    assert kinds[-3:] == ["step", "step", "finished"]
    assert set(kinds) <= {"plan", "warning", "encoding", "step", "finished"}
    plan, step, finished = events[0], events[-2], events[-1]
    assert (plan["steps"], plan["folder"]) == (2, str(out))
    assert (step["step"], step["steps"]) == (2, 2)
    assert step["loss"] > 0
    assert Path(finished["adapter"]).is_file()


def test_preview_prints_its_file_and_recipe_as_json(stage: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(stage)
    sheet = tmp_path / "sheet.png"
    options = f"--base BASE --out {sheet} --strengths 1 --seed 7 --json preview.inference_steps=1"
    answer = json.loads(invoke("preview", f"ADAPTER --prompt cat {options}"))
    assert answer["file"] == str(sheet)
    assert sheet.is_file()
    assert (answer["recipe"]["seed"], answer["recipe"]["strengths"]) == (7, [0.0, 1.0])
    assert answer["notes"] == ['the trigger word "zwq" is not in the prompt; end it with ", in zwq style"']
