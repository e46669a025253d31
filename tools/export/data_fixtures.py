"""Writes the dataset fixtures of test/fixtures/data by the libraries that users write them with.

    python tools/export/data_fixtures.py [OUT]

OUT: test/fixtures/data/formats. Needs numpy, pyarrow and pillow. Every fixture has its values in expected.npz under
the fixture's name.
"""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

OUT = Path(sys.argv[1] if len(sys.argv) > 1 else "test/fixtures/data/formats")
RANDOM = np.random.default_rng(4711)
expected: dict[str, np.ndarray] = {}


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Smooth colours with some noise, as photographs have them."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [128 + 90 * np.sin(x / (3 + k) + y / (5 - k)) for k in range(channels)]
    values = np.stack(waves, -1) + RANDOM.normal(0, 8, (height, width, channels))
    pixels = np.clip(values, 0, 255).astype(np.uint8)
    return pixels[..., 0] if channels == 1 else pixels


def encoded(pixels: np.ndarray | Image.Image, kind: str, **options) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def decoded(data: bytes, mode: str) -> np.ndarray:
    """Channels first."""
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert(mode))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def images() -> None:
    folder = OUT / "images"
    folder.mkdir(parents=True, exist_ok=True)
    rgba = np.dstack([picture(9, 11), RANDOM.integers(0, 256, (9, 11), np.uint8)])
    files = {
        "rgb.png": (encoded(picture(9, 11), "PNG"), "RGB"),
        "grey.png": (encoded(picture(9, 11, 1), "PNG"), "L"),
        "alpha.png": (encoded(rgba, "PNG"), "RGBA"),
        "palette.png": (encoded(Image.fromarray(picture(9, 11)).quantize(16), "PNG"), "RGB"),
        "bits1.png": (encoded(Image.fromarray(picture(9, 11, 1)).convert("1"), "PNG"), "L"),
        "rgb.jpg": (encoded(picture(37, 45), "JPEG", quality=85), "RGB"),
        "progressive.jpg": (encoded(picture(37, 45), "JPEG", quality=75, progressive=True), "RGB"),
        "grey.jpg": (encoded(picture(21, 18, 1), "JPEG", quality=90), "L"),
    }
    for name, (data, mode) in files.items():
        (folder / name).write_bytes(data)
        pixels = decoded(data, mode)
        # Transparency is dropped.
        expected[f"images/{name}"] = pixels[:3]
    big = Image.fromarray(picture(40, 60))
    (folder / "big.png").write_bytes(encoded(big, "PNG"))
    for size in [(20, 30), (17, 23), (80, 120)]:
        resized = np.asarray(big.resize((size[1], size[0]), Image.Resampling.BILINEAR))
        expected[f"resize/{size[0]}x{size[1]}"] = resized.transpose(2, 0, 1)
    # The shorter side to 16, then the middle 16 x 16: torchvision's Resize(16) and CenterCrop(16).
    resized = big.resize((24, 16), Image.Resampling.BILINEAR).crop((4, 0, 20, 16))
    expected["crop/16x16"] = np.asarray(resized).transpose(2, 0, 1)
    expected["luma/rgb.png"] = decoded((folder / "rgb.png").read_bytes(), "L")


def image_folder() -> None:
    for label, name in enumerate(["ant", "bee", "cat"]):
        folder = OUT / "classes" / name
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(3):
            pixels = np.full((4, 5, 3), 10 * label + i, np.uint8)
            (folder / f"{i}.png").write_bytes(encoded(pixels, "PNG"))


def cifar() -> None:
    """The layout of https://www.cs.toronto.edu/~kriz/cifar.html, cut to a few records."""
    for name, labels, files in [
        ("cifar10", ["labels"], ["data_batch_1.bin", "data_batch_2.bin", "test_batch.bin"]),
        ("cifar100", ["coarse_labels", "fine_labels"], ["train.bin", "test.bin"]),
    ]:
        folder = OUT / name
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            pixels = RANDOM.integers(0, 256, (3, 3, 32, 32), np.uint8)
            values = {label: RANDOM.integers(0, 10, 3).astype(np.uint8) for label in labels}
            records = [np.concatenate([[values[label][i] for label in labels], pixels[i].ravel()]) for i in range(3)]
            np.concatenate(records).astype(np.uint8).tofile(folder / file)
            expected[f"{name}/{file}/images"] = pixels
            for label in labels:
                expected[f"{name}/{file}/{label}"] = values[label]


def parquet() -> None:
    folder = OUT / "parquet"
    folder.mkdir(parents=True, exist_ok=True)
    count = 23
    table = {
        "float": pa.array(RANDOM.normal(size=count), pa.float32()),
        "double": pa.array(RANDOM.normal(size=count), pa.float64()),
        "int": pa.array(RANDOM.integers(-1000, 1000, count), pa.int32()),
        "long": pa.array(RANDOM.integers(-(2**40), 2**40, count), pa.int64()),
        "byte": pa.array(RANDOM.integers(0, 256, count), pa.uint8()),
        "flag": pa.array(RANDOM.integers(0, 2, count).astype(bool)),
        "list": pa.array(RANDOM.normal(size=(count, 3)).astype(np.float32).tolist(), pa.list_(pa.float32())),
        "matrix": pa.array(RANDOM.integers(0, 9, (count, 2, 3)).tolist(), pa.list_(pa.list_(pa.int64()))),
        "word": pa.array([["bee", "ant", "cat"][i % 3 if i < 12 else i % 2] for i in range(count)]),
    }
    for codec in ["snappy", "zstd", "gzip", "brotli", "lz4", "none"]:
        pq.write_table(pa.table(table), folder / f"{codec}.parquet", compression=codec, row_group_size=10)
    for name, column in table.items():
        if name == "word":
            continue
        expected[f"parquet/{name}"] = np.array(column.to_pylist(), column.type.to_pandas_dtype() if name not in ("list", "matrix") else None)
    # As Hugging Face's datasets.Image() stores them.
    pixels = [encoded(picture(8, 6), "PNG" if i % 2 else "JPEG") for i in range(7)]
    struct = pa.array([{"bytes": data, "path": f"{i}.png"} for i, data in enumerate(pixels)])
    labels = pa.array([i % 3 for i in range(7)], pa.int64())
    features = {"image": {"_type": "Image"}, "label": {"names": ["a", "b", "c"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    shards = OUT / "hub"
    shards.mkdir(parents=True, exist_ok=True)
    whole = pa.table({"image": struct, "label": labels}).replace_schema_metadata(metadata)
    pq.write_table(whole.slice(0, 4), shards / "train-00000-of-00002.parquet", row_group_size=3)
    pq.write_table(whole.slice(4), shards / "train-00001-of-00002.parquet", row_group_size=3)
    pq.write_table(whole.slice(0, 2), shards / "test-00000-of-00001.parquet")
    expected["hub/image"] = np.stack([decoded(data, "RGB") for data in pixels])
    expected["hub/label"] = np.array(labels)


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    images()
    image_folder()
    cifar()
    parquet()
    np.savez_compressed(OUT / "expected.npz", **{name.replace("/", "|"): value for name, value in expected.items()})
