/** Keeps a page of a run that goes on up to date: asks for newer figures, and says when the run has ended. */
(() => {
  const EVERY = 1000;
  const ENDED = "the run has ended, and this page stays as it is";
  const status = fishy.element("p", { id: "status" });
  status.setAttribute("aria-live", "polite");
  document.querySelector("h1").after(status);
  let tag;
  /** Figures that wait until the pointer has left the chart. */
  let newest;

  function describe({ runs, totalSteps, isOver }) {
    const { steps, outcome } = runs[0].summary;
    const length = totalSteps === undefined ? "" : ` of ${totalSteps}`;
    return [`Step ${steps}${length}`, outcome, isOver && ENDED].filter(Boolean).join(" · ");
  }

  function put() {
    if (!newest || document.querySelector(".uplot:hover")) return;
    report.show(newest);
    newest = undefined;
  }

  /** @returns whether the run is over. */
  async function ask() {
    const response = await fetch("data", { headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store" });
    if (response.status === 200) {
      tag = response.headers.get("ETag");
      // The page before the first step holds no charts.
      if (!globalThis.report) location.reload();
      newest = await response.json();
      status.textContent = describe(newest);
    }
    const isOver = newest?.isOver === true;
    put();
    return isOver;
  }

  async function follow() {
    let isOver = false;
    try {
      isOver = await ask();
    } catch {
      // The process was killed.
      status.textContent = [status.textContent, ENDED].filter(Boolean).join(" · ");
      isOver = true;
    }
    if (isOver) setInterval(put, EVERY);
    else setTimeout(follow, EVERY);
  }

  follow();
})();
