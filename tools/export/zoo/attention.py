"""Transformers and their relatives, on images, text and sets."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from .case import Case, classes, tokens, x


class ViT(nn.Module):
    """A. Dosovitskiy et al., An Image is Worth 16x16 Words."""

    def __init__(self, dim=8, patches=9):
        super().__init__()
        self.patches = nn.Conv2d(3, dim, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, dim))
        self.position = nn.Parameter(torch.randn(1, patches + 1, dim) * 0.1)
        self.block = nn.TransformerEncoderLayer(dim, 2, 16, 0.0, "gelu", batch_first=True, norm_first=True)
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, 5)

    def forward(self, image):
        y = self.patches(image).flatten(2).transpose(1, 2)
        y = torch.cat([self.token.expand(y.shape[0], -1, -1), y], 1) + self.position
        return self.head(self.norm(self.block(y))[:, 0])


class SwinBlock(nn.Module):
    """Z. Liu et al., Swin Transformer: shifted windows, relative position bias, masked attention."""

    def __init__(self, dim=8, heads=2, size=6, window=3, shift=1):
        super().__init__()
        self.heads, self.size, self.window, self.shift = heads, size, window, shift
        self.embed = nn.Conv2d(3, dim, 2, stride=2)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.project = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.bias = nn.Parameter(torch.randn((2 * window - 1) ** 2, heads) * 0.2)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.head = nn.Linear(dim, 4)
        grid = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        offsets = (grid[:, :, None] - grid[:, None, :] + window - 1).permute(1, 2, 0)
        self.register_buffer("relative", offsets[..., 0] * (2 * window - 1) + offsets[..., 1])
        regions = torch.zeros(size, size)
        cuts = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
        for i, rows in enumerate(cuts):
            for j, columns in enumerate(cuts):
                regions[rows, columns] = 3 * i + j
        windows = self.split(regions[None, :, :, None]).squeeze(-1)
        self.register_buffer("mask", torch.where(windows[:, None, :] == windows[:, :, None], 0.0, -100.0))

    def split(self, image):
        """(batch, H, W, C) to (batch · windows, window², C)."""
        n, w = self.size // self.window, self.window
        return image.reshape(-1, n, w, n, w, image.shape[-1]).transpose(2, 3).reshape(-1, w * w, image.shape[-1])

    def join(self, windows):
        n, w = self.size // self.window, self.window
        return windows.reshape(-1, n, n, w, w, windows.shape[-1]).transpose(2, 3).reshape(-1, n * w, n * w, windows.shape[-1])

    def attend(self, image):
        y = self.split(torch.roll(image, (-self.shift, -self.shift), (1, 2)))
        length, dim = y.shape[1:]
        q, k, v = self.qkv(y).reshape(-1, length, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        scores = q @ k.transpose(-2, -1) / math.sqrt(dim // self.heads)
        scores = scores + self.bias[self.relative.flatten()].reshape(length, length, self.heads).permute(2, 0, 1)
        count = self.mask.shape[0]
        scores = scores.reshape(-1, count, self.heads, length, length) + self.mask.to(scores.dtype)[:, None]
        weights = scores.reshape(-1, self.heads, length, length).softmax(-1)
        y = self.project((weights @ v).transpose(1, 2).reshape(-1, length, dim))
        return torch.roll(self.join(y), (self.shift, self.shift), (1, 2))

    def forward(self, image):
        y = self.embed(image).permute(0, 2, 3, 1)
        y = y + self.attend(self.norm1(y))
        y = y + self.mlp(self.norm2(y))
        return self.head(y.mean((1, 2)))


class MixerBlock(nn.Module):
    def __init__(self, length, dim):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.tokens = nn.Sequential(nn.Linear(length, 6), nn.GELU(), nn.Linear(6, length))
        self.channels = nn.Sequential(nn.Linear(dim, 12), nn.GELU(), nn.Linear(12, dim))

    def forward(self, y):
        y = y + self.tokens(self.norm1(y).transpose(1, 2)).transpose(1, 2)
        return y + self.channels(self.norm2(y))


class Mixer(nn.Module):
    """I. Tolstikhin et al., MLP-Mixer."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.blocks = nn.Sequential(MixerBlock(4, 8), MixerBlock(4, 8))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, image):
        y = self.patches(image).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(y)).mean(1))


class Detr(nn.Module):
    """N. Carion et al., DETR: learned queries attend to a small backbone's features; boxes in [0, 1]."""

    def __init__(self, dim=8):
        super().__init__()
        self.backbone = nn.Conv2d(3, dim, 4, stride=4)
        self.queries = nn.Parameter(torch.randn(3, dim))
        self.position = nn.Parameter(torch.randn(9, dim) * 0.2)
        self.decoder = nn.TransformerDecoderLayer(dim, 2, 12, 0.0, batch_first=True)
        self.boxes = nn.Linear(dim, 4)

    def forward(self, image):
        memory = self.backbone(image).flatten(2).transpose(1, 2) + self.position
        queries = self.queries.unsqueeze(0).expand(image.shape[0], -1, -1)
        return torch.sigmoid(self.boxes(self.decoder(queries, memory)))


class RMSNorm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, y):
        return y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class LlamaBlock(nn.Module):
    """Rotary positions, grouped queries, SwiGLU (H. Touvron et al.)."""

    def __init__(self, dim=8, heads=4, kv_heads=2, length=6):
        super().__init__()
        self.heads, self.kv_heads, self.size = heads, kv_heads, dim // heads
        self.norm1, self.norm2 = RMSNorm(dim), RMSNorm(dim)
        self.q = nn.Linear(dim, dim, bias=False)
        self.k = nn.Linear(dim, kv_heads * self.size, bias=False)
        self.v = nn.Linear(dim, kv_heads * self.size, bias=False)
        self.o = nn.Linear(dim, dim, bias=False)
        self.gate, self.up, self.down = nn.Linear(dim, 12, False), nn.Linear(dim, 12, False), nn.Linear(12, dim, False)
        angles = torch.outer(torch.arange(length).float(), 100.0 ** -torch.arange(0, 1, 2 / self.size))
        angles = torch.cat([angles, angles], -1)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def rotate(self, y):
        first, second = y.chunk(2, -1)
        return y * self.cos + torch.cat([-second, first], -1) * self.sin

    def forward(self, y):
        batch, length, dim = y.shape
        h = self.norm1(y)
        q = self.rotate(self.q(h).view(batch, length, self.heads, self.size).transpose(1, 2))
        k = self.rotate(self.k(h).view(batch, length, self.kv_heads, self.size).transpose(1, 2))
        v = self.v(h).view(batch, length, self.kv_heads, self.size).transpose(1, 2)
        k, v = (t.repeat_interleave(self.heads // self.kv_heads, 1) for t in (k, v))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        y = y + self.o(attended.transpose(1, 2).reshape(batch, length, dim))
        h = self.norm2(y)
        return y + self.down(F.silu(self.gate(h)) * self.up(h))


class Llama(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.block, self.norm = nn.Embedding(11, 8), LlamaBlock(), RMSNorm(8)
        self.head = nn.Linear(8, 11, bias=False)

    def forward(self, ids):
        return self.head(self.norm(self.block(self.embed(ids))))


class Bert(nn.Module):
    """J. Devlin et al.: three embeddings, padding mask, tanh pooler."""

    def __init__(self, dim=8):
        super().__init__()
        self.words, self.places, self.kinds = nn.Embedding(13, dim), nn.Embedding(6, dim), nn.Embedding(2, dim)
        self.norm = nn.LayerNorm(dim)
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.up, self.down = nn.Linear(dim, 12), nn.Linear(12, dim)
        self.pooler, self.head = nn.Linear(dim, dim), nn.Linear(dim, 3)
        self.register_buffer("order", torch.arange(6)[None])

    def forward(self, ids, kinds, mask):
        y = self.norm(self.words(ids) + self.places(self.order) + self.kinds(kinds))
        split = lambda t: t.view(t.shape[0], 6, 2, 4).transpose(1, 2)  # noqa: E731
        q, k, v = split(self.q(y)), split(self.k(y)), split(self.v(y))
        hidden = (1.0 - mask[:, None, None, :].to(y.dtype)) * -1e4
        weights = F.dropout((q @ k.transpose(-1, -2) / 2.0 + hidden).softmax(-1), 0.0, self.training)
        y = self.norm1(y + self.o((weights @ v).transpose(1, 2).flatten(2)))
        y = self.norm2(y + self.down(F.gelu(self.up(y), approximate="tanh")))
        return self.head(torch.tanh(self.pooler(y[:, 0])))


class Lora(nn.Module):
    """E. Hu et al., LoRA: a frozen linear layer and a low-rank update that trains."""

    def __init__(self, fan_in, fan_out, rank=2):
        super().__init__()
        self.base = nn.Linear(fan_in, fan_out)
        self.down, self.up = nn.Linear(fan_in, rank, bias=False), nn.Linear(rank, fan_out, bias=False)

    def forward(self, y):
        return self.base(y) + self.up(self.down(y)) * 2.0


class LoraTransformer(nn.Module):
    def __init__(self, dim=8):
        super().__init__()
        self.backbone_embed = nn.Embedding(11, dim)
        self.backbone_norm = nn.LayerNorm(dim)
        self.q, self.v = Lora(dim, dim), Lora(dim, dim)
        self.backbone_k = nn.Linear(dim, dim)
        self.head = nn.Linear(dim, 3)

    def forward(self, ids):
        y = self.backbone_norm(self.backbone_embed(ids))
        scores = self.q(y) @ self.backbone_k(y).transpose(1, 2) / math.sqrt(y.shape[-1])
        return self.head((y + scores.softmax(-1) @ self.v(y)).mean(1))


class LinearAttention(nn.Module):
    """A. Katharopoulos et al., Transformers are RNNs: elu + 1 features, causal by cumulative sums, einsum throughout."""

    def __init__(self, dim=6):
        super().__init__()
        self.q, self.k, self.v = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.head = nn.Linear(dim, 4)

    def forward(self, y):
        q, k, v = F.elu(self.q(y)) + 1, F.elu(self.k(y)) + 1, self.v(y)
        state = torch.einsum("bld,ble->blde", k, v).cumsum(1)
        total = torch.einsum("bld,bld->bl", q, k.cumsum(1))
        attended = torch.einsum("bld,blde->ble", q, state) / total[..., None]
        return self.head(attended + y)


class Perceiver(nn.Module):
    """A. Jaegle et al., Perceiver: a few latents read a long input twice with the same weights."""

    def __init__(self, dim=6):
        super().__init__()
        self.latents = nn.Parameter(torch.randn(3, dim))
        self.read = nn.MultiheadAttention(dim, 2, batch_first=True)
        self.think = nn.Linear(dim, dim)
        self.head = nn.Linear(dim, 3)

    def forward(self, y):
        z = self.latents.unsqueeze(0).expand(y.shape[0], -1, -1)
        for _ in range(2):
            z = z + self.read(z, y, y, need_weights=False)[0]
            z = z + torch.tanh(self.think(z))
        return self.head(z.mean(1))


def bert_batch():
    mask = torch.ones(3, 6, dtype=torch.int64)
    mask[1, 4:] = 0
    mask[2, 2:] = 0
    return {"ids": torch.randint(13, (3, 6)), "kinds": torch.randint(2, (3, 6)), "mask": mask}


CASES = [
    Case(
        name="vit", build=ViT, inputs=x(3, 3, 12, 12), target=classes(5, 3), loss="softmax_cross_entropy", opset=14,
        dynamo_opset=23,
    ),
    Case(
        name="swin_block", build=SwinBlock, inputs=x(2, 3, 12, 12), target=classes(4, 2), loss="softmax_cross_entropy",
        dynamo_opset=20, dynamo_optimize=False,
    ),
    Case(name="mlp_mixer", build=Mixer, inputs=x(3, 3, 8, 8), target=classes(5, 3), loss="softmax_cross_entropy", opset=20),
    Case(
        name="detr", build=Detr, inputs=x(2, 3, 12, 12), target=lambda: torch.rand(2, 3, 4), loss="mean_squared_error",
        dynamo_opset=23,
    ),
    Case(
        name="llama", build=Llama, inputs=tokens(11, 2, 6), target=classes(11, 2, 6), loss="softmax_cross_entropy",
        dynamo_opset=23,
    ),
    Case(
        name="bert", build=Bert, inputs=bert_batch, target=classes(3, 3), loss="softmax_cross_entropy", opset=12,
        dynamo_opset=20,
    ),
    Case(
        name="lora", build=LoraTransformer, inputs=tokens(11, 3, 5), target=classes(3, 3), loss="softmax_cross_entropy",
        frozen=("backbone_", "q.base", "v.base"), note="the backbone is frozen: gradients of the adapters and the head only",
    ),
    Case(
        name="linear_attention", build=LinearAttention, inputs=x(2, 5, 6), target=classes(4, 2, 5),
        loss="softmax_cross_entropy", opset=14,
    ),
    Case(
        name="perceiver", build=Perceiver, inputs=x(3, 7, 6), target=classes(3, 3), loss="softmax_cross_entropy",
        note="the same weights read twice",
    ),
]
