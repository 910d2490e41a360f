"use strict";

const number = document.body.dataset.number;
let version = Number(document.body.dataset.version);
const byId = (id) => document.getElementById(id);
const messages = byId("messages");
const composer = byId("composer");
const text = byId("text");
const switches = byId("switches");
const PAUSE_MS = 300; // between two looks at a busy simulator
const AWAY_MS = 2000;

function element(name, content, className = "") {
  const made = document.createElement(name);
  made.textContent = content;
  if (className) made.className = className;
  return made;
}

function messageItem({ mine, text, words }) {
  const item = element("li", "", mine ? "mine" : "theirs");
  item.append(element("p", text), element("small", words));
  return item;
}

function requestItem({ line, status, to }) {
  const item = element("li", "");
  item.append(element("code", line), element("b", status), element("span", to));
  return item;
}

function fill(list, entries, make) {
  const shown = JSON.stringify(entries);
  if (list.dataset.shown === shown) return;
  list.dataset.shown = shown;
  list.replaceChildren(...entries.map(make));
}

function toEnd() {
  messages.scrollTop = messages.scrollHeight;
}

function show(state) {
  const atEnd = messages.scrollHeight - messages.scrollTop - messages.clientHeight < 40;
  fill(messages, state.messages, messageItem);
  if (atEnd) toEnd();
  fill(byId("requests"), state.requests, requestItem);
  byId("counts").textContent = state.counts;
  byId("numbers").replaceChildren(...state.numbers.map((known) => Object.assign(element("option", ""), { value: known })));
  for (const input of switches.elements) {
    const value = state.control[input.name];
    if (input.type === "checkbox") input.checked = value;
    else if (input !== document.activeElement) input.value = value;
  }
}

function say(words) {
  byId("note").textContent = words;
}

async function send(method, path, body) {
  try {
    const answer = await fetch(path, {
      method,
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    const value = await answer.json();
    say(answer.ok ? "" : value.error);
    return answer.ok;
  } catch {
    say("The simulator does not answer.");
    return false;
  }
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function follow() {
  let away = false;
  for (;;) {
    try {
      const answer = await fetch(`/phone?${new URLSearchParams({ number, after: version, timeout_ms: 25000 })}`);
      const state = await answer.json();
      version = state.version;
      show(state);
      if (away) say("");
      away = false;
      await pause(PAUSE_MS);
    } catch {
      away = true;
      say("The simulator does not answer.");
      version = -1;
      await pause(AWAY_MS);
    }
  }
}

composer.addEventListener("submit", async (event) => {
  event.preventDefault();
  const typed = text.value;
  text.value = "";
  text.focus();
  toEnd();
  if (!(await send("POST", "/incoming", { from: number, text: typed })) && text.value === "") text.value = typed;
});

text.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    composer.requestSubmit();
  }
});

switches.addEventListener("change", (event) => {
  const input = event.target;
  const value = input.type === "checkbox" ? input.checked : Number(input.value);
  send("PUT", "/control", { [input.name]: value });
});
switches.addEventListener("submit", (event) => event.preventDefault());

toEnd();
follow();
