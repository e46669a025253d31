/**
 * Writes docs/optimizers.md from the schemas of the optimizers' options:
 *
 *     node tools/docs/options.mjs
 *
 * It runs the sources as they are; nothing has to be built.
 */
import "../../test/support/register-typescript.mjs";
import { writeFileSync } from "node:fs";

const { optimizersPage } = await import("./options.ts");
writeFileSync(new URL("../../docs/optimizers.md", import.meta.url), optimizersPage());
