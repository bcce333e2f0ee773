"""The tools on adapter files: identities that must hold, and inputs that must be refused with nothing written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_bases import UNET_KINDS
from typer.testing import CliRunner

import sd_lora
from sd_lora.adapters.adapter import Adapter
from sd_lora.adapters.file import read_adapter
from sd_lora.commands import app as cli
from sd_lora.commands.app import app
from sd_lora.config.schema import ModelConfig
from sd_lora.lora.targets import plan_targets
from sd_lora.lora.weights import Weights
from sd_lora.tools.convert import convert_adapter
from sd_lora.tools.extract import extract_adapter
from sd_lora.tools.fuse import fuse_adapter
from sd_lora.tools.merge import merge_adapters
from sd_lora.tools.resize import resize_adapter

KINDS = ("sd1", "sd2v", "sdxl")
Make = Callable[..., Path]


@pytest.fixture(params=[KINDS[0], *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[1:])])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def make_in(bases: dict[str, Path]) -> Callable[[Path], Make]:
    """A factory of factories of adapter files that do something: `make_in(folder)(kind, name, targets, seed=, …)`."""
    loaded = {kind: sd_lora.load_base(bases[kind]) for kind in UNET_KINDS}

    def factory(folder: Path) -> Make:
        def write(
            kind: str, name: str = "a", targets: str = "attn,conv,text", *, seed: int = 0, rank: int = 4,
            alpha: float = 2.0, dtype: str = "float32", variant: str = "lora",
        ) -> Path:  # fmt: skip
            pipe, family = loaded[kind]
            parts = {part: getattr(pipe, part) for part in (family.denoiser, *family.text_encoders)}
            plan = plan_targets(parts, family.target_groups, targets.split(","), (rank, alpha))
            marks = {
                **family.kind(pipe).marks, "sdlora.family": family.name, "sdlora.base": "somewhere",
                "sdlora.trigger": f"{name}word", "modelspec.trigger_phrase": f"in {name}word style",
                "ss_output_name": name,
            }  # fmt: skip
            adapter = Adapter.create(plan, marks, seed=seed, variant=variant)
            generator = torch.Generator().manual_seed(seed)
            with torch.no_grad():
                for layer in adapter._layers.values():
                    layer.up.weight.normal_(0, 0.05, generator=generator)
            return adapter.save(folder / f"{name}.safetensors", dtype=dtype)

        return write

    return factory


@pytest.fixture
def make(make_in: Callable[[Path], Make], tmp_path: Path) -> Make:
    return make_in(tmp_path)


def change(w: Weights) -> torch.Tensor:
    return (w.alpha / w.rank) * w.tensors["up"].flatten(1).double() @ w.tensors["down"].flatten(1).double()


def worst(first: Path, second: Path) -> float:
    """The largest relative difference of two files' changes, module by module."""
    one, two = read_adapter(first)[0], read_adapter(second)[0]
    assert set(one) == set(two)
    return max(float((change(two[n]) - change(w)).norm() / change(w).norm()) for n, w in one.items())


def same_tensors(first: Path, second: Path) -> bool:
    one, two = load_file(first), load_file(second)
    return set(one) == set(two) and all(torch.equal(tensor, two[key]) for key, tensor in one.items())


def history(path: Path) -> list[dict[str, Any]]:
    return json.loads(read_adapter(path)[1]["sdlora.history"])


# ---- convert


@pytest.mark.parametrize("variant", ["lora", "dora"])
def test_convert_there_and_back_is_the_identity(kind: str, make: Make, tmp_path: Path, variant: str) -> None:
    start = make(kind, alpha=4.0, rank=4, variant=variant)
    there = convert_adapter(start, tmp_path / "there.safetensors", layout="diffusers", dtype="float32")
    assert all(".lora_" in key for key in load_file(there))
    back = convert_adapter(there, tmp_path / "back.safetensors", dtype="float32")
    assert same_tensors(start, back)
    assert [entry["tool"] for entry in history(back)] == ["convert", "convert"]


def test_convert_keeps_the_change_where_alpha_is_not_the_rank(kind: str, make: Make, tmp_path: Path) -> None:
    start = make(kind, alpha=3.0, rank=4)
    there = convert_adapter(start, tmp_path / "there.safetensors", layout="diffusers", dtype="float32")
    back = convert_adapter(there, tmp_path / "back.safetensors", dtype="float32")
    assert max(worst(start, there), worst(start, back)) < 1e-6
    marks = family_marks(read_adapter(start)[1])
    assert family_marks(read_adapter(back)[1]) == marks
    assert read_adapter(back)[1]["sdlora.trigger"] == "aword"


def family_marks(metadata: dict[str, str]) -> tuple[str, ...]:
    return tuple(metadata[field] for field in ("ss_base_model_version", "ss_v2", "modelspec.architecture"))


def test_convert_asks_for_the_kind_where_nothing_tells_it(make: Make, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    bare = tmp_path / "bare.safetensors"
    keys = {key: tensor for key, tensor in load_file(make("sd1", targets="ff")).items() if "mid_block" in key}
    save_file(keys, bare)
    with pytest.raises(sd_lora.AdapterError, match=r"does not say which base it is for; say so with --kind sd1\|sd2"):
        convert_adapter(bare, tmp_path / "out.safetensors")
    done = convert_adapter(bare, tmp_path / "out.safetensors", kind="sd2-v", dtype="float32")
    assert read_adapter(done)[1]["ss_base_model_version"] == "sd_v2_v"


# ---- merge


def test_merging_one_adapter_gives_it_back(kind: str, make: Make, tmp_path: Path) -> None:
    start = make(kind)
    assert same_tensors(start, merge_adapters([start], tmp_path / "m.safetensors", weights=[1], dtype="float32"))


@pytest.mark.parametrize("method", ["concat", "svd"])
def test_a_merge_is_the_weighted_sum(kind: str, make: Make, tmp_path: Path, method: str) -> None:
    """Modules that only one of them has are kept."""
    one, two = make(kind, "a", "attn,text", alpha=2.0), make(kind, "b", "attn,conv", seed=1, rank=3, alpha=5.0)
    rank = 7 if method == "svd" else 0
    out = tmp_path / "m.safetensors"
    merged, _ = read_adapter(
        merge_adapters([one, two], out, weights=[0.5, -2], method=method, rank=rank, dtype="float32")
    )
    first, second = read_adapter(one)[0], read_adapter(two)[0]
    assert set(merged) == set(first) | set(second)
    for name, w in merged.items():
        parts = [(0.5, first.get(name)), (-2.0, second.get(name))]
        expected = sum(factor * change(part) for factor, part in parts if part is not None)
        assert float((change(w) - expected).norm() / expected.norm()) < 1e-5
        assert w.rank <= 7
    assert read_adapter(out)[1]["modelspec.trigger_phrase"] == "in aword style, in bword style"
    assert [item["name"] for item in history(out)[0]["inputs"]] == ["a.safetensors", "b.safetensors"]


def test_svd_to_a_lower_rank_is_the_best_of_that_rank(make: Make, tmp_path: Path) -> None:
    one, two = make("sd1", "a", "attn"), make("sd1", "b", "attn", seed=1)
    merged, _ = read_adapter(
        merge_adapters([one, two], tmp_path / "m.safetensors", method="svd", rank=2, dtype="float32")
    )
    first, second = read_adapter(one)[0], read_adapter(two)[0]
    for name, w in merged.items():
        whole = change(first[name]) + change(second[name])
        u, values, v = torch.linalg.svd(whole, full_matrices=False)
        torch.testing.assert_close(change(w), u[:, :2] * values[:2] @ v[:2], rtol=0, atol=1e-6)


# ---- resize


def test_resize_at_full_energy_is_the_same_adapter(kind: str, make: Make, tmp_path: Path) -> None:
    start = make(kind)
    report = resize_adapter(start, tmp_path / "r.safetensors", energy=1.0, dtype="float32")
    assert worst(start, tmp_path / "r.safetensors") <= 1e-6
    assert report.error <= 1e-6


def test_resize_keeps_the_energy_and_says_what_it_lost(make: Make, tmp_path: Path) -> None:
    start = make("sd1", rank=8)
    report = resize_adapter(start, tmp_path / "r.safetensors", energy=0.95, dtype="float32")
    before, after = read_adapter(start)[0], read_adapter(tmp_path / "r.safetensors")[0]
    assert {module.name for module in report.modules} == set(before)
    assert report.bytes < report.bytes_before
    for module in report.modules:
        w, now = before[module.name], after[module.name]
        error = float((change(now) - change(w)).norm() / change(w).norm())
        assert module.error == pytest.approx(error, abs=1e-5)
        assert error**2 <= 0.05 + 1e-6
        values = torch.linalg.svdvals(change(w)).square()
        assert values[: module.rank - 1].sum() < 0.95 * values.sum()  # one rank less would not do
        assert (now.rank, w.rank) == (module.rank, module.before)


def test_resize_to_a_rank(make: Make, tmp_path: Path) -> None:
    resize_adapter(make("sdxl"), tmp_path / "r.safetensors", rank=2)
    weights, metadata = read_adapter(tmp_path / "r.safetensors")
    assert {w.rank for w in weights.values()} == {2}
    assert len({w.alpha for w in weights.values()}) == 1
    assert metadata["ss_network_dim"] == "2"


# ---- fuse and extract


def state(folder: Path) -> dict[str, torch.Tensor]:
    pipe, family = sd_lora.load_base(folder)
    parts = (family.denoiser, *family.text_encoders)
    return {f"{part}.{k}": v for part in parts for k, v in getattr(pipe, part).state_dict().items()}


def draw(pipe: Any) -> torch.Tensor:
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    pipe.set_progress_bar_config(disable=True)
    pictures = pipe("a boat", latents=latents, height=64, width=64, num_inference_steps=2, output_type="np").images
    return torch.from_numpy(pictures)


@pytest.mark.slow
def test_a_fused_base_draws_what_the_injected_adapter_draws(
    kind: str, make: Make, bases: dict[str, Path], tmp_path: Path
) -> None:
    from diffusers import DiffusionPipeline

    start = make(kind)
    folder = fuse_adapter(start, ModelConfig(base=str(bases[kind])), tmp_path / "fused", strength=0.7, dtype="float32")
    pipe, _ = sd_lora.load_base(bases[kind])
    base = draw(pipe)
    with Adapter.load(start).injected(pipe, 0.7):
        expected = draw(pipe)
    assert (expected - base).abs().max() > 1e-2
    torch.testing.assert_close(draw(DiffusionPipeline.from_pretrained(folder)), expected, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_a_fused_folder_in_float16_runs_when_loaded_plainly(make: Make, bases: dict[str, Path], tmp_path: Path) -> None:
    from diffusers import DiffusionPipeline

    folder = fuse_adapter(make("sd1"), ModelConfig(base=str(bases["sd1"])), tmp_path / "fused")
    assert {t.dtype for t in load_file(folder / "unet/diffusion_pytorch_model.safetensors").values()} == {torch.float16}
    assert draw(DiffusionPipeline.from_pretrained(folder)).isfinite().all()
    assert json.loads((folder / "sd_lora.json").read_text())[0]["tool"] == "fuse"


@pytest.mark.slow
def test_a_fused_checkpoint_file_holds_the_same_weights(
    kind: str, make: Make, bases: dict[str, Path], tmp_path: Path
) -> None:
    start, model = make(kind), ModelConfig(base=str(bases[kind]))
    folder = fuse_adapter(start, model, tmp_path / "fused", dtype="float32")
    file = fuse_adapter(start, model, tmp_path / "fused.safetensors", dtype="float32")
    predicts = "v_prediction" if kind == "sd2v" else "epsilon"
    pipe, family = sd_lora.load_base(file, config=folder, prediction_type=predicts)
    expected = state(folder)
    for part in (family.denoiser, *family.text_encoders):
        for key, tensor in getattr(pipe, part).state_dict().items():
            assert torch.equal(tensor, expected[f"{part}.{key}"]), key


def test_what_is_written_may_be_read_by_others_as_any_new_file(
    make: Make, bases: dict[str, Path], tmp_path: Path
) -> None:
    start, model = make("sd1"), ModelConfig(base=str(bases["sd1"]))
    (tmp_path / "new").write_text("")
    folder, file = (
        fuse_adapter(start, model, tmp_path / "fused"),
        fuse_adapter(start, model, tmp_path / "f.safetensors"),
    )
    written = [start, file, *(path for path in folder.rglob("*") if path.is_file())]
    assert {path.stat().st_mode for path in written} == {(tmp_path / "new").stat().st_mode}


@pytest.mark.slow
def test_extract_gives_a_fused_adapter_back(kind: str, make: Make, bases: dict[str, Path], tmp_path: Path) -> None:
    start, base = make(kind, targets="attn,ff,proj,conv,text,text_ff"), ModelConfig(base=str(bases[kind]))
    folder = fuse_adapter(start, base, tmp_path / "fused", dtype="float32")
    out = tmp_path / "x.safetensors"
    found = extract_adapter(
        base, ModelConfig(base=str(folder)), out, rank=4, targets=("attn", "ff", "proj", "conv", "text", "text_ff"),
        dtype="float32",
    )  # fmt: skip
    assert worst(start, out) < 1e-4  # the weights themselves are rounded to float32
    assert found.error < 1e-4
    assert found.beyond == ()
    assert read_adapter(out)[1]["ss_base_model_version"] == read_adapter(start)[1]["ss_base_model_version"]
    with Adapter.load(out).injected(sd_lora.load_base(bases[kind])[0]):
        pass


def test_extract_says_what_it_left_out(make: Make, bases: dict[str, Path], tmp_path: Path) -> None:
    base = ModelConfig(base=str(bases["sd1"]))
    folder = fuse_adapter(make("sd1", targets="attn,ff"), base, tmp_path / "fused", dtype="float32")
    out = tmp_path / "x.safetensors"
    options = ["--targets", "attn", "--energy", "0.99", "--out", str(out)]
    run = CliRunner().invoke(app, ["extract", "--base", base.base, "--tuned", str(folder), *options])
    assert run.exit_code == 0, run.output
    assert "warning: " in run.stderr
    assert "ff.net" in run.stderr
    assert all(".to_" in name for name in read_adapter(out)[0])


# ---- what is refused


@pytest.fixture(scope="module")
def stage(
    make_in: Callable[[Path], Make], bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Names that the refusals below are made of; HERE is the folder they lie in."""
    here = tmp_path_factory.mktemp("stage")
    make = make_in(here)
    (here / "pickle.safetensors").write_bytes(b"\x80\x04pickled")
    (here / "taken").mkdir()
    return {
        "A": str(make("sd1")), "B": str(make("sd1", "b", seed=1)), "XL": str(make("sdxl", "xl")),
        "DORA": str(make("sd1", "dora", "attn", variant="dora")), "HERE": str(here),
        "PICKLE": str(here / "pickle.safetensors"), "NONE": str(here / "none.safetensors"),
        "OUT": str(here / "out.safetensors"), "TAKEN": str(here / "taken"), "DIR": str(here / "dir"),
        "BASE": str(bases["sd1"]), "SD2": str(bases["sd2"]), "XLBASE": str(bases["sdxl"]),
        "FAR": str(here / "no/where.safetensors"), "TXT": str(here / "out.txt"),
    }  # fmt: skip


REFUSED = [
    ("verify NONE", "does not exist"),
    ("verify PICKLE", "not a safetensors file"),
    ("verify A --base SD2", "does not fit base model"),
    ("verify A model.config=x", "name one with --base"),
    ("verify A --base BASE lora.rank=3", "has no effect here"),
    ("convert NONE --out OUT", "does not exist"),
    ("convert PICKLE --out OUT", "not a safetensors file"),
    ("convert A --out A", "is an input"),
    ("convert A --out B", "exists; name another file with --out, or add --overwrite"),
    ("convert A --out TXT", "end in .safetensors"),
    ("convert A --out FAR", "does not exist"),
    ("convert A --out OUT --layout ldm", 'no layout "ldm"'),
    ("convert A --out OUT --dtype float8", 'not saved as "float8"'),
    ("convert A --out OUT --kind sdxl", "is for a base of kind sd1, not sdxl"),
    ("convert A --out OUT --kind flux", 'no kind of base "flux"'),
    ("merge A XL --out OUT", "is for a base of kind sdxl and a.safetensors for sd1"),
    ("merge A DORA --out OUT", "holds DoRA"),
    ("merge A B --weights 1 --out OUT", "1 weights were given for 2 adapters"),
    ("merge A B --weights 1,nan --out OUT", "write numbers separated by commas"),
    ("merge A B --weights 1,x --out OUT", "write numbers separated by commas"),
    ("merge A B --method sum --out OUT", 'no method "sum"'),
    ("merge A B --method svd --out OUT", "needs a rank above 0"),
    ("merge A B --rank 4 --out OUT", "concat takes none"),
    ("merge A B --method svd --rank -4 --out OUT", "needs a rank above 0"),
    ("merge A NONE --out OUT", "does not exist"),
    ("merge A B --out A", "is an input"),
    ("resize A --out OUT", "either --rank or --energy"),
    ("resize A --rank 2 --energy 0.5 --out OUT", "either --rank or --energy"),
    ("resize A --rank -2 --out OUT", "a rank is above 0"),
    ("resize A --energy 1.5 --out OUT", "an energy above 0 up to 1"),
    ("resize A --energy nan --out OUT", "an energy above 0 up to 1"),
    ("resize DORA --rank 1 --out OUT", "holds DoRA"),
    ("fuse A --base SD2 --out DIR", "does not fit base model"),
    ("fuse A --base NONE --out DIR", "does not exist|is no"),
    ("fuse A --base BASE --out TAKEN", "exists; name a new one"),
    ("fuse A --base BASE --out TAKEN --overwrite", "exists; name a new one"),
    ("fuse A --base BASE --out DIR --strength nan", "finite number"),
    ("fuse A --base BASE --out DIR --dtype int8", 'not saved as "int8"'),
    ("fuse A --base BASE --out DIR model.config=TAKEN", "has its own configs"),
    ("fuse PICKLE --base BASE --out DIR", "not a safetensors file"),
    ("extract --base BASE --tuned BASE --rank 2 --out OUT", "no module that was asked for differs"),
    ("extract --base BASE --tuned XLBASE --rank 2 --out OUT", "is of the family sdxl"),
    ("extract --base BASE --tuned SD2 --rank 2 --out OUT", "weights' shapes"),
    ("extract --base BASE --tuned BASE --out OUT", "either --rank or --energy"),
    ("extract --base BASE --tuned BASE --rank 2 --targets atn --out OUT", 'target "atn" matches no'),
]


@pytest.mark.parametrize(("command", "words"), REFUSED, ids=[command for command, _ in REFUSED])
def test_bad_input_is_one_sentence_and_leaves_nothing(
    stage: dict[str, str], command: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    here = Path(stage["HERE"])
    before = {path: path.read_bytes() if path.is_file() else b"" for path in here.rglob("*")}
    arguments = [re.sub("^(.+=)TAKEN$", rf"\1{stage['TAKEN']}", stage.get(word, word)) for word in command.split()]
    monkeypatch.setattr("sys.argv", ["sd-lora", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    said = capsys.readouterr().err.strip().splitlines()
    assert stopped.value.code == 2
    assert len(said) == 1
    assert said[0].startswith("error: ")
    assert re.search(words, said[0])
    assert {path: path.read_bytes() if path.is_file() else b"" for path in here.rglob("*")} == before


def test_an_existing_result_is_replaced_when_asked_to(make: Make, tmp_path: Path) -> None:
    start, out = make("sd1"), make("sd1", "b")
    run = CliRunner().invoke(app, ["convert", str(start), "--out", str(out), "--overwrite", "--dtype", "float32"])
    assert run.exit_code == 0, run.output
    assert same_tensors(start, out)


def test_resize_prints_every_module_and_json(make: Make, tmp_path: Path) -> None:
    start = make("sd1", targets="attn")
    command = ["resize", str(start), "--rank", "2", "--out", str(tmp_path / "r.safetensors")]
    shown = CliRunner().invoke(app, command).stdout
    assert shown.count("unet.") == len(read_adapter(start)[0])
    report = json.loads(CliRunner().invoke(app, [*command, "--overwrite", "--json"]).stdout)
    assert {module["rank"] for module in report["modules"]} == {2}
