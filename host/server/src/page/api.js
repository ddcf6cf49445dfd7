// Requests to the server, and the events that answer them.

import { settings } from "./settings.js";

/** An error of the server, with its status. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

function headers(key, body) {
  const headers = {};
  if (key) headers.authorization = `Bearer ${key}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  return headers;
}

async function ask(url, key, body, signal) {
  const response = await fetch(url, {
    method: body === undefined ? "GET" : "POST",
    headers: headers(key, body),
    body: body === undefined ? undefined : JSON.stringify(body),
    signal,
  });
  if (response.ok) return response;
  const text = await response.text();
  let message = text;
  try {
    message = JSON.parse(text).error.message;
  } catch {
    // Not an answer of this server: its text says most.
  }
  throw new ApiError(response.status, message || response.statusText);
}

/** What `path` answers; a POST if there is a body. */
export function api(path, body, signal) {
  return ask(path, settings.key, body, signal);
}

/** The same of the listener for operators. */
export function admin(path, body, signal) {
  return ask(settings.admin_address.replace(/\/$/, "") + path, settings.admin_key, body, signal);
}

/** The data of server-sent events, one after the other. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (rest + value).split(/\r?\n\r?\n/);
      rest = parts.pop();
      for (const part of parts) {
        const lines = part.split(/\r?\n/).filter((line) => line.startsWith("data:"));
        if (lines.length) yield lines.map((line) => line.slice(5).trimStart()).join("\n");
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
