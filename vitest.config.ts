import { defineConfig } from "vitest/config";

// ONNX Runtime takes every core for one session, so more test processes than two only fight for them.
export default defineConfig({
  // The examples import the package by its name.
  resolve: { alias: { fishy: new URL("src/index.ts", import.meta.url).pathname } },
  test: {
    include: ["test/**/*.test.ts"],
    env: { ORT_DISABLE_TELEMETRY: "1" },
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
