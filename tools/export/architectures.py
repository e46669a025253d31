"""Exports the zoo's architectures with both exporters of PyTorch, with PyTorch's own float64 loss and gradients.

    python tools/export/architectures.py [OUT] [NAME …]

Writes OUT/<name>/{model.onnx, dynamo.onnx, golden.safetensors} (OUT: graphs/architectures); graphs/README.md says what
the files hold. Needs torch, onnx, onnxscript, numpy and safetensors.
"""

import contextlib
import copy
import io
import json
import logging
import sys
import warnings
from pathlib import Path

import numpy
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from safetensors.torch import save_file

from zoo import attention, other, recurrent, resampling, sequence, vision
from zoo.case import Case

CASES = [*vision.CASES, *attention.CASES, *sequence.CASES, *other.CASES, *recurrent.CASES, *resampling.CASES]
SEED = 4711


def loss_of(case: Case, output: torch.Tensor, target: torch.Tensor | None) -> torch.Tensor:
    if case.loss == "softmax_cross_entropy":
        # The classes are on axis 1, of sequences (batch, position, class) on the last.
        logits = output.transpose(1, 2) if output.dim() == 3 else output
        return F.cross_entropy(logits, target)
    if case.loss == "sigmoid_cross_entropy":
        return F.binary_cross_entropy_with_logits(output, target, reduction="sum") / output.shape[0]
    if case.loss == "mean_squared_error":
        return F.mse_loss(output, target)
    return output


def golden_of(case: Case, model, inputs, target, train: bool) -> dict[str, torch.Tensor]:
    """Output, loss and gradients in float64."""
    model = copy.deepcopy(model).double().train(train)
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
            # Neither exporter writes padding_idx, so in the exported model its row is a row like any other.
            module.padding_idx = None
    double = lambda t: t.double() if t.is_floating_point() else t  # noqa: E731
    output = model(*(double(value) for value in inputs.values()))
    loss = loss_of(case, output, None if target is None else double(target))
    loss.backward()
    tensors = {"loss": loss.detach().reshape(1)}
    if case.loss != "in-graph":
        tensors["output"] = output.detach()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            tensors[f"grad/{name}"] = parameter.grad
    return tensors


def export_torchscript(case: Case, model, inputs, path: Path) -> None:
    names = list(inputs)
    output = "loss" if case.loss == "in-graph" else "output"
    axes = {name: {0: "batch"} for name in names if name not in case.fixed}
    if output == "output":
        axes["output"] = {0: "batch"}
    module = copy.deepcopy(model).train()
    torch.onnx.export(
        torch.jit.script(module) if case.scripted else module, tuple(inputs.values()), str(path), input_names=names, output_names=[output],
        dynamic_axes=axes, opset_version=case.opset, training=torch.onnx.TrainingMode.TRAINING,
        do_constant_folding=False, dynamo=False,
    )


def export_dynamo(case: Case, model, inputs, path: Path) -> None:
    batch = torch.export.Dim("batch")
    shapes = tuple({} if name in case.fixed else {0: batch} for name in inputs)
    program = torch.onnx.export(
        copy.deepcopy(model).train(), tuple(inputs.values()), input_names=list(inputs),
        output_names=["loss" if case.loss == "in-graph" else "output"], dynamic_shapes=shapes,
        opset_version=case.dynamo_opset, dynamo=True, optimize=case.dynamo_optimize, verbose=False,
    )
    proto = program.model_proto
    if next(o.version for o in proto.opset_import if not o.domain) != case.dynamo_opset:
        raise RuntimeError(f"asked for opset {case.dynamo_opset}, got {proto.opset_import}")
    forget_source_code(proto)
    onnx.save(proto, str(path))


def forget_source_code(proto: onnx.ModelProto) -> None:
    """Drops stack traces and FX code, which name this machine's files; module names and scopes stay."""
    for owner in [proto.graph, *proto.functions]:
        forget_in(owner.node)


def forget_in(nodes) -> None:
    for node in nodes:
        kept = [entry for entry in node.metadata_props if not entry.key.endswith((".stack_trace", ".fx_node"))]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
        for attribute in node.attribute:
            for graph in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                forget_in(graph.node)


def weight_map(model, path: Path) -> dict[str, str]:
    """Parameters that the exporter renamed, found by value: `initializer`, `initializer:transposed` or `initializer:reshaped`."""
    initializers = {i.name: numpy_helper.to_array(i) for i in onnx.load(path).graph.initializer}
    found = {}
    for name, parameter in model.named_parameters():
        value = parameter.detach().numpy()
        if name in initializers and numpy.array_equal(initializers[name], value):
            continue
        for other_name, array in initializers.items():
            if numpy.array_equal(array, value):
                found[name] = other_name
            elif value.ndim == 2 and numpy.array_equal(array, value.T):
                found[name] = f"{other_name}:transposed"
            elif array.size == value.size and numpy.array_equal(array.flatten(), value.flatten()):
                found[name] = f"{other_name}:reshaped"
        if name not in found:
            raise RuntimeError(f"{path.name} lost the parameter {name}: set dynamo_optimize=False")
    return found


def export(case: Case, out: Path) -> None:
    torch.manual_seed(SEED)
    model = case.build()
    for name, parameter in model.named_parameters():
        # The dynamo exporter merges initializers of equal value, as fresh norms have, and so would tie them.
        parameter.data.add_(0.1 * torch.randn_like(parameter))
        parameter.requires_grad_(not name.startswith(case.frozen) if case.frozen else True)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(0.1 * torch.randn_like(buffer))
        if name.endswith("running_var"):
            buffer.copy_(0.5 + torch.rand_like(buffer))
    inputs = case.inputs()
    target = case.target() if case.target else None
    folder = out / case.name
    folder.mkdir(parents=True, exist_ok=True)

    tensors = {f"input/{name}": value for name, value in inputs.items()}
    if target is not None:
        tensors["target"] = target
    tensors |= golden_of(case, model, inputs, target, train=True)
    if case.has_batch_norm:
        tensors |= {f"eval/{k}": v for k, v in golden_of(case, model, inputs, target, train=False).items()}
    metadata = {"loss": case.loss, "torch": torch.__version__, "note": case.note}
    if case.frozen:
        metadata["frozen"] = json.dumps(case.frozen)

    if case.opset:
        export_torchscript(case, model, inputs, folder / "model.onnx")
        metadata["opset"] = str(case.opset)
        renamed = weight_map(model, folder / "model.onnx")
        if renamed:
            metadata["renamed"] = json.dumps(renamed)
    if case.dynamo_opset:
        export_dynamo(case, model, inputs, folder / "dynamo.onnx")
        metadata["dynamo_opset"] = str(case.dynamo_opset)
        metadata["dynamo_optimized"] = str(case.dynamo_optimize).lower()
        renamed = weight_map(model, folder / "dynamo.onnx")
        if renamed:
            metadata["dynamo_renamed"] = json.dumps(renamed)
    golden = folder / "golden.safetensors"
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, golden, metadata)
    golden.chmod(0o644)
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{case.name}: opset {case.opset} and {case.dynamo_opset}, {size / 1024:.0f} kB, renamed {metadata.get('dynamo_renamed', '')}")


def main() -> int:
    arguments = sys.argv[1:]
    out = Path(arguments[0]) if arguments else Path(__file__).parents[2] / "graphs" / "architectures"
    chosen = arguments[1:]
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    failed = []
    for case in CASES:
        if chosen and case.name not in chosen:
            continue
        log = io.StringIO()
        try:
            with contextlib.redirect_stderr(log):
                export(case, out)
        except Exception as error:  # noqa: BLE001 - one architecture must not hide the others
            failed.append(case.name)
            print(f"{case.name}: FAILED: {type(error).__name__}: {str(error)[:600]}")
    print(f"{len(failed)} failed: {failed}" if failed else "all exported")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
