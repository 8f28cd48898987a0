// The page of a running stream. Pictures come as binary messages (four bytes of length, JSON, JPEG), events and replies as JSON text;
// commands go as JSON text.
"use strict";

const byId = (id) => document.getElementById(id);
const canvas = byId("picture");
const context = canvas.getContext("2d");
const QUIET_MS = 3000; // without a picture for so long, the source is told to be silent
const FLOOR_DB = -60;

let socket = null;
let pauseMs = 500; // before the next attempt to connect
let commands = 0;
const waiting = new Map(); // number of a command -> what to do with its reply
let lastPicture = 0;
let drawing = false;
let next = null; // the newest picture, while another is being drawn
let paused = false;
let events = [];

function connect() {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  socket = new WebSocket(`${scheme}//${location.host}/stream`);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => {
    pauseMs = 500;
    events = [];
    setState("waiting for a picture", false);
  };
  socket.onmessage = (message) => {
    if (typeof message.data === "string") takeText(JSON.parse(message.data));
    else takePicture(message.data);
  };
  socket.onclose = (closed) => {
    for (const done of waiting.values()) done("the connection was lost; try again");
    waiting.clear();
    setState(closed.reason || "not connected; trying again", false);
    setTimeout(connect, pauseMs);
    pauseMs = Math.min(2 * pauseMs, 8000);
  };
}

function takeText(message) {
  if (message.event) {
    events.push(message.event);
    showEvents();
    return;
  }
  if (message.state) {
    paused = message.state.paused;
    if (!paused) lastPicture = performance.now();
    showPaused();
    showSentences(message.state.sentences);
    return;
  }
  const done = waiting.get(message.reply);
  waiting.delete(message.reply);
  if (done) done(message.error);
}

function takePicture(data) {
  const length = new DataView(data).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  next = { header, jpeg: new Blob([new Uint8Array(data, 4 + length)], { type: "image/jpeg" }) };
  if (!drawing) draw();
}

async function draw() {
  drawing = true;
  while (next) {
    const { header, jpeg } = next;
    next = null;
    try {
      const picture = await createImageBitmap(jpeg);
      if (canvas.width !== picture.width || canvas.height !== picture.height) {
        canvas.width = picture.width;
        canvas.height = picture.height;
      }
      context.drawImage(picture, 0, 0);
      picture.close();
    } catch {
      continue; // a damaged picture; the next one comes
    }
    lastPicture = performance.now();
    showHeader(header);
  }
  drawing = false;
}

function showHeader(header) {
  setState("live", true);
  showPaused();
  byId("latency").textContent = `${header.latency_ms.toFixed(0)} ms`;
  byId("rate").textContent = `${header.fps.toFixed(1)} fps`;
  byId("dropped").textContent = String(header.dropped);
  const silent = header.level_db === null;
  byId("meter-name").textContent = silent ? "no sound" : `${header.level_db.toFixed(0)} dB`;
  byId("meter-fill").style.width = silent ? "0" : `${100 * (1 - header.level_db / FLOOR_DB)}%`;
  byId("meter").setAttribute("aria-valuenow", silent ? FLOOR_DB : header.level_db);
  showSentences(header.sentences);
}

function showSentences(sentences) {
  const list = byId("sentences");
  const rows = new Map([...list.children].map((row) => [row.dataset.key, row]));
  for (const sentence of sentences) {
    let row = rows.get(String(sentence.key));
    if (!row) {
      row = byId("sentence").content.firstElementChild.cloneNode(true);
      row.dataset.key = sentence.key;
      for (const button of row.querySelectorAll("button")) button.onclick = () => act(button.dataset.do, row);
      list.append(row);
    }
    rows.delete(String(sentence.key));
    row.sentence = sentence;
    row.style.setProperty("--colour", sentence.colour);
    row.querySelector(".label").textContent = sentence.label;
    row.querySelector(".asked").textContent = sentence.label === sentence.text ? "" : sentence.text;
    if (sentence.presence === undefined) continue; // it is told with the next picture
    row.classList.toggle("present", sentence.present);
    row.querySelector(".score").textContent = sentence.presence.toFixed(2);
    row.querySelector(".presence-fill").style.width = `${100 * sentence.presence}%`;
  }
  for (const row of rows.values()) row.remove();
}

function showEvents() {
  byId("event-count").textContent = events.length ? `(${events.length})` : "";
  byId("log").replaceChildren(
    ...events.slice().reverse().map((event) => {
      const item = document.createElement("li");
      const time = document.createElement("time");
      time.textContent = `${event.at_s.toFixed(1)} s`;
      item.append(time, event.text);
      return item;
    }),
  );
  byId("log-box").open = true;
}

function setState(text, live) {
  byId("state").textContent = text;
  byId("state").classList.toggle("live", live);
}

function showPaused() {
  byId("pause").textContent = paused ? "Go on" : "Pause";
  byId("pause").setAttribute("aria-pressed", String(paused));
  if (paused) setState("paused", false);
}

function complain(problem) {
  byId("problem").textContent = problem || "";
  byId("problem").hidden = !problem;
}

// Resolves to what is wrong, or to nothing.
function send(command) {
  if (!socket || socket.readyState !== WebSocket.OPEN) return Promise.resolve("not connected; try again");
  commands += 1;
  const id = commands;
  return new Promise((resolve) => {
    waiting.set(id, resolve);
    socket.send(JSON.stringify({ id, ...command }));
  });
}

async function act(what, row) {
  const { key, text, label } = row.sentence;
  if (what === "remove") return complain(await send({ do: "remove", key }));
  const words = row.querySelector(".words");
  if (words.querySelector("input")) return undefined;
  const input = document.createElement("input");
  input.value = what === "change" ? text : label;
  input.maxLength = 1000;
  input.setAttribute("aria-label", what === "change" ? "The new sentence" : "The new name");
  const close = () => {
    input.onblur = null; // removing it takes the focus away, which would close it once more
    input.remove();
  };
  input.onkeydown = async (pressed) => {
    if (pressed.key === "Escape") close();
    if (pressed.key !== "Enter") return;
    pressed.preventDefault();
    const value = input.value;
    const problem = await send(what === "change" ? { do: "change", key, text: value } : { do: "rename", key, label: value });
    complain(problem);
    if (!problem) close();
  };
  input.onblur = close;
  words.append(input);
  input.focus();
  input.select();
  return undefined;
}

byId("add").onsubmit = async (submitted) => {
  submitted.preventDefault();
  const problem = await send({ do: "add", text: byId("text").value });
  complain(problem);
  if (!problem) byId("text").value = "";
};

byId("pause").onclick = async () => {
  complain(await send({ do: "pause", paused: !paused }));
};

byId("snapshot").onclick = () => {
  canvas.toBlob((png) => {
    if (!png) return;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(png);
    link.download = `refavs-${new Date().toISOString().replace(/[:.]/g, "-")}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
};

setInterval(() => {
  const quiet = performance.now() - lastPicture > QUIET_MS;
  if (quiet && lastPicture && !paused && socket.readyState === WebSocket.OPEN) setState("no picture comes", false);
}, 500);

connect();
