// Plots of the cost page; the tables under them have the same numbers.
"use strict";

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function axes(unit) {
  const look = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") } };
  return [look, { ...look, label: unit, size: 60 }];
}

const PLOTS = {
  per_day: { unit: "per day", title: "Requests per day", series: [
    { label: "requests", stroke: "--accent", width: 2 },
    { label: "records erased", stroke: "--warn", width: 2, dash: [6, 4] },
  ] },
  batches: { unit: "seconds", title: "Seconds a batch", series: [
    { label: "took (s)", stroke: "--accent", width: 2 },
    { label: "all shards (s)", stroke: "--warn", width: 2, dash: [6, 4] },
  ] },
};

function draw(element, data) {
  const plot = PLOTS[element.dataset.plot];
  const series = plot.series.map((one) => ({ ...one, stroke: colour(one.stroke), points: { show: true, size: 6 } }));
  element.replaceChildren();
  return new uPlot({
    title: plot.title,
    width: element.clientWidth,
    height: 260,
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    axes: axes(plot.unit),
    series: [{ label: "UTC" }, ...series],
    scales: { y: { range: { min: { hard: 0, soft: 0, mode: 1 }, max: { pad: 0.1 } } } },
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
