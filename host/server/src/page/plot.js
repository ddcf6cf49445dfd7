// Plots over the steps of a run: lines, and one row of colour for each layer.

const LEFT = 56;

/** A canvas with room for as many pixels as it has on the screen; nothing while it is hidden. */
function begin(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width) return null;
  [canvas.width, canvas.height] = [width * ratio, height * ratio];
  const on = canvas.getContext("2d");
  on.scale(ratio, ratio);
  on.font = `12px ${getComputedStyle(document.body).fontFamily}`;
  const colour = (name) => {
    canvas.style.color = `var(${name})`;
    return getComputedStyle(canvas).color;
  };
  return { on, width, height, colour };
}

const short = (x) => {
  if (x === 0) return "0";
  const size = Math.abs(x);
  return size >= 1e5 || size < 1e-3 ? x.toExponential(1) : x.toLocaleString(undefined, { maximumSignificantDigits: 3 });
};

/** The part of the steps that are shown, and where each lies. */
function across(steps, width) {
  const [first, last] = [steps[0], Math.max(steps.at(-1), steps[0] + 1)];
  return (step) => LEFT + ((width - LEFT - 6) * (step - first)) / (last - first);
}

function underneath({ on, width, height, colour }, steps) {
  on.fillStyle = colour("--quiet");
  on.textAlign = "left";
  on.fillText(`step ${steps[0]}`, LEFT, height - 2);
  on.textAlign = "right";
  on.fillText(`${steps.at(-1)}`, width - 6, height - 2);
  on.textAlign = "left";
}

/** Lines `{ points: [[step, value]], colour, dots }`; values that are none leave gaps. */
export function lines(canvas, series, { fromZero = false } = {}) {
  const place = begin(canvas);
  const points = series.flatMap((line) => line.points).filter(([, value]) => value !== null);
  if (!place || !points.length) return;
  const { on, width, height, colour } = place;
  const values = points.map(([, value]) => value);
  let [low, high] = [fromZero ? 0 : Math.min(...values), Math.max(...values)];
  if (low === high) [low, high] = [low - Math.abs(low) * 0.1 - 1e-9, high + Math.abs(high) * 0.1 + 1e-9];
  const steps = [...new Set(series.flatMap((line) => line.points.map(([step]) => step)))].sort((a, b) => a - b);
  const x = across(steps, width);
  const y = (value) => 10 + (height - 28) * (1 - (value - low) / (high - low));
  for (const part of [0, 0.5, 1]) {
    const value = low + (high - low) * part;
    on.strokeStyle = colour("--line");
    on.beginPath();
    on.moveTo(LEFT, y(value));
    on.lineTo(width - 6, y(value));
    on.stroke();
    on.fillStyle = colour("--quiet");
    on.fillText(short(value), 0, y(value) + 4);
  }
  for (const line of series) {
    on.strokeStyle = on.fillStyle = colour(line.colour);
    on.lineWidth = 2;
    on.beginPath();
    let isDown = false;
    for (const [step, value] of line.points) {
      if (value === null) {
        isDown = false;
        continue;
      }
      if (line.dots) {
        on.moveTo(x(step) + 3.5, y(value));
        on.arc(x(step), y(value), 3.5, 0, 7);
      } else {
        isDown ? on.lineTo(x(step), y(value)) : on.moveTo(x(step), y(value));
        isDown = true;
      }
    }
    line.dots ? on.fill() : on.stroke();
  }
  underneath(place, steps);
}

/** Layers one above the other, each step a stroke: the longer its gradient for that layer, the stronger. */
export function layers(canvas, rows) {
  const names = [...new Set(rows.flatMap(({ norms }) => Object.keys(norms)))].sort(
    (a, b) => a.localeCompare(b, undefined, { numeric: true }),
  );
  canvas.style.height = `${Math.max(4, names.length) * 18 + 22}px`;
  const place = begin(canvas);
  if (!place || !rows.length || !names.length) return;
  const { on, width, height, colour } = place;
  const left = 96;
  const [accent, frame, quiet] = ["--accent", "--text", "--quiet"].map(colour);
  const tall = (height - 20) / names.length;
  const wide = Math.max(1, (width - left - 6) / rows.length);
  const x = (index) => left + ((width - left - 6 - wide) * index) / Math.max(1, rows.length - 1);
  names.forEach((name, row) => {
    const logs = rows.map(({ norms }) => Math.log(Math.max(norms[name] ?? NaN, 1e-30)));
    const known = logs.filter(Number.isFinite).sort((a, b) => a - b);
    // The first steps and single leaps leave the rest its colours.
    const [low, high] = [0.02, 0.98].map((part) => known[Math.round(part * (known.length - 1))]);
    on.fillStyle = quiet;
    on.fillText(name, 0, row * tall + tall * 0.7);
    on.fillStyle = accent;
    logs.forEach((log, index) => {
      if (!Number.isFinite(log)) return;
      const part = high > low ? Math.min(1, Math.max(0, (log - low) / (high - low))) : 0.5;
      on.globalAlpha = 0.08 + 0.82 * part;
      on.fillRect(x(index), row * tall + 1, wide + 0.5, tall - 2);
    });
    on.globalAlpha = 1;
    on.strokeStyle = frame;
    on.lineWidth = 2;
    rows.forEach(({ unusual }, index) => {
      if (!(name in unusual)) return;
      on.strokeRect(x(index) - 1, row * tall + 1, Math.max(wide, 4) + 2, tall - 2);
    });
  });
  on.fillStyle = quiet;
  on.fillText(`step ${rows[0].step}`, left, height - 2);
  on.textAlign = "right";
  on.fillText(`${rows.at(-1).step}`, width - 6, height - 2);
  on.textAlign = "left";
}
