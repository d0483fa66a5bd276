"use strict";
// The overlay: cells on a canvas, and a slider that takes the source from where it was to where the map puts it.
// The fragment of the address sets the state: #slider=0.5&from=posed
(() => {
  const BATCHES = 60; // the two sections are drawn in turns, so that neither hides the other
  const MARGIN = 0.04; // around the cells, as a share of the canvas
  const byId = (id) => document.getElementById(id);
  const scene = JSON.parse(byId("scene").textContent);

  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
  const ref = new Float32Array(bytes(scene.ref));
  const places = {};
  for (const name of ["stored", "posed", "moved"]) places[name] = new Float32Array(bytes(scene[name]));
  const colorings = scene.colorings.map((each) => ({ ...each, cells: new Uint16Array(bytes(each.cells)) }));
  const nRef = ref.length / 2;
  const nSrc = places.moved.length / 2;
  const now = new Float32Array(2 * nSrc);

  const canvas = byId("cells");
  const slider = byId("slider");
  const state = { from: "stored", shown: { reference: true, source: true }, coloring: colorings[0] };

  function middle(xy) {
    let x = 0, y = 0;
    for (let i = 0; i < xy.length; i += 2) { x += xy[i]; y += xy[i + 1]; }
    return [(2 * x) / xy.length, (2 * y) / xy.length];
  }
  const start = middle(places.stored);
  const end = middle(places.posed);

  // From the stored places the tissue is turned, not squeezed through its middle: the pose as a similarity that grows
  // from the identity, and the rest of the map, at first nothing, in a straight line.
  function similarity(t) {
    const { angle, scale, mirrored } = scene.pose;
    const cos = Math.cos(t * angle), sin = Math.sin(t * angle), size = scale ** t, flip = mirrored ? 1 - 2 * t : 1;
    const cx = start[0] + t * (end[0] - start[0]), cy = start[1] + t * (end[1] - start[1]);
    return (x, y, out, i) => {
      const u = flip * (x - start[0]), v = y - start[1];
      out[i] = cx + size * (cos * u - sin * v);
      out[i + 1] = cy + size * (sin * u + cos * v);
    };
  }
  const posedBySimilarity = new Float32Array(2 * nSrc);
  const whole = similarity(1);
  for (let i = 0; i < 2 * nSrc; i += 2) whole(places.stored[i], places.stored[i + 1], posedBySimilarity, i);

  function place(t) {
    const { stored, posed, moved } = places;
    if (state.from === "posed") {
      for (let i = 0; i < now.length; i++) now[i] = posed[i] + t * (moved[i] - posed[i]);
      return;
    }
    const part = similarity(t);
    for (let i = 0; i < now.length; i += 2) {
      part(stored[i], stored[i + 1], now, i);
      now[i] += t * (moved[i] - posedBySimilarity[i]);
      now[i + 1] += t * (moved[i + 1] - posedBySimilarity[i + 1]);
    }
  }

  function box(...clouds) {
    const limits = [Infinity, -Infinity, Infinity, -Infinity];
    for (const xy of clouds) {
      for (let i = 0; i < xy.length; i += 2) {
        limits[0] = Math.min(limits[0], xy[i]); limits[1] = Math.max(limits[1], xy[i]);
        limits[2] = Math.min(limits[2], xy[i + 1]); limits[3] = Math.max(limits[3], xy[i + 1]);
      }
    }
    return limits;
  }

  function view(width, height) {
    const [left, right, low, high] = box(ref, now);
    const room = 1 - 2 * MARGIN;
    const scale = Math.min((room * width) / (right - left || 1), (room * height) / (high - low || 1));
    const up = scene.invertY ? 1 : -1;
    return {
      scale,
      x: (x) => width / 2 + scale * (x - (left + right) / 2),
      y: (y) => height / 2 + up * scale * (y - (low + high) / 2),
    };
  }

  function drawSome(pen, xy, from, to, offset, radius, at, ring) {
    const { palette, cells } = state.coloring;
    pen.lineWidth = Math.max(0.7, 0.45 * radius);
    for (let i = from; i < to; i++) {
      const color = palette[cells[offset + i]];
      const x = at.x(xy[2 * i]), y = at.y(xy[2 * i + 1]);
      if (ring) {
        pen.strokeStyle = color;
        pen.beginPath(); pen.arc(x, y, radius, 0, 2 * Math.PI); pen.stroke();
      } else if (radius < 1.6) {
        pen.fillStyle = color;
        pen.fillRect(x - 0.9 * radius, y - 0.9 * radius, 1.8 * radius, 1.8 * radius);
      } else {
        pen.fillStyle = color;
        pen.beginPath(); pen.arc(x, y, radius, 0, 2 * Math.PI); pen.fill();
      }
    }
  }

  function drawScale(pen, at, width, height) {
    const exponent = Math.floor(Math.log10((0.25 * width) / at.scale));
    const length = [5, 2, 1].map((k) => k * 10 ** exponent).find((k) => k * at.scale <= 0.25 * width);
    const x = 14, y = height - 16;
    pen.globalAlpha = 1;
    pen.fillStyle = pen.strokeStyle = "#1e2530";
    pen.lineWidth = 2;
    pen.beginPath(); pen.moveTo(x, y); pen.lineTo(x + length * at.scale, y); pen.stroke();
    pen.font = "12px system-ui, sans-serif";
    pen.fillText(Number(length.toPrecision(1)).toLocaleString("en"), x, y - 6);
  }

  function draw() {
    const width = canvas.clientWidth, height = canvas.clientHeight, dense = window.devicePixelRatio || 1;
    if (!width) return;
    if (canvas.width !== Math.round(width * dense) || canvas.height !== Math.round(height * dense)) {
      canvas.width = Math.round(width * dense);
      canvas.height = Math.round(height * dense);
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(dense, 0, 0, dense, 0, 0);
    pen.clearRect(0, 0, width, height);
    const at = view(width, height);
    const ring = state.coloring.name !== null;
    const radii = scene.between.map((between) => Math.min(5, Math.max(0.7, 0.36 * between * at.scale)));
    pen.globalAlpha = 0.85;
    for (let k = 0; k < BATCHES; k++) {
      const share = (n) => [Math.floor((n * k) / BATCHES), Math.floor((n * (k + 1)) / BATCHES)];
      if (state.shown.reference) drawSome(pen, ref, ...share(nRef), 0, radii[0], at, false);
      if (state.shown.source) drawSome(pen, now, ...share(nSrc), nRef, radii[1], at, ring);
    }
    drawScale(pen, at, width, height);
  }

  function left() {
    const distances = new Float64Array(nSrc);
    for (let i = 0; i < nSrc; i++) {
      distances[i] = Math.hypot(now[2 * i] - places.moved[2 * i], now[2 * i + 1] - places.moved[2 * i + 1]) / scene.nd;
    }
    return distances.sort()[nSrc >> 1];
  }

  let waiting = 0;
  function update() {
    const t = slider.value / slider.max;
    place(t);
    const distance = left();
    const text = distance < 0.005
      ? "The source's cells are where the map puts them."
      : `The source's cells are ${distance.toFixed(distance < 10 ? 2 : 0)} nd from where the map puts them (median).`;
    byId("left").textContent = text;
    slider.setAttribute("aria-valuetext", `${Math.round(100 * t)} % of the way`);
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(draw);
  }

  function setStart(name) {
    state.from = name;
    byId("before").textContent = name === "posed" ? "After the pose" : "As stored";
    update();
  }

  function choice(box_, type, name, label, color, checked, onChange) {
    const row = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { type, name, checked });
    input.addEventListener("change", () => onChange(input.checked));
    row.append(input, ...(color ? [swatch(color)] : []), label);
    byId(box_).append(row);
  }

  function swatch(color) {
    const dot = Object.assign(document.createElement("span"), { className: "swatch" });
    dot.style.background = color;
    return dot;
  }

  function setColoring(coloring) {
    state.coloring = coloring;
    byId("legend").replaceChildren(
      ...(coloring.name === null ? [] : coloring.legend).map(([label, color]) => {
        const entry = document.createElement("span");
        entry.append(swatch(color), label);
        return entry;
      }),
    );
    draw();
  }

  function build() {
    const colors = Object.fromEntries(colorings[0].legend);
    for (const name of ["reference", "source"]) {
      choice("sections", "checkbox", name, name, colors[name], true, (on) => { state.shown[name] = on; draw(); });
    }
    for (const input of document.querySelectorAll("#starts input")) {
      input.addEventListener("change", () => setStart(input.value));
    }
    byId("starts").hidden = document.querySelectorAll("#starts input").length < 2;
    const legend = Object.assign(document.createElement("p"), { id: "legend" });
    canvas.after(legend);
    if (colorings.length > 1) {
      byId("colorings").hidden = false;
      for (const each of colorings) {
        const label = each.name === null ? "section" : `${each.name} (source: rings)`;
        choice("colorings", "radio", "coloring", label, null, each === state.coloring, () => setColoring(each));
      }
    }
  }

  function readAddress() {
    const wanted = new URLSearchParams(location.hash.slice(1));
    const input = document.querySelector(`#starts input[value="${wanted.get("from") === "posed" ? "posed" : "stored"}"]`);
    if (wanted.has("from") && input) input.checked = true;
    const t = Number(wanted.get("slider"));
    if (wanted.has("slider") && t >= 0 && t <= 1) slider.value = t * slider.max;
    setStart(document.querySelector("#starts input:checked").value);
  }

  byId("overlay").hidden = false;
  build();
  place(1);
  const [l, r, b, t] = box(ref, now);
  canvas.style.aspectRatio = Math.min(1.8, Math.max(0.7, (r - l) / (t - b || 1)));
  slider.addEventListener("input", update);
  window.addEventListener("hashchange", readAddress);
  new ResizeObserver(draw).observe(canvas);
  readAddress();
})();
