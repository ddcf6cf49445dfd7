// Plots of what the server does, from two readings of its metrics a second apart.

import { quantile, readMetrics, total } from "./metrics.js";

const SECONDS = 120;
const figures = [
  { title: "Tokens a second", lines: ["answers", "prompts"], unit: "", digits: 0 },
  { title: "Time to the first token", lines: ["median", "99 %"], unit: " ms", digits: 0 },
  { title: "Between two tokens", lines: ["median", "99 %"], unit: " ms", digits: 1 },
  { title: "Requests", lines: ["running", "waiting"], unit: "", digits: 0 },
  { title: "Cache in use", lines: ["share"], unit: " %", digits: 1 },
  { title: "Prefixes found in the cache", lines: ["share"], unit: " %", digits: 0 },
];

function make(figure) {
  const shown = document.createElement("figure");
  shown.className = "card";
  shown.innerHTML = "<figcaption><span></span><output>–</output></figcaption><canvas></canvas>";
  shown.querySelector("span").textContent = `${figure.title} (${figure.lines.join(", ")})`;
  [figure.output, figure.canvas] = [shown.querySelector("output"), shown.querySelector("canvas")];
  figure.canvas.setAttribute("role", "img");
  figure.points = [];
  return shown;
}

function add(figure, values) {
  figure.points.push(values);
  if (figure.points.length > SECONDS) figure.points.shift();
  const text = values.map((v) => (v === null ? "–" : v.toFixed(figure.digits))).join(" / ");
  figure.output.textContent = text + figure.unit;
  figure.canvas.setAttribute("aria-label", `${figure.title}: ${text}${figure.unit}`);
  draw(figure);
}

function draw({ canvas, points }) {
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width) return;
  [canvas.width, canvas.height] = [width * ratio, height * ratio];
  const on = canvas.getContext("2d");
  on.scale(ratio, ratio);
  const style = getComputedStyle(document.body);
  const colour = (name) => {
    on.canvas.style.color = `var(${name})`;
    return getComputedStyle(on.canvas).color;
  };
  const top = Math.max(0, ...points.flat()) * 1.1 || 1;
  on.font = `12px ${style.fontFamily}`;
  on.fillStyle = colour("--quiet");
  on.strokeStyle = colour("--line");
  for (const part of [0, 0.5, 1]) {
    const y = 12 + (height - 16) * (1 - part);
    on.beginPath();
    on.moveTo(44, y);
    on.lineTo(width, y);
    on.stroke();
    on.fillText(Number((top * part).toPrecision(2)).toLocaleString(), 0, y + 4);
  }
  ["--accent", "--quiet"].forEach((name, line) => {
    on.strokeStyle = colour(name);
    on.lineWidth = 2;
    on.beginPath();
    let isDown = false;
    points.forEach((values, i) => {
      const value = values[line];
      if (value === undefined || value === null) return;
      const x = 44 + (width - 44) * (SECONDS - points.length + i) / (SECONDS - 1);
      const y = 12 + (height - 16) * (1 - value / top);
      isDown ? on.lineTo(x, y) : on.moveTo(x, y);
      isDown = true;
    });
    on.stroke();
  });
}

/** What happened between two readings, for each figure. */
function values(before, after, seconds) {
  const rate = (name) => (total(after, name) - total(before, name)) / seconds;
  const times = (name) =>
    [0.5, 0.99].map((q) => quantile(before, after, name, q)).map((t) => t && t * 1000);
  const answers = rate("inter_token_latency_seconds_count") + rate("time_to_first_token_seconds_count");
  const asked = rate("prefix_cache_queries_total");
  return [
    [answers, rate("prompt_tokens_total")],
    times("time_to_first_token_seconds"),
    times("inter_token_latency_seconds"),
    [total(after, "num_requests_running"), total(after, "num_requests_waiting")],
    ["kv_cache_usage_perc" in after ? total(after, "kv_cache_usage_perc") * 100 : null],
    [asked ? rate("prefix_cache_hits_total") / asked * 100 : null],
  ];
}

async function watch(isShown) {
  let [before, then] = [null, 0];
  while (isShown()) {
    try {
      const [after, now] = [await readMetrics(), performance.now()];
      if (before) values(before, after, (now - then) / 1000).forEach((v, i) => add(figures[i], v));
      [before, then] = [after, now];
    } catch {
      before = null; // A gap, until the server answers again.
    }
    await new Promise((done) => setTimeout(done, 1000));
  }
}

/** Makes the plots; they run while they are looked at. */
export function openLive() {
  document.getElementById("live").append(...figures.map(make));
  let turn = 0;
  return (isShown) => {
    const mine = ++turn;
    if (isShown) watch(() => turn === mine);
  };
}
