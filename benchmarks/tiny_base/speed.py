"""How many pictures a second a UNet of the base could be trained on: the shapes that were considered.

    OMP_NUM_THREADS=1 python -m benchmarks.tiny_base.speed

Prints pictures per CPU-second, forward and backward, batches of 32, at 128 and 64 px.
"""

from __future__ import annotations

import time

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor

#: channels of the latents, their side at 128 px, channels of the levels, levels with attention
SHAPES = (
    (4, 32, (64, 96, 96), (1, 1, 0)),
    (4, 32, (32, 64, 96, 128), (0, 1, 1, 0)),
    (16, 16, (64, 96, 96), (1, 1, 0)),
    (16, 16, (96, 160), (1, 1)),
    (16, 16, (96, 128, 160), (0, 1, 1)),
    (16, 16, (96, 128, 160), (0, 1, 0)),
)


def pace(net: UNet2DConditionModel, channels: int, side: int, *, low: bool, seconds: float = 4) -> float:
    layout = torch.channels_last if low else torch.contiguous_format
    net.to(memory_format=layout)  # pyright: ignore[reportCallIssue]
    inputs = torch.randn(32, channels, side, side).contiguous(memory_format=layout)
    states, times = torch.randn(32, 32, 128), torch.randint(1000, (32,))
    started, count = 0.0, -1
    while count < 1 or time.process_time() - started < seconds:
        if count == 0:  # the first step warms up
            started = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            output = net(inputs, times, states).sample
        output.float().square().mean().backward()
        count += 1
    return 32 * count / (time.process_time() - started)


def main() -> None:
    torch.set_num_threads(1)
    print("latents         levels                attention     size   float32  autocast  …, plain products   (64 px)")
    for channels, side, levels, attention in SHAPES:
        net = UNet2DConditionModel(
            in_channels=channels,
            out_channels=channels,
            layers_per_block=1,
            block_out_channels=levels,
            down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attention),
            up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)),
            attention_head_dim=4,
            norm_num_groups=8,
            cross_attention_dim=128,
        )
        size = sum(p.numel() for p in net.parameters()) / 1e6
        paces = [pace(net, channels, side, low=False), pace(net, channels, side, low=True)]
        net.set_attn_processor(AttnProcessor())
        paces += [pace(net, channels, side, low=True), pace(net, channels, side // 2, low=True)]
        shape = f"{channels:2} x {side} x {side}".ljust(14)
        print(
            f"{shape}  {levels!s:20}  {attention!s:12}  {size:4.1f} M  " + "  ".join(f"{p:8.0f}" for p in paces),
            flush=True,
        )


if __name__ == "__main__":
    main()
