/** Shows the densities under the pointer. Runs in the browser. */
(() => {
  const { panel, families } = JSON.parse(document.getElementById("data").textContent);
  const format = (value) => String(Number(value.toPrecision(4))).replace("-", "−");

  function span(text, className = "") {
    return Object.assign(document.createElement("span"), { textContent: text, className });
  }

  for (const figure of document.querySelectorAll(".figure")) {
    const { grid, isDiscrete, scale, curves } = families[figure.dataset.family];
    const svg = figure.querySelector("svg");
    const readout = figure.querySelector(".readout");
    const rule = document.createElementNS("http://www.w3.org/2000/svg", "path");
    rule.setAttribute("class", "rule");
    svg.append(rule);
    const inner = panel.width - panel.left - panel.right;
    const xOf = (y) => panel.left + (inner * (y - scale.from)) / (scale.to - scale.from);

    /** The index in the grid nearest to a place on the screen; undefined outside the axes. */
    function nearest(clientX) {
      const box = svg.getBoundingClientRect();
      const x = ((clientX - box.left) / box.width) * panel.width;
      const y = scale.from + ((x - panel.left) / inner) * (scale.to - scale.from);
      if (y < scale.from || y > scale.to) return undefined;
      return grid.reduce((best, point, i) => (Math.abs(point - y) < Math.abs(grid[best] - y) ? i : best), 0);
    }

    function clear() {
      rule.removeAttribute("d");
      readout.replaceChildren();
    }

    svg.addEventListener("pointermove", (event) => {
      const i = nearest(event.clientX);
      if (i === undefined) {
        clear();
        return;
      }
      if (!isDiscrete) rule.setAttribute("d", `M${xOf(grid[i])} ${panel.top}V${panel.height - panel.bottom}`);
      const name = isDiscrete ? "P" : "p";
      readout.replaceChildren(
        span(`y = ${format(grid[i])}`),
        ...curves.map(({ yhat, density }, k) => span(`${name}(y|${format(yhat)}) = ${format(density[i])}`, `c${k}`)),
      );
    });
    svg.addEventListener("pointerleave", clear);
  }
})();
