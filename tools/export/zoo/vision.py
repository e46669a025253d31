"""Image models, a few channels wide."""

import torch
import torch.nn.functional as F
from torch import nn

from .case import Case, classes, normal, x


class ChannelsLastNorm(nn.LayerNorm):
    def forward(self, image):
        return super().forward(image.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.depthwise = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.expand = nn.Linear(dim, 4 * dim)
        self.project = nn.Linear(4 * dim, dim)
        self.scale = nn.Parameter(torch.full((dim,), 0.1))

    def forward(self, image):
        y = self.depthwise(image).permute(0, 2, 3, 1)
        y = self.project(F.gelu(self.expand(self.norm(y)))) * self.scale
        return image + y.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """Z. Liu et al., A ConvNet for the 2020s."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 2, stride=2), ChannelsLastNorm(6))
        self.stage1 = ConvNeXtBlock(6)
        self.down = nn.Sequential(ChannelsLastNorm(6), nn.Conv2d(6, 8, 2, stride=2))
        self.stage2 = ConvNeXtBlock(8)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 5)

    def forward(self, image):
        y = self.stage2(self.down(self.stage1(self.stem(image))))
        return self.head(self.norm(y.mean((2, 3))))


class DoubleConv(nn.Sequential):
    def __init__(self, fan_in, fan_out):
        super().__init__(
            nn.Conv2d(fan_in, fan_out, 3, padding=1), nn.ReLU(), nn.Conv2d(fan_out, fan_out, 3, padding=1), nn.ReLU()
        )


class UNet(nn.Module):
    """O. Ronneberger et al., U-Net; classes per pixel."""

    def __init__(self):
        super().__init__()
        self.down1, self.down2, self.bottom = DoubleConv(2, 4), DoubleConv(4, 6), DoubleConv(6, 8)
        self.up2, self.merge2 = nn.ConvTranspose2d(8, 6, 2, stride=2), DoubleConv(12, 6)
        self.up1, self.merge1 = nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1), DoubleConv(8, 4)
        self.head = nn.Conv2d(4, 3, 1)

    def forward(self, image):
        a = self.down1(image)
        b = self.down2(F.max_pool2d(a, 2))
        c = self.bottom(F.max_pool2d(b, 2))
        b = self.merge2(torch.cat([self.up2(c), b], 1))
        return self.head(self.merge1(torch.cat([self.up1(b), a], 1)))


class DenseLayer(nn.Module):
    def __init__(self, fan_in, growth):
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(fan_in), nn.Conv2d(fan_in, growth, 3, padding=1, bias=False)

    def forward(self, image):
        return torch.cat([image, self.conv(F.relu(self.norm(image)))], 1)


class DenseNet(nn.Module):
    """G. Huang et al., Densely Connected Convolutional Networks."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.block1 = nn.Sequential(DenseLayer(4, 3), DenseLayer(7, 3))
        self.transition = nn.Sequential(nn.BatchNorm2d(10), nn.ReLU(), nn.Conv2d(10, 5, 1, bias=False), nn.AvgPool2d(2))
        self.block2 = nn.Sequential(DenseLayer(5, 3), DenseLayer(8, 3))
        self.norm = nn.BatchNorm2d(11)
        self.head = nn.Linear(11, 4)

    def forward(self, image):
        y = self.block2(self.transition(self.block1(self.stem(image))))
        return self.head(F.adaptive_avg_pool2d(F.relu(self.norm(y)), 1).flatten(1))


class SqueezeExcite(nn.Module):
    def __init__(self, channels, reduced, gate):
        super().__init__()
        self.reduce, self.expand, self.gate = nn.Conv2d(channels, reduced, 1), nn.Conv2d(reduced, channels, 1), gate

    def forward(self, image):
        pooled = F.adaptive_avg_pool2d(image, 1)
        return image * self.gate(self.expand(F.relu(self.reduce(pooled))))


class MBConv(nn.Module):
    """Inverted bottleneck with squeeze-and-excitation: the block of EfficientNet (M. Tan and Q. Le) and MobileNetV3."""

    def __init__(self, channels, wide, activation, gate):
        super().__init__()
        self.expand, self.norm1 = nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide)
        self.depthwise = nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False)
        self.norm2 = nn.BatchNorm2d(wide)
        self.squeeze = SqueezeExcite(wide, 3, gate)
        self.project, self.norm3 = nn.Conv2d(wide, channels, 1, bias=False), nn.BatchNorm2d(channels)
        self.activation = activation

    def forward(self, image):
        y = self.activation(self.norm1(self.expand(image)))
        y = self.squeeze(self.activation(self.norm2(self.depthwise(y))))
        return image + self.norm3(self.project(y))


class BlockClassifier(nn.Module):
    def __init__(self, block, channels=6, count=4):
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.block = block
        self.head = nn.Linear(channels, count)

    def forward(self, image):
        return self.head(self.block(self.stem(image)).mean((2, 3)))


class Fire(nn.Module):
    """F. Iandola et al., SqueezeNet."""

    def __init__(self, fan_in, squeeze, expand):
        super().__init__()
        self.squeeze = nn.Conv2d(fan_in, squeeze, 1)
        self.expand1, self.expand3 = nn.Conv2d(squeeze, expand, 1), nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, image):
        y = F.relu(self.squeeze(image))
        return torch.cat([F.relu(self.expand1(y)), F.relu(self.expand3(y))], 1)


class SqueezeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2)
        self.fire1, self.fire2 = Fire(6, 3, 4), Fire(8, 3, 4)
        self.head = nn.Conv2d(8, 5, 1)

    def forward(self, image):
        y = F.max_pool2d(F.relu(self.stem(image)), 3, stride=2, ceil_mode=True)
        y = F.max_pool2d(self.fire2(self.fire1(y)), 3, stride=2, ceil_mode=True)
        return F.adaptive_avg_pool2d(self.head(y), 1).flatten(1)


class Inception(nn.Module):
    """C. Szegedy et al., Going Deeper with Convolutions: parallel branches, factorised kernels, pooling at stride 1."""

    def __init__(self):
        super().__init__()
        self.point = nn.Conv2d(3, 3, 1)
        self.factorised = nn.Sequential(nn.Conv2d(3, 3, (1, 5), padding=(0, 2)), nn.Conv2d(3, 3, (5, 1), padding=(2, 0)))
        self.dilated = nn.Conv2d(3, 3, 3, padding=2, dilation=2)
        self.pooled = nn.Conv2d(3, 3, 1)
        self.head = nn.Linear(12 * 4, 4)

    def forward(self, image):
        average = F.avg_pool2d(image, 3, stride=1, padding=1, count_include_pad=False)
        branches = [self.point(image), self.factorised(image), self.dilated(image), self.pooled(average)]
        y = F.avg_pool2d(F.elu(torch.cat(branches, 1)), 3, stride=3, padding=1)
        return self.head(F.adaptive_avg_pool2d(y, 2).flatten(1)) if y.shape[-1] != 2 else self.head(y.flatten(1))


class FeaturePyramid(nn.Module):
    """T.-Y. Lin et al., Feature Pyramid Networks: bilinear upsampling and lateral connections."""

    def __init__(self):
        super().__init__()
        self.down1 = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.down2 = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.lateral1, self.lateral2 = nn.Conv2d(4, 5, 1), nn.Conv2d(6, 5, 1)
        self.smooth = nn.Conv2d(5, 5, 3, padding=1)
        self.head = nn.Conv2d(5, 3, 1)

    def forward(self, image):
        a = torch.tanh(self.down1(image))
        b = torch.tanh(self.down2(a))
        top = F.interpolate(self.lateral2(b), scale_factor=2, mode="bilinear", align_corners=False)
        return self.head(self.smooth(self.lateral1(a) + top))


class ConvAutoencoder(nn.Module):
    """Strided convolutions down, nearest-neighbour upsampling and convolutions up; logits of pixels."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.SELU(), nn.Conv2d(4, 6, 3, stride=2, padding=1))
        self.decoder = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="nearest"),
            nn.Conv2d(6, 4, 3, padding=1),
            nn.SELU(),
            nn.Upsample(scale_factor=2, mode="nearest"),
            nn.Conv2d(4, 1, 3, padding=1),
        )

    def forward(self, image):
        return self.decoder(self.encoder(image))


class Discriminator(nn.Module):
    """A. Radford et al., DCGAN: strided convolutions, LeakyReLU, one logit."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2, 4, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(4, 6, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(6),
            nn.LeakyReLU(0.2),
            nn.Conv2d(6, 1, 3),
            nn.Flatten(),
        )

    def forward(self, image):
        return self.layers(image)


class Generator(nn.Module):
    """DCGAN's generator: ConvTranspose, BatchNorm, tanh output compared with images."""

    def __init__(self):
        super().__init__()
        self.start = nn.ConvTranspose2d(5, 6, 3, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.up = nn.ConvTranspose2d(6, 4, 4, stride=2, padding=1)
        self.grow = nn.ConvTranspose2d(4, 2, (3, 4), stride=(1, 2), padding=1, output_padding=(0, 1), groups=2)

    def forward(self, code):
        y = F.relu(self.norm(self.start(code[:, :, None, None])))
        return torch.tanh(self.grow(F.relu(self.up(y))))


class ShuffleUnit(nn.Module):
    """X. Zhang et al., ShuffleNet: grouped convolutions and a channel shuffle."""

    def __init__(self, channels, groups):
        super().__init__()
        self.groups = groups
        self.point1 = nn.Conv2d(channels, channels, 1, groups=groups)
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.point2 = nn.Conv2d(channels, channels, 1, groups=groups)

    def forward(self, image):
        y = F.relu(self.point1(image))
        batch, channels, height, width = y.shape
        y = y.view(batch, self.groups, channels // self.groups, height, width).transpose(1, 2)
        y = y.reshape(batch, channels, height, width)
        return F.relu(image + self.point2(self.depthwise(y)))


class SubPixel(nn.Module):
    """W. Shi et al., ESPCN: super-resolution by depth-to-space."""

    def __init__(self):
        super().__init__()
        self.features, self.shrink = nn.Conv2d(1, 5, 5, padding=2), nn.Conv2d(5, 4, 3, padding=1)
        self.shuffle = nn.PixelShuffle(2)

    def forward(self, image):
        return self.shuffle(self.shrink(torch.tanh(self.features(image))))


class StyleNet(nn.Module):
    """Instance normalisation and reflection padding, as in J. Johnson et al.'s style transfer."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(2, 5, 3), nn.InstanceNorm2d(5, affine=True)
        self.conv2, self.norm2 = nn.Conv2d(5, 5, 3), nn.InstanceNorm2d(5, affine=True)
        self.out = nn.Conv2d(5, 2, 3)

    def forward(self, image):
        y = F.relu(self.norm1(self.conv1(F.pad(image, (1, 1, 1, 1), mode="reflect"))))
        y = y + self.norm2(self.conv2(F.pad(y, (1, 1, 1, 1), mode="reflect")))
        return self.out(F.pad(y, (1, 1, 1, 1), mode="replicate"))


class GroupNormNet(nn.Module):
    """Group normalisation (Y. Wu and K. He) with Mish (D. Misra)."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 6, 3, padding=1), nn.GroupNorm(3, 6)
        self.conv2, self.norm2 = nn.Conv2d(6, 6, 3, stride=2, padding=1), nn.GroupNorm(2, 6)
        self.head = nn.Linear(6, 4)

    def forward(self, image):
        y = F.mish(self.norm1(self.conv1(image)))
        y = F.mish(self.norm2(self.conv2(y)))
        return self.head(y.amax((2, 3)))


class AlexLike(nn.Module):
    """Local response normalisation and overlapping pools (A. Krizhevsky et al.)."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 5, 5, stride=2, padding=2), nn.Conv2d(5, 6, 3, padding=1)
        self.hidden, self.head = nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, image):
        y = F.max_pool2d(F.local_response_norm(F.relu(self.conv1(image)), 3, alpha=0.1), 3, stride=2)
        y = F.max_pool2d(F.relu(self.conv2(y)), 3, stride=1)
        return self.head(F.dropout(F.relu(self.hidden(y.flatten(1))), 0.0, self.training))


class Video(nn.Module):
    """3-D convolutions and pools."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv3d(2, 3, (3, 3, 3), padding=1)
        self.conv2 = nn.Conv3d(3, 4, (2, 3, 3), stride=(1, 2, 2))
        self.head = nn.Linear(4, 3)

    def forward(self, clip):
        y = F.max_pool3d(torch.tanh(self.conv1(clip)), (1, 2, 2))
        return self.head(torch.tanh(self.conv2(y)).mean((2, 3, 4)))


CASES = [
    Case(name="convnext", build=ConvNeXt, inputs=x(3, 3, 12, 12), target=classes(5, 3), loss="softmax_cross_entropy"),
    Case(name="unet", build=UNet, inputs=x(2, 2, 8, 8), target=classes(3, 2, 8, 8), loss="softmax_cross_entropy"),
    Case(
        name="densenet", build=DenseNet, inputs=x(4, 3, 8, 8), target=classes(4, 4), loss="softmax_cross_entropy",
        has_batch_norm=True, dynamo_optimize=False,
    ),
    Case(
        name="efficientnet_block", build=lambda: BlockClassifier(MBConv(6, 12, nn.SiLU(), nn.Sigmoid())),
        inputs=x(4, 3, 8, 8), target=classes(4, 4), loss="softmax_cross_entropy", has_batch_norm=True, dynamo_optimize=False,
    ),
    Case(
        name="mobilenetv3_block", build=lambda: BlockClassifier(MBConv(6, 10, nn.Hardswish(), nn.Hardsigmoid())),
        inputs=x(4, 3, 8, 8), target=classes(4, 4), loss="softmax_cross_entropy", opset=14, has_batch_norm=True,
        dynamo_optimize=False, dynamo_opset=22,
    ),
    Case(
        name="squeezenet", build=SqueezeNet, inputs=x(3, 3, 15, 15), target=classes(5, 3), loss="softmax_cross_entropy",
        opset=13, dynamo_opset=20,
    ),
    Case(name="inception", build=Inception, inputs=x(3, 3, 6, 6), target=classes(4, 3), loss="softmax_cross_entropy", opset=11),
    Case(
        name="feature_pyramid", build=FeaturePyramid, inputs=x(2, 3, 8, 8), target=classes(3, 2, 4, 4),
        loss="softmax_cross_entropy", opset=13, dynamo_opset=19,
    ),
    Case(
        name="conv_autoencoder", build=ConvAutoencoder, inputs=lambda: {"x": torch.rand(2, 1, 8, 8)},
        target=lambda: torch.rand(2, 1, 8, 8), loss="sigmoid_cross_entropy", opset=11,
    ),
    Case(
        name="gan_discriminator", build=Discriminator, inputs=x(4, 2, 12, 12),
        target=lambda: torch.tensor([[1.0], [0.0], [1.0], [0.0]]), loss="sigmoid_cross_entropy", has_batch_norm=True,
        dynamo_optimize=False,
    ),
    Case(
        name="gan_generator", build=Generator, inputs=x(4, 5), target=normal(4, 2, 6, 13), loss="mean_squared_error",
        has_batch_norm=True, dynamo_optimize=False, dynamo_opset=23,
    ),
    Case(
        name="shufflenet_block", build=lambda: BlockClassifier(ShuffleUnit(6, 3)), inputs=x(3, 3, 8, 8), target=classes(4, 3),
        loss="softmax_cross_entropy", opset=12,
    ),
    Case(name="sub_pixel", build=SubPixel, inputs=x(2, 1, 5, 6), target=normal(2, 1, 10, 12), loss="mean_squared_error"),
    Case(name="style_net", build=StyleNet, inputs=x(2, 2, 6, 6), target=normal(2, 2, 6, 6), loss="mean_squared_error"),
    Case(
        name="group_norm_net", build=GroupNormNet, inputs=x(3, 3, 6, 6), target=classes(4, 3), loss="softmax_cross_entropy",
        opset=18, dynamo_opset=21,
    ),
    Case(name="alexnet_like", build=AlexLike, inputs=x(3, 3, 14, 14), target=classes(4, 3), loss="softmax_cross_entropy"),
    Case(name="video_3d", build=Video, inputs=x(2, 2, 3, 8, 8), target=classes(3, 2), loss="softmax_cross_entropy", opset=16),
]
