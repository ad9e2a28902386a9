"""TIM-Net as one would write it first: the definition, one network of PyTorch's own layers.

`network.py` computes the same for many networks at once and is what trains; this is what it is
checked against, and what to read first. Names as there.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timnet.training.network import BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM, VARIANTS, Variant


class Block(nn.Module):
    """Temporal-aware block, F_j to F_j+1: (B, C, T) -> (B, C, T)."""

    def __init__(self, variant: Variant, channels: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.variant, self.dilation, self.dropout = variant, dilation, dropout
        self.convs = nn.ModuleList(
            nn.Conv1d(channels, channels, 2, dilation=dilation) for _ in range(2)
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm1d(channels, eps=BATCH_NORM_EPSILON, momentum=BATCH_NORM_MOMENTUM)
            for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = F.relu(norm(conv(F.pad(h, (self.dilation, 0)))))  # padded in front: causal
            h = F.dropout1d(h, self.dropout, self.training)
        return x * torch.sigmoid(h) if self.variant.block == "gate" else x + h


class PlainTIMNet(nn.Module):
    """Features (B, C, T) -> logits (B, K)."""

    def __init__(
        self,
        classes: int,
        tabs: int = 8,
        channels: int = 39,
        dropout: float = 0.1,
        variant: str = "tim-net",
    ) -> None:
        super().__init__()
        self.variant = VARIANTS[variant]
        directions = range(self.variant.directions)
        self.inputs = nn.ModuleList(nn.Conv1d(channels, channels, 1) for _ in directions)
        self.blocks = nn.ModuleList(
            nn.ModuleList(Block(self.variant, channels, 2**j, dropout) for j in range(tabs))
            for _ in directions
        )
        self.scale_weight = nn.Parameter(torch.empty(tabs).uniform_(-0.05, 0.05))
        self.dense = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(self.fused(x))

    def fused(self, x: Tensor) -> Tensor:
        """The vector g_drf that is classified, (B, C)."""
        # what each direction hands on: the first reads forwards, the second backwards
        read = [conv(x.flip(2) if direction else x) for direction, conv in enumerate(self.inputs)]
        scales = []
        for level in zip(*self.blocks, strict=True):
            read = [block(h) for block, h in zip(level, read, strict=True)]
            scales.append(torch.stack(read).sum(0).mean(2))  # g_j
        if self.variant.fusion == "last":
            return scales[-1]
        g = torch.stack(scales, 2)  # (B, C, L)
        return g.mean(2) if self.variant.fusion == "mean" else (g * self.scale_weight).sum(2)

    @torch.no_grad()
    def load_arrays(self, arrays: dict[str, Tensor]) -> None:
        """Take the weights of one network of a stack (`TIMNet.arrays`)."""
        inputs: Any = self.inputs
        for direction, conv in enumerate(inputs):
            conv.weight[:, :, 0] = arrays["input_kernel"][direction].T
            conv.bias.copy_(arrays["input_bias"][direction])
            blocks: Any = self.blocks[direction]
            for j, block in enumerate(blocks):
                for half, (layer, norm) in enumerate(zip(block.convs, block.norms, strict=True)):
                    at = (j, half, direction)
                    layer.weight.copy_(arrays["kernel"][at].permute(2, 1, 0))
                    layer.bias.copy_(arrays["bias"][at])
                    norm.weight.copy_(arrays["gamma"][at])
                    norm.bias.copy_(arrays["beta"][at])
                    norm.running_mean.copy_(arrays["running_mean"][at])
                    norm.running_var.copy_(arrays["running_variance"][at])
        if self.variant.fusion == "learned":
            self.scale_weight.copy_(arrays["scale_weight"])
        self.dense.weight.copy_(arrays["dense_kernel"].T)
        self.dense.bias.copy_(arrays["dense_bias"])
