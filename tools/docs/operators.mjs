/**
 * Writes docs/operators.md:
 *
 *     node tools/docs/operators.mjs
 *
 * It runs the sources as they are; nothing has to be built. A new rule needs a case in tools/docs/catalogue.ts, and
 * what is emitted otherwise than before has to be measured again (node tools/webgpu/measure.mjs).
 */
import "../../test/support/register-typescript.mjs";
import { writeFileSync } from "node:fs";

process.env.ORT_DISABLE_TELEMETRY ??= "1";
const { operatorsPage } = await import("./table.ts");
writeFileSync(new URL("../../docs/operators.md", import.meta.url), await operatorsPage());
