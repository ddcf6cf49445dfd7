// What the reader of the page prefers. Keys live as long as the tab, the rest as long as the browser
// keeps it.

const KEYS = ["key", "admin_key"];
const DEFAULTS = {
  system: "", temperature: "0.7", top_p: "1", max_tokens: "512", seed: "", model: "",
  key: "", admin_address: "", admin_key: "", theme: "",
};

const store = (name) => (KEYS.includes(name) ? sessionStorage : localStorage);

/** The settings, by name; all are text. */
export const settings = Object.fromEntries(
  Object.keys(DEFAULTS).map((name) => [name, store(name).getItem(name) ?? DEFAULTS[name]]),
);

/** What a chat request says besides its messages. */
export function sampling() {
  const asked = { model: settings.model };
  for (const name of ["temperature", "top_p", "max_tokens", "seed"]) {
    if (settings[name] !== "") asked[name] = Number(settings[name]);
  }
  return asked;
}

function showTheme() {
  if (settings.theme) document.documentElement.dataset.theme = settings.theme;
  else delete document.documentElement.dataset.theme;
}

/** Fills the form, and keeps what is changed in it. `changed` is told the name. */
export function openSettings(changed) {
  const form = document.getElementById("preferences");
  for (const [name, value] of Object.entries(settings)) {
    if (name !== "model") form.elements[name].value = value;
  }
  form.addEventListener("input", ({ target }) => {
    settings[target.name] = target.value;
    store(target.name).setItem(target.name, target.value);
    showTheme();
    changed(target.name);
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  showTheme();
}

/** Offers the models to choose from. */
export function offerModels(names) {
  const select = document.getElementById("preferences").elements.model;
  if (!names.includes(settings.model)) settings.model = names[0] ?? "";
  select.replaceChildren(...names.map((name) => new Option(name, name)));
  select.value = settings.model;
}
