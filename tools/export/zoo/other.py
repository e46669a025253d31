"""Generative models, sets, graphs, tables and losses inside the graph."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from .case import Case, classes, normal, x


class Vae(nn.Module):
    """D. Kingma and M. Welling; the noise is an input, the negative evidence bound the only output."""

    def __init__(self):
        super().__init__()
        self.encoder, self.mean, self.log_variance = nn.Linear(12, 8), nn.Linear(8, 3), nn.Linear(8, 3)
        self.decoder, self.out = nn.Linear(3, 8), nn.Linear(8, 12)

    def forward(self, x, noise):
        h = torch.tanh(self.encoder(x))
        mean, log_variance = self.mean(h), self.log_variance(h)
        code = mean + torch.exp(0.5 * log_variance) * noise
        logits = self.out(torch.tanh(self.decoder(code)))
        reconstruction = (F.softplus(logits) - x * logits).sum(1)
        divergence = -0.5 * (1 + log_variance - mean.pow(2) - log_variance.exp()).sum(1)
        return (reconstruction + divergence).mean()


class Flow(nn.Module):
    """L. Dinh et al., RealNVP: two affine couplings; the negative log-likelihood is the only output."""

    def __init__(self):
        super().__init__()
        self.nets = nn.ModuleList(nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 4)) for _ in range(2))

    def forward(self, x):
        a, b = x.chunk(2, 1)
        log_determinant = 0.0
        for net in self.nets:
            shift, log_scale = net(a).chunk(2, 1)
            log_scale = torch.tanh(log_scale)
            a, b = b * torch.exp(log_scale) + shift, a
            log_determinant = log_determinant + log_scale.sum(1)
        return (0.5 * (a.pow(2) + b.pow(2)).sum(1) - log_determinant).mean()


class Contrastive(nn.Module):
    """T. Chen et al., SimCLR's loss: two views, cosine similarities, temperature; the loss is the only output."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
        self.log_temperature = nn.Parameter(torch.tensor(0.5))

    def forward(self, first, second):
        a, b = (F.normalize(self.encoder(view), dim=1) for view in (first, second))
        scores = a @ b.T * torch.exp(self.log_temperature)
        diagonal = (a * b).sum(1) * torch.exp(self.log_temperature)
        return (torch.logsumexp(scores, 1) - diagonal).mean()


class PointNet(nn.Module):
    """C. Qi et al.: a learned 3 × 3 transform, shared layers over points, maximum over the set."""

    def __init__(self):
        super().__init__()
        self.look, self.turn = nn.Conv1d(3, 5, 1), nn.Linear(5, 9)
        self.conv1, self.conv2 = nn.Conv1d(3, 6, 1), nn.Conv1d(6, 8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, points):
        seen = F.relu(self.look(points.transpose(1, 2))).amax(-1)
        transform = self.turn(seen).view(-1, 3, 3) + torch.eye(3, dtype=points.dtype)
        y = torch.bmm(points, transform).transpose(1, 2)
        return self.head(self.conv2(torch.tanh(self.conv1(y))).amax(-1))


class GraphConv(nn.Module):
    """T. Kipf and M. Welling: features and a normalised adjacency matrix per graph; a class per node."""

    def __init__(self):
        super().__init__()
        self.layer1, self.layer2 = nn.Linear(4, 6, bias=False), nn.Linear(6, 3, bias=False)

    def forward(self, features, adjacency):
        degree = adjacency.sum(-1, keepdim=True)
        normalised = adjacency / torch.sqrt(degree * degree.transpose(1, 2))
        return normalised @ self.layer2(F.relu(normalised @ self.layer1(features)))


class GraphAttention(nn.Module):
    """P. Veličković et al.: pairwise scores with LeakyReLU, softmax over the neighbours."""

    def __init__(self):
        super().__init__()
        self.embed, self.left, self.right = nn.Linear(4, 5, bias=False), nn.Linear(5, 1), nn.Linear(5, 1)
        self.head = nn.Linear(5, 3)

    def forward(self, features, adjacency):
        h = self.embed(features)
        scores = F.leaky_relu(self.left(h) + self.right(h).transpose(1, 2), 0.2)
        weights = scores.masked_fill(adjacency == 0, -1e9).softmax(-1)
        return self.head(F.elu(weights @ h))


class FactorisationMachine(nn.Module):
    """H. Guo et al., DeepFM: first order, pairwise interactions by sums and squares, a deep part."""

    def __init__(self):
        super().__init__()
        self.linear, self.embed = nn.Embedding(20, 1), nn.Embedding(20, 4)
        self.deep = nn.Sequential(nn.Linear(12 + 2, 6), nn.PReLU(), nn.Linear(6, 1))

    def forward(self, fields, dense):
        e = self.embed(fields)
        pairs = 0.5 * (e.sum(1).pow(2) - e.pow(2).sum(1)).sum(1, keepdim=True)
        deep = self.deep(torch.cat([e.flatten(1), dense], 1))
        return self.linear(fields).sum(1) + pairs + deep


class Siren(nn.Module):
    """V. Sitzmann et al.: sine activations on coordinates with Fourier features."""

    def __init__(self):
        super().__init__()
        self.layer1, self.layer2, self.out = nn.Linear(10, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.register_buffer("frequencies", 2.0 ** torch.arange(2) * math.pi)

    def forward(self, x):
        angles = (x[..., None] * self.frequencies.to(x.dtype)).flatten(1)
        y = torch.cat([x, torch.sin(angles), torch.cos(angles)], 1)
        return self.out(torch.sin(self.layer2(torch.sin(3.0 * self.layer1(y)))))


class Highway(nn.Module):
    """Gates, PReLU and maxout (R. Srivastava et al.; I. Goodfellow et al.)."""

    def __init__(self):
        super().__init__()
        self.gate, self.change, self.act = nn.Linear(6, 6), nn.Linear(6, 6), nn.PReLU(6)
        self.pieces, self.head = nn.Linear(6, 15), nn.Linear(5, 4)

    def forward(self, x):
        gate = torch.sigmoid(self.gate(x))
        y = gate * self.act(self.change(x)) + (1 - gate) * x
        return self.head(self.pieces(y).view(-1, 5, 3).amax(-1))


class Capsules(nn.Module):
    """S. Sabour et al.: two rounds of routing by agreement; the lengths are the scores."""

    def __init__(self):
        super().__init__()
        self.primary = nn.Linear(8, 12)
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 4) * 0.4)

    def forward(self, x):
        votes = torch.einsum("bid,ijde->bije", self.primary(x).view(-1, 4, 3), self.weight)
        scores = torch.zeros_like(votes[..., 0])
        for _ in range(2):
            total = (scores.softmax(2)[..., None] * votes).sum(1, keepdim=True)
            square = total.pow(2).sum(-1, keepdim=True)
            squashed = square / (1 + square) * total / torch.sqrt(square + 1e-6)
            scores = scores + (votes * squashed).sum(-1)
        return torch.linalg.vector_norm(squashed.squeeze(1), dim=-1) * 5.0


class Experts(nn.Module):
    """N. Shazeer et al.: softmax gates of the two best of four experts, found by TopK and spread by scatter."""

    def __init__(self):
        super().__init__()
        self.router = nn.Linear(5, 4)
        self.up, self.down = nn.Parameter(torch.randn(4, 5, 6) * 0.4), nn.Parameter(torch.randn(4, 6, 5) * 0.4)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        best, index = self.router(x).topk(2, dim=1)
        gates = torch.zeros(x.shape[0], 4, dtype=x.dtype).scatter(1, index, best.softmax(1))
        h = torch.tanh(torch.einsum("bd,edh->beh", x, self.up))
        y = torch.einsum("beh,ehd->bed", h, self.down)
        return self.head(x + (gates[..., None] * y).sum(1))


class Margin(nn.Module):
    """Cosine logits with normalised class weights, as in ArcFace (J. Deng et al.), and a log-softmax output."""

    def __init__(self):
        super().__init__()
        self.encoder, self.weight = nn.Linear(6, 5), nn.Parameter(torch.randn(4, 5))

    def forward(self, x):
        y = F.normalize(F.softsign(self.encoder(x)), dim=1)
        return F.log_softmax(8.0 * y @ F.normalize(self.weight, dim=1).T, dim=1)


def graph_batch():
    adjacency = (torch.rand(2, 5, 5) < 0.4).float()
    adjacency = ((adjacency + adjacency.transpose(1, 2) + torch.eye(5)) > 0).float()
    return {"features": torch.randn(2, 5, 4), "adjacency": adjacency}


CASES = [
    Case(
        name="vae", build=Vae, inputs=lambda: {"x": torch.rand(4, 12), "noise": torch.randn(4, 3)}, loss="in-graph",
        note="the output is the loss: the negative evidence lower bound",
    ),
    Case(name="normalizing_flow", build=Flow, inputs=x(5, 4), loss="in-graph", note="the output is the loss", opset=13),
    Case(
        name="contrastive", build=Contrastive, inputs=lambda: {"first": torch.randn(5, 6), "second": torch.randn(5, 6)},
        loss="in-graph", note="the output is the loss; the examples of a batch interact", dynamo_opset=20,
        dynamo_optimize=False,
    ),
    Case(name="pointnet", build=PointNet, inputs=x(3, 9, 3), target=classes(4, 3), loss="softmax_cross_entropy", opset=12),
    Case(name="graph_conv", build=GraphConv, inputs=graph_batch, target=classes(3, 2, 5), loss="softmax_cross_entropy", opset=13),
    Case(
        name="graph_attention", build=GraphAttention, inputs=graph_batch, target=classes(3, 2, 5), loss="softmax_cross_entropy",
    ),
    Case(
        name="deepfm", build=FactorisationMachine,
        inputs=lambda: {"fields": torch.randint(20, (6, 3)), "dense": torch.randn(6, 2)},
        target=lambda: torch.randint(2, (6, 1)).float(), loss="sigmoid_cross_entropy", opset=9,
    ),
    Case(name="siren", build=Siren, inputs=x(6, 2), target=normal(6, 3), loss="mean_squared_error", opset=10, dynamo_opset=22),
    Case(name="highway_maxout", build=Highway, inputs=x(5, 6), target=classes(4, 5), loss="softmax_cross_entropy"),
    Case(name="capsules", build=Capsules, inputs=x(3, 8), target=classes(3, 3), loss="softmax_cross_entropy", opset=12),
    Case(name="mixture_of_experts", build=Experts, inputs=x(5, 5), target=classes(3, 5), loss="softmax_cross_entropy"),
    Case(
        name="cosine_margin", build=Margin, inputs=x(5, 6), target=classes(4, 5), loss="softmax_cross_entropy", opset=16,
        dynamo_optimize=False, note="the output is a log-softmax; cross-entropy of it equals the negative log-likelihood",
    ),
]
