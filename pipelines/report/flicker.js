// Before and after in one place: by buttons, by a slider, by keys, or in turns.
"use strict";
(() => {
  const get = (id) => document.getElementById(id);
  const pairs = get("pairs"), blend = get("blend"), button = get("flicker");
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const PERIOD = 700; // ms for each, far below three flashes a second
  let timer = 0;

  function show(percent) {
    blend.value = percent;
    pairs.style.setProperty("--after", percent / 100);
    get("show-before").setAttribute("aria-pressed", percent === 0);
    get("show-after").setAttribute("aria-pressed", percent === 100);
    const words = { 0: "Shown: before", 100: "Shown: after" };
    if (!timer) get("compare-state").textContent = words[percent] || `Shown: ${percent} % after`;
  }
  function stop() {
    clearInterval(timer);
    timer = 0;
    button.setAttribute("aria-pressed", "false");
  }
  function flicker() {
    if (timer) { stop(); show(100); return; }
    if (calm.matches) return;
    get("compare-state").textContent = "Shown: before and after in turns";
    timer = setInterval(() => show(Number(blend.value) > 50 ? 0 : 100), PERIOD);
    button.setAttribute("aria-pressed", "true");
  }
  function hold(percent) { stop(); show(percent); }
  function respect() {
    if (calm.matches && timer) hold(100);
    button.disabled = calm.matches;
    get("calm").hidden = !calm.matches;
  }

  get("show-before").addEventListener("click", () => hold(0));
  get("show-after").addEventListener("click", () => hold(100));
  button.addEventListener("click", flicker);
  blend.addEventListener("input", () => hold(Number(blend.value)));
  pairs.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const action = { ArrowLeft: () => hold(0), ArrowRight: () => hold(100), f: flicker, F: flicker }[event.key];
    if (action) { action(); event.preventDefault(); }
  });
  calm.addEventListener("change", respect);
  pairs.classList.add("live");
  get("compare-controls").hidden = false;
  respect();
  show(100);
})();
