// A session's exchanges (a question and its answer), and how they become a request.
// Contract: plain data and no page. The history that is sent is what was shown: answers keep what
// came before they were stopped, and questions without any answer are left out, with their images.

import { ApiError, complete } from "./api.js";
import { dataUrl, randomId } from "./images.js";
import { sampling } from "./settings.js";

const STATES = ["asking", "done", "stopped", "failed", "left"];
const SHOWN_TIMINGS = [
  ...["new_tokens", "tokens_per_second", "prefill_tokens", "prompt_tokens"],
  ...["images_computed", "images_cached", "image_seconds"],
];

/**
 * States of an exchange: `asking` (waiting or streaming), `done`, `stopped` by the person, `failed`
 * with an error, and `left` for one that was being written when its page was closed.
 */
export function newExchange(question, images, notes = []) {
  return {
    id: randomId(),
    question,
    images: images.map(({ id, name, width, height, example = false }) => ({
      ...{ id, name, width, height, example },
    })),
    answer: "",
    notes,
    state: "asking",
    error: "",
    status: 0,
    finish: "",
    firstSeconds: null,
    timings: null,
  };
}

export function newSession() {
  const now = Date.now();
  return { id: randomId(), title: "", created: now, updated: now, deleted: 0, exchanges: [] };
}

/** What to call a session: the name it was given, or how it begins. */
export function titleOf(session) {
  const first = session.exchanges[0]?.question.trim().split("\n")[0] ?? "";
  return session.title || first.slice(0, 60) || "New conversation";
}

/**
 * A stored session, rebuilt field by field: an older page or a damaged disk may have written it.
 * What cannot be read has no exchanges, and `unreadable` is true.
 */
export function readSession(stored) {
  const { id, created, updated, deleted } = stored;
  const session = { ...newSession(), id, created, updated, deleted };
  try {
    return {
      ...session,
      title: string(stored.title),
      exchanges: stored.exchanges.map(readExchange),
    };
  } catch {
    return { ...session, title: "Unreadable conversation", unreadable: true };
  }
}

/** An exchange rebuilt field by field; throws Error where it is none. */
export function readExchange(found) {
  const images = found.images.map(({ id, name, width, height, example }) => ({
    id: string(id),
    name: string(name),
    width: positive(width),
    height: positive(height),
    example: example === true,
  }));
  const timings = found.timings ?? {};
  const complete = SHOWN_TIMINGS.every((name) => Number.isFinite(timings[name]));
  return {
    ...newExchange(string(found.question), images, found.notes.map(string)),
    id: typeof found.id === "string" ? found.id : randomId(),
    answer: string(found.answer),
    state: STATES.includes(found.state) ? found.state : "left",
    error: typeof found.error === "string" ? found.error : "",
    status: found.status === 401 ? 401 : 0,
    finish: found.finish === "length" ? "length" : "",
    firstSeconds: Number.isFinite(found.firstSeconds) ? found.firstSeconds : null,
    timings: complete ? timings : null,
  };
}

/** The value where it is a text; throws Error for anything else. */
export function string(value) {
  if (typeof value !== "string") throw new Error("not a text");
  return value;
}

function positive(value) {
  if (!Number.isInteger(value) || value < 1) throw new Error("not a size");
  return value;
}

/** A session as it comes out of the store, where its page may have been closed in mid-answer. */
export function restored(session) {
  for (const exchange of session.exchanges) {
    if (exchange.state === "asking") exchange.state = "left";
  }
  return session;
}

/** Whether the exchange is part of what the model is told later. */
export function isInHistory(exchange) {
  return exchange.answer !== "" || exchange.state === "done";
}

/** The request that asks `exchange`, the last one of `session`; `blobs` holds images by id. */
export async function requestFor(session, exchange, blobs, settings) {
  const messages = [];
  if (settings.system.trim()) messages.push({ role: "system", content: settings.system });
  for (const earlier of session.exchanges) {
    if (earlier === exchange || !isInHistory(earlier)) continue;
    messages.push(await userMessage(earlier, blobs));
    messages.push({ role: "assistant", content: earlier.answer });
  }
  messages.push(await userMessage(exchange, blobs));
  // A full context drops its oldest turns, with a note, rather than end the conversation.
  return { messages, truncation: "auto", ...sampling(settings) };
}

async function userMessage({ question, images }, blobs) {
  if (!images.length) return { role: "user", content: question };
  const content = [];
  for (const image of images) {
    const blob = blobs.get(image.id);
    if (!blob)
      throw new ApiError(
        `${image.name} is no longer kept here; edit the question and add it again.`,
      );
    content.push({ type: "image_url", image_url: { url: await dataUrl(blob) } });
  }
  return { role: "user", content: [...content, { type: "text", text: question }] };
}

/**
 * Ask and write what comes into `exchange`; `changed` is called after each change.
 * Never throws: how it ended is the exchange's state.
 */
export async function streamAnswer(exchange, request, key, signal, changed) {
  const start = performance.now();
  try {
    for await (const chunk of complete(await request, key, signal)) {
      applyChunk(exchange, chunk, () => (performance.now() - start) / 1000);
      changed();
    }
    exchange.state = "done";
  } catch (error) {
    exchange.state = signal.aborted ? "stopped" : "failed";
    if (!signal.aborted) {
      exchange.error =
        error instanceof ApiError
          ? error.message
          : `The page failed (${error.message}); reload it.`;
      exchange.status = error.status ?? 0;
    }
  }
  changed();
}

function applyChunk(exchange, chunk, elapsed) {
  if (chunk.note) exchange.notes.push(String(chunk.note));
  if (chunk.timings) exchange.timings = chunk.timings;
  const choice = chunk.choices?.[0];
  const text = choice?.delta?.content ?? "";
  if (text && exchange.firstSeconds === null) exchange.firstSeconds = elapsed();
  exchange.answer += text;
  if (choice?.finish_reason) exchange.finish = choice.finish_reason;
}

/** The figures under an answer, each a few words. */
export function figures({ timings, firstSeconds }) {
  if (!timings) return [];
  const words = [`${timings.new_tokens} ${timings.new_tokens === 1 ? "token" : "tokens"}`];
  if (timings.tokens_per_second) words.push(`${short(timings.tokens_per_second)} tokens/s`);
  if (firstSeconds !== null) words.push(`first after ${seconds(firstSeconds)}`);
  const { images_computed: encoded, images_cached: cached, image_seconds: spent } = timings;
  if (encoded) words.push(`${images(encoded)} encoded in ${seconds(spent)}`);
  if (cached) words.push(`${images(cached)} from cache`);
  words.push(`read ${timings.prefill_tokens} of ${timings.prompt_tokens} prompt tokens`);
  return words;
}

const images = (count) => (count === 1 ? "image" : `${count} images`);
const seconds = (value) => `${value.toFixed(value < 1 ? 2 : 1)} s`;
const short = (value) => (value < 10 ? value.toFixed(1) : Math.round(value));
