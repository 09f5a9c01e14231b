// Lines over steps and paths over a surface, as SVG over a canvas; both are read by pointer and by arrow keys.
"use strict";

const SVG = "http://www.w3.org/2000/svg";

function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** A number in few characters. */
function short(x) {
  if (Number.isNaN(x)) return "NaN";
  if (!Number.isFinite(x)) return x > 0 ? "∞" : "−∞";
  if (x === 0) return "0";
  const size = Math.abs(x);
  const text = size >= 1e5 || size < 1e-3 ? x.toExponential(2) : String(Number(x.toPrecision(4)));
  return text.replace("e+", "e").replace(/-/g, "−").replace(/(\.\d*?)0+e/, "$1e").replace(".e", "e");
}

/** Round numbers of an axis. */
function ticks(low, high, count) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
  const all = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) all.push(k * step);
  return all;
}

/** Draws lines `{ values, color, dash, label }` over steps. */
function lineChart(holder, { lines, log, first, title, unit }) {
  const width = Math.max(280, holder.clientWidth);
  const height = Math.min(260, Math.max(190, width * 0.42));
  const [left, right, top, bottom] = [54, 10, 10, 26];
  const count = Math.max(2, ...lines.map((line) => line.values.length));
  const usable = (v) => Number.isFinite(v) && (!log || v > 0);
  let [low, high] = [Infinity, -Infinity];
  for (const { values } of lines)
    for (const v of values)
      if (usable(v)) {
        low = Math.min(low, v);
        high = Math.max(high, v);
      }
  if (low > high) [low, high] = log ? [1e-3, 1] : [0, 1];
  const to = log ? Math.log10 : (v) => v;
  if (log) {
    // What diverges must not hide the others.
    high = Math.min(high, low * 1e14, 1e12);
    low = Math.max(low, high * 1e-14);
    if (high / low < 10) high = low * 10;
  } else {
    low = Math.min(0, low);
    if (high === low) high = low + 1;
  }
  const [a, b] = [to(low), to(high) + (to(high) - to(low)) * 0.04];
  const x = (t) => left + ((width - left - right) * t) / (count - 1);
  const y = (v) => top + (height - top - bottom) * (1 - (to(v) - a) / (b - a));

  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": title });
  const marks = log
    ? ticks(a, b, Math.max(2, Math.min(5, Math.floor(b - a)))).filter((t) => Number.isInteger(t)).map((t) => 10 ** t)
    : ticks(a, b, 4);
  for (const v of marks) {
    const at = y(v);
    root.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: at, y2: at }));
    root.append(svg("text", { class: "tick", x: left - 6, y: at + 4, "text-anchor": "end" }, short(v)));
  }
  for (const step of ticks(first, first + count - 1, width < 420 ? 4 : 8).filter(Number.isInteger)) {
    const anchor = step - first > (count - 1) * 0.97 ? "end" : "middle";
    root.append(svg("text", { class: "tick", x: x(step - first), y: height - 8, "text-anchor": anchor }, String(step)));
  }
  for (const line of lines) {
    let path = "";
    let pen = "M";
    line.values.forEach((v, t) => {
      if (!usable(v)) {
        pen = "M";
        return;
      }
      const at = Math.max(top - 2, Math.min(height - bottom + 1, y(v)));
      path += `${pen}${x(t).toFixed(1)} ${at.toFixed(1)}`;
      pen = "L";
    });
    const shape = { class: "line", d: path, stroke: line.color };
    if (line.dash) shape["stroke-dasharray"] = line.dash;
    root.append(svg("path", shape));
  }
  const cursor = svg("line", { class: "cursor", y1: top, y2: height - bottom, visibility: "hidden" });
  root.append(cursor);

  const readout = document.createElement("p");
  readout.className = "readout";
  const show = (t) => {
    cursor.setAttribute("x1", x(t));
    cursor.setAttribute("x2", x(t));
    cursor.setAttribute("visibility", "visible");
    readout.replaceChildren(`step ${t + first}: `);
    lines.forEach((line) => {
      const value = document.createElement("span");
      value.style.setProperty("--c", line.color);
      value.textContent = short(line.values[t] ?? NaN);
      value.title = line.label;
      readout.append(value, " ");
    });
  };
  let at = count - 1;
  const hide = () => {
    cursor.setAttribute("visibility", "hidden");
    readout.textContent = unit;
  };
  hide();
  holder.onpointermove = (event) => {
    const box = root.getBoundingClientRect();
    const t = (((event.clientX - box.left) / box.width) * width - left) / (width - left - right);
    at = Math.max(0, Math.min(count - 1, Math.round(t * (count - 1))));
    show(at);
  };
  holder.onpointerleave = hide;
  holder.onblur = hide;
  holder.onfocus = () => {
    if (holder.matches(":focus-visible")) show(at);
  };
  holder.onkeydown = (event) => {
    const stride = event.shiftKey ? Math.ceil(count / 20) : 1;
    const moved = { ArrowLeft: at - stride, ArrowRight: at + stride, Home: 0, End: count - 1 }[event.key];
    if (moved === undefined) return;
    event.preventDefault();
    at = Math.max(0, Math.min(count - 1, moved));
    show(at);
  };
  holder.replaceChildren(root, readout);
}

/** Draws the levels of a surface with the paths of runs; `onStart` hears of a new start. */
function surfaceChart(holder, { surface, runs, start, onStart, title }) {
  const width = Math.max(280, holder.clientWidth);
  const height = Math.round(Math.min(width * 0.62, 430));
  // Equal units on both axes: the shape of the surface is its point.
  const unit = Math.max((surface.x[1] - surface.x[0]) / width, (surface.y[1] - surface.y[0]) / height);
  const mid = (range) => (range[0] + range[1]) / 2;
  const [x0, y0] = [mid(surface.x) - (unit * width) / 2, mid(surface.y) + (unit * height) / 2];
  const x = (v) => (v - x0) / unit;
  const y = (v) => (y0 - v) / unit;

  const canvas = document.createElement("canvas");
  const scale = Math.min(2, window.devicePixelRatio || 1);
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  const channel = (name) => style.getPropertyValue(name).trim().split(/\s+/).map(Number);
  const [deep, high, edge] = ["--deep", "--high", "--edge"].map(channel);
  const image = context.createImageData(canvas.width, canvas.height);
  const levels = new Float64Array(canvas.width * canvas.height);
  const least = surface.loss(...surface.minimum);
  for (let row = 0, k = 0; row < canvas.height; row++)
    for (let column = 0; column < canvas.width; column++, k++)
      levels[k] = Math.log10(surface.loss(x0 + (column / scale) * unit, y0 - (row / scale) * unit) - least + 1e-3);
  let [low, top] = [Infinity, -Infinity];
  for (const v of levels) {
    low = Math.min(low, v);
    top = Math.max(top, v);
  }
  const bands = 16;
  const band = (k) => Math.floor(((levels[k] - low) / (top - low)) * bands);
  for (let k = 0; k < levels.length; k++) {
    const mix = Math.min(bands - 1, band(k)) / (bands - 1);
    const right = (k + 1) % canvas.width ? k + 1 : k;
    const below = k + canvas.width < levels.length ? k + canvas.width : k;
    const border = band(k) !== band(right) || band(k) !== band(below);
    for (let c = 0; c < 3; c++) image.data[4 * k + c] = border ? edge[c] : deep[c] + (high[c] - deep[c]) * mix;
    image.data[4 * k + 3] = 255;
  }
  context.putImageData(image, 0, 0);

  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": title });
  const [mx, my] = [x(surface.minimum[0]), y(surface.minimum[1])];
  root.append(svg("path", { class: "minimum", d: `M${mx - 6} ${my}H${mx + 6}M${mx} ${my - 6}V${my + 6}` }));
  const clamp = (v) => Math.max(-1e4, Math.min(1e4, v));
  for (const run of runs) {
    let path = "";
    let pen = "M";
    for (let t = 0; t < run.xs.length; t++) {
      if (!Number.isFinite(run.xs[t]) || !Number.isFinite(run.ys[t])) break;
      path += `${pen}${clamp(x(run.xs[t])).toFixed(1)} ${clamp(y(run.ys[t])).toFixed(1)}`;
      pen = "L";
    }
    root.append(svg("path", { class: "halo", d: path }));
    root.append(svg("path", { class: "line", d: path, stroke: run.color }));
    const [ex, ey] = [x(run.final[0]), y(run.final[1])];
    if (Number.isFinite(ex) && Number.isFinite(ey))
      root.append(svg("circle", { class: "end", cx: clamp(ex), cy: clamp(ey), r: 5, fill: run.color }));
  }
  root.append(svg("circle", { class: "start", cx: x(start[0]), cy: y(start[1]), r: 6 }));
  const tidy = (v) => Number(v.toPrecision(3));
  holder.onclick = (event) => {
    const box = root.getBoundingClientRect();
    const at = (client, from, size, all) => ((client - from) / size) * all;
    onStart([
      tidy(x0 + at(event.clientX, box.left, box.width, width) * unit),
      tidy(y0 - at(event.clientY, box.top, box.height, height) * unit),
    ]);
  };
  holder.onkeydown = (event) => {
    const by = (event.shiftKey ? 40 : 8) * unit;
    const move = { ArrowLeft: [-by, 0], ArrowRight: [by, 0], ArrowUp: [0, by], ArrowDown: [0, -by] }[event.key];
    if (!move) return;
    event.preventDefault();
    onStart([tidy(start[0] + move[0]), tidy(start[1] + move[1])]);
  };
  holder.replaceChildren(canvas, root);
}
