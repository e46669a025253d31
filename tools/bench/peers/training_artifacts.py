"""ONNX Runtime training artifacts of a work: `training_artifacts.py FOLDER` writes FOLDER/artifacts."""

import json
import sys
from pathlib import Path

import onnx
from onnxruntime.training import artifacts


def generate(folder):
    """Returns the folder of the artifacts; the loss is onnxblock's, the optimizer AdamW."""
    folder = Path(folder)
    work = json.loads((folder / "work.json").read_text())
    model = onnx.load(folder / "model.onnx")
    loss = {
        "softmax-cross-entropy": artifacts.LossType.CrossEntropyLoss,
        "sigmoid-cross-entropy": artifacts.LossType.BCEWithLogitsLoss,
        "mean-squared-error": artifacts.LossType.MSELoss,
    }[work["loss"]]
    out = folder / "artifacts"
    out.mkdir(exist_ok=True)
    artifacts.generate_artifacts(
        model,
        requires_grad=[t.name for t in model.graph.initializer if t.data_type == 1 and len(t.dims) > 0],
        loss=loss,
        optimizer=artifacts.OptimType.AdamW,
        artifact_directory=str(out),
    )
    return out


if __name__ == "__main__":
    generate(sys.argv[1])
