/** `fishy completion`: the scripts, run by the shells themselves. */
import { spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { describeCommands } from "../../src/cli/completion.js";
import { createProgram } from "../../src/cli/program.js";
import { OPTIMIZER_NAMES } from "../../src/optimizers/registry.js";
import { fishy } from "../support/cli.js";
import { temporaryFolder } from "../training/support.js";

const folder = temporaryFolder();
const commands = createProgram().commands.map((command) => command.name());
const has = (shell: string) => spawnSync(shell, ["--version"]).status === 0;

async function script(shell: string): Promise<string> {
  const { code, stdout, stderr } = await fishy("completion", shell);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  const file = join(folder, `fishy.${shell}`);
  writeFileSync(file, stdout);
  return file;
}

beforeAll(() => {
  mkdirSync(join(folder, "runs"));
  writeFileSync(join(folder, "model one.onnx"), "");
});

describe("what is completed", () => {
  it("is every command with every option that its help shows", () => {
    const described = new Map(describeCommands(createProgram()).map((command) => [command.name, command]));
    for (const command of createProgram().commands) {
      const flags = described.get(command.name())?.options.flatMap((option) => option.flags);
      expect(flags).toEqual(expect.arrayContaining(command.options.map((option) => option.long)));
    }
    expect(described.get("export")?.options[0]).toMatchObject({
      flags: ["--output", "-o"],
      value: { words: [], files: true },
    });
  });

  it("a shell that is not known is refused", async () => {
    expect((await fishy("completion", "powershell")).code).toBe(2);
    expect((await fishy("completion")).code).toBe(2);
  });
});

describe.skipIf(!has("bash"))("bash", () => {
  /** What bash offers for words, of which the last is being written. */
  async function complete(...words: string[]): Promise<string[]> {
    const file = await script("bash");
    const list = ["fishy", ...words].map((word) => `'${word}'`).join(" ");
    const program = `source '${file}'; COMP_WORDS=(${list}); COMP_CWORD=${words.length}; _fishy; printf '%s\\n' "\${COMPREPLY[@]}"`;
    const { status, stdout, stderr } = spawnSync("bash", ["--norc", "-c", program], { cwd: folder, encoding: "utf8" });
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    return stdout.split("\n").filter(Boolean);
  }

  it("commands", async () => {
    expect(await complete("")).toEqual([...commands, "help", "--help", "--version"]);
    expect(await complete("in")).toEqual(["inspect", "init"]);
  });

  it("options of the command that is there, also behind its arguments", async () => {
    expect(await complete("report", "--")).toEqual(["--output", "--json", "--help"]);
    expect(await complete("train", "model.onnx", "--res")).toEqual(["--resume"]);
    expect(await complete("rewrite", "--scheme")).toEqual([]);
  });

  it("values: choices, words, files, none", async () => {
    expect(await complete("train", "--optimizer", "")).toEqual([...OPTIMIZER_NAMES]);
    expect(await complete("inspect", "--score", "c")).toEqual(["centred"]);
    expect(await complete("rewrite", "--sections", "per")).toEqual(["per-layer"]);
    expect(await complete("export", "runs", "-o", "ru")).toEqual(["runs"]);
    expect(await complete("train", "--batch-size", "")).toEqual([]);
    expect(await complete("completion", "")).toEqual(["bash", "zsh", "fish"]);
    expect(await complete("families", "leak")).toEqual(["leaky-relu"]);
    expect(await complete("eval", "ru")).toEqual(["runs"]);
    expect(await complete("inspect", "mod")).toEqual(["model one.onnx"]);
  });

  it("values behind an equals sign, which bash makes a word", async () => {
    expect(await complete("inspect", "--score", "=", "p")).toEqual(["paper"]);
    expect(await complete("inspect", "--score", "=")).toEqual(["paper", "centred"]);
  });
});

describe.skipIf(!has("zsh"))("zsh", () => {
  it("reads the script, and registers it", async () => {
    const file = await script("zsh");
    expect(spawnSync("zsh", ["-f", "-n", file], { encoding: "utf8" })).toMatchObject({ status: 0, stderr: "" });
    const program = `autoload -Uz compinit && compinit -u -D && source '${file}' && print $_comps[fishy]`;
    expect(spawnSync("zsh", ["-f", "-c", program], { encoding: "utf8" })).toMatchObject({
      status: 0,
      stdout: "_fishy\n",
    });
  });
});

describe.skipIf(!has("fish"))("fish", () => {
  async function complete(line: string): Promise<string[]> {
    const file = await script("fish");
    const { stdout, stderr } = spawnSync("fish", ["--no-config", "-c", `source '${file}'; complete -C '${line}'`], {
      cwd: folder,
      encoding: "utf8",
    });
    expect(stderr).toBe("");
    return stdout
      .split("\n")
      .filter(Boolean)
      .map((entry) => entry.split("\t")[0] as string);
  }

  it("commands, options and values", async () => {
    expect((await complete("fishy ")).sort()).toEqual([...commands].sort());
    expect(await complete("fishy report --o")).toContain("--output");
    expect(await complete("fishy inspect --score ")).toEqual(["centred", "paper"]);
    expect(await complete("fishy completion z")).toEqual(["zsh"]);
    expect(await complete("fishy train --resume la")).toEqual(["latest"]);
    expect(await complete("fishy eval ru")).toEqual(["runs/"]);
  });
});
