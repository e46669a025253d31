/**
 * Lets plain Node run the sources: `node --import …/register-typescript.mjs file.ts`. For tests that start processes;
 * everything else in the tests is compiled by vitest.
 */
import { register } from "node:module";

register("./typescript-hooks.mjs", import.meta.url);
