/** Module hooks: `./x.js` finds `./x.ts`, and TypeScript loses its types. What was compiled is kept for the next process. */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const CACHE = join(import.meta.dirname, "../../node_modules/.cache/fishy-test");

export async function resolve(specifier, context, next) {
  if (specifier.startsWith(".") && specifier.endsWith(".js") && context.parentURL?.endsWith(".ts")) {
    const source = new URL(`${specifier.slice(0, -3)}.ts`, context.parentURL);
    if (existsSync(fileURLToPath(source))) return { url: source.href, format: "module", shortCircuit: true };
  }
  return next(specifier, context);
}

export async function load(url, context, next) {
  if (!url.startsWith("file:") || !url.endsWith(".ts")) return next(url, context);
  const path = fileURLToPath(url);
  const text = readFileSync(path, "utf8");
  const cached = join(CACHE, `${createHash("sha256").update(path).update(text).digest("hex")}.js`);
  if (!existsSync(cached)) {
    mkdirSync(CACHE, { recursive: true });
    const temporary = `${cached}.${process.pid}`;
    writeFileSync(temporary, await compile(path, text));
    renameSync(temporary, cached);
  }
  return { format: "module", source: readFileSync(cached, "utf8"), shortCircuit: true };
}

async function compile(path, text) {
  const { default: ts } = await import("typescript");
  const { outputText } = ts.transpileModule(text, {
    fileName: path,
    compilerOptions: {
      module: ts.ModuleKind.ESNext,
      target: ts.ScriptTarget.ES2022,
      inlineSourceMap: true,
      verbatimModuleSyntax: true,
    },
  });
  return outputText;
}
