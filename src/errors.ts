/**
 * An error whose message is written for the user: it names the node, value or file, what was found, and the remedy.
 * The command line prints the message alone and exits with `exitCode`.
 */
export class FishyError extends Error {
  override readonly name: string = "FishyError";
  /** 1 for bad input, 2 for wrong usage. */
  readonly exitCode: number = 1;
}

/** The command or an option is used wrongly (exit code 2). */
export class UsageError extends FishyError {
  override readonly name = "UsageError";
  override readonly exitCode = 2;
}

/** The message of anything thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
