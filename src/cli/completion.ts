/** `fishy completion bash|zsh|fish`: a script that completes commands, options and their values, made of the commands themselves. */
import { Argument, Command, type Option } from "commander";
import { familyNames } from "../families/registry.js";
import { bashCompletion, fishCompletion, zshCompletion } from "./completion-scripts.js";

/** What may stand somewhere: these words, or a file. */
export interface Expected {
  readonly words: readonly string[];
  readonly files: boolean;
}

export interface CompletedOption {
  /** `--json`, and `-q` where there is one. */
  readonly flags: readonly string[];
  readonly description: string;
  /** Undefined for switches. */
  readonly value: Expected | undefined;
  /** Whether the value may be left out. */
  readonly isOptional: boolean;
}

export interface CompletedCommand {
  readonly name: string;
  readonly description: string;
  readonly options: readonly CompletedOption[];
  readonly argument: Expected;
}

/** Words for values whose help tells them in a sentence. */
const VALUES: Readonly<Record<string, readonly string[]>> = {
  "--sections": ["per-layer", "output", "classifier", "none", "every:"],
  "--scheme": ["glorot", "he", "lecun", "orthogonal", "zeros", "ones", "normal:", "uniform:", "constant:"],
  "--device": ["cpu", "cuda", "webgpu", "auto"],
  "--resume": ["latest"],
};
const ARGUMENTS: Readonly<Record<string, readonly string[]>> = {
  families: familyNames.map((name) => name.replaceAll("_", "-")),
};
/** Placeholders that stand for something in the file system. */
const FILES = /file|path|dir|folder|model|config|what/;

const SCRIPTS = { bash: bashCompletion, zsh: zshCompletion, fish: fishCompletion } as const;

export function completionCommand(): Command {
  const shells = Object.keys(SCRIPTS);
  return new Command("completion")
    .description("print a script that completes fishy's commands, options and values in a shell")
    .addArgument(new Argument("<shell>", "the shell").choices(shells))
    .addHelpText(
      "after",
      `
bash: fishy completion bash > ~/.local/share/bash-completion/completions/fishy
zsh:  fishy completion zsh > a file _fishy in a folder of $fpath, before compinit
fish: fishy completion fish > ~/.config/fish/completions/fishy.fish`,
    )
    .action((shell: keyof typeof SCRIPTS, _flags, command: Command) => {
      process.stdout.write(SCRIPTS[shell](describeCommands(command.parent ?? command)));
    });
}

/** What the scripts need to know of a program's commands. */
export function describeCommands(program: Command): CompletedCommand[] {
  return program.commands.map((command) => {
    const [argument] = command.registeredArguments;
    const words = argument?.argChoices ?? ARGUMENTS[command.name()] ?? [];
    return {
      name: command.name(),
      description: command.description(),
      options: [
        ...command.options.filter(({ hidden }) => !hidden).map(describeOption),
        { flags: ["--help", "-h"], description: "display help for command", value: undefined, isOptional: false },
      ],
      argument: { words, files: argument !== undefined && words.length === 0 },
    };
  });
}

function describeOption(option: Option): CompletedOption {
  const flags = [option.long, option.short].filter((flag) => flag !== undefined && flag !== null);
  const words = option.argChoices ?? VALUES[option.long ?? ""] ?? [];
  const takes = option.required || option.optional;
  const placeholder = /[<[]([^>\]]+)/.exec(option.flags)?.[1] ?? "";
  const files = FILES.test(placeholder) || option.long === "--sections";
  return {
    flags,
    description: option.description,
    value: takes ? { words, files } : undefined,
    isOptional: option.optional,
  };
}
