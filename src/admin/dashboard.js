"use strict";
// Values from data are only passed to textContent or setAttribute, because file names are untrusted.
// Milliseconds between two requests for the status.
const POLL_INTERVAL = 2000;
const find = (id) => document.getElementById(id);
// Characters that hide or reorder the text around them are escaped, as in the output on a terminal.
const UNPRINTABLE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\u{e0000}-\u{e007f}]/gu;
const printable = (text) => String(text).replace(UNPRINTABLE, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);

function element(name, options = {}, ...children) {
  const made = document.createElement(name);
  if (options.class) made.className = options.class;
  if (options.text !== undefined) made.textContent = printable(options.text);
  for (const [key, value] of Object.entries(options.attributes ?? {})) made.setAttribute(key, printable(value));
  made.append(...children);
  return made;
}

function drawn(name, attributes = {}, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, printable(value));
  if (text !== undefined) made.textContent = printable(text);
  return made;
}

// Numbers in readable form.
function short(value) {
  const size = Math.abs(value);
  if (size >= 1e9) return `${(value / 1e9).toPrecision(3)} G`;
  if (size >= 1e6) return `${(value / 1e6).toPrecision(3)} M`;
  if (size >= 1e4) return `${(value / 1e3).toPrecision(3)} k`;
  if (size >= 100 || Number.isInteger(value)) return value.toFixed(0);
  if (size >= 1) return value.toFixed(1);
  return size === 0 ? "0" : value.toPrecision(2);
}
function figure(value) {
  const size = Math.abs(value);
  if (size === 0) return "0";
  return size < 1e-3 || size >= 1e5 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
}
function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) { value /= 1024; unit += 1; }
  return `${value.toFixed(unit > 0 && value < 10 ? 1 : 0)} ${units[unit]}`;
}
function span(seconds) {
  if (seconds < 1) return `${(seconds * 1000).toFixed(0)} ms`;
  if (seconds < 120) return `${seconds.toFixed(0)} s`;
  if (seconds < 7200) return `${(seconds / 60).toFixed(0)} min`;
  if (seconds < 172800) return `${(seconds / 3600).toFixed(0)} h`;
  return `${(seconds / 86400).toFixed(0)} days`;
}
const clock = (unixSeconds) => new Date(unixSeconds * 1000).toLocaleTimeString();
const percent = (share) => `${(100 * Math.min(share, 1)).toFixed(0)} %`;
const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

function showTiles(status) {
  const sources = status.stages.filter((stage) => stage.role === "source");
  const sum = (name) => sources.reduce((total, stage) => total + stage[name], 0);
  const rejects = status.stages.reduce((total, stage) => total + stage.rejects, 0);
  const taken = sum("records_in");
  const commits = status.stages.flatMap((stage) => stage.committed?.last_unix_seconds || []);
  const last = commits.length > 0 ? `last commit ${span(Math.max(0, status.unix_seconds - Math.max(...commits)))} ago` : "nothing committed yet";
  const tiles = [
    ["Records per second", short(sum("records_per_second")), `${short(taken)} since the start`],
    ["Rejected", short(rejects), taken > 0 ? `${(100 * rejects / taken).toFixed(rejects > 0 ? 2 : 0)} % of the records` : ""],
    ["Oldest uncommitted", span(status.oldest_uncommitted_seconds), last],
    ["Batches waiting", `${status.queue_batches} of ${status.queue_limit_batches}`, `${bytes(status.in_flight_bytes)} in flight, at most ${bytes(status.in_flight_limit_bytes)}`],
    ["Memory", status.resident_bytes === null ? "?" : bytes(status.resident_bytes), "of the process"],
    ["Uptime", span(status.uptime_seconds), status.generation > 0 ? `reloaded ${status.generation} time${status.generation === 1 ? "" : "s"}` : `${status.workers} worker${status.workers === 1 ? "" : "s"}`],
  ];
  find("tiles").replaceChildren(...tiles.map(([name, value, note]) =>
    element("div", {}, element("dt", { text: name }), element("dd", { text: value }, element("small", { text: note })))));
}

// Each stage is placed one step after the last of its inputs.
function showGraph(status) {
  const stages = status.stages;
  const steps = [];
  stages.forEach((stage, at) => { steps[at] = Math.max(-1, ...stage.inputs.map((input) => steps[input])) + 1; });
  const upright = window.matchMedia("(max-width: 40rem)").matches;
  const [width, height, gap, between] = upright ? [166, 96, 34, 16] : [190, 96, 56, 18];
  const [rows, taken] = [[], new Set()];
  const places = stages.map((stage, at) => {
    // Next to its first input if that place is free, otherwise further down.
    let row = rows[stage.inputs[0]] ?? 0;
    while (taken.has(`${steps[at]}/${row}`)) row += 1;
    taken.add(`${steps[at]}/${row}`);
    rows[at] = row;
    return upright
      ? { x: 1 + row * (width + between), y: 1 + steps[at] * (height + gap) }
      : { x: 1 + steps[at] * (width + gap), y: 1 + row * (height + between) };
  });
  const right = Math.max(...places.map((place) => place.x)) + width + 1;
  const bottom = Math.max(...places.map((place) => place.y)) + height + 1;
  const picture = drawn("svg", { width: right, height: bottom, viewBox: `0 0 ${right} ${bottom}`, role: "img" });
  const summaries = stages.map((stage) => `${stage.name}: ${short(stage.records_per_second)} records per second, ${stage.rejects} rejects`);
  picture.append(drawn("title", {}, summaries.join("; ")));
  stages.forEach((stage, at) => stage.inputs.forEach((input) => {
    const [from, to] = [places[input], places[at]];
    const [x1, y1] = upright ? [from.x + width / 2, from.y + height] : [from.x + width, from.y + height / 2];
    const [x2, y2] = upright ? [to.x + width / 2, to.y] : [to.x, to.y + height / 2];
    const half = upright ? (y2 - y1) / 2 : (x2 - x1) / 2;
    const path = upright ? `M${x1} ${y1}C${x1} ${y1 + half} ${x2} ${y2 - half} ${x2} ${y2}` : `M${x1} ${y1}C${x1 + half} ${y1} ${x2 - half} ${y2} ${x2} ${y2}`;
    picture.append(drawn("path", { class: stage.records_per_second > 0 ? "edge flows" : "edge", d: path }));
  }));
  const busiest = stages.reduce((best, stage) => ((stage.utilization ?? 0) > (best?.utilization ?? 0) ? stage : best), null);
  const slowest = busiest && busiest.utilization > 0.5 ? busiest : null;
  stages.forEach((stage, at) => picture.append(box(stage, places[at], width, height, stage === slowest)));
  find("graph").replaceChildren(picture);
  const word = !busiest || busiest.utilization < 0.01 ? "All stages are idle." :
    slowest ? `The bottleneck is ${slowest.name}, busy ${percent(slowest.utilization)} of the time.` :
    `No stage is at its limit; the busiest is ${busiest.name}, busy ${percent(busiest.utilization)} of the time.`;
  find("bottleneck").textContent = word;
}

function box(stage, place, width, height, slowest) {
  const group = drawn("g", { transform: `translate(${place.x} ${place.y})`, class: slowest ? "slowest" : "" });
  group.append(drawn("rect", { class: slowest ? "box slowest" : "box", width, height, rx: stage.role === "transform" ? 8 : 20 }));
  group.append(drawn("title", {}, `${stage.name} (${stage.kind})`));
  group.append(drawn("text", { class: "name", x: 14, y: 24 }, cut(stage.name, 20)));
  group.append(drawn("text", { class: "soft", x: 14, y: 41 }, cut(`${stage.role === "transform" ? "" : `${stage.role}, `}${stage.kind}`, 26)));
  group.append(drawn("text", { x: 14, y: 62 }, `${short(stage.records_per_second)} /s`));
  if (stage.rejects > 0) group.append(drawn("text", { class: "bad", x: width - 14, y: 62, "text-anchor": "end" }, `${short(stage.rejects)} rejected`));
  if (stage.utilization === null) {
    group.append(drawn("text", { class: "soft", x: 14, y: 82 }, `${short(stage.records_in)} received`));
  } else {
    group.append(drawn("rect", { class: "track", x: 14, y: 75, width: width - 112, height: 8, rx: 4 }));
    group.append(drawn("rect", { class: "fill", x: 14, y: 75, width: (width - 112) * Math.min(stage.utilization, 1), height: 8, rx: 4 }));
    group.append(drawn("text", { class: "soft", x: width - 14, y: 83, "text-anchor": "end" }, `${percent(stage.utilization)} busy`));
  }
  return group;
}

function showErrors(status) {
  find("errors-section").hidden = status.errors.length === 0;
  find("errors").replaceChildren(...status.errors.map((errors) => {
    const caption = element("figcaption", {}, element("h3", { text: `${errors.stage}: ${errors.loss} of ${errors.model}` }));
    if (errors.drift_psi !== null) caption.append(drift(errors));
    const legend = element("div", { class: "legend" }, key("p50", "median"), key("p95", "95th percentile"));
    if (errors.reference) legend.append(key("p50", "the same in the model card", true));
    return element("figure", {}, caption, legend, chart(errors, status.unix_seconds));
  }));
}

function key(tone, text, dashed) {
  return element("span", {}, element("i", { class: `${tone}${dashed ? " dashed" : ""}` }), text);
}

// The usual thresholds of the population stability index.
function drift({ drift_psi: psi, zscore }) {
  const [word, tone] = psi < 0.1 ? ["no drift", "good"] : psi < 0.25 ? ["moderate drift", ""] : ["significant drift", "bad"];
  return element("span", { class: `badge ${tone}`, text: `${word}: PSI ${psi.toFixed(2)}, z ${zscore.toFixed(1)}`, attributes: { title: "Population stability index and mean z-score of the last 10,000 records against the model card" } });
}

function chart({ spans, reference }, now) {
  const [height, left, top, bottom] = [220, 58, 10, 24];
  // The chart uses the available width, so that labels stay readable on a phone.
  const width = Math.min(640, Math.max(300, find("errors").clientWidth));
  const picture = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  const begin = Math.min(now - 300, spans[0]?.unix_seconds ?? now);
  const most = Math.max(...spans.map((one) => one.p95), reference?.p95 ?? 0) * 1.1 || 1;
  const x = (seconds) => left + (width - left - 8) * (seconds - begin) / (now - begin);
  const y = (value) => height - bottom - (height - bottom - top) * value / most;
  const last = spans.at(-1);
  picture.append(drawn("title", {}, last ? `median ${figure(last.p50)}, 95th percentile ${figure(last.p95)}` : "no records yet"));
  const step = [1, 2, 2.5, 5, 10].map((one) => one * 10 ** Math.floor(Math.log10(most / 3))).find((one) => most / one <= 5);
  for (let value = 0; value <= most; value += step) {
    picture.append(drawn("line", { class: "grid", x1: left, x2: width - 8, y1: y(value), y2: y(value) }));
    picture.append(drawn("text", { class: "soft", x: left - 8, y: y(value) + 4, "text-anchor": "end" }, figure(value)));
  }
  const parts = width < 450 ? 2 : 3;
  for (let part = 0; part <= parts; part += 1) {
    const seconds = begin + (now - begin) * part / parts;
    const anchor = part === 0 ? "start" : part === parts ? "end" : "middle";
    picture.append(drawn("text", { class: "soft", x: x(seconds), y: height - 6, "text-anchor": anchor }, clock(seconds)));
  }
  for (const tone of ["p50", "p95"]) {
    if (reference) picture.append(drawn("line", { class: `reference ${tone}`, x1: left, x2: width - 8, y1: y(reference[tone]), y2: y(reference[tone]) }));
    let path = "";
    spans.forEach((one, at) => {
      // The line is interrupted during spans without records.
      const isConnected = at > 0 && one.unix_seconds - spans[at - 1].unix_seconds < 25;
      path += `${isConnected ? "L" : "M"}${x(one.unix_seconds).toFixed(1)} ${y(one[tone]).toFixed(1)}${isConnected ? "" : "h.01"}`;
    });
    if (path) picture.append(drawn("path", { class: `line ${tone}`, d: path }));
  }
  return picture;
}

let shown = "";
function showImages(status) {
  find("images-section").hidden = status.images.length === 0;
  const now = status.images.map((image) => image.number).join();
  if (now === shown) return;
  shown = now;
  find("images").replaceChildren(...status.images.map((image) => {
    const side = (file, words) => {
      const picture = element("img", { attributes: { src: `/v1/images/${image.number}/${file}.png`, alt: `${image.source}, ${words}` } });
      picture.addEventListener("load", () => picture.classList.toggle("small", picture.naturalWidth < 100));
      return picture;
    };
    const pair = element("div", { class: "pair" }, side("before", "input of the model"), side("after", "output of the model"));
    return element("figure", {}, pair, element("figcaption", { text: `${image.stage}, ${clock(image.unix_seconds)}: ${image.source}` }));
  }));
}

function place(reject) {
  if (reject.records > 1) return `${reject.source}, ${short(reject.records)} records from row ${reject.row}`;
  return reject.row > 0 ? `${reject.source}, row ${reject.row}` : reject.source;
}

// A table of texts; the cells of the named columns may be wide.
function table(heads, rows, wide) {
  const head = element("tr", {}, ...heads.map((text) => element("th", { text, attributes: { scope: "col" } })));
  const cells = (row) => element("tr", {}, ...row.map((text, at) => element("td", { class: wide.includes(heads[at]) ? "wide" : at === 0 ? "time" : "", text })));
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows.map(cells)));
}

const position = ({ source, row }) => `${source}, row ${row}`;

function showWork(status) {
  const sources = status.stages.filter((stage) => stage.reading);
  const reading = sources.map(({ name, reading: { last, records_done, records_total } }) => {
    const share = records_total > 0 ? ` (${percent(records_done / records_total)})` : "";
    const done = records_total === null ? short(records_done) : `${short(records_done)} of ${short(records_total)}${share}`;
    return [name, last === null ? "nothing yet" : position(last), done];
  });
  find("reading").replaceChildren(table(["source", "last record read", "records done"], reading, ["last record read"]));
  const batches = status.active_batches.map(({ worker, stage, records, first, last, seconds }) => [
    String(worker), stage, records > 1 ? `${position(first)} to ${position(last)}` : position(first), short(records), span(seconds),
  ]);
  const idle = element("p", { class: "muted", text: "All workers wait for records." });
  find("batches").replaceChildren(batches.length === 0 ? idle : table(["worker", "stage", "records in progress", "number", "since"], batches, ["records in progress"]));
}

function showRejects(status) {
  if (status.rejects.length === 0) {
    find("rejects").replaceChildren(element("p", { class: "muted", text: "None since the start." }));
    return;
  }
  const rows = status.rejects.map((reject) => [clock(reject.unix_seconds), reject.stage, reject.code, place(reject), reject.reason]);
  find("rejects").replaceChildren(table(["time", "stage", "reason", "record", "details"], rows, ["record", "details"]));
}

let carded = "";
function showModels(status) {
  find("models-section").hidden = status.models.length === 0;
  const now = status.models.map((model) => model.digest).join();
  if (now === carded) return;
  carded = now;
  find("models").replaceChildren(...status.models.map((model) => {
    const list = (facts) => element("dl", {}, ...facts.flatMap(([name, value]) => [element("dt", { text: name }), element("dd", { text: value })]));
    const facts = [["summary", model.summary], ["execution providers", model.providers], ["digest", model.digest.slice(0, 16)]];
    const card = element("article", { class: "card" }, element("h3", { text: model.name }), element("p", { class: "muted", text: model.description }), list(facts));
    const metrics = Object.entries(model.metrics).map(([name, value]) => [name.replaceAll("_", " "), figure(value)]);
    if (metrics.length > 0) card.append(element("details", {}, element("summary", { text: "Metrics on the validation data" }), list(metrics)));
    return card;
  }));
}

let seen = null;
function lost() {
  document.body.classList.add("stale");
  find("state").textContent = "no response";
  find("state").className = "state lost";
  find("lost").hidden = false;
  find("lost").textContent = seen === null ? "The run does not respond yet." : `The run has not responded since ${seen.toLocaleTimeString()}. The values below are from that time.`;
}

async function refresh() {
  try {
    const answer = await fetch("/v1/status", { cache: "no-store", signal: AbortSignal.timeout(10000) });
    if (!answer.ok) throw new Error(await answer.text());
    const status = await answer.json();
    seen = new Date();
    document.body.classList.remove("stale");
    find("lost").hidden = true;
    document.title = `${status.pipeline}: ${status.state}`;
    find("pipeline").textContent = status.pipeline;
    find("version").textContent = status.version;
    find("state").textContent = status.state;
    find("state").className = `state ${status.state}`;
    for (const show of [showTiles, showGraph, showWork, showErrors, showImages, showRejects, showModels]) show(status);
  } catch (error) {
    console.error(error);
    lost();
  }
}

// The status is not requested while the page is in the background.
async function poll() {
  if (!document.hidden) await refresh();
  setTimeout(poll, POLL_INTERVAL);
}
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
poll();
