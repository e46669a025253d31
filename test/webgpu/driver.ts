/** The Vulkan driver of the tests, which are skipped by name where there is none. */
import { tmpdir } from "node:os";
import { driverFile } from "../../tools/webgpu/driver.js";

const file = driverFile();
if (file !== undefined) {
  // Read when the first WebGPU session is made.
  process.env.VK_ICD_FILENAMES = file;
  process.env.XDG_RUNTIME_DIR ??= tmpdir();
}

export const hasWebGpu = file !== undefined;
/** For the names of what is skipped. */
export const WITHOUT = hasWebGpu ? "" : " (skipped: no Vulkan driver; apt-get install chromium libvulkan1)";
