/** How the process's allocator treats large arrays, which decides where sessions should take their memory from. */

/**
 * Environment of a process that trains. By default glibc returns every large array to the system and page-faults it in
 * again: with the arrays kept, allocating 40 MB costs a third (6.8 instead of 20 ms). Other allocators ignore the variables.
 */
export const ALLOCATOR = { MALLOC_MMAP_THRESHOLD_: "4294967296", MALLOC_TRIM_THRESHOLD_: "8589934592" };

/**
 * Whether this process keeps large arrays that are freed. Sessions that take turns then need no arenas of their own, which
 * would each keep the memory of its largest run.
 */
export function keepsFreedMemory(): boolean {
  return process.platform === "linux" && process.env.MALLOC_MMAP_THRESHOLD_ === ALLOCATOR.MALLOC_MMAP_THRESHOLD_;
}
