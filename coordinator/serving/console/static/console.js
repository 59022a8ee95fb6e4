// The reader's own time beside UTC. Everything works without this.
"use strict";

const hour = { hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZoneName: "short" };
const timeOfDay = new Intl.DateTimeFormat(undefined, hour);
const dayAndTime = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", ...hour });

function isSameDay(at) {
  return at.getDate() === at.getUTCDate();
}

function addLocalTimes(root) {
  for (const element of root.querySelectorAll("time[datetime]")) {
    const at = new Date(element.dateTime);
    if (!Number.isNaN(at.getTime()) && at.getTimezoneOffset() !== 0) {
      element.dataset.local = (isSameDay(at) ? timeOfDay : dayAndTime).format(at);
    }
  }
}

function watchConnection() {
  const status = document.getElementById("connection");
  if (!status) return;
  const tell = () => { status.textContent = "Not connected; what is shown may be old."; };
  document.addEventListener("htmx:error", tell);
  document.addEventListener("htmx:response:error", tell);
  document.addEventListener("htmx:after:settle", () => { status.textContent = ""; });
}

addLocalTimes(document);
watchConnection();
document.addEventListener("htmx:after:swap", () => addLocalTimes(document));
