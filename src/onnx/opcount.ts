/** Operator counts of models, as data: the command line prints them as a table. */
import { subgraphsOf } from "./attributes.js";
import type { ModelProto, NodeProto } from "./proto.js";
import { isDefaultDomain } from "./versions.js";

/** Number of nodes by operator, `domain::Operator` outside the default domain; nodes of subgraphs and functions included. */
export function countOperators(model: ModelProto): ReadonlyMap<string, number> {
  const counts = new Map<string, number>();
  const count = (nodes: readonly NodeProto[]): void => {
    for (const node of nodes) {
      const operator = isDefaultDomain(node.domain) ? (node.opType ?? "") : `${node.domain}::${node.opType}`;
      counts.set(operator, (counts.get(operator) ?? 0) + 1);
      for (const inner of subgraphsOf(node)) count(inner.node);
    }
  };
  count(model.graph.node);
  for (const fn of model.functions) count(fn.node);
  return counts;
}

/** How many nodes of an operator two models have. */
export interface OperatorCount {
  readonly operator: string;
  readonly before: number;
  readonly after: number;
}

export interface OperatorCounts {
  /** In the alphabet's order. */
  readonly rows: readonly OperatorCount[];
  readonly total: { readonly before: number; readonly after: number };
}

export function compareOperators(before: ModelProto, after: ModelProto): OperatorCounts {
  const [old, next] = [countOperators(before), countOperators(after)];
  const rows = [...new Set([...old.keys(), ...next.keys()])]
    .sort()
    .map((operator) => ({ operator, before: old.get(operator) ?? 0, after: next.get(operator) ?? 0 }));
  const sum = (key: "before" | "after") => rows.reduce((total, row) => total + row[key], 0);
  return { rows, total: { before: sum("before"), after: sum("after") } };
}
