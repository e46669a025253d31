/** Draws which boundaries each section depends on, and marks those of the section under the pointer. Runs in the browser. */
(() => {
  const { from } = JSON.parse(document.getElementById("data").textContent);
  const outline = document.getElementById("outline");
  const svg = document.getElementById("arcs");
  const cards = [...document.querySelectorAll(".card")];
  const links = from.flatMap((sources, to) => sources.map((source) => ({ source, to })));
  const paths = links.map(() => {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    svg.append(path);
    return path;
  });

  /** From the foot of one card to the head of another; the farther apart, the farther to the left. */
  function draw() {
    const box = outline.getBoundingClientRect();
    const gutter = Number.parseFloat(getComputedStyle(outline).paddingLeft);
    svg.setAttribute("width", gutter);
    svg.setAttribute("height", box.height);
    const farthest = Math.max(1, ...links.map(({ source, to }) => Math.abs(to - source)));
    for (const [i, { source, to }] of links.entries()) {
      const [a, b] = [cards[source], cards[to]].map((card) => card.getBoundingClientRect());
      const [start, end] = [a.bottom - box.top - 14, b.top - box.top + 18];
      const depth = (gutter - 8) * Math.sqrt(Math.abs(to - source) / farthest);
      const x = Math.max(4, gutter - Math.max(10, depth));
      paths[i].setAttribute("d", `M${gutter} ${start}C${x} ${start} ${x} ${end} ${gutter} ${end}`);
    }
  }

  function mark(index) {
    for (const [i, card] of cards.entries()) {
      card.classList.toggle("on", i === index);
      card.classList.toggle("before", index !== undefined && from[index].includes(i));
      card.classList.toggle("after", index !== undefined && from[i].includes(index));
    }
    for (const [i, { source, to }] of links.entries()) {
      paths[i].classList.toggle("on", source === index || to === index);
      paths[i].classList.toggle("forward", source === index);
    }
  }

  for (const [i, card] of cards.entries()) {
    card.addEventListener("pointerenter", () => mark(i));
    card.addEventListener("pointerleave", () => mark(undefined));
    card.addEventListener("focusin", () => mark(i));
    card.addEventListener("focusout", () => mark(undefined));
    card.querySelector("details").addEventListener("toggle", draw);
  }
  new ResizeObserver(draw).observe(outline);
  draw();
})();
