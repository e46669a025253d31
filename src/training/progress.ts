/** Progress on a terminal: one line that is drawn anew; plain lines, seconds apart, where there is no terminal. */
import pc from "picocolors";
import type { StepRecord } from "./metrics.js";
import type { RunEvents, RunPlan } from "./run.js";

/** What progress is written to: `process.stderr`, or a fake in tests. */
export interface ProgressStream {
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
  write(text: string): unknown;
}

/** Where progress is shown, and how. */
export interface ProgressOptions {
  readonly stream?: ProgressStream;
  /** Shown in front. */
  readonly label?: string;
  /** Show the optimizer's diagnostics as well. Default false. */
  readonly verbose?: boolean;
  /** Colours; by default on a terminal unless NO_COLOR is set. */
  readonly color?: boolean;
  /** Milliseconds since any start. */
  readonly now?: () => number;
}

const DRAW_EVERY_MS = 100;
const PLAIN_EVERY_MS = 5000;
/** The share of the newest loss in the smoothed one. */
const SMOOTHING = 0.1;
const BAR_WIDTH = 24;

/** Follows a run: `train({ …, ...progress.hooks })`. */
export class Progress {
  private readonly stream: ProgressStream;
  private readonly terminal: boolean;
  private readonly colors: ReturnType<typeof pc.createColors>;
  private readonly label: string;
  private readonly now: () => number;
  private readonly verbose: boolean;
  private shownDiagnostics = Number.NEGATIVE_INFINITY;
  private plan: RunPlan | undefined;
  private last: StepRecord | undefined;
  private smoothed: number | undefined;
  private drawn = Number.NEGATIVE_INFINITY;
  private secondsAtStart = 0;
  private lineOpen = false;

  constructor(options: ProgressOptions = {}) {
    this.stream = options.stream ?? process.stderr;
    this.terminal = Boolean(this.stream.isTTY) && process.env.TERM !== "dumb";
    // The empty NO_COLOR counts as not set (https://no-color.org).
    this.colors = pc.createColors(options.color ?? (this.terminal && !process.env.NO_COLOR));
    this.label = options.label ?? "";
    this.now = options.now ?? (() => performance.now());
    this.verbose = options.verbose ?? false;
  }

  /** The hooks of `train`. */
  get hooks(): Required<RunEvents> {
    return {
      onPlan: (plan) => this.onPlan(plan),
      onStep: (record) => this.onStep(record),
      onActivity: (activity) => this.onActivity(activity),
    };
  }

  private onPlan(plan: RunPlan): void {
    this.plan = plan;
    const { parameters, trainExamples, heldOutExamples, batchSize, totalSteps, startStep, device } = plan;
    const parts = [
      `${parameters.toLocaleString("en")} parameters`,
      trainExamples !== undefined && `${trainExamples.toLocaleString("en")} examples`,
      heldOutExamples > 0 && `${heldOutExamples.toLocaleString("en")} held out`,
      `batch ${batchSize}`,
      startStep >= totalSteps
        ? `all ${totalSteps.toLocaleString("en")} steps are done`
        : startStep > 0
          ? `steps ${startStep + 1} to ${totalSteps}`
          : `${totalSteps.toLocaleString("en")} steps`,
      device !== undefined && `on ${device}`,
    ];
    this.line(`${this.prefix()}${parts.filter(Boolean).join(" · ")}`);
  }

  private onStep(record: StepRecord): void {
    // The mean of all losses at first, so that the first one does not hang over.
    const count = record.step - (this.plan?.startStep ?? 0);
    const share = Math.max(SMOOTHING, 1 / Math.max(1, count));
    this.smoothed = this.smoothed === undefined ? record.loss : this.smoothed + share * (record.loss - this.smoothed);
    if (!this.last) this.secondsAtStart = record.seconds - (this.plan?.batchSize ?? 0) / record.examples_per_second;
    this.last = record;
    if (record.held_out_loss !== undefined) this.evaluation(record);
    if (this.verbose && record.diagnostics) this.diagnostics(record.step, record.diagnostics);
    const due = this.now() - this.drawn >= (this.terminal ? DRAW_EVERY_MS : PLAIN_EVERY_MS);
    if (due || record.step === this.plan?.totalSteps) this.draw();
  }

  private onActivity(activity: string): void {
    if (activity.startsWith("stopping")) this.line(`${this.prefix()}${activity}`);
    else if (this.terminal) this.draw(activity);
  }

  /** Leaves the line. Call at the end, and before anything else is written to the stream. */
  finish(): void {
    if (this.lineOpen) this.stream.write("\n");
    this.lineOpen = false;
  }

  private evaluation(record: StepRecord): void {
    const { held_out_loss, held_out_accuracy, held_out_perplexity, held_out_reconstruction_error } = record;
    const fields = [
      `held-out loss ${formatLoss(held_out_loss as number)}`,
      held_out_accuracy !== undefined && `accuracy ${(100 * held_out_accuracy).toFixed(2)} %`,
      held_out_perplexity !== undefined && `perplexity ${formatLoss(held_out_perplexity)}`,
      held_out_reconstruction_error !== undefined && `squared error ${formatLoss(held_out_reconstruction_error)}`,
    ];
    this.line(`${this.prefix()}step ${record.step} · ${fields.filter(Boolean).join(" · ")}`);
  }

  /** A line of its own for the optimizer's scalars, seconds apart. */
  private diagnostics(step: number, values: NonNullable<StepRecord["diagnostics"]>): void {
    if (this.now() - this.shownDiagnostics < PLAIN_EVERY_MS) return;
    this.shownDiagnostics = this.now();
    const fields = Object.entries(values).map(([name, value]) => `${name} ${Number(value.toPrecision(4))}`);
    this.line(`${this.prefix()}step ${step} · ${fields.join(" · ")}`);
  }

  private draw(activity?: string): void {
    const { last, plan } = this;
    if (!last || !plan) return;
    this.drawn = this.now();
    const { dim, bold, cyan } = this.colors;
    const done = last.step / plan.totalSteps;
    const fields = [
      `loss ${bold(formatLoss(this.smoothed ?? last.loss))}`,
      `lr ${formatRate(last.learning_rate)}`,
      `${formatCount(last.examples_per_second)} examples/s`,
      activity ??
        (last.step < plan.totalSteps
          ? `${formatSeconds(this.secondsLeft(last, plan))} left`
          : formatSeconds(last.seconds)),
    ];
    const steps = `${last.step}/${plan.totalSteps}`;
    if (!this.terminal) {
      this.line(`${this.prefix()}step ${steps} · ${fields.join(" · ")}`);
      return;
    }
    const full = Math.round(done * BAR_WIDTH);
    const bar = `${cyan("█".repeat(full))}${dim("░".repeat(BAR_WIDTH - full))} `;
    const text = `${steps} · ${fields.join(" · ")}`;
    // A terminal that does not know its width says 0.
    const width = this.stream.columns || 80;
    const fits = this.prefix().length + BAR_WIDTH + 1 + plainLength(text) < width;
    const shown = fits ? `${this.prefix()}${bar}${text}` : cut(`${this.prefix()}${text}`, width - 1);
    this.stream.write(`\r\x1b[K${shown}`);
    this.lineOpen = true;
  }

  private secondsLeft(last: StepRecord, plan: RunPlan): number {
    const steps = last.step - plan.startStep;
    return ((last.seconds - this.secondsAtStart) / steps) * (plan.totalSteps - last.step);
  }

  /** Writes a line of its own above the bar. */
  private line(text: string): void {
    this.stream.write(this.lineOpen ? `\r\x1b[K${text}\n` : `${text}\n`);
    this.lineOpen = false;
  }

  private prefix(): string {
    return this.label ? `${this.label}  ` : "";
  }
}

const ESCAPES = new RegExp(`${String.fromCharCode(27)}\\[[0-9;]*m`, "g");

function plainLength(text: string): number {
  return text.replace(ESCAPES, "").length;
}

/** A line that is too long loses its colours with its end. */
function cut(text: string, width: number): string {
  return plainLength(text) <= width ? text : text.replace(ESCAPES, "").slice(0, Math.max(0, width));
}

/** Four significant digits. */
export function formatLoss(loss: number): string {
  return Number.isFinite(loss) && loss !== 0 && (Math.abs(loss) < 1e-3 || Math.abs(loss) >= 1e5)
    ? loss.toExponential(3)
    : loss.toPrecision(4);
}

function formatRate(rate: number): string {
  return String(Number(rate.toPrecision(3)));
}

export function formatCount(count: number): string {
  if (count >= 1e4) return `${(count / 1000).toFixed(count >= 1e5 ? 0 : 1)}k`;
  return count >= 100 ? String(Math.round(count)) : String(Number(count.toPrecision(3)));
}

/** `42 s`, `3:07 min`, `1:02:03 h`. */
export function formatSeconds(seconds: number): string {
  if (!Number.isFinite(seconds)) return "?";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const two = (value: number) => String(value).padStart(2, "0");
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes}:${two(whole % 60)} min`;
  return `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(whole % 60)} h`;
}
