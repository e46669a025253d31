/**
 * The process that trains. It reads everything from the run's folder (its arguments: the folder, and its orders as
 * JSON), reports to its parent, and stops between two steps when told to, or when the parent is gone.
 */
import { FishyError, messageOf } from "../errors.js";
import type { ChildOrders, ToChild, ToParent } from "./messages.js";
import type { StepRecord } from "./metrics.js";
import { parseRunOptions } from "./options.js";
import { parseOptionsJson } from "./options-json.js";
import { runTraining } from "./run.js";
import { RunDirectory } from "./run-directory.js";

/** Records are sent in groups: a message for each of many short steps would cost more than the steps. */
const SEND_EVERY_MS = 50;

const [, , folder, orders] = process.argv;
let stopping = false;
let records: StepRecord[] = [];
let sent = 0;

function send(message: ToParent): void {
  if (process.connected) process.send?.(message, undefined, {}, () => {});
}

function sendRecords(): void {
  if (records.length > 0) send({ kind: "steps", records });
  records = [];
  sent = Date.now();
}

async function main(path: string): Promise<void> {
  const directory = new RunDirectory(path);
  const { from, options, acceptChanges, pauseAt } = parseOptionsJson<ChildOrders>(orders as string);
  const program = await directory.readProgram();
  const { state: _, ...result } = await runTraining(
    { program, options: parseRunOptions(options), directory, from, acceptChanges, pauseAt },
    {
      onPlan: (plan) => send({ kind: "plan", plan }),
      onStep(record) {
        records.push(record);
        if (Date.now() - sent >= SEND_EVERY_MS) sendRecords();
      },
      onActivity(activity) {
        sendRecords();
        send({ kind: "activity", activity });
      },
      shouldStop: () => stopping,
    },
  );
  sendRecords();
  send({ kind: "done", result });
}

// A terminal sends Ctrl-C to the whole group; the parent decides what it means.
process.on("SIGINT", () => {});
process.on("SIGTERM", () => {
  stopping = true;
});
process.on("disconnect", () => {
  stopping = true;
});
process.on("message", (message: ToChild) => {
  if (message.kind === "stop") stopping = true;
});

try {
  await main(folder as string);
} catch (error) {
  sendRecords();
  send({
    kind: "error",
    message: messageOf(error),
    ...(error instanceof FishyError ? { exitCode: error.exitCode } : { stack: (error as Error).stack ?? "" }),
  });
  process.exitCode = 1;
}
// Without its channel the process ends by itself.
if (process.connected) process.disconnect();
