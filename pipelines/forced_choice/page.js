// A rater's way through the images. Which letter is which method is nowhere in this page.
"use strict";
(() => {
  const get = (id) => document.getElementById(id);
  const study = JSON.parse(get("study").textContent);
  const { images, letters } = study;
  const PREFIX = `brgm-med-study:${study.study}`;
  const EDGE = 18, CAPTION = 28, GAP = 16; // px around a picture, above it, and between pictures: as in the style
  let state = null, shownSince = 0, unsaved = false;

  // What a browser refuses to keep (as some do for files) is kept as long as the page is open.
  const memory = new Map();
  let keeps = true;
  function kept(name) {
    try { return localStorage.getItem(PREFIX + name) ?? memory.get(name) ?? null; } catch { keeps = false; }
    return memory.get(name) ?? null;
  }
  function keep(name, text) {
    memory.set(name, text);
    try { localStorage.setItem(PREFIX + name, text); } catch { keeps = false; }
    get("forgets").hidden = keeps;
  }

  function fresh(rater) {
    return { rater, at: 0, started: new Date().toISOString(), answers: images.map(() => ({ choice: null, at: null, seconds: 0 })) };
  }
  function load(rater) {
    try {
      const found = JSON.parse(kept(`:${fold(rater)}`));
      if (found && found.answers.length === images.length) return found;
    } catch { /* what cannot be read is not there */ }
    return fresh(rater);
  }
  const fold = (rater) => rater.trim().replace(/\s+/g, " ").toLowerCase();
  function store() {
    keep(`:${fold(state.rater)}`, JSON.stringify(state));
    keep("", state.rater);
  }

  function screen(name) {
    for (const id of ["start", "rate", "end"]) get(id).hidden = id !== name;
    get("who").hidden = name === "start";
    get("status").textContent = "";
    document.title = name === "rate" ? `${state.at + 1} of ${images.length}` : "Which image is most like the true one?";
  }
  function begin(rater) {
    state = load(rater);
    get("name").textContent = state.rater;
    store();
    state.at < images.length ? show() : finish();
  }

  function picture(q, i, label) {
    const made = new Image(images[q].width, images[q].height);
    made.alt = label;
    made.draggable = false;
    made.src = `data:image/png;base64,${images[q].png[i]}`;
    return made;
  }
  function put(holder, made) { // a new element each time: the last image is never seen under the next question
    holder.querySelector("img")?.remove();
    holder.append(made);
  }
  function show() {
    screen("rate");
    put(get("truth"), picture(state.at, 0, "High-quality image"));
    letters.forEach((letter, i) => put(buttons[i], picture(state.at, i + 1, "")));
    get("place").textContent = `${state.at + 1} of ${images.length}`;
    get("back").disabled = state.at === 0;
    get("next").textContent = state.at === images.length - 1 ? "Finish" : "Next";
    mark();
    layout();
    scrollTo(0, 0);
    shownSince = performance.now();
  }
  function mark() {
    const { choice } = state.answers[state.at];
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", letters[i] === choice));
    const done = state.answers.filter((a) => a.choice !== null).length;
    get("bar").value = done;
    get("answered").textContent = `${done} answered`;
  }
  function finish() {
    state.at = images.length;
    screen("end");
    const missing = state.answers.filter((a) => a.choice === null).length;
    get("summary").textContent = missing
      ? `${missing} of ${images.length} images are unanswered. You can go back, or save the results as they are.`
      : `You answered all ${images.length} images. Save the results, and send the file to whoever asked you.`;
    get("gap").hidden = missing === 0;
    get("end-h").focus();
  }

  function spend() { // the time for which this image has been looked at
    const now = performance.now();
    const answer = state.answers[state.at];
    answer.seconds = Math.round(1000 * answer.seconds + now - shownSince) / 1000;
    shownSince = now;
    return answer;
  }
  function choose(i) {
    const answer = spend();
    answer.choice = letters[i];
    answer.at = new Date().toISOString();
    unsaved = true;
    store();
    mark();
    get("status").textContent = `${letters[i]} chosen`;
  }
  function go(to) {
    if (to < 0) return;
    if (state.at < images.length) spend();
    const held = document.activeElement;
    state.at = Math.min(to, images.length);
    store();
    if (state.at === images.length) { finish(); return; }
    show();
    if (held.disabled || !held.getClientRects().length) get("place").focus();
  }

  // The largest whole number of screen pixels for one of the picture with which all fit, in one row or several; else one,
  // and the page scrolls; where not even two pictures fit side by side, one screen pixel for several.
  function layout() {
    const { width, height } = images[state.at], stage = get("stage"), n = letters.length, ratio = devicePixelRatio;
    const narrow = innerWidth < 640;
    const inner = stage.parentElement.clientWidth - (narrow ? 4 : GAP);
    stage.style.display = "none";
    const rest = document.querySelector("main").getBoundingClientRect().bottom + scrollY;
    stage.style.display = "";
    const high = narrow ? Infinity : innerHeight - rest - 8;
    const columns = (scale, limit) => {
      for (let c = n; c > 0; c--) {
        const wide = (c + 1) * ((width * scale) / ratio + EDGE) + (c - 1) * 8;
        if (wide <= inner && Math.ceil(n / c) * ((height * scale) / ratio + EDGE + CAPTION + 8) <= limit) return c;
      }
      return 0;
    };
    let scale = 0, c = 0;
    for (let k = Math.max(1, Math.floor((inner * ratio) / width)); k > 0 && !c; k--) c = columns(scale = k, high);
    if (!c) c = columns(scale = 1, Infinity);
    for (let k = 2; !c && k <= 64; k++) c = columns(scale = 1 / k, high);
    c = Math.ceil(n / Math.ceil(n / (c || 1))); // rows as full as can be
    stage.style.setProperty("--columns", c);
    stage.classList.toggle("enlarged", scale >= 1);
    for (const made of stage.querySelectorAll("img")) {
      made.style.width = `${(width * scale) / ratio}px`;
      made.style.height = `${(height * scale) / ratio}px`;
    }
    get("scale").textContent = scale >= 1
      ? `Each pixel of an image is shown as ${scale} × ${scale} of the screen's, without smoothing, the same for all.`
      : `The images are shown at 1/${Math.round(1 / scale)} of their size, smoothed by the browser, the same for all.`;
  }

  function save() {
    if (state.at < images.length) spend();
    store();
    const answers = state.answers.map((a, i) => ({ question: i + 1, ...a }));
    const content = {
      statement: "Votes on derived images. For research, not for diagnosis.",
      study: study.study, page: study.page, rater: state.rater, started: state.started, saved: new Date().toISOString(), answers,
    };
    const name = `forced_choice_results_${state.rater.replace(/[^\p{L}\p{N}-]+/gu, "_")}.json`;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(content, null, 1) + "\n"], { type: "application/json" }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    unsaved = false;
    get("status").textContent = `Saved as ${name}, where this browser keeps its downloads.`;
  }

  const buttons = letters.map((letter, i) => {
    const button = document.createElement("button"), span = document.createElement("span"), name = document.createElement("b");
    button.type = "button";
    button.setAttribute("aria-label", `Image ${letter}`);
    name.textContent = letter;
    span.append(name);
    button.append(span);
    button.addEventListener("click", () => choose(i));
    get("choices").append(button);
    return button;
  });
  get("enter").addEventListener("submit", (event) => {
    event.preventDefault();
    const rater = get("rater").value.trim().replace(/\s+/g, " ");
    if (rater) begin(rater);
    else get("rater").value = "";
  });
  get("back").addEventListener("click", () => go(state.at - 1));
  get("next").addEventListener("click", () => go(state.at + 1));
  get("again").addEventListener("click", () => go(images.length - 1));
  get("gap").addEventListener("click", () => go(state.answers.findIndex((a) => a.choice === null)));
  get("other").addEventListener("click", () => {
    if (state.at < images.length) spend();
    store();
    keep("", "");
    screen("start");
    get("rater").value = "";
    get("rater").focus();
  });
  for (const button of document.querySelectorAll(".save")) button.addEventListener("click", save);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.repeat || !get("start").hidden) return;
    const key = event.key.toUpperCase(), rating = !get("rate").hidden;
    const letter = letters.includes(key) ? letters.indexOf(key) : "123456".slice(0, letters.length).indexOf(key);
    if (rating && key.length === 1 && letter >= 0) choose(letter);
    else if (key === "ARROWLEFT" || key === "BACKSPACE") go(state.at - 1);
    else if (rating && key === "ARROWRIGHT") go(state.at + 1);
    else return;
    event.preventDefault();
  });
  addEventListener("resize", () => { if (state && !get("rate").hidden) layout(); });
  addEventListener("beforeunload", (event) => { if (unsaved && !keeps) event.preventDefault(); });
  const last = kept("");
  get("forgets").hidden = keeps;
  if (last) begin(last);
  else { screen("start"); get("rater").focus(); }
  document.documentElement.dataset.study = "ready";
})();
