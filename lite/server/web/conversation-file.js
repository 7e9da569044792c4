// A conversation as a file: JSON with its images inside.
// Contract: what is imported is foreign; it is rebuilt field by field and never taken as it is.

import { newExchange, newSession, readExchange, string, titleOf } from "./conversation.js";
import { dataUrl, fromDataUrl, randomId } from "./images.js";

const FORMAT = "mmgpt-lite conversation";
const MAX_MEGABYTES = 256;
const REFUSED = "This file is no conversation that was exported here; choose another.";

/** Save a session, whose images `blobs` holds by id, where the browser saves downloads. */
export async function exportConversation(session, blobs) {
  const url = URL.createObjectURL(await toFile(session, blobs));
  const link = document.createElement("a");
  link.href = url;
  link.download = `${titleOf(session)
    .replace(/[^\p{L}\p{N}]+/gu, "-")
    .slice(0, 40)}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

async function toFile(session, blobs) {
  const images = {};
  for (const [id, blob] of blobs) images[id] = await dataUrl(blob);
  const { title, created, exchanges } = session;
  const whole = { format: FORMAT, version: 1, title, created, exchanges, images };
  return new Blob([JSON.stringify(whole, null, 1)], { type: "application/json" });
}

/** `[session, images]` of such a file, a conversation of its own; throws Error with a sentence. */
export async function importConversation(file) {
  if (file.size > MAX_MEGABYTES << 20) {
    throw new Error(`This file is larger than ${MAX_MEGABYTES} MB; choose another.`);
  }
  try {
    const whole = JSON.parse(await file.text());
    if (whole.format !== FORMAT || whole.version !== 1) throw new Error(REFUSED);
    const images = [];
    const session = { ...newSession(), title: string(whole.title).slice(0, 200) };
    session.exchanges = whole.exchanges.map((found) => {
      const read = readExchange(found);
      const shown = read.images.map((image) => {
        const id = randomId();
        images.push({ id, blob: fromDataUrl(string(whole.images[image.id])) });
        return { ...image, id };
      });
      const { question, answer, notes } = read;
      return { ...newExchange(question, shown, notes), answer, state: answer ? "done" : "left" };
    });
    return [session, images];
  } catch {
    throw new Error(REFUSED);
  }
}
