// The page: what happens when the person does something.
// Contract: holds the session that is shown and the answers that are being written; the parts
// (messages, composer, sidebar, settings, store, server) know nothing of each other.

import { Composer } from "./composer.js";
import {
  newExchange,
  newSession,
  requestFor,
  restored,
  streamAnswer,
  titleOf,
} from "./conversation.js";
import { exportConversation, importConversation } from "./conversation-file.js";
import { byId, drawIcons, toast } from "./dom.js";
import { LiveRegion } from "./live-region.js";
import { MessageList } from "./messages.js";
import { storePage } from "./offline.js";
import { isDark, readItem, setTheme, writeItem } from "./settings.js";
import { SettingsDialog } from "./settings-dialog.js";
import { Sidebar } from "./sidebar.js";
import { Store } from "./store.js";
import { Welcome } from "./welcome.js";

// How often a growing answer is saved, so that a reload loses little of it.
const SAVE_MS = 400;
const UNSHOWN = "The last conversation could not be shown; it stays in the list.";

let session = newSession();
let blobs = new Map();
let editing = null;
// Answers being written, by the id of their session; each goes on while another one is shown.
const running = new Map();

const apiKey = { get: () => readItem("key"), set: (value) => writeItem("key", value) };
const store = await Store.open();
const settingsDialog = new SettingsDialog(apiKey);
const liveRegion = new LiveRegion();
const messages = new MessageList({
  edit,
  retry,
  saveKey: (value) => {
    apiKey.set(value);
    welcome.show();
  },
});
const welcome = new Welcome(apiKey, send);
const composer = new Composer({ onSend: send, onStop: stop, onCancelEdit: () => setEditing(null) });
const sidebar = new Sidebar({
  open: openSession,
  rename,
  remove,
  export: async (which) => exportConversation(which, await store.images(which)),
});

// ---- sessions

async function show(next, images) {
  session = next;
  blobs = images;
  location.replace(`#${session.id}`);
  writeItem("session", session.id);
  messages.show(session.exchanges, blobs);
  setEditing(null);
  composer.clear();
  liveRegion.clear();
  await refresh();
}

/** Bring title, list, empty state and buttons up to the session; all but the list at once. */
async function refresh() {
  byId("title").textContent = titleOf(session);
  document.title = `${titleOf(session)} · mmgpt-lite`;
  byId("empty").hidden = session.exchanges.length > 0;
  composer.setRunning(running.has(session.id));
  messages.markLast(session.exchanges);
  sidebar.show(await store.list(), session.id);
}

async function openSession(id) {
  const found = running.get(id)?.session ?? (await store.get(id));
  if (!found || found.deleted) return startNew();
  if (found.unreadable) {
    toast("This conversation cannot be read; it stays in the list, where it can be deleted.");
    return startNew();
  }
  const images = running.get(id)?.blobs ?? (await store.images(found));
  await show(running.has(id) ? found : restored(found), images);
  composer.focus();
  return undefined;
}

async function startNew() {
  await show(newSession(), new Map());
  composer.focus();
}

async function save(which, images = []) {
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
  await save(target);
  await refresh();
}

async function remove(which) {
  if (which.unreadable) {
    await store.purge(which);
    return refresh();
  }
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
  return undefined;
}

/**
 * Open the session that the page was left with, unless opening it has already ended a page: then
 * it stays in the list.
 */
async function openLast(id) {
  if (readItem("opening") === id && id) {
    writeItem("opening", "");
    toast(UNSHOWN);
    return startNew();
  }
  writeItem("opening", id);
  try {
    await openSession(id);
  } catch {
    await startNew();
    toast(UNSHOWN);
  }
  writeItem("opening", "");
  return undefined;
}

async function importSession(file) {
  try {
    const [found, images] = await importConversation(file);
    await save(found, images);
    await openSession(found.id);
  } catch (error) {
    toast(error.message);
  }
}

// ---- asking

function send({ text, pictures }) {
  if (editing) truncateBefore(editing);
  for (const { id, blob } of pictures) blobs.set(id, blob);
  ask(newExchange(text, pictures, welcome.notesOn(pictures)), pictures);
}

/** Ask a question again; what follows it is removed, and can be brought back. */
function retry(exchange) {
  if (isBusy()) return;
  const { question, images, state } = exchange;
  const followed = exchange !== session.exchanges.at(-1);
  const [target, before] = [session, [...session.exchanges]];
  if (state === "done" && settingsDialog.settings.temperature === 0) {
    toast("At temperature 0 the answer stays the same; raise it for variety.", "Settings", () =>
      settingsDialog.open(),
    );
  }
  if (followed) toast("What followed was removed.", "Undo", () => restore(target, before));
  composer.cancelEdit();
  truncateBefore(exchange);
  ask(newExchange(question, images, welcome.notesOn(images)));
}

/** Bring back a session's exchanges as they were. */
async function restore(target, exchanges) {
  running.get(target.id)?.controller.abort();
  target.exchanges = exchanges;
  await save(target);
  if (target === session) messages.show(session.exchanges, blobs);
  await refresh();
}

/** Whether an answer is being written here, which is then said. */
function isBusy() {
  const busy = running.has(session.id);
  if (busy) toast("An answer is being written; stop it first.");
  return busy;
}

/** Put an earlier question into the composer; nothing changes until it is sent. */
function edit(exchange) {
  if (isBusy()) return;
  const available = exchange.images.filter(({ id }) => blobs.has(id));
  composer.edit(
    exchange.question,
    available.map((image) => ({ ...image, blob: blobs.get(image.id) })),
  );
  setEditing(exchange);
}

function setEditing(exchange) {
  editing = exchange;
  messages.dimFrom(exchange);
}

function truncateBefore(exchange) {
  session.exchanges.length = session.exchanges.indexOf(exchange);
  messages.show(session.exchanges, blobs);
  setEditing(null);
}

async function ask(exchange, images = []) {
  const run = { session, blobs, controller: new AbortController() };
  running.set(run.session.id, run);
  run.session.exchanges.push(exchange);
  messages.add(exchange, blobs);
  messages.toEnd();
  liveRegion.clear();
  refresh();
  await save(run.session, images);
  refresh();
  const { signal } = run.controller;
  const request = requestFor(run.session, exchange, run.blobs, settingsDialog.settings);
  await streamAnswer(exchange, request, apiKey.get(), signal, () => onProgress(run, exchange));
  if (running.get(run.session.id) === run) running.delete(run.session.id);
  await save(run.session);
  await refresh();
}

/** Draws at most once a frame, and saves at most once in SAVE_MS. */
function onProgress(run, exchange) {
  const finished = exchange.state !== "asking";
  if (run.session.id === session.id) liveRegion.announce(exchange.answer, finished);
  run.saving ??= finished
    ? null
    : setTimeout(() => {
        run.saving = null;
        if (exchange.state === "asking") save(run.session);
      }, SAVE_MS);
  if (finished) clearTimeout(run.saving);
  if (finished) return messages.update(exchange);
  run.drawing ??= requestAnimationFrame(() => {
    run.drawing = null;
    messages.update(exchange);
  });
  return undefined;
}

function stop() {
  running.get(session.id)?.controller.abort();
}

// ---- the rest of the page

function onEscape(event) {
  if (event.key !== "Escape" || event.isComposing || document.querySelector("dialog[open]")) return;
  if (sidebar.open) sidebar.toggle(false);
  else if (running.has(session.id)) stop();
  else composer.cancelEdit();
}

drawIcons();
byId("new-session").addEventListener("click", () => {
  sidebar.toggle(false);
  startNew();
});
byId("theme").addEventListener("click", () => setTheme(isDark() ? "light" : "dark"));
byId("import-session").addEventListener("click", () => byId("import-file").click());
byId("import-file").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  event.target.value = "";
  if (file) await importSession(file);
});
document.addEventListener("keydown", onEscape);
addEventListener(
  "hashchange",
  () => location.hash.slice(1) !== session.id && openSession(location.hash.slice(1)),
);
store.onChange(async (id) => {
  if (id === session.id && !running.has(id)) {
    composer.cancelEdit();
    const found = await store.get(id);
    if (found && !found.deleted && !found.unreadable)
      [session, blobs] = [found, await store.images(found)];
    messages.show(session.exchanges, blobs);
  }
  await refresh();
});

welcome.show().finally(storePage);
await store.sweep().catch(() => {});
if (!store.persistent)
  toast("This browser stores nothing here; the conversation ends with the page.");
await openLast(location.hash.slice(1) || readItem("session"));
