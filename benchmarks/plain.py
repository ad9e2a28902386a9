"""TIM-Net as one would write it first: one network, PyTorch's own layers, (B, C, T).

What the project's network is checked against (tests) and timed against (benchmarks).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PlainBlock(nn.Module):
    """Temporal-aware block, (B, C, T) -> (B, C, T)."""

    def __init__(self, channels: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.dilation, self.dropout = dilation, dropout
        self.convs = nn.ModuleList(
            nn.Conv1d(channels, channels, 2, dilation=dilation) for _ in range(2)
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm1d(channels, eps=1e-3, momentum=0.01) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = F.relu(norm(conv(F.pad(h, (self.dilation, 0)))))
            h = F.dropout1d(h, self.dropout, self.training)
        return x * torch.sigmoid(h)


class PlainTIMNet(nn.Module):
    """(B, C, T) -> logits (B, K)."""

    def __init__(
        self, classes: int, tabs: int = 8, channels: int = 39, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.inputs = nn.ModuleList(nn.Conv1d(channels, channels, 1) for _ in range(2))
        self.blocks = nn.ModuleList(
            nn.ModuleList(PlainBlock(channels, 2**j, dropout) for j in range(tabs))
            for _ in range(2)
        )
        self.scale_weight = nn.Parameter(torch.empty(tabs).uniform_(-0.05, 0.05))
        self.dense = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        forward, backward = self.inputs[0](x), self.inputs[1](x.flip(2))
        scales = []
        for ahead, back in zip(*self.blocks, strict=True):
            forward, backward = ahead(forward), back(backward)
            scales.append((forward + backward).mean(2))
        return self.dense((torch.stack(scales, 2) * self.scale_weight).sum(2))

    @torch.no_grad()
    def load_arrays(self, arrays: dict[str, Tensor]) -> None:
        """Take the weights of one network of the project's stack (`TIMNet.arrays`)."""
        for direction in range(2):
            conv = self.inputs[direction]
            conv.weight[:, :, 0] = arrays["input_kernel"][direction].T
            conv.bias.copy_(arrays["input_bias"][direction])
            for j, block in enumerate(self.blocks[direction]):
                for half, (conv, norm) in enumerate(zip(block.convs, block.norms, strict=True)):
                    at = (j, half, direction)
                    conv.weight.copy_(arrays["kernel"][at].permute(2, 1, 0))
                    conv.bias.copy_(arrays["bias"][at])
                    norm.weight.copy_(arrays["gamma"][at])
                    norm.bias.copy_(arrays["beta"][at])
                    norm.running_mean.copy_(arrays["running_mean"][at])
                    norm.running_var.copy_(arrays["running_variance"][at])
        self.scale_weight.copy_(arrays["scale_weight"])
        self.dense.weight.copy_(arrays["dense_kernel"].T)
        self.dense.bias.copy_(arrays["dense_bias"])
