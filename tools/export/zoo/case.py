"""What one architecture of the zoo is: a module, a batch, and how to train and export it."""

from dataclasses import dataclass, field
from typing import Callable

import torch
from torch import nn


@dataclass(frozen=True, kw_only=True)
class Case:
    name: str
    """Folder under graphs/architectures."""
    build: Callable[[], nn.Module]
    inputs: Callable[[], dict[str, torch.Tensor]]
    """The batch, by input name; the first dimension of every input is the batch unless `fixed` names the input."""
    loss: str
    """softmax_cross_entropy | sigmoid_cross_entropy | mean_squared_error | in-graph"""
    target: Callable[[], torch.Tensor] | None = None
    """None when the loss is in the graph."""
    fixed: tuple[str, ...] = ()
    """Inputs without a batch dimension."""
    opset: int | None = 17
    """For the TorchScript exporter; None where it cannot export the model."""
    scripted: bool = False
    """Whether the TorchScript exporter gets torch.jit.script's form, which keeps loops, instead of a trace."""
    dynamo_opset: int | None = 18
    """For the dynamo exporter; None where it cannot export the model."""
    dynamo_optimize: bool = True
    """False where its optimiser would fold parameters away: BatchNormalization into the convolution before it, and
    everything that is computed from parameters alone (reordered LSTM weights, weight normalisation)."""
    frozen: tuple[str, ...] = ()
    """Prefixes of parameters that do not train."""
    note: str = ""
    has_batch_norm: bool = field(default=False)
    """The model behaves differently in eval() mode: the golden file holds both."""


def classes(count: int, *shape: int) -> Callable[[], torch.Tensor]:
    return lambda: torch.randint(count, shape)


def normal(*shape: int) -> Callable[[], torch.Tensor]:
    return lambda: torch.randn(*shape)


def x(*shape: int) -> Callable[[], dict[str, torch.Tensor]]:
    """One float input called x."""
    return lambda: {"x": torch.randn(*shape)}


def tokens(vocabulary: int, *shape: int) -> Callable[[], dict[str, torch.Tensor]]:
    """One input of token ids called x."""
    return lambda: {"x": torch.randint(vocabulary, shape)}
