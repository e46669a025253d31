"""Reading and writing at computed places: sampled images, folded patches, resized maps, edges of a graph, statistics."""

import torch
import torch.nn.functional as F
from torch import nn

from .case import Case, classes, normal, x


class SpatialTransformer(nn.Module):
    """M. Jaderberg et al.: the network places the window that it looks at."""

    def __init__(self):
        super().__init__()
        self.locate, self.head = nn.Linear(2 * 5 * 6, 6), nn.Linear(2 * 4 * 4, 3)
        self.register_buffer("identity", torch.tensor([0.8, 0.1, 0.05, -0.1, 0.7, -0.04]))

    def forward(self, x):
        place = self.identity + 0.2 * torch.tanh(self.locate(x.flatten(1)))
        steps = torch.linspace(-1.0, 1.0, 4).to(x.dtype)
        across, down = steps.repeat(4), steps.repeat_interleave(4)
        base = torch.stack([across, down, torch.ones_like(across)])
        grid = (place.reshape(-1, 2, 3) @ base).transpose(1, 2).reshape(-1, 4, 4, 2)
        seen = F.grid_sample(x, grid, align_corners=False)
        return self.head(seen.flatten(1))


class PatchMixer(nn.Module):
    """Overlapping patches: unfolded, mixed, folded back."""

    def __init__(self):
        super().__init__()
        self.mix, self.head = nn.Linear(2 * 9, 2 * 9), nn.Linear(2, 3)

    def forward(self, x):
        patches = F.unfold(x, 3, padding=1, stride=2).transpose(1, 2)
        mixed = torch.tanh(self.mix(patches)).transpose(1, 2)
        image = F.fold(mixed, (5, 6), 3, padding=1, stride=2)
        return self.head(image.square().mean((2, 3)))


class Resampler(nn.Module):
    """A decoder that grows its maps in every way that PyTorch has."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.third, self.last = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 1, 1)

    def forward(self, x):
        y = F.interpolate(torch.tanh(self.first(x)), scale_factor=2, mode="nearest")
        y = F.interpolate(torch.tanh(self.second(y)), size=(9, 7), mode="bilinear", align_corners=True)
        y = F.interpolate(torch.tanh(self.third(y)), scale_factor=1.5, mode="bicubic", align_corners=False)
        return self.last(F.interpolate(y, size=(6, 6), mode="bilinear", align_corners=False))


class EdgeMaximum(nn.Module):
    """W. Hamilton et al., GraphSAGE with the maximum over neighbours, on a list of edges."""

    def __init__(self):
        super().__init__()
        self.message, self.update, self.head = nn.Linear(4, 5), nn.Linear(9, 5), nn.Linear(5, 3)

    def forward(self, nodes, source, target):
        messages = torch.tanh(self.message(nodes))[source]
        places = target[:, None].expand(-1, messages.shape[1])
        least = torch.full((nodes.shape[0], 5), -2.0, dtype=nodes.dtype)
        gathered = least.scatter_reduce(0, places, messages, "amax")
        return self.head(torch.tanh(self.update(torch.cat([nodes, gathered], 1))))


class StatisticsPooling(nn.Module):
    """Second-order pooling and the less usual reductions: a diagonal, cumulative sums, products, log-sum-exp, norms."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(3, 4), nn.Linear(4 * 6, 3)

    def forward(self, x):
        y = torch.sin(self.embed(x))
        covariance = torch.einsum("btc,btd->bcd", y, y) / y.shape[1]
        parts = [
            torch.einsum("bcc->bc", covariance), y.cumsum(1)[:, -2], (1.5 + y).prod(1),
            torch.logsumexp(y, 1), torch.linalg.vector_norm(y, dim=1), y.abs().sum(1),
        ]
        return self.head(torch.cat(parts, 1))


def edges():
    return {
        "nodes": torch.randn(6, 4), "source": torch.tensor([0, 1, 2, 3, 4, 5, 1, 0, 3, 5]),
        "target": torch.tensor([1, 0, 1, 2, 3, 4, 2, 2, 5, 1]),
    }


CASES = [
    Case(
        name="spatial_transformer", build=SpatialTransformer, inputs=x(3, 2, 5, 6), target=classes(3, 3),
        loss="softmax_cross_entropy",
    ),
    Case(name="patch_mixer", build=PatchMixer, inputs=x(3, 2, 5, 6), target=classes(3, 3), loss="softmax_cross_entropy", opset=18),
    Case(name="resampler", build=Resampler, inputs=x(2, 2, 4, 3), target=normal(2, 1, 6, 6), loss="mean_squared_error"),
    Case(
        name="edge_maximum", build=EdgeMaximum, inputs=edges, target=classes(3, 6), loss="softmax_cross_entropy",
        fixed=("source", "target"), opset=18,
    ),
    Case(name="statistics_pooling", build=StatisticsPooling, inputs=x(3, 5, 3), target=classes(3, 3), loss="softmax_cross_entropy"),
]
