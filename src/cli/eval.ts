/** `fishy eval RUN|MODEL --data …`: the loss and the metrics that fit it, as inference gives them. */
import { Command } from "commander";
import { UsageError } from "../errors.js";
import { type EvaluateOptions, type EvaluateResult, evaluate } from "../training/evaluate.js";
import { addDataOptions, DATA_FORMATS, type DataFlags, dataOptionsOf } from "./data-options.js";
import { addLossOptions, type LossFlags, parseInteger } from "./model-options.js";
import { formatTable } from "./table.js";

interface EvalFlags extends DataFlags, LossFlags {
  data?: string[];
  checkpoint?: string;
  averaged?: boolean;
  batchSize?: number;
  threads?: number;
  json?: boolean;
}

export function evalCommand(): Command {
  const command = new Command("eval")
    .description("evaluate a run's model, or any ONNX model, in inference mode")
    .argument("<model>", "the folder of a run, an ONNX model, a folder of training artifacts, or a training program")
    .option("--data <paths...>", `${DATA_FORMATS}; default what the run held out`)
    .option("--checkpoint <dir>", "a run's checkpoint; default the best that it kept, else the newest")
    .option("--averaged", "a run's averages of the parameters; default whether the run evaluated them")
    .option("--no-averaged", "the parameters themselves");
  addLossOptions(command)
    .option("--batch-size <n>", "examples at a time; default 128, or the run's", parseInteger)
    .option("--threads <n>", "threads of ONNX Runtime; default one for each core", parseInteger);
  return addDataOptions(command)
    .option("--json", "print the result as one line of JSON")
    .action(async (model: string, flags: EvalFlags) => {
      const result = await evaluate(optionsOf(model, flags));
      process.stdout.write(`${flags.json ? JSON.stringify(result) : formatEvaluation(result)}\n`);
    });
}

function optionsOf(model: string, flags: EvalFlags): EvaluateOptions {
  const { data, checkpoint, averaged, loss, lossOutput, targetInput, classAxis, batchSize, threads } = flags;
  if (batchSize !== undefined && batchSize < 1) throw new UsageError(`--batch-size ${batchSize} must be at least 1.`);
  const given = { data, checkpoint, averaged, loss, output: lossOutput, targetInput, classAxis, batchSize, threads };
  return {
    model,
    ...Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)),
    ...dataOptionsOf(flags),
  };
}

function formatEvaluation(result: EvaluateResult): string {
  const { loss, accuracy, top5, perplexity, reconstructionError, examples, step, caveat } = result;
  const percent = (value: number) => `${(100 * value).toFixed(2)} %`;
  const rows = [
    ["examples", examples.toLocaleString("en")],
    ...(step === undefined ? [] : [["steps trained", step.toLocaleString("en")]]),
    ["loss", loss.toPrecision(6)],
    ...(accuracy === undefined ? [] : [["accuracy", percent(accuracy)]]),
    ...(top5 === undefined ? [] : [["top-5 accuracy", percent(top5)]]),
    ...(perplexity === undefined ? [] : [["perplexity", perplexity.toPrecision(6)]]),
    ...(reconstructionError === undefined ? [] : [["squared error per element", reconstructionError.toPrecision(6)]]),
  ];
  return [formatTable(["measured", "value"], rows), ...(caveat === undefined ? [] : [`Note: ${caveat}`])].join("\n");
}
