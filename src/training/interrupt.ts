/** Ctrl-C during a run: the first ends the step and saves, the second ends at once. */
import { FishyError } from "../errors.js";

/** The user ended the run at once; the shell's exit code for Ctrl-C. */
export class InterruptedError extends FishyError {
  override readonly name = "InterruptedError";
  override readonly exitCode = 130;
}

/**
 * Waits for a run while SIGINT and SIGTERM of this process stop it.
 * @param handle false leaves the signals alone.
 * @throws InterruptedError when a second signal came.
 */
export async function interruptible<T>(
  result: Promise<T>,
  actions: { stop(): void; kill(): void },
  handle: boolean,
  onActivity?: (activity: string) => void,
): Promise<T> {
  if (!handle) return result;
  let signals = 0;
  const onSignal = () => {
    signals++;
    if (signals > 1) return actions.kill();
    onActivity?.("stopping after this step; Ctrl-C again ends at once");
    actions.stop();
  };
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  try {
    return await result;
  } catch (error) {
    if (signals > 1) throw new InterruptedError("Interrupted. Checkpoints that were saved before are whole.");
    throw error;
  } finally {
    process.off("SIGINT", onSignal);
    process.off("SIGTERM", onSignal);
  }
}
