// The page: what happens when the person does something.
// Contract: holds the session that is shown and the answers that are being written; every part
// (turns, composer, list, settings, store, server) knows nothing of the others.

import { Composer } from "./composer.js";
import { answer, newExchange, newSession, requestFor, restored, titleOf } from "./conversation.js";
import { drawIcons, toast } from "./dom.js";
import { greet } from "./greeting.js";
import { Panel } from "./panel.js";
import { isDark, recall, remember, setTheme } from "./settings.js";
import { Sidebar } from "./sidebar.js";
import { Speech } from "./speech.js";
import { Store } from "./store.js";
import { download, fromFile } from "./transfer.js";
import { Turns } from "./turns.js";

const get = (id) => document.getElementById(id);
// How often a growing answer is kept, so that a reload loses little of it.
const KEEP_MS = 400;

let session = newSession();
let blobs = new Map();
let editing = null;
// Answers being written, by the id of their session; each goes on while another one is shown.
const running = new Map();

const key = { get: () => recall("key"), set: (value) => remember("key", value) };
const store = await Store.open();
const panel = new Panel(key);
const speech = new Speech();
const turns = new Turns({
  edit,
  retry,
  saveKey: (value) => {
    key.set(value);
    greet(key);
  },
});
const composer = new Composer({ onSend: send, onStop: stop, onCancelEdit: () => setEditing(null) });
const sidebar = new Sidebar({
  open: openSession,
  rename,
  remove,
  save: async (which) => download(which, await store.images(which)),
});

// ---- sessions

async function show(next, images) {
  session = next;
  blobs = images;
  location.replace(`#${session.id}`);
  remember("session", session.id);
  turns.show(session.exchanges, blobs);
  setEditing(null);
  composer.clear();
  speech.begin();
  await refresh();
}

/** Bring title, list, empty state and buttons up to the session; all but the list at once. */
async function refresh() {
  get("title").textContent = titleOf(session);
  document.title = `${titleOf(session)} · mmgpt-lite`;
  get("empty").hidden = session.exchanges.length > 0;
  composer.setRunning(running.has(session.id));
  turns.markLast(session.exchanges);
  sidebar.show(await store.list(), session.id);
}

async function openSession(id) {
  const found = running.get(id)?.session ?? (await store.get(id));
  if (!found || found.deleted) return startNew();
  const images = running.get(id)?.blobs ?? (await store.images(found));
  await show(running.has(id) ? found : restored(found), images);
  composer.focus();
  return undefined;
}

async function startNew() {
  await show(newSession(), new Map());
  composer.focus();
}

async function keep(which, images = []) {
  which.updated = Date.now();
  try {
    await store.save(which, images);
  } catch {
    toast("The browser has no room to keep this conversation; delete old ones.");
  }
}

async function rename(which, title) {
  const target = which.id === session.id ? session : (running.get(which.id)?.session ?? which);
  target.title = title;
  await keep(target);
  await refresh();
}

async function remove(which) {
  const target = running.get(which.id)?.session ?? which;
  target.deleted = Date.now();
  running.get(which.id)?.controller.abort();
  await store.save(target);
  if (which.id === session.id) await startNew();
  else await refresh();
  const undo = async () => {
    await store.save({ ...target, deleted: 0 });
    await openSession(target.id);
  };
  toast(`Deleted “${titleOf(target)}”.`, "Undo", undo, () => store.purge(target));
}

async function importSession(file) {
  try {
    const [found, images] = await fromFile(file);
    await keep(found, images);
    await openSession(found.id);
  } catch (error) {
    toast(error.message);
  }
}

// ---- asking

function send({ text, pictures }) {
  if (editing) cutBefore(editing);
  pictures.forEach(({ id, blob }) => blobs.set(id, blob));
  ask(newExchange(text, pictures), pictures);
}

function retry(exchange) {
  if (running.has(session.id) || exchange !== session.exchanges.at(-1)) return;
  const { question, images, state } = exchange;
  if (state === "done" && panel.settings.temperature === 0) {
    toast("At temperature 0 the answer stays the same; raise it for variety.", "Settings", () =>
      panel.open(),
    );
  }
  composer.cancelEdit();
  cutBefore(exchange);
  ask(newExchange(question, images));
}

/** Put an earlier question into the composer; nothing changes until it is sent. */
function edit(exchange) {
  if (running.has(session.id)) return;
  const kept = exchange.images.filter(({ id }) => blobs.has(id));
  composer.edit(
    exchange.question,
    kept.map((image) => ({ ...image, blob: blobs.get(image.id) })),
  );
  setEditing(exchange);
}

function setEditing(exchange) {
  editing = exchange;
  turns.dimFrom(exchange);
}

function cutBefore(exchange) {
  session.exchanges.length = session.exchanges.indexOf(exchange);
  turns.show(session.exchanges, blobs);
  setEditing(null);
}

async function ask(exchange, images = []) {
  const run = { session, blobs, controller: new AbortController() };
  running.set(run.session.id, run);
  run.session.exchanges.push(exchange);
  turns.add(exchange, blobs);
  turns.toEnd();
  speech.begin();
  refresh();
  await keep(run.session, images);
  refresh();
  const { signal } = run.controller;
  const request = requestFor(run.session, exchange, run.blobs, panel.settings);
  await answer(exchange, request, key.get(), signal, () => written(run, exchange));
  if (running.get(run.session.id) === run) running.delete(run.session.id);
  await keep(run.session);
  await refresh();
}

/** Draws at most once a frame, and keeps what came at most once in a while. */
function written(run, exchange) {
  const finished = exchange.state !== "asking";
  if (run.session.id === session.id) speech.say(exchange.answer, finished);
  run.keeping ??= finished
    ? null
    : setTimeout(() => {
        run.keeping = null;
        if (exchange.state === "asking") keep(run.session);
      }, KEEP_MS);
  if (finished) clearTimeout(run.keeping);
  if (finished) return turns.update(exchange);
  run.drawing ??= requestAnimationFrame(() => {
    run.drawing = null;
    turns.update(exchange);
  });
  return undefined;
}

function stop() {
  running.get(session.id)?.controller.abort();
}

// ---- the rest of the page

function escape(event) {
  if (event.key !== "Escape" || event.isComposing || document.querySelector("dialog[open]")) return;
  if (sidebar.open) sidebar.toggle(false);
  else if (running.has(session.id)) stop();
  else composer.cancelEdit();
}

drawIcons();
get("new-session").addEventListener("click", () => {
  sidebar.toggle(false);
  startNew();
});
get("theme").addEventListener("click", () => setTheme(isDark() ? "light" : "dark"));
get("import-session").addEventListener("click", () => get("import-file").click());
get("import-file").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  event.target.value = "";
  if (file) await importSession(file);
});
document.addEventListener("keydown", escape);
addEventListener(
  "hashchange",
  () => location.hash.slice(1) !== session.id && openSession(location.hash.slice(1)),
);
store.onChange(async (id) => {
  if (id === session.id && !running.has(id)) {
    composer.cancelEdit();
    const found = await store.get(id);
    if (found && !found.deleted) [session, blobs] = [found, await store.images(found)];
    turns.show(session.exchanges, blobs);
  }
  await refresh();
});

greet(key);
await store.sweep();
if (!store.kept) toast("This browser keeps nothing here; the conversation is lost with the page.");
await openSession(location.hash.slice(1) || recall("session"));
