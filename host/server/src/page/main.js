// Tabs, the state of the server, and what is shared by the parts of the page.

import { api } from "./api.js";
import { openBoard } from "./board.js";
import { openChat } from "./chat.js";
import { openLive } from "./live.js";
import { openModels, readModels } from "./models.js";
import { openSettings } from "./settings.js";
import { openTraining } from "./training.js";

// `jackfield train` serves a run and no model, `jackfield serve` a model and no run.
const isRun = document.documentElement.hasAttribute("data-run");
const isThere = ({ dataset: { tab } }) =>
  tab === "settings" || (tab === "training") === isRun;
const tabs = [...document.querySelectorAll("[role=tab]")].filter(isThere);
document.querySelectorAll("[role=tab]").forEach((tab) => { tab.hidden = !isThere(tab); });
const parts = {};

function show(name) {
  for (const tab of tabs) {
    const isShown = tab.dataset.tab === name;
    tab.setAttribute("aria-selected", isShown);
    tab.tabIndex = isShown ? 0 : -1;
    document.getElementById(tab.dataset.tab).hidden = !isShown;
    parts[tab.dataset.tab]?.(isShown);
  }
  if (location.hash !== `#${name}`) history.replaceState(null, "", `#${name}`);
}

function openTabs() {
  tabs.forEach((tab, i) => {
    tab.setAttribute("aria-controls", tab.dataset.tab);
    tab.addEventListener("click", () => show(tab.dataset.tab));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = tabs[(i + step + tabs.length) % tabs.length];
      next.focus();
      next.click();
    });
  });
  window.addEventListener("hashchange", () => show(asked()));
}

function asked() {
  const name = location.hash.slice(1);
  return tabs.some((tab) => tab.dataset.tab === name) ? name : tabs[0].dataset.tab;
}

async function watchHealth() {
  const health = document.getElementById("health");
  for (;;) {
    let [state, text] = ["good", "ready"];
    try {
      await api("/ready");
    } catch (error) {
      [state, text] = ["bad", error.status ? error.message : "the server does not answer"];
    }
    if (health.textContent !== text) {
      health.className = state;
      health.textContent = text;
      if (state === "good" && !isRun) readModels();
    }
    await new Promise((done) => setTimeout(done, 3000));
  }
}

openSettings((name) => {
  if (name === "key" && !isRun) readModels();
});
if (isRun) {
  document.title = "Jackfield · training";
  parts.training = openTraining();
} else {
  parts.chat = openChat();
  parts.board = openBoard();
  parts.live = openLive();
  parts.models = openModels();
}
openTabs();
show(asked());
watchHealth();
