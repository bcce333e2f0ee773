"""Whether pictures still show what their prompts say, read by the frozen base model alone.

A diffusion model fits a picture best under the prompt that describes it (Li et al. 2023, "Your diffusion model is
secretly a zero-shot classifier"). In a strong style that alone is wrong: a style shifts some prompts' errors for every
picture alike. So each error is read as picture + prompt + rest, fitted on the pairs that do not belong together, and
the rest decides.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from sd_lora.evaluation.probe import Probe, Watch, no_watch

#: other prompts that each picture is tried under
OTHERS = 5
#: where subjects and places are decided, in thousandths of the noise schedule
_LEVELS = (500, 700)


def kept(probe: Probe, latents: Tensor, prompts: Sequence[str], watch: Watch = no_watch) -> list[bool]:
    """For each picture (its latents (n, c, h, w)) whether its own prompt fits it best, of the others that have the most
    words in common with it. `prompts` describe content, without a trigger word; at least seven different ones."""
    table = others_of(prompts)
    asked = [[prompts[i], *(prompts[j] for j in row)] for i, row in enumerate(table)]
    return corrected(probe.errors(latents, asked, _LEVELS, watch), table)


def others_of(prompts: Sequence[str]) -> list[list[int]]:
    """For each prompt `OTHERS` different ones: those that share the most words with it, each asked about as often.

    ValueError if there are too few different prompts.
    """
    words = [frozenset(re.findall(r"\w+", prompt.lower())) for prompt in prompts]
    asked = [0] * len(prompts)
    table = []
    for i, prompt in enumerate(prompts):
        rivals = {prompts[j]: j for j in range(len(prompts)) if prompts[j] != prompt}
        if len(rivals) < OTHERS + 1:
            raise ValueError(f"content needs {OTHERS + 2} different prompts; there are {len(rivals) + 1}")

        def nearness(j: int, own: frozenset[str] = words[i]) -> tuple[float, int, int]:
            common = len(own & words[j]) / max(1, len(own | words[j]))
            return (asked[j] // 2 - 4 * common, asked[j], j)

        chosen = sorted(rivals.values(), key=nearness)[:OTHERS]
        for j in chosen:
            asked[j] += 1
        table.append(chosen)
    return table


def corrected(errors: Tensor, others: Sequence[Sequence[int]]) -> list[bool]:
    """Of `errors` (n, 1 + k), the own prompt's first and then those of the prompts `others`: whether the own is the
    lowest once what the picture and what the prompt add is taken off."""
    n = len(errors)
    wrong = errors[:, 1:].double()
    rows = torch.zeros(wrong.numel(), 2 * n, dtype=torch.float64)
    index = torch.arange(wrong.numel())
    picture, prompt = index // wrong.shape[1], torch.tensor([j for row in others for j in row])
    rows[index, picture], rows[index, n + prompt] = 1, 1
    # The driver that copes with rank deficiency: adding to all pictures and taking from all prompts changes nothing.
    fitted = torch.linalg.lstsq(rows, wrong.reshape(-1, 1), driver="gelsd").solution[:, 0]
    own = errors[:, 0].double() - fitted[:n] - fitted[n:]
    rest = wrong - fitted[:n, None] - fitted[n:][prompt].reshape(wrong.shape)
    return (own < rest.min(dim=1).values).tolist()
