"use strict";
// The page works through relative URLs, so that it can be mounted below any path.

const $ = selector => document.querySelector(selector);
const list = $("#list"), form = $("form"), picker = $("#file"), files = $("#files"), make = $(".make"), banner = $(".banner");
let chosen = [];

function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// -- times and lengths ------------------------------------------------------------------------------------------------

const relative = new Intl.RelativeTimeFormat("en", {numeric: "auto", style: "short"});

function age(seconds) {
  for (const [unit, length] of [["day", 86400], ["hour", 3600], ["minute", 60]])
    if (seconds >= length) return relative.format(-Math.floor(seconds / length), unit);
  return seconds < 10 ? "just now" : relative.format(-Math.floor(seconds / 10) * 10, "second");
}

function clock(seconds) {
  const whole = Math.max(1, Math.round(seconds)), two = value => String(value).padStart(2, "0");
  const minutes = Math.floor(whole / 60) % 60, hours = Math.floor(whole / 3600);
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

function size(bytes) {
  return bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

function showAges(root) {
  for (const time of root.querySelectorAll("time")) {
    const then = new Date(time.dateTime);
    time.textContent = age((Date.now() - then) / 1000);
    time.title = then.toLocaleString();
  }
}

function showLengths(root) {
  for (const video of root.querySelectorAll("video")) {
    const show = () => {
      if (!Number.isFinite(video.duration)) return;
      const length = video.closest("li").querySelector(".length");
      length.textContent = clock(video.duration);
      length.hidden = false;
    };
    video.readyState ? show() : video.addEventListener("loadedmetadata", show, {once: true});
  }
}

setInterval(() => showAges(document), 10000);

// -- the videos -------------------------------------------------------------------------------------------------------

function show(state) {
  const present = new Map([...list.children].map(card => [card.dataset.id, card]));
  let before = null;
  for (const {id, digest, html} of state.cards) {
    let card = present.get(id);
    present.delete(id);
    if (!card || card.dataset.digest !== digest) {
      const template = document.createElement("template");
      template.innerHTML = html;  // made and escaped by the engine
      const fresh = template.content.firstElementChild;
      showAges(fresh);
      showLengths(fresh);
      card ? card.replaceWith(fresh) : list.prepend(fresh);
      card = fresh;
    }
    const place = before ? before.nextElementSibling : list.firstElementChild;
    if (place !== card) list.insertBefore(card, place);
    before = card;
  }
  for (const card of present.values()) card.remove();
  $("#nothing").hidden = state.cards.length > 0;
  $("#summary").textContent = state.summary;
  document.title = state.summary ? `${state.summary} · a2v engine` : "a2v engine";
}

let request = null;

async function follow() {
  let version = list.dataset.version, failures = 0;
  for (;;) {
    // A hidden page needs no updates, and browsers allow few connections to one server.
    if (document.hidden) await new Promise(done => document.addEventListener("visibilitychange", done, {once: true}));
    request = new AbortController();
    try {
      const response = await fetch(`page/videos?version=${version}`, {signal: request.signal});
      if (!response.ok) throw new Error();
      const state = (await response.json()).data;
      if (state.version !== version) show(state);
      version = state.version;
      failures = 0;
      banner.hidden = true;
    } catch (error) {
      if (error.name === "AbortError") continue;
      failures += 1;
      banner.hidden = failures < 2;
      await new Promise(done => setTimeout(done, Math.min(10, failures) * 1000));
    }
  }
}

document.addEventListener("visibilitychange", () => { if (document.hidden && request) request.abort(); });

// -- a new video ------------------------------------------------------------------------------------------------------

function refresh() {
  const ready = chosen.filter(entry => !entry.sending);
  make.disabled = !ready.length || !form.querySelector("input[name=person]:checked");
  make.textContent = ready.length > 1 ? `Make ${ready.length} videos` : "Make the video";
}

function choose(more) {
  for (const file of more) {
    const note = element("span", {className: "note", hidden: true}), bar = element("progress", {max: 1, value: 0, hidden: true});
    bar.setAttribute("aria-label", `Upload of ${file.name}`);
    const remove = element("button", {type: "button", textContent: "×"});
    remove.setAttribute("aria-label", `Remove ${file.name}`);
    const name = element("span", {className: "name", title: file.name}, file.name, " ", element("span", {className: "soft", textContent: size(file.size)}));
    const entry = {file, note, bar, remove, row: element("li", {}, name, remove, bar, note), sending: false};
    remove.onclick = () => drop(entry);
    chosen.push(entry);
    files.append(entry.row);
    const limit = Number(form.dataset.maxBytes);
    if (file.size > limit) fail(entry, `The engine accepts ${size(limit)}; convert it to a compressed format, such as FLAC or MP3.`, true);
    if (!file.size) fail(entry, "The file is empty.", true);
  }
  picker.value = "";
  refresh();
}

function drop(entry) {
  if (entry.upload) entry.upload.abort();
  chosen = chosen.filter(other => other !== entry);
  entry.row.remove();
  refresh();
}

function fail(entry, text, forGood = false) {
  entry.sending = forGood;
  entry.bar.hidden = true;
  entry.note.textContent = text;
  entry.note.className = "note failed";
  entry.note.hidden = false;
  refresh();
}

function send(url, body, type, progress) {
  const upload = new XMLHttpRequest();  // `fetch` does not report the progress of a body
  const answered = new Promise((done, failed) => {
    upload.upload.onprogress = event => progress && event.lengthComputable && progress(event.loaded / event.total);
    upload.onerror = () => failed(new Error("The engine cannot be reached."));
    upload.onabort = () => failed(new Error("aborted"));
    upload.onload = () => {
      let reply = {};
      try { reply = JSON.parse(upload.responseText); } catch { /* a proxy answered */ }
      const message = upload.status === 413 ? "The recording is too large." : `The server answered ${upload.status}.`;
      upload.status === 200 && reply.code === 0 ? done(reply.data) : failed(new Error(reply.message || message));
    };
  });
  upload.open("POST", url);
  upload.setRequestHeader("Content-Type", type);
  upload.send(body);
  return [answered, upload];
}

async function submit(entry, subject) {
  entry.sending = true;
  entry.note.hidden = true;
  entry.bar.hidden = false;
  refresh();
  try {
    const progress = value => { entry.bar.value = value; };
    const url = `page/uploads?name=${encodeURIComponent(entry.file.name)}`;
    const [stored, upload] = send(url, entry.file, "application/octet-stream", progress);
    entry.upload = upload;
    const {audio_url} = await stored;
    await send("page/videos", JSON.stringify({...subject, audio_url}), "application/json")[0];
    drop(entry);
  } catch (error) {
    if (error.message !== "aborted") fail(entry, error.message);
  }
}

form.addEventListener("submit", async event => {
  event.preventDefault();
  const pose = form.querySelector(".poses:not([hidden]) input:checked");
  const [kind, id] = (pose || form.querySelector("input[name=person]:checked")).value.split(/:(.*)/s);
  // One after the other: the first video is rendered while the others are sent.
  for (const entry of chosen.filter(entry => !entry.sending)) await submit(entry, {[kind]: id});
});

form.addEventListener("change", event => {
  if (event.target.name === "person") poses(event.target);
  if (event.target === picker) choose(picker.files);
  refresh();
});

function poses(person) {
  for (const group of document.querySelectorAll(".poses")) group.hidden = group.dataset.person !== person.id;
}

let inside = 0;
document.addEventListener("dragenter", () => { inside += 1; document.body.classList.add("dragging"); });
document.addEventListener("dragleave", () => { inside -= 1; if (inside <= 0) document.body.classList.remove("dragging"); });
document.addEventListener("dragover", event => event.preventDefault());
document.addEventListener("drop", event => {
  event.preventDefault();
  inside = 0;
  document.body.classList.remove("dragging");
  if (event.dataTransfer.files.length) choose(event.dataTransfer.files);
});

$("#new").hidden = false;
const first = form.querySelector("input[name=person]:checked");
if (first) poses(first);
showAges(document);
showLengths(document);
refresh();
follow();
