// Keeps a page of the console up to date. No build step: this is what browsers run.
//
// A page has one stream (data-live on <main>), and that of a backend a second one for its output. Both are closed while
// the page is hidden: a browser has six connections to one host, for all of its tabs.
"use strict";

const MAX_SAMPLES = 600;
const MAX_LINES = 2000;
const RETRY_MS = [500, 1000, 2000, 5000, 10000];

const color = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const bytes = count => {
  let value = count, unit = "B";
  for (const next of ["KiB", "MiB", "GiB", "TiB"]) {
    if (value < 1024) break;
    value /= 1024;
    unit = next;
  }
  return `${value < 10 && unit !== "B" ? value.toFixed(1) : Math.round(value)} ${unit}`;
};

function showNotice(place, text, kind) {
  const area = document.getElementById(place);
  const shown = area.textContent;
  if (shown === text) return;
  area.replaceChildren();
  if (!text) return;
  const line = document.createElement("p");
  line.className = `notice ${kind}`;
  if (kind === "error") line.setAttribute("role", "alert");
  line.textContent = text;
  area.append(line);
}

// A stream that is closed while the page is hidden, and opened again after errors. `handlers`: by name of the event.
class Stream {
  constructor(address, handlers, onEnd) {
    this.address = address;
    this.handlers = handlers;
    this.onEnd = onEnd;
    this.failures = 0;
    document.addEventListener("visibilitychange", () => this.update());
    window.addEventListener("pagehide", () => this.close());
    window.addEventListener("pageshow", () => this.update());
    this.update();
  }

  update() {
    if (document.hidden) this.close();
    else if (!this.source && !this.ended) this.open();
  }

  open() {
    clearTimeout(this.timer);
    this.source = new EventSource(typeof this.address === "function" ? this.address() : this.address);
    for (const [name, handle] of Object.entries(this.handlers)) {
      this.source.addEventListener(name, event => handle(event.data, event));
    }
    this.source.addEventListener("signed-out", () => location.reload());
    this.source.onopen = () => {
      this.failures = 0;
      showNotice("stale", "", "");
    };
    this.source.onerror = () => this.fail();
  }

  fail() {
    this.close();
    if (this.onEnd && this.onEnd()) {
      this.ended = true;
      return;
    }
    const wait = RETRY_MS[Math.min(this.failures, RETRY_MS.length - 1)];
    this.failures += 1;
    if (this.failures > 1) showNotice("stale", "Not up to date: the controller does not respond. Trying again.", "late");
    // Not all at once after a restart of the controller.
    this.timer = setTimeout(() => this.check(), wait * (0.75 + Math.random() / 2));
  }

  // EventSource hides the status of a failed response; a session that has ended must lead to the sign-in.
  async check() {
    try {
      const response = await fetch("/console/session", { headers: { Accept: "text/event-stream" } });
      if (response.status === 401) location.reload();
    } catch {
      // The controller is not there: the next attempt tells.
    }
    this.update();
  }

  close() {
    clearTimeout(this.timer);
    if (this.source) this.source.close();
    this.source = null;
  }
}

function axes(format) {
  const style = { stroke: color("--muted"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false } };
  return [
    { ...style, values: (plot, times) => times.map(at => new Date(at * 1000).toISOString().slice(11, plot.scales.x.max - plot.scales.x.min < 600 ? 19 : 16)), space: 75, size: 32 },
    { ...style, ...format },
  ];
}

function chart(element, options, data) {
  const size = () => ({ width: Math.max(element.clientWidth, 100), height: 168 });
  const make = () => new uPlot({ ...size(), cursor: { drag: { x: false, y: false } }, ...options() }, data, element);
  let plot = make();
  new ResizeObserver(() => plot.setSize(size())).observe(element);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    plot.destroy();
    plot = make();
  });
  return next => {
    data = next;
    plot.setData(next);
  };
}

const number = { value: (_, count) => count ?? "–" };
const clock = { value: (_, at) => (at ? new Date(at * 1000).toISOString().slice(11, 19) : "–") };

function activityChart(element) {
  const counts = { values: (_, values) => values.map(value => (Number.isInteger(value) ? value : "")), size: 44 };
  return chart(
    element,
    () => ({
      scales: { y: { range: (_, __, most) => [0, Math.max(most, 4)] } },
      axes: axes(counts),
      series: [
        { label: "UTC", ...clock },
        { label: "starts", ...number, stroke: color("--series-1"), width: 2, points: { show: false } },
        { label: "ends", ...number, stroke: color("--series-2"), width: 1.5, dash: [6, 3], points: { show: false } },
        { label: "failures", ...number, stroke: color("--series-3"), width: 2, points: { show: false } },
      ],
    }),
    JSON.parse(element.dataset.series),
  );
}

function usageChart(element) {
  const columns = [[], [], []];
  const text = document.getElementById("usage-text");
  const memory = { values: (_, values) => values.map(bytes), size: 72 };
  const share = { scale: "cpu", side: 1, values: (_, values) => values.map(value => `${Math.round(value * 100)} %`), size: 50 };
  const draw = chart(
    element,
    () => {
      const [time, left] = axes(memory);
      return {
        scales: { x: { range: ({ data: [times] }) => [Math.min(times[0] ?? 0, (times.at(-1) ?? 60) - 60), times.at(-1) ?? 60] }, y: { range: (_, __, most) => [0, Math.max(most * 1.1, 1024 * 1024)] }, cpu: { range: (_, __, most) => [0, Math.max(most * 1.1, 0.1)] } },
        axes: [time, left, { ...left, ...share, grid: { show: false } }],
        series: [
          { label: "UTC", ...clock },
          { label: "memory", stroke: color("--series-1"), width: 2, value: (_, value) => (value == null ? "–" : bytes(value)) },
          { label: "CPU of the machine", scale: "cpu", stroke: color("--series-2"), width: 1.5, dash: [6, 3], value: (_, value) => (value == null ? "–" : `${(value * 100).toFixed(1)} %`) },
        ],
      };
    },
    columns,
  );
  const add = sample => {
    const [at, used, cpu] = JSON.parse(sample);
    if (at <= (columns[0].at(-1) ?? 0)) return;
    [at, used, cpu].forEach((value, place) => {
      columns[place].push(value);
      if (columns[place].length > MAX_SAMPLES) columns[place].shift();
    });
    draw(columns);
    text.textContent = `Now ${bytes(used)} of memory and ${(cpu * 100).toFixed(1)} % of the machine's CPU.`;
  };
  if (element.dataset.sample) add(element.dataset.sample);
  return add;
}

function followOutput(element) {
  const text = document.getElementById("output-text");
  const follow = document.getElementById("follow");
  let last = "";
  let waiting = [];
  let hasEnded = false;
  const describe = () => {
    const count = element.childElementCount;
    if (!hasEnded) return count ? `${count} lines, times are UTC.` : "No output yet.";
    return count ? `${count} lines, times are UTC. The backend has ended.` : "The backend has ended; its output is no longer kept, or it had none.";
  };
  const show = () => {
    const lines = waiting.slice(-MAX_LINES);
    waiting = [];
    for (const { time, text: line } of lines) {
      const row = document.createElement("div");
      const at = document.createElement("span");
      at.className = "at";
      at.textContent = `${new Date(time).toISOString().slice(11, 23)} `;
      row.append(at, line);
      element.append(row);
    }
    while (element.childElementCount > MAX_LINES) element.firstElementChild.remove();
    if (follow.checked) element.scrollTop = element.scrollHeight;
    text.textContent = describe();
  };
  follow.addEventListener("change", () => follow.checked && (element.scrollTop = element.scrollHeight));
  const ended = () => {
    hasEnded = document.querySelector("#backend .badge.terminated") !== null;
    text.textContent = describe();
    return hasEnded;
  };
  const address = () => element.dataset.output + (last ? `&after=${last}` : "");
  new Stream(
    address,
    {
      message: (data, event) => {
        last = event.lastEventId;
        if (!waiting.length) requestAnimationFrame(show);
        waiting.push(JSON.parse(data));
      },
    },
    ended,
  );
  text.textContent = describe();
}

function start() {
  document.documentElement.classList.add("scripted");
  const main = document.getElementById("main");
  const activity = document.getElementById("activity");
  const usage = document.getElementById("usage");
  const output = document.getElementById("output");
  const drawActivity = activity && activityChart(activity);
  const addUsage = usage && usageChart(usage);
  if (main.dataset.live) {
    new Stream(main.dataset.live, {
      // Elements of the fragment replace those with the same id; htmx keeps the focus.
      fragment: html => htmx.swap(main, html, { swapStyle: "none" }),
      activity: data => drawActivity(JSON.parse(data)),
      usage: data => addUsage(data),
      stale: text => showNotice("stale", text, "late"),
    });
  }
  if (output) followOutput(output);
  // Forms that open a tab of their own carry the token, too.
  document.addEventListener("submit", event => {
    if (!("csrf" in event.target.dataset) || event.target.elements.csrf) return;
    const field = document.createElement("input");
    field.type = "hidden";
    field.name = "csrf";
    field.value = JSON.parse(document.body.getAttribute("hx-headers"))["X-CSRF-Token"];
    event.target.append(field);
  });
  document.body.addEventListener("htmx:sendError", () => showNotice("notice", "The controller does not respond; nothing was changed.", "error"));
}

document.addEventListener("DOMContentLoaded", start);
