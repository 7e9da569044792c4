// Sessions and their images in IndexedDB.
// Contract: a session is plain data, saved whole in one transaction with the images it is the
// first to show; an image belongs to one session. Where the browser keeps nothing, everything
// works until the page is closed, and `persistent` is false.

import { readSession } from "./conversation.js";

const NAME = "mmgpt-lite";
const VERSION = 1;
// A deleted session can be taken back for as long as its note is shown, in any tab.
const UNDO_MS = 60_000;

export class Store {
  static async open() {
    try {
      return new Store(await connect());
    } catch {
      return new Store(null);
    }
  }

  constructor(database) {
    this.database = database;
    this.persistent = database !== null;
    this.memory = { sessions: new Map(), images: new Map() };
    this.channel = "BroadcastChannel" in globalThis ? new BroadcastChannel(NAME) : null;
  }

  /** `listener(id)` is called when another tab has changed a session. */
  onChange(listener) {
    this.channel?.addEventListener("message", (event) => listener(event.data));
  }

  /** Sessions that are not deleted, the newest first. */
  async list() {
    const all = await this.#read("sessions", (store) => store.getAll());
    return all
      .filter((session) => !session.deleted)
      .sort((a, b) => b.updated - a.updated)
      .map(readSession);
  }

  async get(id) {
    const found = await this.#read("sessions", (store) => store.get(id));
    return found && readSession(found);
  }

  /** Blobs of a session's images by their ids. */
  async images(session) {
    const ids = imageIds(session);
    const found = await Promise.all(
      ids.map((id) => this.#read("images", (store) => store.get(id))),
    );
    return new Map(found.filter(Boolean).map((image) => [image.id, image.blob]));
  }

  /** Keep a session as it is now, and images `{id, blob}` that are new in it. */
  async save(session, images = []) {
    await this.#write((sessions, kept) => {
      sessions.put(session);
      for (const { id, blob } of images) kept.put({ id, blob });
    });
    this.channel?.postMessage(session.id);
  }

  /** Remove what was deleted a while ago, and images that no session shows any more. */
  async sweep(now = Date.now()) {
    const all = await this.#read("sessions", (store) => store.getAll());
    const expired = all.filter((s) => s.deleted && s.deleted < now - UNDO_MS);
    await this.#write((sessions) => {
      for (const { id } of expired) sessions.delete(id);
    });
    await this.#dropImages();
  }

  /** Remove a session and its images for good. */
  async purge(session) {
    await this.#write((sessions, images) => {
      sessions.delete(session.id);
      for (const id of imageIds(session)) images.delete(id);
    });
  }

  /** In one transaction, so that no other tab can save a session between the two reads. */
  #dropImages() {
    if (!this.database) return undefined;
    const work = this.database.transaction(["sessions", "images"], "readwrite");
    const sessions = work.objectStore("sessions").getAll();
    sessions.onsuccess = () => {
      const all = sessions.result.map(readSession);
      if (all.some((session) => session.unreadable)) return; // which images it shows is not known
      const shown = new Set(all.flatMap(imageIds));
      const keys = work.objectStore("images").getAllKeys();
      keys.onsuccess = () => {
        for (const id of keys.result) if (!shown.has(id)) work.objectStore("images").delete(id);
      };
    };
    return completed(work);
  }

  async #read(name, ask) {
    if (!this.database) return ask(asStore(this.memory[name])).result;
    const request = ask(this.database.transaction(name).objectStore(name));
    return new Promise((resolve, reject) => {
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
  }

  async #write(change) {
    if (!this.database) {
      return change(asStore(this.memory.sessions), asStore(this.memory.images));
    }
    const work = this.database.transaction(["sessions", "images"], "readwrite");
    change(work.objectStore("sessions"), work.objectStore("images"));
    return completed(work);
  }
}

export function imageIds(session) {
  return session.exchanges.flatMap((exchange) => exchange.images.map((image) => image.id));
}

function connect() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, VERSION);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("sessions", { keyPath: "id" });
      request.result.createObjectStore("images", { keyPath: "id" });
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
    request.onblocked = () => reject(new Error("blocked"));
  });
}

function completed(work) {
  return new Promise((resolve, reject) => {
    work.oncomplete = () => resolve();
    work.onabort = () => reject(work.error);
    work.onerror = () => reject(work.error);
  });
}

/** A Map with the four calls of an object store that are used here. */
function asStore(map) {
  return {
    get: (id) => ({ result: map.get(id) }),
    getAll: () => ({ result: [...map.values()] }),
    put: (value) => map.set(value.id, value),
    delete: (id) => map.delete(id),
  };
}
