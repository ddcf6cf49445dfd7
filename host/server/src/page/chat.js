// Conversations: asked, streamed, stopped, asked again, edited.

import { api, events } from "./api.js";
import { sampling, settings } from "./settings.js";

const list = document.getElementById("chats");
const log = document.getElementById("messages");
const question = document.getElementById("question");
const stop = document.getElementById("stop");
const send = document.getElementById("send");

/** Conversations, latest first: `{ id, messages: [{ role, content, note, error }] }`. */
let chats = JSON.parse(localStorage.getItem("chats") ?? "[]");
let current = chats[0] ?? begin();
/** Ends the answer that is being streamed. */
let running = null;

function begin() {
  return { id: crypto.randomUUID?.() ?? String(Date.now()), messages: [] };
}

function keep() {
  chats = [current, ...chats.filter((chat) => chat.id !== current.id)]
    .filter((chat) => chat.messages.length).slice(0, 50);
  try {
    localStorage.setItem("chats", JSON.stringify(chats));
  } catch {
    // The browser has no more room: the conversation goes on, but is not kept.
  }
}

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function showChats() {
  list.replaceChildren(...chats.map((chat) => {
    const open = element("button", {
      textContent: chat.messages[0].content.slice(0, 60),
      onclick: () => turnTo(chat),
    });
    open.setAttribute("aria-current", chat.id === current.id);
    const drop = element("button", { textContent: "✕", title: "Delete", onclick: () => forget(chat) });
    drop.setAttribute("aria-label", "Delete this conversation");
    return element("li", {}, open, drop);
  }));
}

function turnTo(chat) {
  running?.abort();
  current = chat;
  showAll();
  question.focus();
}

function forget(chat) {
  chats = chats.filter((other) => other !== chat);
  localStorage.setItem("chats", JSON.stringify(chats));
  if (chat.id === current.id) turnTo(begin());
  else showChats();
}

function showAll() {
  log.replaceChildren(...current.messages.map(show));
  log.scrollTop = log.scrollHeight;
  showChats();
}

/** The element of a message, with what can be done to it. */
function show(message, index) {
  const text = element("div", { className: "text", textContent: message.content });
  const foot = element("div", { className: "foot" });
  const button = (label, act) => foot.append(element("button", { textContent: label, onclick: act }));
  if (message.role === "user") button("Edit", () => edit(index));
  else if (index === current.messages.length - 1) button("Regenerate", () => regenerate());
  button("Copy", () => navigator.clipboard?.writeText(message.content));
  if (message.note) foot.append(message.note);
  const shown = element("article", { className: `message ${message.role}` }, text);
  if (message.error) shown.append(element("div", { className: "error", textContent: message.error }));
  shown.append(foot);
  return shown;
}

function edit(index) {
  running?.abort();
  question.value = current.messages[index].content;
  current.messages.length = index;
  keep();
  showAll();
  question.focus();
}

function regenerate() {
  const last = current.messages.at(-1);
  if (running || last?.role !== "assistant") return;
  current.messages.pop();
  answer();
}

/** Streams an answer to what was said so far. */
async function answer() {
  const chat = current;
  const message = { role: "assistant", content: "", note: "" };
  const before = chat.messages.map(({ role, content }) => ({ role, content }));
  if (settings.system) before.unshift({ role: "system", content: settings.system });
  chat.messages.push(message);
  keep();
  showAll();
  const shown = log.lastElementChild;
  const text = shown.querySelector(".text");
  shown.classList.add("busy");
  const abort = running = new AbortController();
  [stop.hidden, send.disabled] = [false, true];
  const start = performance.now();
  let [first, tokens] = [0, 0];
  try {
    const body = {
      ...sampling(), messages: before, stream: true, stream_options: { include_usage: true },
    };
    for await (const data of events(await api("/v1/chat/completions", body, abort.signal))) {
      if (data === "[DONE]") break;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Error(chunk.error.message);
      tokens = chunk.usage?.completion_tokens ?? tokens;
      const delta = chunk.choices[0]?.delta?.content;
      if (!delta) continue;
      first ||= performance.now();
      message.content += delta;
      const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
      text.append(delta);
      if (isAtEnd) log.scrollTop = log.scrollHeight;
    }
  } catch (error) {
    if (abort.signal.aborted) message.note = "stopped";
    else message.error = error.message;
  }
  if (first && tokens > 1) {
    const speed = (tokens - 1) / ((performance.now() - first) / 1000);
    message.note = `${tokens} tokens, first after ${Math.round(first - start)} ms, ` +
      `then ${speed.toFixed(1)} a second`;
  }
  if (running === abort) {
    running = null;
    [stop.hidden, send.disabled] = [true, false];
  }
  keep();
  if (chat === current) showAll();
}

function ask() {
  const text = question.value.trim();
  if (!text || running) return;
  current.messages.push({ role: "user", content: text });
  question.value = "";
  answer();
}

/** Makes the chat work; what it returns is told whether it is shown. */
export function openChat() {
  document.getElementById("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  question.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      ask();
    } else if (event.key === "ArrowUp" && !question.value) {
      const last = current.messages.findLastIndex((message) => message.role === "user");
      if (last >= 0) edit(last);
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") running?.abort();
  });
  stop.addEventListener("click", () => running?.abort());
  document.getElementById("new-chat").addEventListener("click", () => turnTo(begin()));
  showAll();
  return (isShown) => {
    if (isShown) question.focus();
  };
}
