"""Recurrent layers in less usual forms, and control flow that the exporters keep: Loop, If and Scan."""

import torch
from torch import nn
from torch._higher_order_ops.scan import scan
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from .case import Case, classes, normal, x


class StackedLstm(nn.Module):
    """Two bidirectional layers, initial states that train, and the final states as features."""

    def __init__(self, features=4, hidden=3):
        super().__init__()
        self.lstm = nn.LSTM(features, hidden, num_layers=2, bidirectional=True)
        self.h0, self.c0 = nn.Parameter(torch.randn(4, 1, hidden)), nn.Parameter(torch.randn(4, 1, hidden))
        self.head = nn.Linear(4 * hidden, 3)

    def forward(self, y):
        batch = y.shape[0]
        state = (self.h0.expand(-1, batch, -1).contiguous(), self.c0.expand(-1, batch, -1).contiguous())
        _, (h, c) = self.lstm(y.transpose(0, 1), state)
        return self.head(torch.cat([h[-2], h[-1], c[-2], c[-1]], -1))


class PackedLstm(nn.Module):
    """Sequences of different lengths: the exporter writes sequence_lens."""

    def __init__(self, features=4, hidden=5):
        super().__init__()
        self.lstm = nn.LSTM(features, hidden, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * hidden, 3)

    def forward(self, y, lengths):
        packed = pack_padded_sequence(y, lengths, batch_first=True)
        out, (h, _) = self.lstm(packed)
        out, _ = pad_packed_sequence(out, batch_first=True, total_length=y.shape[1])
        return self.head(out.sum(1) + torch.cat([h[0], h[1]], -1))


class BidirectionalGru(nn.Module):
    """Without biases; the final states of both directions."""

    def __init__(self, features=4, hidden=5):
        super().__init__()
        self.gru = nn.GRU(features, hidden, bias=False, bidirectional=True)
        self.head = nn.Linear(2 * hidden, 2)

    def forward(self, y):
        _, h = self.gru(y.transpose(0, 1))
        return self.head(torch.cat([h[0], h[1]], -1))


class ReluRnn(nn.Module):
    """Two layers of rectified units, the initial state an input, a class at every step."""

    def __init__(self, features=3, hidden=4):
        super().__init__()
        self.rnn = nn.RNN(features, hidden, num_layers=2, nonlinearity="relu", batch_first=True)
        self.head = nn.Linear(hidden, 5)

    def forward(self, y, state):
        out, _ = self.rnn(y, state.transpose(0, 1).contiguous())
        return self.head(out)


class ScriptedCells(nn.Module):
    """A loop over time that torch.jit.script keeps: ONNX's Loop, with a list of outputs."""

    def __init__(self, features=3, hidden=4):
        super().__init__()
        self.input, self.state = nn.Linear(features, hidden), nn.Linear(hidden, hidden)
        self.head = nn.Linear(hidden, 3)

    def forward(self, y):
        h = torch.zeros(y.shape[0], 4, dtype=y.dtype)
        outputs: list[torch.Tensor] = []
        for t in range(y.shape[1]):
            h = torch.tanh(self.input(y[:, t]) + self.state(h))
            outputs.append(h)
        return self.head(torch.stack(outputs, 1))


class Conditional(nn.Module):
    """A branch that data decides: ONNX's If."""

    def __init__(self):
        super().__init__()
        self.yes, self.no, self.head = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, y):
        h = torch.cond(y.sum() > 0, lambda v: torch.tanh(self.yes(v)), lambda v: torch.sigmoid(self.no(v)), (y,))
        return self.head(h)


class Scanned(nn.Module):
    """A recurrence by torch's scan: ONNX's Scan."""

    def __init__(self):
        super().__init__()
        self.input, self.state, self.head = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, y):
        def step(h, v):
            h = torch.tanh(self.input(v) + self.state(h))
            return h, torch.sigmoid(h)

        h, gates = scan(step, torch.zeros(y.shape[0], 4, dtype=y.dtype), y, dim=1)
        return self.head(h * gates.mean(1))


def packed_batch():
    return {"x": torch.randn(4, 6, 4), "lengths": torch.tensor([6, 4, 3, 1])}


def batch_with_state():
    return {"x": torch.randn(3, 5, 3), "state": torch.randn(3, 2, 4)}


CASES = [
    Case(
        name="lstm_stacked", build=StackedLstm, inputs=x(3, 5, 4), target=classes(3, 3), loss="softmax_cross_entropy",
        dynamo_optimize=False,
    ),
    Case(
        name="lstm_packed", build=PackedLstm, inputs=packed_batch, target=classes(3, 4), loss="softmax_cross_entropy",
        dynamo_opset=None, note="sequence_lens, an input",
    ),
    Case(
        name="gru_bidirectional", build=BidirectionalGru, inputs=x(4, 5, 4), target=normal(4, 2), loss="mean_squared_error",
        dynamo_optimize=False,
    ),
    Case(
        name="rnn_relu", build=ReluRnn, inputs=batch_with_state, target=classes(5, 3, 5), loss="softmax_cross_entropy",
        dynamo_optimize=False,
    ),
    Case(
        name="scripted_recurrence", build=ScriptedCells, inputs=x(3, 5, 3), target=classes(3, 3, 5),
        loss="softmax_cross_entropy", scripted=True, dynamo_opset=None, note="torch.jit.script: a Loop",
    ),
    Case(
        name="conditional", build=Conditional, inputs=x(3, 4), target=classes(2, 3), loss="softmax_cross_entropy",
        opset=None, note="torch.cond: an If",
    ),
    Case(
        name="scanned_recurrence", build=Scanned, inputs=x(3, 5, 3), target=classes(3, 3), loss="softmax_cross_entropy",
        opset=None, note="torch scan: a Scan",
    ),
]
