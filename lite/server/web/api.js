// The server's interface, as much of it as the page uses.
// Contract: speaks OpenAI's chat completions over the page's own origin; every failure is an
// ApiError whose message is one sentence for the person.

export class ApiError extends Error {
  /** `status` is that of the HTTP answer, 0 where there was none. */
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

const UNREACHABLE = "The server cannot be reached; check that lite-serve is running, then retry.";
const CUT_SHORT = "The connection ended before the answer did; retry to get all of it.";
const PLAIN = {
  401: "The server asks for a key; enter the one it was started with.",
  404: "The server does not know this address; open the page that lite-serve shows.",
  413: "The request is too large for the server; send fewer or smaller pictures.",
  429: "The server is busy; retry in a moment.",
};

/** What the server serves: `{id, ...}`, or null when it names nothing. */
export async function model(key) {
  const response = await send("v1/models", { headers: headers(key) });
  const listed = await response.json().catch(() => ({}));
  return listed.data?.[0] ?? null;
}

/**
 * Ask for an answer and yield the chunks of the stream as they come.
 * Aborting `signal` ends it with the browser's AbortError.
 */
export async function* complete(request, key, signal) {
  const body = JSON.stringify({
    ...request,
    stream: true,
    stream_options: { include_usage: true },
  });
  const response = await send("v1/chat/completions", {
    method: "POST",
    headers: { ...headers(key), "Content-Type": "application/json" },
    body,
    signal,
  });
  for await (const data of events(response, signal)) {
    if (data === "[DONE]") return;
    const chunk = parseChunk(data);
    if (chunk.error) throw new ApiError(messageOf(chunk, 0));
    yield chunk;
  }
  throw new ApiError(CUT_SHORT);
}

function headers(key) {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function send(path, options) {
  let response;
  try {
    response = await fetch(new URL(path, document.baseURI), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(
      error.message?.includes("ISO-8859-1")
        ? "The key holds characters that no key has; enter it again."
        : UNREACHABLE,
      error.message?.includes("ISO-8859-1") ? 401 : 0,
    );
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  throw new ApiError(messageOf(body, response.status), response.status);
}

function messageOf(body, status) {
  const message = body?.error?.message ?? body?.error;
  if (typeof message === "string" && message) return message;
  return PLAIN[status] ?? `The server answered with an error (${status}); retry.`;
}

function parseChunk(data) {
  try {
    return JSON.parse(data);
  } catch {
    throw new ApiError(
      "The server sent what is no JSON; check that this page and it belong together.",
    );
  }
}

/** The data of each server-sent event (WHATWG HTML, 9.2.6); comments keep the line open. */
async function* events(response, signal) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (held + value).split(/\r\n|\n|\r(?!$)/);
      held = lines.pop();
      for (const line of lines) {
        if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
        else if (!line && data.length) {
          yield data.join("\n");
          data = [];
        }
      }
    }
  } catch (error) {
    if (signal?.aborted || error instanceof ApiError) throw error;
    throw new ApiError(CUT_SHORT);
  } finally {
    reader.cancel().catch(() => {});
  }
}
