// The board: slots as sockets, what is plugged in, and how to change it.
//
// Anybody may look. Swapping needs the operators' address and key of the settings.

import { admin, events } from "./api.js";
import { readMetrics } from "./metrics.js";
import { settings } from "./settings.js";

const slots = document.getElementById("slots");
const note = document.getElementById("board-note");
const answer = document.getElementById("swap-answer");
const faults = document.getElementById("events");

const isOperator = () => Boolean(settings.admin_address && settings.admin_key);

/** The slots as operators are told of them, or what the metrics say. */
async function readSlots() {
  if (isOperator()) return (await (await admin("/slots")).json()).slots;
  const samples = await readMetrics();
  const number = (name, of) => samples[name]?.find(
    ({ labels }) => labels.kind === of.kind && labels.slot === of.slot,
  )?.value ?? 0;
  return (samples.plugin_info ?? []).map(({ labels }) => ({
    kind: labels.kind,
    slot: labels.slot,
    name: labels.plugin,
    generation: number("plugin_generation", labels),
    requests: number("plugin_requests", labels),
    draining: Array(number("plugin_draining", labels)).fill({}),
  }));
}

function row(list, name, value) {
  list.append(Object.assign(document.createElement("dt"), { textContent: name }));
  list.append(Object.assign(document.createElement("dd"), { textContent: value }));
}

function socket(state) {
  const shown = document.createElement("article");
  shown.className = "card socket";
  shown.classList.toggle("draining", state.draining.length > 0);
  shown.dataset.slot = `${state.kind}/${state.slot}`;
  shown.innerHTML = `<svg viewBox="0 0 48 48" width="48" height="48" aria-hidden="true">
    <circle class="hole" cx="24" cy="24" r="20"/><circle class="plug" cx="24" cy="24" r="11"/></svg>
    <span class="quiet"></span><span class="name"></span><dl></dl><div class="row"></div>`;
  const place = state.kind === state.slot ? state.kind : `${state.kind} · ${state.slot}`;
  shown.querySelector(".quiet").textContent = place;
  shown.querySelector(".name").textContent = `${state.name} #${state.generation}`;
  const list = shown.querySelector("dl");
  if (state.lane) row(list, "lane", state.lane);
  row(list, "in flight", state.requests);
  if (state.draining.length) {
    const names = state.draining.map((generation) => generation.active).filter(Boolean);
    row(list, "draining", names.join(", ") || state.draining.length);
  }
  if (isOperator()) {
    const swap = document.createElement("button");
    swap.textContent = "Swap…";
    swap.onclick = () => {
      document.getElementById("swap-slot").value = state.slot;
      document.getElementById("swap-file").focus();
    };
    const back = document.createElement("button");
    back.textContent = "Roll back";
    back.disabled = state.generation < 2;
    back.onclick = () => act("/plugins/rollback", { kind: state.kind, slot: state.slot });
    shown.querySelector(".row").append(swap, back);
  }
  return shown;
}

async function show() {
  try {
    const states = await readSlots();
    slots.replaceChildren(...states.map(socket));
    note.textContent = isOperator()
      ? "" : "To swap plugins, enter the operators' address and key in the settings.";
    note.className = "quiet";
  } catch (error) {
    note.textContent = error.message;
    note.className = "error";
  }
}

/** Asks for a change, and says what came of it. */
async function act(path, body) {
  answer.className = "";
  answer.textContent = "…";
  try {
    answer.textContent = JSON.stringify(await (await admin(path, body)).json(), null, 2);
  } catch (error) {
    answer.className = "error";
    answer.textContent = isOperator()
      ? error.message : "Enter the operators' address and key in the settings first.";
  }
  await show();
}

function tell(event) {
  const words = {
    "after-swap": () => `${event.kind}: ${event.name} #${event.generation} plugged in`,
    "after-rollback": () => `${event.kind}: ${event.name} #${event.generation} taken back: ${event.reason}`,
    "on-fault": () => `${event.kind}: ${event.name} failed: ${event.error}`,
  }[event.topic];
  if (!words) return;
  const item = document.createElement("li");
  item.textContent = `${new Date().toLocaleTimeString()}  ${words()}`;
  item.classList.toggle("error", event.topic !== "after-swap");
  faults.prepend(item);
  while (faults.children.length > 100) faults.lastChild.remove();
  show();
}

/** Reads events until `signal` says so. */
async function tail(signal) {
  while (!signal.aborted) {
    try {
      for await (const data of events(await admin("/events", undefined, signal))) {
        tell(JSON.parse(data));
      }
    } catch {
      // Read again in a moment: the server may be starting.
    }
    await new Promise((done) => setTimeout(done, 3000));
  }
}

/** Makes the board work; it is up to date while it is looked at. */
export function openBoard() {
  document.getElementById("swap").addEventListener("submit", (event) => {
    event.preventDefault();
    const [file, slot] = ["swap-file", "swap-slot"].map((id) => document.getElementById(id).value);
    const dry_run = event.submitter?.value === "dry";
    act("/plugins/swap", { file, ...(slot && { slot }), dry_run });
  });
  let stop = null;
  return (isShown) => {
    stop?.abort();
    stop = null;
    if (!isShown) return;
    const { signal } = (stop = new AbortController());
    const again = async () => {
      if (signal.aborted) return;
      await show();
      setTimeout(again, 2000);
    };
    again();
    if (isOperator()) tail(signal);
  };
}
