// The answer for screen readers, sentence by sentence.
// Contract: a live region gets each finished sentence once; the visible answer, which is redrawn
// with every token, is none.

import { byId, element } from "./dom.js";

const SENTENCE = /^[\s\S]*[.!?:\n](?=\s|$)/;

export class LiveRegion {
  constructor() {
    this.region = byId("announced");
    this.announced = 0;
  }

  clear() {
    this.region.replaceChildren();
    this.announced = 0;
  }

  /** Announce what is complete of an answer, or all of it when it is `finished`. */
  announce(answer, finished) {
    const rest = answer.slice(this.announced);
    const ready = finished ? rest : (SENTENCE.exec(rest)?.[0] ?? "");
    if (!ready.trim()) return;
    this.announced += ready.length;
    this.region.append(element("p", {}, ready));
  }
}
