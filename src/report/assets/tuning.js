/** Marks a trial in every picture and in the table while the pointer, or the focus, is on one of its marks. */
(() => {
  const line = document.getElementById("trial");
  const marksOf = (trial) => document.querySelectorAll(`[data-trial="${trial}"]`);
  let shown;

  function show(trial) {
    if (trial === shown) return;
    for (const mark of marksOf(shown)) mark.classList.remove("near");
    shown = trial;
    for (const mark of marksOf(trial)) mark.classList.add("near");
    const title = document.querySelector(`.panels [data-trial="${trial}"] title`);
    if (title) line.textContent = title.textContent;
  }

  document.addEventListener("pointerover", (event) => show(event.target.closest?.("[data-trial]")?.dataset.trial));
})();
