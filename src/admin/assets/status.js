// The status page: reads the admin API, writes text nodes only, and looks again when the event stream says so.
const byId = (id) => document.getElementById(id);
const number = new Intl.NumberFormat();
const dollars = new Intl.NumberFormat(undefined, { style: "currency", currency: "USD", maximumFractionDigits: 4 });

function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) { value /= 1024; unit += 1; }
  return `${value.toFixed(unit && value < 10 ? 1 : 0)} ${units[unit]}`;
}

function age(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 60) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  return seconds < 86400 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86400)} d`;
}

function cell(content, className) {
  const td = document.createElement("td");
  if (className) td.className = className;
  td.append(content instanceof Node ? content : String(content ?? "–"));
  return td;
}

function fill(body, rows, columns, nothing) {
  if (!rows.length) {
    const empty = cell(nothing, "empty");
    empty.colSpan = columns;
    rows = [[empty]];
  }
  body.replaceChildren(...rows.map((cells) => {
    const row = document.createElement("tr");
    row.append(...cells);
    return row;
  }));
}

function code(text) {
  const element = document.createElement("code");
  element.textContent = text ?? "–";
  return element;
}

function bar(value) {
  const element = document.createElement("progress");
  element.max = 1;
  element.value = value;
  element.title = `${Math.round(value * 100)} %`;
  return element;
}

function showStatus(status) {
  byId("version").textContent = `${status.version}, up ${age(status.uptime_seconds)}`;
  byId("queued").textContent = number.format(status.queue.requests);
  byId("queued-detail").textContent = status.queue.requests
    ? `${bytes(status.queue.bytes)}, oldest ${age(status.queue.oldest_age_seconds)}` : "";
  byId("held").textContent = number.format(status.held_connections);
  const open = ["prepared", "uploaded", "submitted"].reduce((sum, state) => sum + (status.batches[state] ?? 0), 0);
  byId("open").textContent = number.format(open);
  byId("completed").textContent = number.format(status.requests.completed);
  const today = status.today;
  byId("saved").textContent = dollars.format(today.saved_usd);
  byId("saved-detail").textContent = today.priced_requests
    ? `paid ${dollars.format(today.paid_usd)} instead of ${dollars.format(today.live_usd)}` : "nothing priced yet";
  fill(byId("lanes"), status.lanes.map((lane) => [
    cell(lane.model), cell(lane.endpoint), cell(lane.provider), cell(number.format(lane.queued_requests), "n"),
    cell(bytes(lane.queued_bytes), "n"), cell(age(lane.oldest_age_seconds), "n"),
    cell(number.format(lane.open_batches), "n"), cell(lane.held_back),
  ]), 8, "No lane has anything queued or in flight.");
}

function showBatches(list) {
  const now = Date.now() / 1000;
  fill(byId("batches"), list.data.map((batch) => [
    cell(code(`${batch.id.slice(0, 16)}…`)), cell(batch.state, `state-${batch.state}`), cell(batch.model),
    cell(bar(batch.progress)), cell(number.format(batch.counts.total), "n"),
    cell(number.format(batch.counts.failed), "n"), cell(age(now - batch.created_at), "n"),
    cell(batch.error ?? batch.provider_status ?? batch.provider_batch_id),
  ]), 8, "No batch yet. Send a call with the header x-nightbus-defer: true.");
}

async function get(path) {
  const response = await fetch(path, { headers: { accept: "application/json" } });
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.json();
}

let running = false;
let again = false;

async function refresh() {
  if (running) { again = true; return; }
  running = true;
  try {
    const [status, batches] = await Promise.all([get("/api/status"), get("/api/batches?limit=25")]);
    showStatus(status);
    showBatches(batches);
    pulse(status.stopping ? "stopping" : "live", !status.stopping);
  } catch (error) {
    pulse(`no answer (${error.message})`, false);
  }
  running = false;
  if (again) { again = false; setTimeout(refresh, 500); }
}

function pulse(text, up) {
  byId("pulse").textContent = text;
  byId("pulse").className = `badge ${up ? "up" : "down"}`;
}

const events = new EventSource("/api/events");
for (const name of ["request", "batch", "missed", "open"]) events.addEventListener(name, refresh);
setInterval(refresh, 5000);
refresh();
