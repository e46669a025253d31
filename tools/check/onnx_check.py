"""Checks ONNX files as other tools see them: onnx.checker with shape inference, then a session of onnxruntime.

    python tools/check/onnx_check.py MODEL.onnx …

Needs the Python packages onnx and onnxruntime. Prints one line per file; exits with 1 when a file fails.
"""

import argparse
import sys

import onnx
import onnxruntime


def check(path: str) -> str:
    """Checks one file and describes it; raises whatever the checker or the runtime raises."""
    # By path, so that external data is found and files over 2 GB can be checked.
    onnx.checker.check_model(path, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    model = onnx.load(path, load_external_data=False)
    opsets = ", ".join(f"{entry.domain or 'ai.onnx'} {entry.version}" for entry in model.opset_import)
    domains = sorted({node.domain for node in model.graph.node if node.domain not in ("", "ai.onnx")})
    return (
        f"{len(model.graph.node)} nodes, IR {model.ir_version}, opset {opsets}, "
        f"{len(session.get_inputs())} inputs, {len(session.get_outputs())} outputs"
        + (f", operators of {', '.join(domains)}" if domains else "")
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL.onnx")
    paths = parser.parse_args().models
    print(f"onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}")
    failures = 0
    for path in paths:
        try:
            print(f"ok    {path}: {check(path)}")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the result
            failures += 1
            print(f"FAIL  {path}: {type(error).__name__}: {error}")
    print(f"{len(paths) - failures} of {len(paths)} files pass")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
