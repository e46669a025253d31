/** A part of an optimizer as a model of its own: for sessions beside the training program, and for plain arrays. */
import { emptyGraph, GraphBuilder } from "../onnx/builder.js";
import { importsOf } from "../onnx/contributed.js";
import { DataType, type ModelProto } from "../onnx/proto.js";
import type { HyperparameterName, Optimizer, StepResult, StepValues } from "./optimizer.js";

export type OptimizerPart = "update" | "statistics" | "roots";

/** What an input of a part's model stands for. */
export type PartInput =
  | { readonly role: "parameter" | "gradient" | "statisticsGradient" | "state"; readonly name: string }
  | { readonly role: "hyperparameter"; readonly name: HyperparameterName };

/** What an output stands for. */
export interface PartOutput {
  readonly role: "parameter" | "state" | "metric" | "blockMetric";
  readonly name: string;
}

export interface PartProgram {
  readonly model: ModelProto;
  /** By input name; only what the part reads is there. */
  readonly inputs: ReadonlyMap<string, PartInput>;
  readonly outputs: ReadonlyMap<string, PartOutput>;
}

/** Builds the model of a part; undefined when the optimizer has no such part. */
export function partProgram(optimizer: Optimizer, part: OptimizerPart): PartProgram | undefined {
  const b = new GraphBuilder(emptyGraph(`${optimizer.name}-${part}`));
  const values = new InputValues(b, optimizer);
  const result =
    part === "update"
      ? optimizer.emitUpdate(b, values)
      : part === "statistics"
        ? optimizer.emitStatistics?.(b, values)
        : optimizer.emitRoots?.(b, values);
  if (!result) return undefined;
  return {
    model: {
      irVersion: 8,
      producerName: "fishy",
      graph: b.graph,
      opsetImport: importsOf(b.graph, [{ domain: "", version: 18 }]),
      metadataProps: [],
      trainingInfo: [],
      functions: [],
    },
    inputs: values.inputs,
    outputs: declareOutputs(b, optimizer, result),
  };
}

/** Declares graph inputs as an optimizer asks for them. */
class InputValues implements StepValues {
  readonly inputs = new Map<string, PartInput>();
  private readonly dims: ReadonlyMap<string, readonly number[]>;
  private readonly states: ReadonlyMap<string, { type: DataType; dims: readonly number[] }>;

  constructor(
    private readonly b: GraphBuilder,
    optimizer: Optimizer,
  ) {
    this.dims = new Map(optimizer.parameters.map((parameter) => [parameter.name, parameter.dims]));
    this.states = new Map(optimizer.state.map((state) => [state.name, state]));
  }

  parameter(name: string): string {
    return this.declare({ role: "parameter", name }, DataType.FLOAT, this.dims.get(name));
  }
  gradient(name: string): string {
    return this.declare({ role: "gradient", name }, DataType.FLOAT, this.dims.get(name));
  }
  statisticsGradient(name: string): string {
    return this.declare({ role: "statisticsGradient", name }, DataType.FLOAT, this.dims.get(name));
  }
  state(name: string): string {
    const state = this.states.get(name);
    return this.declare({ role: "state", name }, state?.type ?? DataType.FLOAT, state?.dims);
  }
  hyperparameter(name: HyperparameterName): string {
    return this.declare({ role: "hyperparameter", name }, DataType.FLOAT, []);
  }

  private declare(input: PartInput, type: DataType, dims: readonly number[] | undefined): string {
    const name = `${input.role}:${input.name}`;
    if (this.inputs.has(name)) return name;
    if (!dims) throw new Error(`the optimizer asks for the ${input.role} '${input.name}', which it did not declare`);
    this.inputs.set(name, input);
    return this.b.input(name, { elemType: type, shape: dims });
  }
}

function declareOutputs(b: GraphBuilder, optimizer: Optimizer, result: StepResult): Map<string, PartOutput> {
  const outputs = new Map<string, PartOutput>();
  const declare = (role: PartOutput["role"], values: ReadonlyMap<string, string> | undefined) => {
    for (const [name, value] of values ?? []) {
      const output = b.alias(value, `${role}:${name}:next`);
      const spec =
        role === "parameter"
          ? { type: DataType.FLOAT, dims: optimizer.parameters.find((parameter) => parameter.name === name)?.dims }
          : role === "state"
            ? optimizer.state.find((state) => state.name === name)
            : { type: DataType.FLOAT, dims: role === "metric" ? [] : [null] };
      b.output(output, { elemType: spec?.type ?? DataType.FLOAT, shape: spec?.dims });
      outputs.set(output, { role, name });
    }
  };
  declare("parameter", result.parameters);
  declare("state", result.state);
  declare("metric", result.metrics);
  declare("blockMetric", result.blockMetrics);
  return outputs;
}
