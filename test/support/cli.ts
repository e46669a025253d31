/** Runs the command line in this process and collects what it prints. */
import { vi } from "vitest";
import { run } from "../../src/cli/program.js";

// `fishy train` starts a process of its own, which has to read the sources as they are.
process.env.NODE_OPTIONS = `--import ${new URL("register-typescript.mjs", import.meta.url).href}`;

export interface CliResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export async function fishy(...argv: string[]): Promise<CliResult> {
  const printed = { stdout: "", stderr: "" };
  const collect = (stream: "stdout" | "stderr") =>
    vi.spyOn(process[stream], "write").mockImplementation((chunk) => {
      printed[stream] += String(chunk);
      return true;
    });
  const spies = [collect("stdout"), collect("stderr")];
  const exitCode = process.exitCode;
  process.exitCode = 0;
  try {
    const code = await run(argv);
    return { code, ...printed };
  } finally {
    for (const spy of spies) spy.mockRestore();
    process.exitCode = exitCode;
  }
}
