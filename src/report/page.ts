/** The frame of fishy's pages: one file with everything inline, that fetches nothing. */
import { readFileSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname } from "node:path";
import { FishyError, messageOf } from "../errors.js";
import { makeFolder } from "../make-folder.js";
import { writeFileAtomically } from "../training/checkpoint.js";

export interface Page {
  readonly title: string;
  /** HTML of the body. */
  readonly body: string;
  /** What the scripts read as JSON from the element `data`. */
  readonly data?: unknown;
  /** Scripts of `assets/`, in their order. */
  readonly scripts?: readonly string[];
  /** Style sheets of `assets/` beside `page.css`. */
  readonly styles?: readonly string[];
  /** Whether the scripts draw charts with uPlot. */
  readonly charts?: boolean;
  /** Where scripts may fetch from, as a source of Content-Security-Policy; default nowhere. */
  readonly connect?: string;
}

/** The page as text. */
export function renderPage({ title, body, data, scripts = [], styles = [], charts, connect = "'none'" }: Page): string {
  const policy = `default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; connect-src ${connect}`;
  const sheets = [...(charts ? [uplot("uPlot.min.css")] : []), ...["page.css", ...styles].map(asset)];
  const programs = [...(charts ? [uplot("uPlot.iife.min.js")] : []), ...scripts.map(asset)];
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<title>${escapeHtml(title)} – fishy</title>
<link rel="icon" href="data:,">
${sheets.map((sheet) => `<style>${sheet}</style>`).join("\n")}
</head>
<body>
${body}
${data === undefined ? "" : `<script type="application/json" id="data">${JSON.stringify(data).replaceAll("<", "\\u003c")}</script>`}
${programs.map((program) => `<script>${program}</script>`).join("\n")}
</body>
</html>
`;
}

export function escapeHtml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}

function asset(name: string): string {
  return readFileSync(new URL(`./assets/${name}`, import.meta.url), "utf8");
}

function uplot(name: string): string {
  return readFileSync(createRequire(import.meta.url).resolve(`uplot/dist/${name}`), "utf8");
}

/**
 * Writes a page, or a picture, making its folder where there is none.
 * @throws FishyError when it cannot be written.
 */
export function writePage(file: string, content: string): void {
  makeFolder(dirname(file));
  if (statSync(file, { throwIfNoEntry: false })?.isDirectory()) {
    throw new FishyError(`${file} is a folder: give the name of a file in it.`);
  }
  try {
    writeFileAtomically(file, content);
  } catch (error) {
    throw new FishyError(`${file} cannot be written: ${messageOf(error)}.`);
  }
}
