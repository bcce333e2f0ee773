"""Where a base model lies: here, or on the hub, of which only what is needed is fetched and the cache is enough."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from diffusers import DiffusionPipeline
from huggingface_hub import constants, errors

import sd_lora
from sd_lora.adapters.fit import base_name
from sd_lora.errors import BaseModelError
from sd_lora.models.opening import family_of_pipe, find_base, load_base
from sd_lora.models.sources import variant_of

COMMIT = "0123456789abcdef0123456789abcdef01234567"


# ---- on this machine


def test_tiny_a_folder_and_a_file_are_found(bases: dict[str, Path], tmp_path: Path) -> None:
    assert find_base("tiny").path == sd_lora.tiny_base_path()
    source = find_base(bases["sd1"])
    assert (source.path, source.name, source.is_file) == (bases["sd1"], "random-sd1", False)
    (tmp_path / "my.v2.safetensors").touch()
    source = find_base(str(tmp_path / "my.v2.safetensors"))
    assert (source.path, source.name, source.is_file) == (tmp_path / "my.v2.safetensors", "my.v2", True)


def test_a_path_of_two_parts_that_exists_is_no_hub_model(
    bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(bases["sd1"], tmp_path / "models/mine")
    monkeypatch.chdir(tmp_path)
    source = find_base("models/mine")
    assert (source.path, source.name) == (tmp_path / "models/mine", "mine")
    assert base_name(load_base("models/mine")[0]) == "mine"


@pytest.mark.parametrize("suffix", ["ckpt", "pt", "pth", "bin", "CKPT"])
def test_pickles_are_never_loaded(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"model.{suffix}").touch()
    for name in ("model", "absent"):
        with pytest.raises(BaseModelError, match=rf"\.{suffix} file; pickles .* convert it to \.safetensors"):
            find_base(tmp_path / f"{name}.{suffix}")


@pytest.mark.parametrize("name", ["nowhere", "a/b/c", "./owner/name", "owner/missing.safetensors", "a--b/c", "a/..b"])
def test_what_does_not_exist_is_said_to(name: str) -> None:
    with pytest.raises(BaseModelError, match=r'does not exist; name .*"tiny" for the embedded base'):
        find_base(name)


def test_a_folder_with_one_checkpoint_says_to_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "one.safetensors").touch()
    with pytest.raises(
        BaseModelError, match=rf"has no model_index.json but one checkpoint.*{tmp_path}/one.safetensors"
    ):
        find_base(tmp_path)
    (tmp_path / "two.safetensors").touch()
    with pytest.raises(BaseModelError, match=r"has no model_index\.json; name"):
        find_base(tmp_path)


def test_a_revision_is_for_hub_models(bases: dict[str, Path]) -> None:
    for base in ("tiny", bases["sd1"]):
        with pytest.raises(BaseModelError, match=r'model\.revision is "v1", but base model .* is a local one'):
            find_base(base, "v1")


def test_options_that_can_have_no_effect_are_refused(bases: dict[str, Path]) -> None:
    with pytest.raises(BaseModelError, match=r"model\.config .* has its own configs"):
        load_base(bases["sd1"], config=bases["sd1"])
    with pytest.raises(BaseModelError, match=r'model\.prediction_type is "sample"'):
        load_base(bases["sd1"], prediction_type="sample")


@pytest.mark.parametrize("setting", ["config", "revision"])
def test_that_a_base_does_not_exist_is_said_first(setting: str) -> None:
    with pytest.raises(BaseModelError, match=r'base model "nowhere\.safetensors" does not exist'):
        load_base("nowhere.safetensors", **{setting: "v1"})


def test_a_pipeline_of_a_derived_class_is_of_the_same_family(bases: dict[str, Path]) -> None:
    pipe, family = load_base(bases["sdxl"])
    derived = type("MyPipeline", (type(pipe),), {})
    assert family_of_pipe(derived(**pipe.components)) is family
    with pytest.raises(BaseModelError, match="a dict is of no known family"):
        family_of_pipe({})


@pytest.mark.parametrize("asked", ["auto", "epsilon", "v_prediction"])
def test_the_prediction_type_of_a_folder_can_be_overridden(bases: dict[str, Path], asked: str) -> None:
    pipe, family = load_base(bases["sd2"], prediction_type=asked)
    expected = "epsilon" if asked == "auto" else asked
    assert pipe.scheduler.config.prediction_type == family.objective(pipe).prediction_type == expected


# ---- fp16 variants


def halved(folder: Path, to: Path, **options: Any) -> Path:
    DiffusionPipeline.from_pretrained(folder).to(torch.float16).save_pretrained(to, variant="fp16", **options)
    return to


@pytest.mark.parametrize("options", [{}, {"max_shard_size": "60KB"}], ids=["whole", "shards"])
def test_folders_of_fp16_files_load(bases: dict[str, Path], tmp_path: Path, options: dict[str, Any]) -> None:
    folder = halved(bases["sdxl"], tmp_path / "half", **options)
    assert len(list(folder.glob("unet/*.safetensors"))) > len(options)
    assert variant_of(folder) == "fp16"
    (plain, _), (half, _) = load_base(bases["sdxl"]), load_base(folder)
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        theirs = getattr(half, part).state_dict()
        for name, tensor in getattr(plain, part).state_dict().items():
            assert torch.equal(theirs[name], tensor.half().float()), name


def test_plain_files_are_preferred_where_every_component_has_them(bases: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bases["sd1"], tmp_path / "both"))
    assert variant_of(folder) is None
    halved(bases["sd1"], folder)
    assert variant_of(folder) is None
    (folder / "unet/diffusion_pytorch_model.safetensors").unlink()
    assert variant_of(folder) == "fp16"
    unet = load_base(bases["sd1"])[0].unet.conv_in.weight
    assert torch.equal(load_base(folder)[0].unet.conv_in.weight, unet.half().float())


def test_a_component_without_the_variant_is_loaded_plainly(bases: dict[str, Path], tmp_path: Path) -> None:
    folder = halved(bases["sd1"], tmp_path / "mixed")
    shutil.rmtree(folder / "vae")
    shutil.copytree(bases["sd1"] / "vae", folder / "vae")
    assert variant_of(folder) == "fp16"
    plain, mixed = load_base(bases["sd1"])[0], load_base(folder)[0]
    assert torch.equal(mixed.vae.quant_conv.weight, plain.vae.quant_conv.weight)
    assert torch.equal(mixed.unet.conv_in.weight, plain.unet.conv_in.weight.half().float())


# ---- the hub


def cached(base: Path, cache: Path, repo: str = "owner/name", ref: str = "main") -> Path:
    """The hub's cache with `base` as a model, as its client lays it out: blobs, links to them, and a ref."""
    home = cache / f"models--{repo.replace('/', '--')}"
    snapshot = home / "snapshots" / COMMIT
    for number, file in enumerate(sorted(path for path in base.rglob("*") if path.is_file())):
        blob, link = home / "blobs" / f"{number:040}", snapshot / file.relative_to(base)
        blob.parent.mkdir(parents=True, exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, blob)
        link.symlink_to(blob)
    (home / "refs").mkdir()
    (home / "refs" / ref).write_text(COMMIT)
    return snapshot


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_a_cached_model_loads_offline(bases: dict[str, Path], cache: Path) -> None:
    snapshot = cached(bases["sdxl"], cache)
    source = find_base("owner/name")
    assert (source.path, source.name, source.is_file) == (snapshot, "owner/name", False)
    pipe, family = load_base("owner/name")
    assert family.name == "sdxl"
    assert base_name(pipe) == base_name(load_base(snapshot)[0]) == "owner/name"
    assert torch.equal(pipe.unet.conv_in.weight, load_base(bases["sdxl"])[0].unet.conv_in.weight)


def test_a_cached_revision_loads_offline_and_another_does_not(bases: dict[str, Path], cache: Path) -> None:
    snapshot = cached(bases["sd1"], cache, ref="v1")
    assert find_base("owner/name", "v1").path == find_base("owner/name", COMMIT).path == snapshot
    for revision in ("", "v2"):
        with pytest.raises(BaseModelError, match="not in the local cache, and the hub cannot be reached"):
            find_base("owner/name", revision)


def test_a_part_of_a_model_in_the_cache_is_not_enough(bases: dict[str, Path], cache: Path) -> None:
    snapshot = cached(bases["sd1"], cache)
    (snapshot / "unet/diffusion_pytorch_model.safetensors").unlink()
    shutil.rmtree(snapshot / "tokenizer")
    with pytest.raises(BaseModelError, match="is in the local cache without its unet and tokenizer, and the hub"):
        load_base("owner/name")


def test_offline_and_not_cached_says_what_to_do(cache: Path) -> None:
    with pytest.raises(
        BaseModelError, match=r'"owner/name" is not a folder or file on this machine, .* go online once, or name'
    ) as caught:
        load_base("owner/name")
    assert "\n" not in str(caught.value)


class Hub:
    """A hub with one model, whose files come from `folder`; notes what is asked of it."""

    def __init__(self, folder: Path, snapshot: Path) -> None:
        self.folder, self.snapshot = folder, snapshot
        self.asked: list[tuple[str, str | None, list[str]]] = []

    def snapshot_download(self, repo: str, *, revision: str | None = None, allow_patterns: list[str]) -> str:
        self.asked.append((repo, revision, allow_patterns))
        for name in allow_patterns:
            if (self.folder / name).is_file():
                (self.snapshot / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(self.folder / name, self.snapshot / name)
        return str(self.snapshot)

    def model_info(self, repo: str, revision: str | None = None) -> SimpleNamespace:
        assert (repo, revision) == ("owner/name", COMMIT)
        files = [path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()]
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in files])


@pytest.fixture
def hub(bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    folder = Path(shutil.copytree(bases["sd1"], tmp_path / "repository"))
    for name in (
        "README.md", "v1.ckpt", "v1.safetensors", "unet/diffusion_pytorch_model.bin", "text_encoder/model.onnx",
        "text_encoder/flax_model.msgpack", "unet/diffusion_pytorch_model.non_ema.safetensors", "unet/x.bin.index.json",
        "safety_checker/model.safetensors", "safety_checker/config.json", "vae_1_0/config.json",
    ):  # fmt: skip
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("not wanted")
    hub = Hub(folder, tmp_path / "hub/models--owner--name/snapshots" / COMMIT)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    return hub


def test_only_what_is_needed_is_fetched(hub: Hub, bases: dict[str, Path]) -> None:
    pipe, _ = load_base("owner/name", revision="v1")
    assert torch.equal(pipe.unet.conv_in.weight, load_base(bases["sd1"])[0].unet.conv_in.weight)
    (first, second) = hub.asked
    assert first == ("owner/name", "v1", ["model_index.json"])
    assert second[:2] == ("owner/name", COMMIT)  # the branch may move in between
    wanted = {path.relative_to(bases["sd1"]).as_posix() for path in bases["sd1"].rglob("*") if path.is_file()}
    assert set(second[2]) == wanted
    find_base("owner/name")
    assert hub.asked[2:] == [("owner/name", None, ["model_index.json"])]  # all the rest is there


def test_of_two_variants_one_is_fetched(hub: Hub, bases: dict[str, Path]) -> None:
    halved(bases["sd1"], hub.folder, max_shard_size="60KB")
    find_base("owner/name")
    assert not [name for name in hub.asked[1][2] if "fp16" in name and name.endswith(".safetensors")]
    (hub.folder / "vae/diffusion_pytorch_model.safetensors").unlink()
    shutil.rmtree(hub.snapshot)
    find_base("owner/name")
    weights = [name for name in hub.asked[-1][2] if name.endswith(".safetensors")]
    assert {name.split("/")[0] for name in weights} == {"unet", "vae", "text_encoder"}
    assert len([name for name in weights if name.startswith("unet/")]) > 1
    assert all(".fp16" in name for name in weights)
    assert torch.isfinite(load_base("owner/name")[0].unet.conv_in.weight).all()


def test_a_model_of_another_family_is_refused_before_its_weights_are_fetched(hub: Hub) -> None:
    (hub.folder / "model_index.json").write_text(json.dumps({"_class_name": "SanaPipeline"}))
    with pytest.raises(BaseModelError, match="is a SanaPipeline"):
        find_base("owner/name")
    assert len(hub.asked) == 1


def test_a_repository_that_is_no_pipeline_is_refused(hub: Hub) -> None:
    (hub.folder / "model_index.json").unlink()
    with pytest.raises(BaseModelError, match=r"owner/name of the hub has no model_index.json; download"):
        find_base("owner/name")


def test_a_repository_of_pickles_is_refused(hub: Hub) -> None:
    (hub.folder / "unet/diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(BaseModelError, match=r"no \.safetensors weights or no files for unet; .*pickles"):
        find_base("owner/name")


def failure(kind: type[Exception]) -> Exception:
    error = kind.__new__(kind)
    error.args = ("server said\nmany things",)
    return error


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (errors.GatedRepoError, r"accept its terms; accept them at https://huggingface.co/owner/name and log in"),
        (
            errors.RepositoryNotFoundError,
            "neither a folder or file on this machine nor a public model of the hub; check its spelling",
        ),
        (errors.RevisionNotFoundError, 'has no revision "v1" on the hub; correct model.revision'),
        (errors.LocalEntryNotFoundError, "the hub cannot be reached; go online once"),
        (errors.OfflineModeIsEnabled, "the hub cannot be reached; go online once"),
        (OSError, r'at revision "v1" cannot be fetched from the hub: server said$'),
    ],
)
def test_every_failure_of_the_hub_is_one_sentence(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, kind: type[Exception], words: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise failure(kind)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(BaseModelError, match=words) as caught:
        find_base("owner/name", "v1")
    assert "\n" not in str(caught.value)


def test_nothing_but_a_hub_id_touches_the_network(bases: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for base in ("tiny", bases["sd1"], bases["sdxl"]):
        load_base(base)
    with pytest.raises(BaseModelError):
        load_base("owner/name")
