/**
 * The local pass over a share of the batch: only its first examples are sampled and propagated, and the sampled gradient
 * is their mean. The forward pass is that of the whole batch, so what the backward pass reads of it is cut.
 */
import { planReverse } from "../autodiff/reverse.js";
import { FishyError } from "../errors.js";
import type { Dim, GraphBuilder } from "../onnx/builder.js";
import { multiply } from "../onnx/dimensions.js";
import { capturedBy, dependents, GraphIndex, requiredInputs, topologicalOrder } from "../onnx/graph.js";
import { DataType, type GraphProto, type NodeProto } from "../onnx/proto.js";
import { type BatchAxis, BatchLayouts, mixing } from "./independent-rows.js";
import type { LocalPass } from "./sampling.js";

/** The dimension of the share, in shapes. */
const SHARE = "batch_share";

/**
 * A pass over the first ⌈share·n⌉ of n examples.
 * @param inputs the model's own inputs; the first dimension of the first that has one is the batch.
 * @throws FishyError where the batch has no symbol, or examples may meet within a section.
 */
export function passOverShare(pass: LocalPass, share: number, inputs: readonly string[]): LocalPass {
  const { b, forward, types, plan, layers } = pass;
  const batch = inputs.map((name) => types.get(name)?.shape?.[0]).find((dim) => dim !== undefined);
  if (typeof batch !== "string") {
    throw new FishyError(
      `The model is fixed to a batch of ${batch}, in which --sampled-share cannot tell the examples. Export it with a dynamic batch axis, or take the statistics on a smaller batch of their own (--statistics-batch).`,
    );
  }
  const layouts = new BatchLayouts(forward, types, batch);
  checkRows(pass, layouts);
  return b.scope("share", () => {
    // The product may lie a little above a whole number.
    const examples = b.max(b.op("Ceil", [b.sub(b.mul(pass.batchSize, b.f32(share)), b.f32(1e-3))]), b.f32(1));
    const cutter = new Cutter(b, layouts, {
      examples: b.reshape(b.cast(examples, DataType.INT64), [1]),
      batchSize: b.reshape(b.cast(pass.batchSize, DataType.INT64), [1]),
    });
    const nodes = cutter.nodes(forward);
    const shared = new Map([...types].map(([name, type]) => [cutter.name(name), cutter.type(name, type)]));
    const originals = new Map(plan.boundaries.map((boundary) => [cutter.name(boundary.preActivation), boundary]));
    const clones = new Map(forward.node.map((node, i) => [node, nodes[i] as NodeProto]));
    return {
      ...pass,
      forward: { ...forward, node: nodes },
      types: new Map([...types, ...shared]),
      plan: {
        ...plan,
        boundaries: plan.boundaries.map((boundary) => ({
          ...boundary,
          preActivation: cutter.name(boundary.preActivation),
          ...(boundary.activation && { activation: cutter.name(boundary.activation) }),
        })),
      },
      layers: layers.map((layer) => ({
        ...layer,
        node: clones.get(layer.node) ?? layer.node,
        preActivation: cutter.name(layer.preActivation),
        ...(layer.activation && { activation: cutter.name(layer.activation) }),
      })),
      batchSize: examples,
      activationOf(boundary) {
        const original = originals.get(boundary.preActivation);
        const activation = original && pass.activationOf(original);
        return activation && cutter.like(activation, original.preActivation);
      },
    };
  });
}

/** @throws FishyError naming the first operator between a parameter and its boundary that may mix examples. */
function checkRows({ forward, types, plan, wrt }: LocalPass, layouts: BatchLayouts): void {
  const index = new GraphIndex(forward);
  const boundaries = new Set(plan.boundaries.map(({ preActivation }) => preActivation));
  const { walk } = planReverse({ forward, types, wrt, seeds: boundaries, cut: boundaries });
  const isShape = (node: NodeProto) => node.opType === "Shape" || node.opType === "Size";
  const varying = dependents(topologicalOrder(forward), requiredInputs(forward), isShape);
  for (const node of [...walk].reverse()) {
    const reason = mixing(index, layouts, node, (name) => varying.has(name));
    if (reason === undefined) continue;
    throw new FishyError(
      `--sampled-share needs sections that examples pass one by one, but at ${node.opType} '${node.name || node.output[0]}' ${reason}. Take the statistics on a smaller batch of their own instead (--statistics-batch N).`,
    );
  }
}

/** Cuts values to the share, each once. */
class Cutter {
  private readonly cuts = new Map<string, string>();
  /** Values that are computed from the shapes of cut ones. */
  private readonly shapes = new Set<string>();
  private readonly made = new Map<string, string>();

  constructor(
    private readonly b: GraphBuilder,
    private readonly layouts: BatchLayouts,
    /** int64 [1]. */
    private readonly sizes: { readonly examples: string; readonly batchSize: string },
  ) {}

  /** The forward nodes by their cut values. Those that compute with shapes are computed anew. */
  nodes(forward: GraphProto): NodeProto[] {
    const clones = new Map(topologicalOrder(forward).map((node) => [node, this.clone(node)]));
    return forward.node.map((node) => clones.get(node) as NodeProto);
  }

  private clone(node: NodeProto): NodeProto {
    const input = node.input.map((name) => this.name(name));
    const isShape = node.opType === "Shape" || node.opType === "Size";
    const computes =
      (isShape && input.some((name, i) => name !== node.input[i])) ||
      [...node.input, ...capturedBy(node)].some((name) => this.shapes.has(name));
    const output = node.output.map((name) => {
      if (!name || !computes || this.axisOf(name)) return this.name(name);
      const fresh = this.b.unique(name);
      this.cuts.set(name, fresh);
      this.shapes.add(name);
      return fresh;
    });
    const clone = { ...node, input, output };
    if (computes && capturedBy(node).size > 0) {
      throw new FishyError(
        `--sampled-share cannot follow the shapes through ${node.opType} '${node.name || node.output[0]}'. Take the statistics on a smaller batch of their own instead (--statistics-batch N).`,
      );
    }
    if (node.output.some((name) => this.shapes.has(name))) {
      this.b.graph.node.push({ ...clone, name: output.find(Boolean) ?? "", input: [...input], output: [...output] });
    }
    return clone;
  }

  /** The name of a value in the share: its own where it has no batch axis. */
  name(name: string): string {
    const known = this.cuts.get(name);
    if (known !== undefined) return known;
    const place = name ? this.axisOf(name) : undefined;
    const cut = place ? this.cut(name, place) : name;
    this.cuts.set(name, cut);
    return cut;
  }

  /** Cuts a value of the same layout as another. */
  like(name: string, other: string): string {
    const place = this.axisOf(other);
    if (!this.cuts.has(name) && place) this.cuts.set(name, this.cut(name, place));
    return this.name(name);
  }

  type<T extends { readonly shape: readonly Dim[] | undefined }>(name: string, type: T): T {
    const place = this.axisOf(name);
    if (!place) return type;
    const shape = type.shape?.map((dim, axis) =>
      axis === place.axis ? multiply([place.outer, SHARE, place.inner]) : dim,
    );
    return { ...type, shape };
  }

  private cut(name: string, { axis, outer, inner }: BatchAxis): string {
    const { b } = this;
    const { examples, batchSize } = this.sizes;
    if (outer !== 1) return b.op("Gather", [name, this.places(outer, inner)], { axis }, name);
    let end = examples;
    if (typeof inner !== "number") {
      end = b.mul(b.div(b.op("Shape", [name], { start: axis, end: axis + 1 }), batchSize), examples);
    } else if (inner !== 1) end = b.mul(examples, b.i64([inner]));
    return b.op("Slice", [name, b.i64([0]), end, b.i64([axis])], {}, name);
  }

  /** The places of the share's examples on an axis that is counted as [outer, example, inner]. */
  private places(outer: Dim, inner: Dim): string {
    if (typeof outer !== "number" || typeof inner !== "number") {
      throw new FishyError(
        "--sampled-share meets sequences of unknown length before the batch axis, whose examples it cannot cut out. Export the model with the batch first, or a fixed length.",
      );
    }
    const { b } = this;
    const [examples, batchSize] = [this.sizes.examples, this.sizes.batchSize].map((size) =>
      b.mul(size, b.i64([inner])),
    );
    const key = `${outer}/${inner}`;
    let places = this.made.get(key);
    if (places === undefined) {
      const own = b.op("Range", [b.i64(0), b.squeeze(examples as string, [0]), b.i64(1)]);
      const starts = b.mul(
        b.i64(
          Array.from({ length: outer }, (_, i) => i),
          [outer, 1],
        ),
        batchSize as string,
      );
      places = b.reshape(b.add(starts, own), [-1]);
      this.made.set(key, places);
    }
    return places;
  }

  private axisOf(name: string): BatchAxis | undefined {
    const layout = this.layouts.of(name);
    return typeof layout === "object" ? layout : undefined;
  }
}
