"""Writes schema-versions.json: the opsets of the default domain that introduced or changed each operator.

    python tools/docs/schema-versions.py

Needs the Python package onnx.
"""

import json
from pathlib import Path

import onnx

versions: dict[str, list[int]] = {}
for schema in onnx.defs.get_all_schemas_with_history():
    if schema.domain == "":
        versions.setdefault(schema.name, []).append(schema.since_version)
        if schema.deprecated:
            versions[schema.name].append(-schema.since_version)
table = {name: sorted(found, key=abs) for name, found in sorted(versions.items())}
note = f"onnx {onnx.__version__}, onnx.defs.get_all_schemas_with_history(); a negative opset removed the operator."
rows = ",\n".join(f"    {json.dumps(name)}: {json.dumps(found)}" for name, found in table.items())
text = f'{{\n  "source": {json.dumps(note)},\n  "versions": {{\n{rows}\n  }}\n}}\n'
Path(__file__).with_name("schema-versions.json").write_text(text)
