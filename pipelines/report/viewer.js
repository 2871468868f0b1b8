// The picture: three planes through one point, before and after under one slider, and what is drawn over them.
"use strict";
(async () => {
  const get = (id) => document.getElementById(id);
  const state = (word) => { document.documentElement.dataset.viewer = word; };
  const stage = get("stage");
  const VIEWS = [[2, 0, 1], [1, 0, 2], [0, 1, 2]]; // across, horizontal, vertical: axes R, A, S
  const PERIOD = 700; // ms for before and after each, far below three flashes a second
  const LONGEST = 900; // pixels of a canvas along its longer side
  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  async function unpacked(v) { // bytes [X, Y, Z] of a picture of slices
    const image = new Image();
    image.src = v.uri;
    await image.decode();
    const sheet = new OffscreenCanvas(image.width, image.height).getContext("2d", { willReadFrequently: true });
    sheet.drawImage(image, 0, 0);
    const [X, Y, Z] = v.shape, bytes = new Uint8Array(X * Y * Z);
    for (let k = 0; k < Z; k++) {
      const left = (k % v.columns) * v.tile[0], top = Math.floor(k / v.columns) * v.tile[1];
      const tile = sheet.getImageData(left, top, X, Y).data;
      for (let i = 0; i < X * Y; i++) bytes[k * X * Y + i] = tile[4 * i];
    }
    const along = (p, axis) => Math.max(0, Math.min(v.shape[axis] - 1, Math.floor((p[axis] + 0.5 - v.start[axis]) / v.step[axis])));
    const at = (p) => bytes[(along(p, 2) * Y + along(p, 1)) * X + along(p, 0)];
    return { ...v, at, value: (p) => v.low + at(p) / 255 * (v.high - v.low) };
  }

  function clipped(polygon, side) { // the part of a polygon where side(point) >= 0
    const out = [];
    polygon.forEach((p, n) => {
      const q = polygon[(n + 1) % polygon.length], a = side(p), b = side(q);
      if (a >= 0) out.push(p);
      if ((a >= 0) !== (b >= 0)) { const t = a / (a - b); out.push([p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1])]); }
    });
    return out;
  }

  const heat = (t) => [Math.min(255, 475 * t), Math.max(0, Math.min(255, 425 * (t - 0.35))), Math.max(0, 1020 * (t - 0.75))];

  try {
    const data = JSON.parse(get("volumes").textContent);
    const { shape, spacing, affine } = data, cursor = [...data.focus];
    const [before, after] = await Promise.all([data.before, data.after].map(unpacked));
    const layers = await Promise.all(data.layers.map(async (l) => ({ ...l, ...(l.uri ? await unpacked(l) : {}) })));
    const readings = await Promise.all(data.readings.map(async (r) => ({ ...r, volume: await unpacked(r) })));
    const planes = [...stage.querySelectorAll("canvas")].map((canvas, n) => {
      const [across, h, v] = VIEWS[n], width = shape[h], height = shape[v];
      const scale = LONGEST / Math.max(width * spacing[h], height * spacing[v]);
      canvas.width = Math.round(width * spacing[h] * scale);
      canvas.height = Math.round(height * spacing[v] * scale);
      canvas.closest("figure").style.flexGrow = width * spacing[h];
      const sheet = new OffscreenCanvas(width, height);
      return { canvas, across, h, v, width, height, sheet, pixels: sheet.getContext("2d").createImageData(width, height) };
    });
    let part = 1, black = data.window[0], white = data.window[1], timer = 0, due = false;

    const world = (p) => [0, 1, 2].map((r) => affine[r][0] * p[0] + affine[r][1] * p[1] + affine[r][2] * p[2] + affine[r][3]);

    function draw(plane) {
      const { canvas, across, h, v, width, height, pixels } = plane, out = pixels.data, p = [...cursor];
      const tables = new Uint8ClampedArray(256);
      for (let i = 0; i < 256; i++) tables[i] = 255 * (before.low + i / 255 * (before.high - before.low) - black) / (white - black);
      const over = layers.filter((l) => l.on && (l.kind === "tint" || l.kind === "heat"));
      for (let y = 0, o = 0; y < height; y++) {
        p[v] = height - 1 - y;
        for (let x = 0; x < width; x++, o += 4) {
          p[h] = width - 1 - x;
          const grey = tables[Math.round((1 - part) * before.at(p) + part * after.at(p))];
          let colour = [grey, grey, grey];
          for (const layer of over) {
            const t = layer.at(p) / 255, to = layer.kind === "heat" ? heat(t) : layer.colour;
            const share = layer.kind === "heat" ? Math.min(1, 3 * t) : 0.55 * t;
            colour = colour.map((c, n) => c + share * (to[n] - c));
          }
          out[o] = colour[0]; out[o + 1] = colour[1]; out[o + 2] = colour[2]; out[o + 3] = 255;
        }
      }
      plane.sheet.getContext("2d").putImageData(pixels, 0, 0);
      const ink = canvas.getContext("2d"), sx = canvas.width / width, sy = canvas.height / height;
      ink.imageSmoothingQuality = "high";
      ink.drawImage(plane.sheet, 0, 0, canvas.width, canvas.height);
      for (const layer of layers.filter((l) => l.on && (l.kind === "line" || l.kind === "box"))) {
        ink.strokeStyle = `rgb(${layer.colour})`;
        ink.lineWidth = 2;
        ink.beginPath();
        if (layer.kind === "line") edges(ink, layer, plane, sx, sy);
        else box(ink, layer, plane, sx, sy);
        ink.stroke();
      }
      const x = (width - 0.5 - cursor[h]) * sx, y = (height - 0.5 - cursor[v]) * sy, gap = 12;
      ink.strokeStyle = "rgba(255, 210, 80, 0.75)";
      ink.lineWidth = 1.5;
      ink.beginPath();
      for (const [a, b, c, d] of [[0, y, x - gap, y], [x + gap, y, canvas.width, y], [x, 0, x, y - gap], [x, y + gap, x, canvas.height]]) {
        if (c >= a && d >= b) { ink.moveTo(a, b); ink.lineTo(c, d); }
      }
      ink.stroke();
      const name = `${"RAS"[across]} ${world(cursor)[across].toFixed(0)} mm`;
      canvas.closest("figure").querySelector(".at").textContent = name;
    }

    function edges(ink, layer, { h, v, width, height }, sx, sy) { // between voxels above and below the level
      const p = [...cursor], level = 255 * (layer.level - layer.low) / (layer.high - layer.low);
      const inside = (x, y) => {
        if (x < 0 || y < 0 || x >= width || y >= height) return false;
        p[h] = width - 1 - x; p[v] = height - 1 - y;
        return layer.at(p) > level;
      };
      for (let y = 0; y < height; y++) {
        for (let x = 0; x < width; x++) {
          const here = inside(x, y);
          if (here !== inside(x - 1, y)) { ink.moveTo(x * sx, y * sy); ink.lineTo(x * sx, (y + 1) * sy); }
          if (here !== inside(x, y - 1)) { ink.moveTo(x * sx, y * sy); ink.lineTo((x + 1) * sx, y * sy); }
        }
      }
    }

    function box(ink, layer, { h, v, width, height }, sx, sy) { // the plane's part inside the six faces
      let polygon = [[0, 0], [width, 0], [width, height], [0, height]];
      for (let face = 0; face < 6; face++) {
        const row = layer.matrix[face >> 1];
        polygon = clipped(polygon, ([x, y]) => {
          const p = [...cursor];
          p[h] = width - 0.5 - x; p[v] = height - 0.5 - y;
          const u = row[0] * p[0] + row[1] * p[1] + row[2] * p[2] + row[3];
          return face & 1 ? 1 - u : u;
        });
      }
      polygon.forEach(([x, y], n) => (n ? ink.lineTo(x * sx, y * sy) : ink.moveTo(x * sx, y * sy)));
      if (polygon.length) ink.closePath();
    }

    const digits = (value) => String(Number(value.toPrecision(3)));
    function redraw() {
      due = false;
      planes.forEach(draw);
      const [r, a, s] = world(cursor);
      const values = [`before ${digits(before.value(cursor))}`, `after ${digits(after.value(cursor))}`,
        ...readings.map((m) => `${m.label} ${digits(m.volume.value(cursor))}${m.unit}`)];
      get("place").textContent = `R ${r.toFixed(1)}, A ${a.toFixed(1)}, S ${s.toFixed(1)} mm: ${values.join(", ")}`;
    }
    const soon = () => { if (!due) { due = true; requestAnimationFrame(redraw); } };
    function move(axis, to) { cursor[axis] = Math.max(0, Math.min(shape[axis] - 1, Math.round(to))); soon(); }

    function show(percent) {
      part = percent / 100;
      get("blend").value = percent;
      get("show-before").setAttribute("aria-pressed", percent === 0);
      get("show-after").setAttribute("aria-pressed", percent === 100);
      const words = { 0: "Shown: before", 100: "Shown: after" };
      if (!timer) get("compare-state").textContent = words[percent] || `Shown: ${percent} % after`;
      soon();
    }
    function stop() { clearInterval(timer); timer = 0; get("flicker").setAttribute("aria-pressed", "false"); }
    function hold(percent) { stop(); show(percent); }
    function flicker() {
      if (timer) { hold(100); return; }
      if (calm.matches) return;
      get("compare-state").textContent = "Shown: before and after in turns";
      timer = setInterval(() => show(part > 0.5 ? 0 : 100), PERIOD);
      get("flicker").setAttribute("aria-pressed", "true");
    }
    function respect() {
      if (calm.matches && timer) hold(100);
      get("flicker").disabled = calm.matches;
      get("calm").hidden = !calm.matches;
    }

    for (const { canvas, across, h, v, width, height } of planes) {
      const point = (event) => {
        const b = canvas.getBoundingClientRect();
        move(h, width - 0.5 - (event.clientX - b.left) / b.width * width);
        move(v, height - 0.5 - (event.clientY - b.top) / b.height * height);
      };
      canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); point(event); });
      canvas.addEventListener("pointermove", (event) => { if (event.buttons & 1) point(event); });
      canvas.addEventListener("keydown", (event) => {
        if (event.ctrlKey || event.altKey || event.metaKey) return;
        const steps = { ArrowLeft: [h, 1], ArrowRight: [h, -1], ArrowUp: [v, 1], ArrowDown: [v, -1], PageUp: [across, 1], PageDown: [across, -1] };
        const step = steps[event.key];
        if (step) { move(step[0], cursor[step[0]] + step[1]); event.preventDefault(); }
      });
    }
    stage.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      const action = { b: () => hold(0), a: () => hold(100), f: flicker }[event.key.toLowerCase()];
      if (action) { action(); event.preventDefault(); }
    });
    get("show-before").addEventListener("click", () => hold(0));
    get("show-after").addEventListener("click", () => hold(100));
    get("flicker").addEventListener("click", flicker);
    get("blend").addEventListener("input", () => hold(Number(get("blend").value)));
    get("window").addEventListener("change", () => {
      [black, white] = get("window").value === "brain" ? data.window : [before.low, before.high];
      soon();
    });
    layers.forEach((layer, n) => {
      const input = get(`layer-${n}`);
      input.checked = layer.on;
      input.addEventListener("change", () => { layer.on = input.checked; soon(); });
    });
    calm.addEventListener("change", respect);
    get("viewer-controls").hidden = false;
    stage.classList.add("live");
    respect();
    show(100);
    redraw();
    state("ready");
  } catch (error) {
    get("viewer-fails").textContent = `The picture cannot be moved through (${error.message}); these planes do without.`;
    get("viewer-fails").hidden = false;
    state("failed");
  }
})();
