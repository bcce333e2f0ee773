"""Show that a refactoring changed nothing: 30 seeded steps of each base and variant, as hashes.

    python benchmarks/seeded_loss.py [--save FILE] [--against FILE]

For each case it prints a hash of the exact bits of all losses and one of the tensors' bytes in the adapter file. The
hashes hold for one machine and one set of versions only: save them before a change, compare after it. Exit code 1 if a
hash differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import struct
import sys
import tempfile
import warnings
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

STEPS = 30
#: name → preset, base (of `small_bases.KINDS`, or the embedded one), overrides
CASES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "tiny": ("tiny-style", "tiny", ()),
    "tiny, dora on all modules with text": (
        "tiny-style", "tiny", ("lora.variant=dora", "lora.targets=attn,ff,conv,text", "lora.rank=4"),
    ),
    "tiny, dropout, v_prediction loss options": (
        "tiny-style", "tiny", ("lora.dropout=0.1", "lora.rank_dropout=0.1", "training.min_snr_gamma=5"),
    ),
    "sd1": ("sd15-style", "sd1", ()),
    "sd2, v-prediction": ("sd21-style", "sd2v", ()),
    "sdxl": ("sdxl-style", "sdxl", ()),
    "sdxl, one block": ("sdxl-style-block", "sdxl", ()),
}  # fmt: skip


def run_case(name: str, work: Path) -> dict[str, str]:
    """Train one case in `work`; the hash of its losses and that of its tensors."""
    from small_bases import write_base
    from small_runs import body_of, write_images

    import sd_lora

    preset, base, overrides = CASES[name]
    images = write_images(work / "images", 4)
    where = base if base == "tiny" else str(write_base(base, work / "base"))
    losses: list[float] = []
    config = sd_lora.load_config(
        preset, f"model.base={where}", "model.device=cpu", f"data.folder={images}", "data.trigger=zwq",
        f"output.folder={work / 'run'}", f"training.steps={STEPS}", "training.batch_size=2", "data.resolution=64",
        "preview.every=0", "preview.inference_steps=1", "preview.strengths=1", *overrides,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sd_lora.train(config, watch=lambda report: losses.append(report.loss))
    if len(losses) != STEPS:
        raise SystemExit(f"{name}: {len(losses)} losses instead of {STEPS}")
    return {
        "losses": hashlib.sha256(struct.pack(f"{STEPS}d", *losses)).hexdigest()[:16],
        "tensors": hashlib.sha256(body_of(work / "run" / "adapter.safetensors")).hexdigest()[:16],
        "last_loss": repr(losses[-1]),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", type=Path, help="write the hashes to this file")
    parser.add_argument("--against", type=Path, help="compare with the hashes of this file")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)  # the order of sums must not depend on the machine's load
    found: dict[str, dict[str, str]] = {}
    for name in CASES:
        with tempfile.TemporaryDirectory() as work:
            found[name] = run_case(name, Path(work))
        print(f"{name:45} losses {found[name]['losses']}  tensors {found[name]['tensors']}", flush=True)
    if options.save:
        options.save.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    if options.against:
        before = json.loads(options.against.read_text("utf-8"))
        differing = [name for name in CASES if before.get(name) != found[name]]
        print("identical" if not differing else f"DIFFERENT: {', '.join(differing)}")
        return 1 if differing else 0
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
