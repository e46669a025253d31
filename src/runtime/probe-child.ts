/** The process that probes a GPU: its argument names the device, its outcome goes to the parent. */
import { messageOf } from "../errors.js";
import { type Device, parseDevice } from "./devices.js";
import { runProbe } from "./probe-graph.js";

try {
  const outcome = await runProbe(parseDevice(process.argv[2] ?? "cpu") as Device);
  process.send?.(outcome, undefined, {}, () => process.disconnect());
} catch (error) {
  process.stderr.write(`${messageOf(error)}\n`);
  process.exitCode = 1;
  process.disconnect?.();
}
