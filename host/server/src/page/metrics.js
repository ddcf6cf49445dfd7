// The numbers of `/metrics`.

import { api } from "./api.js";

/** Samples by name: `[{ labels, value }]`, without the prefix of this server. */
export async function readMetrics() {
  const text = await (await api("/metrics")).text();
  const samples = {};
  for (const line of text.split("\n")) {
    const found = /^jackfield:(\w+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!found) continue;
    const labels = {};
    for (const [, name, value] of (found[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) {
      labels[name] = value.replace(/\\n/g, "\n").replace(/\\(.)/g, "$1");
    }
    (samples[found[1]] ??= []).push({ labels, value: Number(found[3]) });
  }
  return samples;
}

/** The sum of all samples of a name. */
export function total(samples, name) {
  return (samples[name] ?? []).reduce((sum, sample) => sum + sample.value, 0);
}

/** The `q`-quantile of what a histogram counted between two readings, in its unit. */
export function quantile(before, after, name, q) {
  const earlier = new Map((before[`${name}_bucket`] ?? []).map((s) => [s.labels.le, s.value]));
  const buckets = (after[`${name}_bucket`] ?? []).map((s) => ({
    end: s.labels.le === "+Inf" ? Infinity : Number(s.labels.le),
    count: s.value - (earlier.get(s.labels.le) ?? 0),
  }));
  const asked = q * (buckets.at(-1)?.count ?? 0);
  if (!asked) return null;
  let [start, below] = [0, 0];
  for (const { end, count } of buckets) {
    if (count >= asked) {
      return end === Infinity ? start : start + (end - start) * (asked - below) / (count - below);
    }
    [start, below] = [end, count];
  }
  return start;
}
