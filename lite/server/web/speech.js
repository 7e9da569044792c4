// The answer for screen readers: sentence by sentence, politely.
// Contract: a live region gets each finished sentence once; the visible answer, which is redrawn
// with every token, is none.

const SENTENCE = /^[\s\S]*[.!?:\n](?=\s|$)/;

export class Speech {
  constructor() {
    this.region = document.getElementById("spoken");
    this.said = 0;
  }

  begin() {
    this.region.replaceChildren();
    this.said = 0;
  }

  /** Say what is complete of an answer, or all of it when it is `finished`. */
  say(answer, finished) {
    const rest = answer.slice(this.said);
    const ready = finished ? rest : (SENTENCE.exec(rest)?.[0] ?? "");
    if (!ready.trim()) return;
    this.said += ready.length;
    const line = document.createElement("p");
    line.textContent = ready;
    this.region.append(line);
  }
}
