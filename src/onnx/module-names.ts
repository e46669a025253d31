/**
 * The modules that weights belong to, where the exporter says so. PyTorch's `torch.export`-based exporter renames
 * weights that it transposes to `val_<n>`, but keeps the scopes of every node in its metadata
 * (`pkg.torch.onnx.name_scopes`, such as `['', 'encoder', 'encoder.0', 'linear']`).
 */
import type { GraphProto, NodeProto } from "./proto.js";

const SCOPES_KEY = "pkg.torch.onnx.name_scopes";
/** Names that exporters make up. */
const GENERATED = /^(val_\d|onnx::)/;

/** Module by initializer, for weights under a generated name: `val_4` → `q.base`. */
export function moduleNames(graph: GraphProto): Map<string, string> {
  const generated = new Set(
    graph.initializer.map((tensor) => tensor.name ?? "").filter((name) => GENERATED.test(name)),
  );
  const modules = new Map<string, string>();
  if (generated.size === 0) return modules;
  for (const node of graph.node) {
    const module = moduleOf(node);
    if (!module) continue;
    for (const name of node.input) if (generated.has(name) && !modules.has(name)) modules.set(name, module);
  }
  return modules;
}

/** The innermost module of a node: the scope before the operator's own. */
function moduleOf(node: NodeProto): string | undefined {
  const scopes = node.metadataProps?.find((entry) => entry.key === SCOPES_KEY)?.value;
  // A Python list of strings.
  const names = scopes ? [...scopes.matchAll(/'([^']*)'/g)].map((match) => match[1] as string) : [];
  return names.length >= 2 ? names[names.length - 2] : undefined;
}
