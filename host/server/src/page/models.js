// The models that the server has.

import { api } from "./api.js";
import { offerModels } from "./settings.js";

/** Asks for the models, shows them, and offers them in the settings. */
export async function readModels() {
  const rows = document.getElementById("model-rows");
  try {
    const { data } = await (await api("/v1/models")).json();
    offerModels(data.filter((model) => model.task === "generate").map((model) => model.id));
    rows.replaceChildren(...data.map(row));
    const { version, plugin_api } = await (await api("/version")).json();
    document.getElementById("version").textContent =
      `Jackfield ${version}, plugins of interface ${plugin_api}`;
  } catch (error) {
    const cell = rows.insertRow().insertCell();
    cell.colSpan = 4;
    cell.className = "error";
    cell.textContent = error.message;
    rows.replaceChildren(cell.parentElement);
  }
}

function row(model) {
  const row = document.createElement("tr");
  const since = new Date(model.created * 1000).toLocaleString();
  const root = model.root === model.id ? "" : model.root;
  for (const text of [model.id, root, model.max_model_len ?? "being loaded", since]) {
    row.insertCell().textContent = text;
  }
  return row;
}

/** Reads them again whenever they are looked at. */
export function openModels() {
  return (isShown) => {
    if (isShown) readModels();
  };
}
