/** Trains in this process, alone: `node stop-script.ts OPTIONS`. Prints every step; SIGINT ends it between two steps. */
import { existsSync, writeSync } from "node:fs";
import { join } from "node:path";
import { resume, type TrainOptions, train } from "../../src/training/train.js";

const options = JSON.parse(process.argv[2] as string) as TrainOptions & { outDir: string };
const follow = {
  isolate: false,
  handleSignals: true,
  // Written at once, so that the reader knows the step that a killed process was at.
  onStep: ({ step }: { step: number }) => {
    writeSync(1, `step ${step}\n`);
  },
};
const result = existsSync(join(options.outDir, "options.json"))
  ? await resume(options.outDir, follow)
  : await train({ ...options, ...follow });
writeSync(1, `outcome ${result.outcome}\n`);
