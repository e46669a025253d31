/** Reads a GPU buffer as the API offers to; traps.test.ts sees how that ends. */
process.env.ORT_DISABLE_TELEMETRY = "1";
const ort = await import("onnxruntime-node");

// y = x + x for float x of any shape, as bytes of a ModelProto.
const text = (field, value) => [field, value.length, ...Buffer.from(value)];
const message = (field, bytes) => [field, bytes.length, ...bytes];
const float = message(0x12, message(0x0a, [0x08, 1]));
const node = [...text(0x0a, "x"), ...text(0x0a, "x"), ...text(0x12, "y"), ...text(0x22, "Add")];
const info = (name) => [...text(0x0a, name), ...float];
const graph = [...message(0x0a, node), ...text(0x12, "g"), ...message(0x5a, info("x")), ...message(0x62, info("y"))];
const model = Uint8Array.from([0x08, 8, ...message(0x3a, graph), ...message(0x42, [0x0a, 0, 0x10, 18])]);
const session = await ort.InferenceSession.create(model, {
  executionProviders: ["webgpu"],
  preferredOutputLocation: "gpu-buffer",
});
const { y } = await session.run({ x: new ort.Tensor("float32", Float32Array.of(1), [1]) });
console.log(y.location);
await y.getData();
console.log("read");
