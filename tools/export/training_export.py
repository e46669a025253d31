"""How the scripts of this folder export a model for training: parameters by their own names, nothing folded or merged."""

import torch


def export_for_training(model, example, path, opset, output="logits"):
    """Writes `model` in train() mode with the input `image` and a symbolic batch (the TorchScript exporter), and says what it wrote."""
    torch.onnx.export(
        model,
        (example,),
        str(path),
        input_names=["image"],
        output_names=[output],
        dynamic_axes={"image": {0: "batch"}, output: {0: "batch"}},
        opset_version=opset,
        training=torch.onnx.TrainingMode.TRAINING,
        do_constant_folding=False,
        dynamo=False,
    )
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{path}: {count} parameters, {path.stat().st_size} bytes, PyTorch {torch.__version__}")
