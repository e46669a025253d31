/** The recorded results of measure.mjs. */
import { readFileSync } from "node:fs";
import { type CaseGraphs, operatorsOf, type Part } from "../docs/graphs.js";

/** A result counts as the CPU's up to this relative error: SwiftShader's Sin and Cos are good to 2e-4. */
export const TOLERANCE = 1e-3;

export interface PartResult {
  /** `runs`: every node, also those that compute shapes. */
  readonly status: "runs" | "runs, shapes on the CPU" | "falls back" | "differs" | "fails";
  /** The operators that fall back to the CPU, how far the numbers are off, or the error. */
  readonly reason?: string;
  /** Relative to the CPU's result. */
  readonly error?: number;
  /** What was measured: when fishy emits something else, the result no longer counts. */
  readonly operators: string;
}

export interface CaseResult {
  readonly forward: PartResult;
  readonly backward?: PartResult;
}

export interface WebGpuResults {
  readonly runtime: string;
  readonly driver: string;
  readonly cases: Readonly<Record<string, CaseResult>>;
}

export const resultsFile = new URL("results.json", import.meta.url);

export function readResults(): WebGpuResults {
  return JSON.parse(readFileSync(resultsFile, "utf8"));
}

/** Whether a result is there and tells of what is emitted now. */
export function isMeasured(result: CaseResult | undefined, graphs: CaseGraphs): result is CaseResult {
  const same = (recorded: PartResult | undefined, part: Part | undefined) =>
    (recorded?.operators ?? "") === (part ? operatorsOf(part) : "");
  return result !== undefined && same(result.forward, graphs.forward) && same(result.backward, graphs.backward);
}
