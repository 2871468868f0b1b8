// A table of scans: sorted by a press on a heading (numbers as numbers, once more for the other way round), and filtered.
"use strict";
(() => {
  const get = (id) => document.getElementById(id);
  const table = document.querySelector("table"), body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const key = (row, i) => row.cells[i].querySelector("data")?.value ?? row.cells[i].textContent.trim();
  heads.forEach((head, i) => {
    if (!head.textContent) return;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [key(a, i), key(b, i)], [m, n] = [Number(x || NaN), Number(y || NaN)];
        const order = Number.isNaN(m) || Number.isNaN(n) ? x.localeCompare(y) : m - n;
        return down ? -order : order;
      });
      body.append(...rows);
    });
    head.replaceChildren(button);
  });
  function filter() {
    const words = get("words").value.toLowerCase().split(/\s+/), status = get("status").value, unusual = get("unusual").checked;
    let shown = 0;
    for (const row of body.rows) {
      const text = (row.cells[1].textContent + " " + row.cells[2].textContent).toLowerCase();
      const fits = words.every((word) => text.includes(word)) && (!status || row.dataset.status === status);
      row.hidden = !(fits && (!unusual || "unusual" in row.dataset));
      shown += row.hidden ? 0 : 1;
    }
    get("count").textContent = shown === body.rows.length ? "" : `${shown} of ${body.rows.length} shown`;
  }
  ["words", "status", "unusual"].forEach((id) => get(id).addEventListener("input", filter));
  get("filters").hidden = false;
})();
