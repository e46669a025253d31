/** Numbers in (−1, 1) that stay the same from run to run (mulberry32). */
export function randomVector(size: number): number[] {
  let state = 0x9e3779b9;
  return Array.from({ length: size }, () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 31 - 1;
  });
}
