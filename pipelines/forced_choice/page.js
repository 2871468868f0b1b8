"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const blank = () => ({ rater: "", at: 0, answers: data.items.map(() => null), seconds: data.items.map(() => 0) });
let state = blank();
let since = performance.now();

// Browsers may refuse storage to a page from a file: then progress lives as long as the page.
const store = {
  read() { try { return JSON.parse(localStorage.getItem(data.study)); } catch { return null; } },
  write() { try { localStorage.setItem(data.study, JSON.stringify(state)); } catch { /* as above */ } },
};

function scale() {
  const widest = Math.max(...data.items.map((item) => item.width));
  const columns = data.letters.length + 1;
  const fits = (Math.min(document.documentElement.clientWidth, 1500) - 48 - columns * 35) / columns / widest;
  return Math.max(1, Math.floor(fits));
}

function image(element, source, width) {
  element.src = source;
  element.style.width = `${width * scale()}px`;
}

function show() {
  const item = data.items[state.at];
  const done = state.answers.filter((a) => a !== null).length;
  $("count").textContent = `${state.at + 1} of ${data.items.length}`;
  $("bar").max = data.items.length;
  $("bar").value = done;
  image(document.querySelector("#true img"), item.truth, item.width);
  const focused = document.activeElement?.dataset?.choice;
  $("options").replaceChildren(...item.options.map((source, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "option";
    button.dataset.choice = i;
    button.setAttribute("role", "radio");
    button.setAttribute("aria-checked", String(state.answers[state.at] === i));
    const picture = document.createElement("img");
    picture.alt = `image ${data.letters[i]}`;
    image(picture, source, item.width);
    const letter = document.createElement("span");
    letter.textContent = data.letters[i];
    button.append(picture, letter);
    button.addEventListener("click", () => choose(i));
    return button;
  }));
  if (focused !== undefined) $("options").children[focused]?.focus();
  $("back").disabled = state.at === 0;
  $("next").disabled = state.at === data.items.length - 1;
  const left = data.items.length - done;
  $("told").textContent = left ? `${left} not answered yet` : "All answered: save your results";
}

function passed() {
  const now = performance.now();
  state.seconds[state.at] += Math.round(now - since) / 1000;
  since = now;
}

function choose(i) {
  passed();
  state.answers[state.at] = i;
  store.write();
  show();
}

function go(step) {
  passed();
  state.at = Math.min(Math.max(state.at + step, 0), data.items.length - 1);
  store.write();
  show();
}

function begin() {
  $("welcome").hidden = true;
  $("task").hidden = false;
  since = performance.now();
  show();
}

function results() {
  passed();
  return JSON.stringify({
    study: data.study, rater: state.rater, answers: state.answers, seconds: state.seconds,
    saved: new Date().toISOString(), software: data.software,
  }, null, 1);
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([results()], { type: "application/json" }));
  link.download = `study_${data.study.slice(0, 8)}_${state.rater.replace(/[^\p{L}\p{N}]+/gu, "_")}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  $("told").textContent = `Saved as ${link.download}, where your browser puts downloads`;
}

$("begin").addEventListener("submit", (event) => {
  event.preventDefault();
  state.rater = $("rater").value.trim();
  if (!state.rater) return;
  store.write();
  begin();
});
$("back").addEventListener("click", () => go(-1));
$("next").addEventListener("click", () => go(1));
$("save").addEventListener("click", save);
addEventListener("resize", () => { if (!$("task").hidden) show(); });
document.addEventListener("keydown", (event) => {
  if ($("task").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.toUpperCase();
  const letter = key.length === 1 ? data.letters.indexOf(key) : -1;
  const choice = letter >= 0 ? letter : Number(key) - 1;
  if (choice >= 0 && choice < data.letters.length && Number.isInteger(choice)) choose(choice);
  else if (key === "ARROWRIGHT") go(1);
  else if (key === "ARROWLEFT" || key === "BACKSPACE") go(-1);
  else return;
  event.preventDefault();
});
const kept = store.read();
if (kept && kept.rater && kept.answers?.length === data.items.length) {
  state = { ...blank(), ...kept };
  begin();
}
