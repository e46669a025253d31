"""Recurrent and convolutional models of sequences."""

import torch
import torch.nn.functional as F
from torch import nn

from .case import Case, classes, normal, tokens, x


class WaveNet(nn.Module):
    """A. van den Oord et al.: causal dilated convolutions, gates, skip connections; a class at every step."""

    def __init__(self, channels=4, dilations=(1, 2, 4)):
        super().__init__()
        self.start = nn.Conv1d(1, channels, 1)
        self.filters = nn.ModuleList(nn.Conv1d(channels, channels, 2, dilation=d) for d in dilations)
        self.gates = nn.ModuleList(nn.Conv1d(channels, channels, 2, dilation=d) for d in dilations)
        self.skips = nn.ModuleList(nn.Conv1d(channels, channels, 1) for _ in dilations)
        self.end, self.head = nn.Conv1d(channels, channels, 1), nn.Conv1d(channels, 6, 1)
        self.dilations = dilations

    def forward(self, wave):
        y, total = self.start(wave), 0.0
        for dilation, filter_, gate, skip in zip(self.dilations, self.filters, self.gates, self.skips):
            past = F.pad(y, (dilation, 0))
            h = torch.tanh(filter_(past)) * torch.sigmoid(gate(past))
            total, y = total + skip(h), y + h
        return self.head(F.relu(self.end(F.relu(total)))).transpose(1, 2)


class Recurrent(nn.Module):
    """A recurrent layer over embedded tokens; the last step is classified."""

    def __init__(self, kind, **options):
        super().__init__()
        self.embed = nn.Embedding(12, 5)
        self.rnn = kind(5, 6, batch_first=True, **options)
        width = 12 if options.get("bidirectional") else 6
        self.head = nn.Linear(width, 4)

    def forward(self, ids):
        return self.head(self.rnn(self.embed(ids))[0][:, -1])


class Seq2Seq(nn.Module):
    """An encoder LSTM hands its state to a decoder LSTM that attends to the encoder's outputs."""

    def __init__(self, dim=5):
        super().__init__()
        self.source, self.target = nn.Embedding(9, dim), nn.Embedding(8, dim)
        self.encoder, self.decoder = nn.LSTM(dim, dim, batch_first=True), nn.LSTM(dim, dim, batch_first=True)
        self.score, self.head = nn.Linear(dim, dim, bias=False), nn.Linear(2 * dim, 8)

    def forward(self, source, target):
        memory, state = self.encoder(self.source(source))
        y, _ = self.decoder(self.target(target), state)
        weights = (self.score(y) @ memory.transpose(1, 2)).softmax(-1)
        return self.head(torch.cat([y, weights @ memory], -1))


class TextCnn(nn.Module):
    """Y. Kim: convolutions of several widths, maximum over time."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(15, 6, padding_idx=0)
        self.convs = nn.ModuleList(nn.Conv1d(6, 4, width) for width in (2, 3, 4))
        self.head = nn.Linear(12, 3)

    def forward(self, ids):
        y = self.embed(ids).transpose(1, 2)
        return self.head(torch.cat([F.relu(conv(y)).amax(-1) for conv in self.convs], 1))


class WeightNormConv(nn.Module):
    """A convolution with its weight as direction and length (T. Salimans and D. Kingma)."""

    def __init__(self, fan_in, fan_out, width, dilation):
        super().__init__()
        self.direction = nn.Parameter(torch.randn(fan_out, fan_in, width) * 0.3)
        self.length, self.bias = nn.Parameter(torch.rand(fan_out, 1, 1) + 0.5), nn.Parameter(torch.zeros(fan_out))
        self.dilation, self.past = dilation, (width - 1) * dilation

    def forward(self, y):
        weight = self.length * self.direction / torch.linalg.vector_norm(self.direction, dim=(1, 2), keepdim=True)
        return F.conv1d(F.pad(y, (self.past, 0)), weight, self.bias, dilation=self.dilation)


class Tcn(nn.Module):
    """S. Bai et al., temporal convolutional network, with weight normalisation."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = WeightNormConv(3, 5, 3, 1), WeightNormConv(5, 5, 3, 2)
        self.skip, self.head = nn.Conv1d(3, 5, 1), nn.Linear(5, 2)

    def forward(self, y):
        h = F.relu(self.conv2(F.relu(self.conv1(y))))
        return self.head(F.relu(h + self.skip(y))[:, :, -1])


class Conformer(nn.Module):
    """The convolution module of A. Gulati et al.'s Conformer: GLU, depthwise convolution, half-step feed-forward."""

    def __init__(self, dim=6):
        super().__init__()
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.forward1, self.forward2 = nn.Linear(dim, 12), nn.Linear(12, dim)
        self.point1, self.depthwise = nn.Conv1d(dim, 2 * dim, 1), nn.Conv1d(dim, dim, 3, padding=1, groups=dim)
        self.point2, self.head = nn.Conv1d(dim, dim, 1), nn.Linear(dim, 5)

    def forward(self, y):
        y = y + 0.5 * self.forward2(F.silu(self.forward1(self.norm1(y))))
        h = F.glu(self.point1(self.norm2(y).transpose(1, 2)), 1)
        h = self.point2(F.silu(self.depthwise(h))).transpose(1, 2)
        return self.head(self.norm3(y + h))


class StateSpace(nn.Module):
    """A diagonal linear state space as a convolution: the kernel is made of exponentials of the step number (A. Gu et al.)."""

    def __init__(self, channels=4, states=3, length=6):
        super().__init__()
        self.log_decay = nn.Parameter(torch.randn(channels, states) * 0.5 - 1)
        self.b, self.c = nn.Parameter(torch.randn(channels, states)), nn.Parameter(torch.randn(channels, states))
        self.skip, self.head = nn.Parameter(torch.randn(channels)), nn.Linear(channels, 3)
        steps = torch.arange(length)
        lag = steps[:, None] - steps[None, :]
        self.register_buffer("lag", lag.clamp(min=0).float())
        self.register_buffer("causal", (lag >= 0).float())

    def forward(self, y):
        decay = -torch.exp(self.log_decay)
        powers = torch.exp(decay[:, None, None, :] * self.lag[None, :, :, None])
        kernel = (powers * (self.b * self.c)[:, None, None, :]).sum(-1) * self.causal
        h = torch.einsum("clm,bmc->blc", kernel, y) + self.skip * y
        return self.head(F.gelu(h).mean(1))


class NeuralOde(nn.Module):
    """Four Runge-Kutta steps of one small field: its weights are used sixteen times (R. Chen et al.)."""

    def __init__(self):
        super().__init__()
        self.field = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4))
        self.head = nn.Linear(4, 3)

    def forward(self, y):
        step = 0.25
        for _ in range(4):
            k1 = self.field(y)
            k2 = self.field(y + step / 2 * k1)
            k3 = self.field(y + step / 2 * k2)
            k4 = self.field(y + step * k3)
            y = y + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return self.head(y)


def translation_batch():
    return {"source": torch.randint(9, (2, 5)), "target": torch.randint(8, (2, 4))}


CASES = [
    Case(name="wavenet", build=WaveNet, inputs=x(2, 1, 10), target=classes(6, 2, 10), loss="softmax_cross_entropy", opset=13),
    Case(
        name="lstm_classifier", build=lambda: Recurrent(nn.LSTM, bidirectional=True), inputs=tokens(12, 3, 6),
        target=classes(4, 3), loss="softmax_cross_entropy", dynamo_optimize=False,
    ),
    Case(
        name="gru_classifier", build=lambda: Recurrent(nn.GRU, num_layers=2), inputs=tokens(12, 3, 6), target=classes(4, 3),
        loss="softmax_cross_entropy", opset=14, dynamo_opset=22, dynamo_optimize=False,
    ),
    Case(
        name="rnn_classifier", build=lambda: Recurrent(nn.RNN, bidirectional=True), inputs=tokens(12, 3, 5),
        target=classes(4, 3), loss="softmax_cross_entropy", opset=11,
    ),
    Case(
        name="seq2seq", build=Seq2Seq, inputs=translation_batch, target=classes(8, 2, 4), loss="softmax_cross_entropy",
        dynamo_optimize=False,
    ),
    Case(name="text_cnn", build=TextCnn, inputs=tokens(15, 3, 7), target=classes(3, 3), loss="softmax_cross_entropy", opset=9),
    Case(
        name="tcn_weight_norm", build=Tcn, inputs=x(3, 3, 8), target=normal(3, 2), loss="mean_squared_error",
        dynamo_optimize=False,
    ),
    Case(
        name="conformer", build=Conformer, inputs=x(2, 7, 6), target=classes(5, 2, 7), loss="softmax_cross_entropy",
        dynamo_opset=19,
    ),
    Case(
        name="state_space", build=StateSpace, inputs=x(3, 6, 4), target=classes(3, 3), loss="softmax_cross_entropy",
        dynamo_optimize=False,
    ),
    Case(name="neural_ode", build=NeuralOde, inputs=x(4, 4), target=classes(3, 4), loss="softmax_cross_entropy"),
]
