// The run of `jackfield train`: what has happened so far, then every step as it is made.

import { api, events } from "./api.js";
import { layers, lines } from "./plot.js";

const STEPS_MAX = 2000;
const steps = [];
const evaluations = [];
let run = {};
let last = null;

const state = document.getElementById("run-state");
const progress = document.getElementById("run-progress");
const stop = document.getElementById("run-stop");
const told = document.getElementById("run-events");

const of = (key) => () => [{ points: steps.map((s) => [s.step, s[key]]), colour: "--accent" }];
const speed = (s) => (s.step_us ? (s.tokens * 1e6) / s.step_us : null);
const figures = [
  {
    title: "Loss",
    more: " (dots: held-out data)",
    series: () => [
      ...of("loss")(),
      { points: evaluations.map((e) => [e.step, e.loss]), colour: "--good", dots: true },
    ],
    now: (s) => s.loss?.toFixed(4),
  },
  { title: "Learning rate", series: of("learning_rate"), fromZero: true, now: (s) => s.learning_rate?.toExponential(2) },
  { title: "Length of the gradient", series: of("grad_norm"), fromZero: true, now: (s) => s.grad_norm?.toFixed(3) },
  {
    title: "Tokens a second",
    series: () => [{ points: steps.map((s) => [s.step, speed(s)]), colour: "--accent" }],
    fromZero: true,
    now: (s) => speed(s) && Math.round(speed(s)).toLocaleString(),
  },
  { title: "Gradients by layer", more: " (framed: unusual)", isLayers: true, now: (s) => `${Object.keys(s.unusual).length} unusual` },
];

function make(figure) {
  const shown = document.createElement("figure");
  shown.className = figure.isLayers ? "card whole" : "card";
  shown.innerHTML = "<figcaption><span></span><output>–</output></figcaption><canvas></canvas>";
  shown.querySelector("span").textContent = figure.title + (figure.more ?? "");
  [figure.output, figure.canvas] = [shown.querySelector("output"), shown.querySelector("canvas")];
  figure.canvas.setAttribute("role", "img");
  return shown;
}

function draw() {
  const step = steps.at(-1);
  if (!step) return;
  for (const figure of figures) {
    const now = figure.now(step) ?? "–";
    figure.output.textContent = now;
    figure.canvas.setAttribute("aria-label", `${figure.title}: ${now} at step ${step.step}`);
    if (figure.isLayers) {
      layers(figure.canvas, steps.map((s) => ({ step: s.step, norms: s.layers, unusual: s.unusual })));
    } else {
      lines(figure.canvas, figure.series(), figure);
    }
  }
}

function say(words, isBad) {
  const item = document.createElement("li");
  item.textContent = words;
  item.classList.toggle("error", Boolean(isBad));
  told.prepend(item);
  while (told.children.length > 200) told.lastChild.remove();
}

function describe() {
  const step = steps.at(-1);
  const done = (step?.step ?? run.step - 1) + 1;
  const size = run.num_elements ? `, ${run.num_elements.toLocaleString()} parameters` : "";
  const words = { end: "Over", lost: "The run is gone" }[last] ?? "Running";
  state.textContent = `${words}: step ${done || 0} of ${run.num_steps ?? "?"}${size}`;
  [progress.max, progress.value] = [run.num_steps ?? 1, done || 0];
  stop.disabled = Boolean(last) || stop.dataset.asked === "1";
}

const take = {
  start(event) {
    run = event;
    say(`the run ${event.step ? `goes on at step ${event.step}` : "begins"}: ${event.num_steps} steps`);
  },
  step(event) {
    steps.push(event);
    if (steps.length > STEPS_MAX) {
      const isKept = (step, i) => i % 2 || Object.keys(step.unusual).length;
      steps.splice(0, STEPS_MAX / 2, ...steps.slice(0, STEPS_MAX / 2).filter(isKept));
    }
    for (const [layer, z] of Object.entries(event.unusual)) {
      const by = z === null ? "is not finite" : `is ${Math.abs(z).toFixed(1)} deviations ${z > 0 ? "above" : "below"} what it was`;
      say(`step ${event.step + 1}: the gradient of ${layer} ${by}`, true);
    }
    if (event.learning_rate === 0) say(`step ${event.step + 1} was skipped`, true);
  },
  epoch(event) {
    say(`step ${event.step}: epoch ${event.epoch + 1} begins`);
  },
  evaluate(event) {
    evaluations.push(event);
    if (evaluations.length > STEPS_MAX) evaluations.shift();
    say(`step ${event.step}: loss of held-out data ${event.loss?.toFixed(4)}`);
  },
  checkpoint(event) {
    say(`step ${event.step}: checkpoint ${event.path}`);
  },
  restore(event) {
    say(`goes on after the checkpoint of step ${event.step}`);
  },
  swap(event) {
    say(`swapped in: ${event.plugin}`);
  },
  exception(event) {
    say(`step ${event.step}: ${event.error}`, true);
  },
  end(event) {
    last = "end";
    say(`the run is over after ${event.step} steps`);
  },
};

/** Reads until the run is over; what was kept comes first, in one piece. */
async function read() {
  let isDue = false;
  try {
    for await (const data of events(await api("/run/events"))) {
      const event = JSON.parse(data);
      take[event.topic]?.(event);
      if (!isDue) {
        isDue = true;
        requestAnimationFrame(() => {
          isDue = false;
          describe();
          draw();
        });
      }
    }
  } catch {
    // What is known stays to be looked at.
  }
  if (!last) last = "lost";
  describe();
  draw();
}

/** Shows the run. */
export function openTraining() {
  document.getElementById("run-figures").append(...figures.map(make));
  stop.addEventListener("click", async () => {
    stop.dataset.asked = "1";
    stop.disabled = true;
    try {
      await api("/run/stop", {});
      say("asked to stop: the run ends after this step, with a checkpoint");
    } catch (error) {
      stop.dataset.asked = "";
      say(error.message, true);
      describe();
    }
  });
  window.addEventListener("resize", draw);
  new MutationObserver(draw).observe(document.documentElement, { attributes: true });
  read();
  return (isShown) => isShown && draw();
}
