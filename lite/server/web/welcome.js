// The start of an empty conversation: which model answers here, what it knows, and what to try.
// Contract: the server's name and notice are shown as they come; a server that cannot be reached
// is reported at the top of the page, over any conversation.

import { model } from "./api.js";
import { apiKeyForm } from "./api-key.js";
import { byId, element, toast } from "./dom.js";
import { prepareImage } from "./images.js";

// In examples/ of this folder; the demo model answers these right.
const EXAMPLES = [
  { file: "tiger.png", question: "What is in the picture?" },
  { file: "sign.png", question: "What does the sign say?" },
  { file: "farm.png", question: "How many sheep are there in the picture?" },
];
const HINT =
  "The demo model knows drawn scenes only; if this is a photograph, the answer is a guess.";

export class Welcome {
  /** `apiKey` has get() and set(key); `onExample({text, pictures})` is called to ask one. */
  constructor(apiKey, onExample) {
    this.apiKey = apiKey;
    this.onExample = onExample;
    this.isDemo = false;
    byId("reconnect").addEventListener("click", () => this.show());
    addEventListener("focus", () => byId("offline").hidden || this.show());
  }

  /** Ask the server which model it serves, and for its key where it wants one. */
  async show() {
    const about = byId("about");
    try {
      const { id = "", notice = "" } = (await model(this.apiKey.get())) ?? {};
      this.isDemo = notice !== "";
      about.textContent = notice || (id && `Answers come from ${id}, on this server.`);
      byId("model").textContent = id;
      byId("model").hidden = !id;
      byId("examples").replaceChildren(
        ...(this.isDemo ? EXAMPLES.map((e) => this.#example(e)) : []),
      );
      byId("offline").hidden = true;
    } catch (error) {
      byId("offline").hidden = error.status !== 0;
      about.textContent = error.status === 0 ? "" : error.message;
      if (error.status !== 401) return;
      const save = (value) => {
        this.apiKey.set(value);
        this.show();
      };
      about.append(apiKeyForm("Save", save));
    }
  }

  /** What to say beside the answer about these images: any that is no example may be a photograph. */
  notesOn(images) {
    return this.isDemo && images.some((image) => !image.example) ? [HINT] : [];
  }

  #example({ file, question }) {
    const src = `examples/${file}`;
    const ask = async () => {
      try {
        const blob = await (await fetch(src)).blob();
        const picture = await prepareImage(new File([blob], file, { type: blob.type }));
        this.onExample({ text: question, pictures: [{ ...picture, example: true }] });
      } catch {
        toast(`${file} cannot be fetched from the server; check that lite-serve is running.`);
      }
    };
    const image = element("img", { src, alt: "", width: 448, height: 448 });
    return element("button", { type: "button", class: "example", onclick: ask }, image, question);
  }
}
