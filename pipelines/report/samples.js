// Samples in one place, in turns; one after another by a press where less motion is asked for.
"use strict";
(() => {
  const box = document.getElementById("draws");
  if (!box) return;
  const sets = [...box.querySelectorAll(".row")], button = document.getElementById("next-sample");
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  let shown = 0, timer = 0;
  function show(n) {
    shown = n % sets.length;
    sets.forEach((set, i) => { set.hidden = i !== shown; });
    document.getElementById("sample-state").textContent = `Sample ${shown + 1} of ${sets.length}`;
  }
  button.addEventListener("click", () => {
    if (timer) { clearInterval(timer); timer = 0; } else if (calm.matches) show(shown + 1);
    else timer = setInterval(() => show(shown + 1), 500);
    button.setAttribute("aria-pressed", String(Boolean(timer)));
  });
  button.hidden = false;
  show(0);
})();
