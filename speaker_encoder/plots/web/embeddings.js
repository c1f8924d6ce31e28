"use strict";
// Points of utterances: hovering names one, a click plays it. All text is set as text, never as HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const canvas = byId("plot"), tip = byId("tip"), player = byId("player");
const context = canvas.getContext("2d");
const numPoints = data.speaker.length;
const REACH = 12, MARGIN = 24, CLICK_TRAVEL = 5;
const view = { scale: 1, x: 0, y: 0 };
let hovered = -1, chosen = -1, pinned = -1, wanted = "", drag = null, isWaiting = false;
let matches = new Uint8Array(numPoints).fill(1);

const POLYGONS = {
  s: regular(4, 1.25, Math.PI / 4), "^": regular(3, 1.35, -Math.PI / 2),
  v: regular(3, 1.35, Math.PI / 2), "<": regular(3, 1.35, Math.PI), ">": regular(3, 1.35, 0),
  D: regular(4, 1.2, 0), d: regular(4, 1.2, 0).map(([x, y]) => [0.62 * x, y]),
  p: regular(5, 1.2, -Math.PI / 2), h: regular(6, 1.2, -Math.PI / 2),
  "*": star(5, 1.45, 0.6), P: cross(0), X: cross(Math.PI / 4),
};

function regular(corners, radius, turn) {
  return Array.from({ length: corners }, (_, i) => {
    const angle = turn + 2 * Math.PI * i / corners;
    return [radius * Math.cos(angle), radius * Math.sin(angle)];
  });
}

function star(corners, outer, inner) {
  return Array.from({ length: 2 * corners }, (_, i) => {
    const angle = -Math.PI / 2 + Math.PI * i / corners, radius = i % 2 ? inner : outer;
    return [radius * Math.cos(angle), radius * Math.sin(angle)];
  });
}

function cross(turn) {
  const a = 0.42, b = 1.2;
  const corners = [[-a, -b], [a, -b], [a, -a], [b, -a], [b, a], [a, a], [a, b], [-a, b], [-a, a],
    [-b, a], [-b, -a], [-a, -a]];
  return corners.map(([x, y]) => [x * Math.cos(turn) - y * Math.sin(turn),
    x * Math.sin(turn) + y * Math.cos(turn)]);
}

function mark(target, x, y, radius, [colour, shape, isFilled]) {
  const polygon = POLYGONS[shape];
  target.beginPath();
  if (polygon) {
    polygon.forEach(([dx, dy]) => target.lineTo(x + radius * dx, y + radius * dy));
    target.closePath();
  } else {
    target.arc(x, y, radius, 0, 2 * Math.PI);
  }
  if (isFilled) {
    target.fillStyle = colour;
    target.fill();
  }
  target.lineWidth = isFilled ? 0.7 : 1.4;
  target.strokeStyle = isFilled ? "#fff" : colour;
  target.stroke();
}

function screen(point) {
  const width = canvas.clientWidth, height = canvas.clientHeight;
  const side = Math.min(width, height) - 2 * MARGIN;
  return [
    width / 2 + view.x + view.scale * side * (data.points[2 * point] - 0.5),
    height / 2 + view.y - view.scale * side * (data.points[2 * point + 1] - 0.5),
  ];
}

function radius() {
  const base = numPoints <= 300 ? 6 : numPoints <= 1500 ? 4.5 : numPoints <= 8000 ? 3.2 : 2.2;
  return base * Math.min(1.8, Math.sqrt(view.scale));
}

function draw() {
  isWaiting = false;
  const ratio = window.devicePixelRatio || 1;
  const width = Math.round(canvas.clientWidth * ratio);
  const height = Math.round(canvas.clientHeight * ratio);
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
  const active = hovered >= 0 ? data.speaker[hovered] : pinned;
  const isBright = (point) => matches[point] && (active < 0 || data.speaker[point] === active);
  for (const bright of [false, true]) {
    context.globalAlpha = bright ? 0.92 : 0.1;
    for (let point = 0; point < numPoints; point++) {
      if (Boolean(isBright(point)) !== bright) continue;
      const [x, y] = screen(point);
      if (x < -20 || y < -20 || x > canvas.clientWidth + 20 || y > canvas.clientHeight + 20) continue;
      mark(context, x, y, radius(), data.styles[data.speaker[point]]);
    }
  }
  context.globalAlpha = 1;
  for (const [point, colour] of [[chosen, "#000"], [hovered, "#555"]]) {
    if (point < 0) continue;
    context.beginPath();
    context.arc(...screen(point), radius() + 5, 0, 2 * Math.PI);
    context.lineWidth = 2;
    context.strokeStyle = colour;
    context.stroke();
  }
  canvas.dataset.drawn = String(numPoints);
}

function redraw() {
  if (!isWaiting) {
    isWaiting = true;
    requestAnimationFrame(draw);
  }
}

function nearest(x, y) {
  let best = -1, least = (REACH + radius()) ** 2;
  for (let point = 0; point < numPoints; point++) {
    if (!matches[point]) continue;
    const [px, py] = screen(point), distance = (px - x) ** 2 + (py - y) ** 2;
    if (distance < least) [best, least] = [point, distance];
  }
  return best;
}

function place(event) {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left - canvas.clientLeft, event.clientY - box.top - canvas.clientTop];
}

function hover(point) {
  hovered = point;
  tip.hidden = point < 0;
  if (point >= 0) {
    const name = document.createElement("b");
    name.textContent = data.speakers[data.speaker[point]];
    const action = data.audio[point] ? "" : " (no audio)";
    tip.replaceChildren(name, document.createTextNode(data.utterance[point] + action));
    // Above the point, or below it where there is no room: beside it lie its speaker's others.
    const [x, y] = screen(point), room = canvas.clientWidth - tip.offsetWidth - 4;
    const above = y - tip.offsetHeight - 14;
    tip.style.left = `${Math.max(4, Math.min(room, x - tip.offsetWidth / 2))}px`;
    tip.style.top = `${above >= 0 ? above : y + 18}px`;
  }
  redraw();
}

function choose(point) {
  chosen = point;
  byId("speaker").textContent = data.speakers[data.speaker[point]];
  byId("utterance").textContent = data.utterance[point];
  byId("problem").textContent = "";
  player.pause();
  const source = data.audio[point];
  player.hidden = !source;
  if (source) {
    player.src = source;
    player.play().catch((error) => {
      if (error.name !== "AbortError" && !player.error) explain(error.message);
    });
  } else {
    player.removeAttribute("src");
    explain("There is no audio for this utterance.");
  }
  redraw();
}

function explain(text) {
  byId("problem").textContent = text;
}

player.addEventListener("error", () => {
  if (!player.getAttribute("src")) return;
  const source = data.audio[chosen] || "";
  const place = source.startsWith("data:") ? "" : ` at ${decodeURI(source)}`;
  explain(`The browser cannot play the audio${place}.`);
});

function zoom(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
  const scale = Math.min(200, Math.max(0.5, view.scale * factor));
  const change = scale / view.scale;
  view.x = (x - canvas.clientWidth / 2) * (1 - change) + view.x * change;
  view.y = (y - canvas.clientHeight / 2) * (1 - change) + view.y * change;
  view.scale = scale;
  hover(-1);
}

function reset() {
  [view.scale, view.x, view.y] = [1, 0, 0];
  hover(-1);
}

canvas.addEventListener("pointermove", (event) => {
  if (drag) {
    view.x = drag.x + event.clientX - drag.startX;
    view.y = drag.y + event.clientY - drag.startY;
    drag.travel = Math.max(drag.travel,
      Math.hypot(event.clientX - drag.startX, event.clientY - drag.startY));
    if (drag.travel >= CLICK_TRAVEL) canvas.classList.add("dragging");
    hover(-1);
  } else {
    const point = nearest(...place(event));
    if (point !== hovered) hover(point);
  }
});
canvas.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  canvas.setPointerCapture(event.pointerId);
  drag = { startX: event.clientX, startY: event.clientY, x: view.x, y: view.y, travel: 0 };
});
canvas.addEventListener("pointerup", (event) => {
  if (!drag) return;
  if (drag.travel < CLICK_TRAVEL) {
    [view.x, view.y] = [drag.x, drag.y];
    const point = nearest(...place(event));
    if (point >= 0) choose(point);
    hover(point);
  }
  drag = null;
  canvas.classList.remove("dragging");
});
canvas.addEventListener("pointercancel", () => { drag = null; });
canvas.addEventListener("pointerleave", () => { if (!drag) hover(-1); });
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(Math.exp(-event.deltaY * 0.0015), ...place(event));
}, { passive: false });
canvas.addEventListener("keydown", (event) => {
  const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  if (event.key in steps) {
    const next = (chosen + steps[event.key] + numPoints) % numPoints;
    choose(chosen < 0 ? 0 : next);
  } else if (event.key === "Enter" || event.key === " ") {
    if (chosen >= 0) choose(chosen);
  } else if (event.key === "+") zoom(1.4);
  else if (event.key === "-") zoom(1 / 1.4);
  else if (event.key === "0") reset();
  else return;
  event.preventDefault();
});
byId("closer").addEventListener("click", () => zoom(1.4));
byId("farther").addEventListener("click", () => zoom(1 / 1.4));
byId("whole").addEventListener("click", reset);

const counts = new Array(data.speakers.length).fill(0);
data.speaker.forEach((speaker) => { counts[speaker] += 1; });
const buttons = data.speakers.map((name, speaker) => {
  const button = document.createElement("button");
  button.type = "button";
  button.title = "show this speaker only";
  button.setAttribute("aria-pressed", "false");
  const swatch = document.createElement("canvas");
  swatch.width = swatch.height = 32;
  const target = swatch.getContext("2d");
  target.scale(2, 2);
  mark(target, 8, 8, 5, data.styles[speaker]);
  const text = document.createElement("span"), count = document.createElement("small");
  text.textContent = name;
  count.textContent = String(counts[speaker]);
  button.append(swatch, text, count);
  button.addEventListener("click", () => {
    pinned = pinned === speaker ? -1 : speaker;
    buttons.forEach((other, i) => other.setAttribute("aria-pressed", String(i === pinned)));
    redraw();
  });
  return button;
});
byId("speakers").append(...buttons);

byId("search").addEventListener("input", (event) => {
  wanted = event.target.value.trim().toLowerCase();
  const seen = new Set();
  for (let point = 0; point < numPoints; point++) {
    const speaker = data.speaker[point];
    const text = `${data.speakers[speaker]}\n${data.utterance[point]}`.toLowerCase();
    matches[point] = text.includes(wanted) ? 1 : 0;
    if (matches[point]) seen.add(speaker);
  }
  buttons.forEach((button, speaker) => { button.hidden = !seen.has(speaker); });
  byId("found").textContent = wanted ? `${seen.size} of ${data.speakers.length} speakers` : "";
  redraw();
});

new ResizeObserver(redraw).observe(canvas);
window.speakerPlot = { screen, numPoints };
draw();
