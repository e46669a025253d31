/** Every `fishy` command that the documentation shows is one that the command line takes. */
import { readdirSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { CommanderError } from "commander";
import { describe, expect, it } from "vitest";
import { parseAssignments } from "../../src/cli/config.js";
import { createProgram } from "../../src/cli/program.js";
import { parseSections } from "../../src/sections/spec.js";

const root = join(import.meta.dirname, "../..");
const pages = [
  join(root, "README.md"),
  ...readdirSync(join(root, "docs"), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".md") && !name.startsWith("api"))
    .map((name) => join(root, "docs", name)),
];

/** Words as a shell splits them: quotes, comments, a backslash before the line's end. */
function words(line: string): string[] {
  const found: string[] = [];
  for (const [, quoted, single, plain] of line.matchAll(/"([^"]*)"|'([^']*)'|((?:[^\s"'#]|(?<=\S)#)+|#.*$)/g)) {
    if (plain?.startsWith("#")) break;
    if (plain === ">" || plain === "|" || plain === "&&") break;
    // Stands for what was shown before.
    if (plain !== "…") found.push(quoted ?? single ?? (plain as string));
  }
  return found;
}

function commandsOf(page: string): string[][] {
  const text = readFileSync(page, "utf8").replaceAll("\r", "");
  const blocks = [...text.matchAll(/```sh\n([\s\S]*?)```/g)].map(([, block = ""]) => block.replaceAll("\\\n", " "));
  return blocks
    .flatMap((block) => block.split("\n"))
    .map((line) => words(line.replace(/^\s*npx\s+/, "")))
    .filter(([name]) => name === "fishy");
}

/** Parses without doing anything. */
function parse(argv: readonly string[]): void {
  const program = createProgram()
    .exitOverride()
    .configureOutput({ writeErr: () => {} });
  for (const command of program.commands) {
    command.exitOverride().configureOutput({ writeErr: () => {} });
    command.action(() => {
      const { option, sections } = command.opts<{ option?: string[]; sections?: string }>();
      if (option) parseAssignments(option);
      if (sections && !sections.endsWith(".yaml")) parseSections(sections);
    });
  }
  program.parse([...argv], { from: "user" });
}

const commands = pages.flatMap((page) =>
  commandsOf(page).map((argv) => [relative(root, page), argv.slice(1).join(" "), argv.slice(1)] as const),
);

describe("commands in the documentation", () => {
  it("are found", () => {
    expect(commands.length).toBeGreaterThan(40);
    expect(new Set(commands.map(([page]) => page)).size).toBeGreaterThan(5);
  });

  it.each(commands)("%s: fishy %s", (_page, _shown, argv) => {
    expect(() => parse(argv)).not.toThrow();
  });

  it("that do not exist would be noticed", () => {
    expect(() => parse(["train", "m.onnx", "--no-such-option"])).toThrow(CommanderError);
    expect(() => parse(["trian", "m.onnx"])).toThrow(CommanderError);
    expect(words('fishy a "b c" x=y#z # comment')).toEqual(["fishy", "a", "b c", "x=y#z"]);
  });
});

describe("links in the documentation", () => {
  it.each(pages.map((page) => [relative(root, page), page]))("%s", (_name, page) => {
    const text = readFileSync(page, "utf8");
    const folder = join(page, "..");
    for (const [, target = ""] of text.matchAll(/\]\(([^)#\s]+)(?:#[^)]*)?\)/g)) {
      if (/^[a-z]+:/.test(target)) continue;
      expect(readdirSync(join(folder, target, "..")), target).toContain(target.split("/").at(-1));
    }
  });
});
