import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { FishyError } from "../../src/errors.js";
import { lockRun } from "../../src/training/run-lock.js";
import { temporaryFolder } from "./support.js";

const folder = temporaryFolder();
const children: ChildProcess[] = [];
const module = new URL("../../src/training/run-lock.ts", import.meta.url).href;
const register = new URL("../support/register-typescript.mjs", import.meta.url).href;
afterAll(() => {
  for (const child of children) child.kill("SIGKILL");
});

/** A folder with the lock of a process that lives until it is killed. */
async function heldBy(name: string): Promise<{ directory: string; child: ChildProcess }> {
  const directory = join(folder, name);
  mkdirSync(directory);
  const script = `const { lockRun } = await import(${JSON.stringify(module)}); await lockRun(${JSON.stringify(directory)}); process.stdout.write("held"); setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ["--import", register, "--input-type=module", "-e", script]);
  children.push(child);
  await new Promise((resolve) => child.stdout.once("data", resolve));
  return { directory, child };
}

describe("a run's folder", () => {
  test("is free again when its run has ended", async () => {
    const directory = join(folder, "free");
    mkdirSync(directory);
    const lock = await lockRun(directory);
    expect(JSON.parse(readFileSync(join(directory, "run.lock"), "utf8"))).toMatchObject({ pid: process.pid });
    lock.release();
    expect(existsSync(join(directory, "run.lock"))).toBe(false);
  });

  test("is waited for until the process that trains in it has ended, killed or not", async () => {
    const { directory, child } = await heldBy("waited");
    let isMine = false;
    const waiting = lockRun(directory).then((lock) => {
      isMine = true;
      return lock;
    });
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(isMine).toBe(false);
    child.kill("SIGKILL");
    (await waiting).release();
  });

  test("is refused while that process goes on", async () => {
    const { directory, child } = await heldBy("refused");
    await expect(lockRun(directory, 100)).rejects.toThrow(FishyError);
    await expect(lockRun(directory, 100)).rejects.toThrow(
      new RegExp(`process ${child.pid} trains in .*refused.*delete`),
    );
  });

  test("is one run's of this process at a time, too", async () => {
    const directory = join(folder, "own");
    mkdirSync(directory);
    const lock = await lockRun(directory);
    await expect(lockRun(directory, 100)).rejects.toThrow(new RegExp(`process ${process.pid} trains in`));
    lock.release();
    (await lockRun(directory, 100)).release();
  });

  test.runIf(process.platform === "linux")(
    "is free when another process has the number of the one that is gone",
    async () => {
      const { directory, child } = await heldBy("reused");
      const file = join(directory, "run.lock");
      const holder = JSON.parse(readFileSync(file, "utf8"));
      expect(holder).toEqual({ pid: child.pid, started: expect.stringMatching(/^\d+$/) });
      writeFileSync(file, JSON.stringify({ ...holder, started: String(Number(holder.started) - 1) }));
      (await lockRun(directory, 100)).release();
    },
  );

  test("goes to one of two processes that come for it at the same time, also from one that is gone", async () => {
    const rounds = 40;
    const directories = Array.from({ length: rounds }, (_, round) => join(folder, `race-${round}`));
    for (const [round, directory] of directories.entries()) {
      mkdirSync(directory);
      if (round % 2 === 0) writeFileSync(join(directory, "run.lock"), JSON.stringify({ pid: 2 ** 30, started: null }));
    }
    const script = `
      const { lockRun } = await import(${JSON.stringify(module)});
      process.stdout.write("ready\\n");
      const start = await new Promise((resolve) => process.stdin.once("data", (text) => resolve(Number(text))));
      const won = [];
      for (const [round, directory] of ${JSON.stringify(directories)}.entries()) {
        while (Date.now() < start + 20 * round);
        await lockRun(directory, -1).then(() => won.push(round), () => {});
      }
      process.stdout.write(JSON.stringify(won) + "\\n");
      // The locks are this process's until the other one has come for them all.
      process.stdin.resume().once("end", () => process.exit());`;
    const racers = [0, 1].map(() => {
      const child = spawn(process.execPath, ["--import", register, "--input-type=module", "-e", script]);
      children.push(child);
      let text = "";
      const ready = new Promise((resolve) => child.stdout.once("data", resolve));
      const won = new Promise<number[]>((resolve) =>
        child.stdout.on("data", (data) => {
          text += data;
          const [, result, rest] = text.split("\n");
          if (rest !== undefined) resolve(JSON.parse(result as string));
        }),
      );
      return { child, ready, won };
    });
    await Promise.all(racers.map(({ ready }) => ready));
    const start = Date.now() + 100;
    for (const { child } of racers) child.stdin.write(String(start));
    const won = (await Promise.all(racers.map((racer) => racer.won))).flat();
    for (const { child } of racers) child.stdin.end();
    expect(won.sort((a, b) => a - b)).toEqual(directories.map((_, round) => round));
  });

  test("is free when a kill cut its lock off", async () => {
    const directory = join(folder, "cut");
    mkdirSync(directory);
    writeFileSync(join(directory, "run.lock"), '{"pid":1,"sta');
    (await lockRun(directory, 100)).release();
  });
});
