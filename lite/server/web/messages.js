// The messages of the conversation that is shown.
// Contract: draws exchanges and reports what the person wants done with them; keeps no state but
// the elements. A growing answer changes only where it grows.

import { apiKeyForm } from "./api-key.js";
import { figures } from "./conversation.js";
import { byId, copy, element, iconButton } from "./dom.js";
import { literal, render } from "./markdown.js";

const ENDS = {
  stopped: ["Stopped.", "Stopped before the answer began."],
  left: [
    "The page was closed while this was being written.",
    "The page was closed before the answer came.",
  ],
};
// So many exchanges are drawn; a button shows as many more.
const SHOWN = 100;
// How near to the end a reader has to be to be taken along, in pixels.
const NEAR = 80;

export class MessageList {
  /**
   * `actions` has edit(exchange), retry(exchange) and saveKey(key).
   */
  constructor(actions) {
    this.actions = actions;
    this.root = byId("messages");
    this.scroller = byId("scroller");
    this.newest = byId("newest");
    this.parts = new Map();
    this.urls = new Map();
    this.follow = true;
    this.scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    this.newest.addEventListener("click", () => this.toEnd());
    new ResizeObserver(() => this.follow && this.toEnd()).observe(this.root);
  }

  /** Show a session's exchanges; `blobs` holds its images by id. */
  show(exchanges, blobs) {
    for (const url of this.urls.values()) URL.revokeObjectURL(url);
    this.urls = new Map();
    this.#draw(exchanges, blobs, exchanges.length - SHOWN);
    this.toEnd();
  }

  #draw(exchanges, blobs, start) {
    this.parts = new Map();
    this.root.replaceChildren();
    if (start > 0) {
      const more = () => {
        this.#draw(exchanges, blobs, start - SHOWN);
        this.parts.get(exchanges[start].id)?.node.scrollIntoView();
      };
      const words = `Show earlier questions (${start})`;
      const button = element("button", { type: "button", class: "plain", onclick: more }, words);
      this.root.append(element("p", { class: "earlier" }, button));
    }
    for (const exchange of exchanges.slice(Math.max(0, start))) this.add(exchange, blobs);
    this.markLast(exchanges);
  }

  add(exchange, blobs) {
    const body = element("div", { class: "answer-text" });
    const foot = element("div", { class: "answer-foot" });
    const notes = element("div", { class: "notes" });
    const heading = element("h2", { class: "unseen" }, "Answer");
    const answer = element("div", { class: "answer" }, heading, notes, body, foot);
    const node = element("article", {}, this.#question(exchange, blobs), answer);
    this.root.append(node);
    this.parts.set(exchange.id, { node, answer, body, foot, notes });
    this.update(exchange);
  }

  /** Show what has changed in an exchange; without effect for one that is not shown. */
  update(exchange) {
    const parts = this.parts.get(exchange.id);
    if (!parts) return;
    const writing = exchange.state === "asking";
    parts.node.dataset.state = exchange.state;
    parts.answer.setAttribute("aria-busy", writing);
    parts.answer.classList.toggle("waiting", writing && !exchange.answer);
    render(parts.body, exchange.answer);
    while (parts.notes.children.length < exchange.notes.length) {
      parts.notes.append(element("p", {}, exchange.notes[parts.notes.children.length]));
    }
    if (parts.foot.dataset.state !== exchange.state) {
      parts.foot.dataset.state = exchange.state;
      parts.foot.replaceChildren(...(writing ? [] : this.#foot(exchange)));
    }
  }

  markLast(exchanges) {
    for (const [id, { node }] of this.parts) {
      node.classList.toggle("last", id === exchanges.at(-1)?.id);
    }
  }

  /** Dim the exchanges from `exchange` on, which asking it again would drop; null dims none. */
  dimFrom(exchange) {
    let dim = false;
    for (const [id, { node }] of this.parts) {
      dim ||= id === exchange?.id;
      node.classList.toggle("dim", dim);
    }
  }

  toEnd() {
    this.follow = true;
    this.newest.hidden = true;
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    this.follow = scrollHeight - scrollTop - clientHeight < NEAR;
    this.newest.hidden = this.follow;
  }

  #question(exchange, blobs) {
    const pictures = exchange.images.map((image) => this.#picture(image, blobs.get(image.id)));
    return element(
      "div",
      { class: "question" },
      element("h2", { class: "unseen" }, "Question"),
      pictures.length > 0 && element("div", { class: "pictures" }, ...pictures),
      element(
        "div",
        { class: "question-line" },
        element(
          "div",
          { class: "tools" },
          iconButton("edit", "Edit the question", () => this.actions.edit(exchange)),
        ),
        element("div", { class: "question-text" }, ...literal(exchange.question)),
      ),
    );
  }

  #picture({ id, name, width, height }, blob) {
    if (!blob) return element("p", { class: "lost" }, `${name} is no longer kept here`);
    if (!this.urls.has(id)) this.urls.set(id, URL.createObjectURL(blob));
    return element("img", { src: this.urls.get(id), alt: name, title: name, width, height });
  }

  #foot(exchange) {
    const words = [];
    if (exchange.state in ENDS) words.push(ENDS[exchange.state][exchange.answer ? 0 : 1]);
    if (exchange.state === "done" && !exchange.answer)
      words.push("The model answered with nothing.");
    if (exchange.finish === "length") words.push("Cut at the longest answer allowed.");
    const end = words.length > 0 && element("p", { class: "end" }, words.join(" "));
    const failed = exchange.state === "failed" && this.#error(exchange);
    const copyButton = iconButton("copy", "Copy the answer", () =>
      copy(exchange.answer, copyButton),
    );
    const again = () => this.actions.retry(exchange);
    const numbers = figures(exchange).map((words) => element("span", {}, words));
    const tools = element(
      "div",
      { class: "tools" },
      exchange.answer && copyButton,
      !failed && iconButton("retry", "Retry", again),
      numbers.length > 0 && element("p", { class: "figures" }, ...numbers),
    );
    return [end, failed, tools].filter(Boolean);
  }

  #error(exchange) {
    const again = () => this.actions.retry(exchange);
    const save = (key) => {
      this.actions.saveKey(key);
      again();
    };
    const remedy =
      exchange.status === 401
        ? apiKeyForm("Save and retry", save)
        : element("button", { type: "button", class: "plain", onclick: again }, "Retry");
    return element(
      "div",
      { class: "error", role: "alert" },
      element("p", {}, exchange.error),
      remedy,
    );
  }
}
