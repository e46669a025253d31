/**
 * A program around `train`, as the command line is: the options as JSON in its first argument. Tells each step, and at
 * the end the result; the exit codes are those of the command line. `from` resumes the run in that folder.
 */
import { FishyError } from "../../src/errors.js";
import { resume, type TrainOptions, train } from "../../src/training/train.js";

const options = JSON.parse(process.argv[2] as string) as TrainOptions & { from?: string };
const follow = {
  handleSignals: true,
  onStep: ({ step }: { step: number }) => console.log(`step ${step}`),
  onActivity: (activity: string) => console.log(activity),
};
try {
  const { losses: _, ...result } =
    options.from === undefined ? await train({ ...options, ...follow }) : await resume(options.from, follow);
  console.log(`result ${JSON.stringify(result)}`);
  if (result.outcome === "interrupted") process.exitCode = 130;
} catch (error) {
  console.log(`error ${(error as Error).message}`);
  process.exitCode = error instanceof FishyError ? error.exitCode : 99;
}
