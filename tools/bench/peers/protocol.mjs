/** What a contestant's process says: a line of JSON when it is ready, and one for each line that asks for a round. */
import { existsSync, readFileSync } from "node:fs";
import { createInterface } from "node:readline";

/**
 * @param ready `loss` of the first step, `version`, and `before`: the resident set before the model was loaded.
 * @param round takes the number of repetitions and returns milliseconds by kind of step.
 */
export function serve(ready, round) {
  const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);
  say({ ...ready, ready: true });
  createInterface({ input: process.stdin }).on("line", async (line) => {
    const { repeat } = JSON.parse(line);
    if (repeat === undefined) {
      say({ peak: peakBytes() });
      process.exit(0);
    }
    say({ times: await round(repeat) });
  });
}

/**
 * Milliseconds of wall time, or of the processor where the benchmark asks for them (`--clock cpu`): on one thread they are
 * what the wall would show on a machine that does nothing else.
 */
export function now() {
  if (process.env.FISHY_BENCH_CLOCK !== "cpu") return performance.now();
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** The largest resident set of this process, in bytes. */
export function peakBytes() {
  const file = "/proc/self/status";
  const line = existsSync(file) ? /VmHWM:\s+(\d+) kB/.exec(readFileSync(file, "utf8")) : undefined;
  return line ? Number(line[1]) * 1024 : process.resourceUsage().maxRSS * 1024;
}
