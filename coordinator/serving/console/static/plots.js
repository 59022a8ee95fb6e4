// Plots of the cost page; the tables under them have the same numbers.
"use strict";

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

const DAY_S = 86400;

function when(plot, ticks) {
  const isShort = ticks.at(-1) - ticks[0] < 2 * DAY_S;
  return ticks.map((tick) => {
    const text = new Date(tick * 1000).toISOString();
    return isShort ? text.slice(11, 16) : text.slice(5, 10);
  });
}

function axes(unit) {
  const look = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") } };
  return [{ ...look, values: when }, { ...look, label: unit, size: 60 }];
}

const PLOTS = {
  per_day: { unit: "per day", margin_s: DAY_S / 2, series: [
    { label: "received", stroke: "--accent", fill: true, width: 1 },
    { label: "completed", stroke: "--warn", width: 2, dash: [6, 4] },
  ] },
  batches: { unit: "seconds", margin_s: 3600, series: [
    { label: "took (s)", stroke: "--accent", width: 2 },
    { label: "all shards (s)", stroke: "--warn", width: 2, dash: [6, 4] },
  ] },
};

function lineOf({ fill, ...one }) {
  const stroke = colour(one.stroke);
  if (!fill) return { ...one, stroke, points: { show: true, size: 6 } };
  return { ...one, stroke, fill: `${stroke}66`, paths: uPlot.paths.bars({ size: [0.6, 40] }), points: { show: false } };
}

function draw(element, data) {
  const plot = PLOTS[element.dataset.plot];
  element.replaceChildren();
  return new uPlot({
    width: element.clientWidth,
    height: 260,
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    axes: axes(plot.unit),
    series: [{ label: "UTC", value: (self, at) => at == null ? "" : new Date(at * 1000).toISOString().slice(0, 16) }, ...plot.series.map(lineOf)],
    scales: { x: { range: (self, low, high) => [low - plot.margin_s, high + plot.margin_s] }, y: { range: { min: { hard: 0, soft: 0, mode: 1 }, max: { pad: 0.1 } } } },
  }, data, element);
}

async function drawAll() {
  const elements = [...document.querySelectorAll(".plot[data-source]")];
  if (!elements.length) return;
  const answer = await fetch(elements[0].dataset.source, { headers: { Accept: "application/json" } });
  if (!answer.ok) return;
  const data = await answer.json();
  const redraw = () => elements.forEach((element) => draw(element, data[element.dataset.plot]));
  redraw();
  window.addEventListener("resize", redraw);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}

drawAll();
