/** `fishy train --dashboard`: the server's manners, and the page in a real browser while a run goes on. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import { UsageError } from "../../src/errors.js";
import { Dashboard } from "../../src/report/dashboard.js";
import { CHROMIUM, ink, launch, overflow } from "../support/browser.js";
import { writeExamples } from "../support/npy.js";
import { GRAPHS } from "../support/shared.js";
import { temporaryFolder } from "../training/support.js";

const folder = temporaryFolder();
const path = (name: string) => join(folder, name);

interface Answer {
  readonly status: number | undefined;
  readonly headers: NodeJS.Dict<string | string[]>;
  readonly text: string;
}

function ask(url: string, headers: Record<string, string> = {}, method = "GET"): Promise<Answer> {
  return new Promise((resolve, reject) => {
    request(url, { headers, method }, (response) => {
      let text = "";
      response.on("data", (chunk) => {
        text += chunk;
      });
      response.on("end", () => resolve({ status: response.statusCode, headers: response.headers, text }));
    })
      .on("error", reject)
      .end();
  });
}

const record = (step: number) =>
  `${JSON.stringify({ step, examples: 8 * step, loss: 3 / step, learning_rate: 0.1, seconds: step, examples_per_second: 8 })}\n`;

describe("the server", () => {
  let dashboard: Dashboard | undefined;
  afterEach(async () => {
    await dashboard?.close();
    dashboard = undefined;
  });
  const start = async (name: string) => {
    dashboard = await Dashboard.start({ directory: path(name) });
    return dashboard.url;
  };

  it("waits for a run, and sends what is new of it once", async () => {
    const url = await start("waited");
    expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/$/);
    expect((await ask(`${url}data`)).status).toBe(204);
    const waiting = await ask(url);
    expect(waiting).toMatchObject({ status: 200, text: expect.stringContaining("No step is done yet") });

    mkdirSync(path("waited"));
    const options = { fishy: "test", model: "m.onnx", rewrite: {}, run: { optimizer: { name: "adam" } } };
    writeFileSync(path("waited/options.json"), JSON.stringify(options));
    writeFileSync(path("waited/metrics.jsonl"), record(1));
    if (dashboard) dashboard.totalSteps = 9;
    await expect.poll(async () => (await ask(`${url}data`)).status, { timeout: 5000 }).toBe(200);
    const first = await ask(`${url}data`);
    const data = JSON.parse(first.text);
    expect(data).toMatchObject({
      totalSteps: 9,
      isOver: false,
      runs: [{ summary: { steps: 1 }, train: { loss: [3] } }],
    });
    const tag = { "If-None-Match": first.headers.etag as string };
    expect(await ask(`${url}data`, tag)).toMatchObject({ status: 304, text: "" });
    writeFileSync(path("waited/metrics.jsonl"), record(1) + record(2) + record(3).slice(0, 20));
    await expect.poll(async () => (await ask(`${url}data`, tag)).status, { timeout: 5000 }).toBe(200);
    expect(JSON.parse((await ask(`${url}data`)).text).runs[0].train.loss).toEqual([3, 1.5]);

    const page = await ask(url);
    expect(page.text).toMatch(/connect-src 'self'/);
    expect(page.text).not.toMatch(/<(script|link|img|iframe)[^>]*(src|href)=(?!"data:)/i);
  });

  it("answers this machine alone, under its own name, and only what it has", async () => {
    const url = await start("guarded");
    const { host, port } = new URL(url);
    expect((await ask(`${url}data`, { Host: "evil.example" })).status).toBe(403);
    expect((await ask(`${url}data`, { Host: `evil.example:${port}` })).status).toBe(403);
    expect((await ask(`${url}data`, { Host: host })).status).toBe(204);
    expect((await ask(`${url}data`, { Host: `localhost:${port}` })).status).toBe(204);
    expect((await ask(url, {}, "POST")).status).toBe(405);
    for (const other of ["options.json", "watched/options.json", "%2Fdata", "data?x"]) {
      expect((await ask(`${url}${other}`)).status).toBe(404);
    }
    const outer = Object.values(networkInterfaces())
      .flat()
      .find((address) => address && !address.internal && address.family === "IPv4");
    if (outer) await expect(ask(`http://${outer.address}:${port}/data`)).rejects.toThrow(/ECONNREFUSED/);
  });

  it("ends although the run's folder cannot be read", async () => {
    const url = await start("broken");
    const options = { fishy: "test", model: "m.onnx", rewrite: {}, run: { optimizer: { name: "adam" } } };
    mkdirSync(path("broken/metrics.jsonl"), { recursive: true });
    writeFileSync(path("broken/options.json"), JSON.stringify(options));
    await dashboard?.close();
    await expect(ask(url)).rejects.toThrow();
  });

  it("refuses a port that is in use, or none", async () => {
    const url = await start("used");
    const port = Number(new URL(url).port);
    await expect(Dashboard.start({ directory: path("used"), port })).rejects.toThrow(UsageError);
    await expect(Dashboard.start({ directory: path("used"), port })).rejects.toThrow(/port \d+ is in use/);
    await expect(Dashboard.start({ directory: path("used"), port: 70000 })).rejects.toThrow(/up to 65535; got 70000/);
    await dashboard?.close();
    await expect(ask(url)).rejects.toThrow();
  });
});

describe.skipIf(!CHROMIUM)("a run's page in Chromium", () => {
  const children: ChildProcess[] = [];
  beforeAll(() => {
    writeExamples(folder);
    return () => {
      for (const child of children) child.kill("SIGKILL");
    };
  });

  /** Starts the command line, and waits for the address that it prints. */
  async function trainWithDashboard(out: string, steps: number) {
    const register = pathToFileURL(join(import.meta.dirname, "../support/register-typescript.mjs")).href;
    const main = join(import.meta.dirname, "../../src/cli/main.ts");
    const model = ["train", join(GRAPHS, "pytorch/mlp_tanh/model.onnx"), "--loss", "softmax-cross-entropy"];
    const data = ["--data", `x=${path("x.npy")}`, path("labels.npy"), "--batch-size", "16", "--held-out", "0.25"];
    const options = ["--optimizer", "fishy", "--steps", String(steps), "--out", path(out), "--quiet", "--threads", "1"];
    const child = spawn(process.execPath, ["--import", register, main, ...model, ...data, ...options, "--dashboard"], {
      env: { ...process.env, NODE_OPTIONS: `--import ${register}` },
      stdio: ["ignore", "ignore", "pipe"],
    });
    children.push(child);
    const exit = new Promise<number | null>((resolve) => child.on("exit", resolve));
    const url = await new Promise<string>((resolve, reject) => {
      let text = "";
      child.stderr?.on("data", (chunk) => {
        text += chunk;
        const found = /Dashboard: (http:\S+)/.exec(text);
        if (found) resolve(found[1] as string);
      });
      void exit.then(() => reject(new Error(`the run ended: ${text}`)));
    });
    return { child, url, exit };
  }

  it("grows while the run goes on, and ends with it", async () => {
    const { child, url, exit } = await trainWithDashboard("watched", 100_000);
    const browser = await launch();
    try {
      const context = await browser.newContext({ viewport: { width: 390, height: 800 } });
      const page = await context.newPage();
      const errors: string[] = [];
      const hosts = new Set<string>();
      page.on("pageerror", (error) => errors.push(error.message));
      page.on("console", (message) => {
        if (message.type() === "error" || message.type() === "warning") errors.push(message.text());
      });
      page.on("request", (request) => {
        if (!request.url().startsWith("data:")) hosts.add(new URL(request.url()).host);
      });
      await page.goto(url);
      // By itself from the page that waits to the page with curves.
      await page.locator("#loss canvas").waitFor({ timeout: 60_000 });
      const status = () => page.locator("#status").innerText();
      const step = async () => Number(/Step (\d+) of 100000/.exec(await status())?.[1] ?? 0);
      await expect.poll(step, { timeout: 30_000 }).toBeGreaterThan(0);
      const first = await step();
      await expect.poll(step, { timeout: 30_000 }).toBeGreaterThan(first);
      expect(await ink(page, "#loss canvas")).toBeGreaterThan(500);
      expect(await overflow(page)).toBeLessThanOrEqual(0);
      // A chart under the pointer is left alone, so that its values can be read.
      await page.locator("#loss .u-over").hover({ position: { x: 100, y: 100 } });
      const marked = () => page.locator("#loss .u-legend .u-value").first().innerText();
      const before = await marked();
      expect(before).toMatch(/^\d+$/);
      const then = await step();
      await expect.poll(step, { timeout: 30_000 }).toBeGreaterThan(then);
      expect(await marked()).toBe(before);
      await page.mouse.move(0, 0);

      child.kill("SIGINT");
      await expect.poll(status, { timeout: 30_000 }).toMatch(/interrupted · the run has ended/);
      expect(await exit).toBe(130);
      await expect(ask(url)).rejects.toThrow();
      // The page stays, drawn, and asks no more.
      expect(await ink(page, "#loss canvas")).toBeGreaterThan(500);
      expect([...hosts]).toEqual([new URL(url).host]);
      expect(errors).toEqual([]);
    } finally {
      await browser.close();
    }
  });
});
