// Where a question is written and its pictures are gathered.
// Contract: knows nothing of sessions; `onSend({text, pictures})` gets a question that is complete.
// A picture is `{id, name, width, height, blob}`.

import { byId, element, iconButton, toast } from "./dom.js";
import { ImageError, prepareImage } from "./images.js";

export class Composer {
  constructor({ onSend, onStop, onCancelEdit }) {
    this.onSend = onSend;
    this.onCancelEdit = onCancelEdit;
    this.text = byId("question");
    this.row = byId("attached");
    this.urls = new Map();
    this.pictures = [];
    this.preparing = 0;
    this.sendLater = false;
    this.running = false;
    this.draft = null;
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    byId("stop").addEventListener("click", onStop);
    byId("pick").addEventListener("click", () => byId("files").click());
    byId("files").addEventListener("change", (event) => {
      this.add([...event.target.files]); // a copy: the list empties with the field
      event.target.value = "";
    });
    byId("cancel-edit").addEventListener("click", () => this.cancelEdit());
    this.text.addEventListener("input", () => this.#refresh());
    this.text.addEventListener("keydown", (event) => this.#key(event));
    document.addEventListener("paste", (event) => this.#paste(event));
    this.#dropZone();
    this.#refresh();
  }

  focus() {
    this.text.focus();
  }

  /** Take files as pictures; what cannot be read is reported and left out. */
  async add(files) {
    this.preparing += files.length;
    this.#refresh();
    for (const file of files) {
      try {
        this.pictures.push(await prepareImage(file));
      } catch (error) {
        toast(
          error instanceof ImageError
            ? error.message
            : `${file.name} cannot be read; try another picture.`,
        );
      }
      this.preparing--;
      this.#refresh();
    }
    if (this.sendLater && !this.preparing) this.#send();
  }

  /** While an answer is written, there is something to stop and nothing to send. */
  setRunning(running) {
    const hadFocus = document.activeElement === byId(running ? "send" : "stop");
    this.running = running;
    byId("send").hidden = running;
    byId("stop").hidden = !running;
    if (hadFocus) this.focus();
    this.#refresh();
  }

  /** Put an earlier question here to change it; what was being written comes back afterwards. */
  edit(text, pictures) {
    this.draft ??= { text: this.text.value, pictures: this.pictures };
    this.#fill(text, pictures);
    byId("editing").hidden = false;
    this.focus();
    this.text.setSelectionRange(text.length, text.length);
  }

  get editing() {
    return this.draft !== null;
  }

  cancelEdit() {
    if (!this.editing) return;
    this.#restore();
    this.onCancelEdit();
    this.focus();
  }

  clear() {
    this.draft = null;
    this.#fill("", []);
    byId("editing").hidden = true;
  }

  #restore() {
    const draft = this.draft ?? { text: "", pictures: [] };
    this.clear();
    this.#fill(draft.text, draft.pictures);
  }

  #fill(text, pictures) {
    this.text.value = text;
    this.pictures = [...pictures];
    this.#refresh();
  }

  #send() {
    const text = this.text.value;
    this.sendLater = this.preparing > 0;
    if (this.running || this.sendLater) return;
    if (!text.trim()) {
      if (this.pictures.length) toast("Write a question about the picture, then send.");
      return;
    }
    const pictures = this.pictures;
    this.#restore();
    this.onSend({ text, pictures });
  }

  #key(event) {
    // While an input method composes, Enter takes its suggestion.
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      this.#send();
    }
  }

  #paste(event) {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    this.add(files);
  }

  #dropZone() {
    const overlay = byId("dropping");
    const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
    addEventListener("dragover", (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      overlay.hidden = false;
    });
    addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) overlay.hidden = true;
    });
    addEventListener("drop", (event) => {
      overlay.hidden = true;
      if (!hasFiles(event)) return;
      event.preventDefault();
      this.add([...event.dataTransfer.files]);
    });
  }

  #refresh() {
    this.text.style.height = "auto";
    this.text.style.height = `${this.text.scrollHeight}px`;
    byId("send").disabled = !this.text.value.trim();
    this.#showPictures();
  }

  #showPictures() {
    const shown = this.pictures.map((picture) => picture.id).join() + this.preparing;
    if (this.row.dataset.shown === shown) return;
    this.row.dataset.shown = shown;
    for (const url of this.urls.values()) URL.revokeObjectURL(url);
    this.urls = new Map(this.pictures.map(({ id, blob }) => [id, URL.createObjectURL(blob)]));
    const waiting = Array.from({ length: this.preparing }, () =>
      element(
        "li",
        { class: "preparing" },
        element("span", { class: "unseen" }, "Reading a picture"),
      ),
    );
    this.row.replaceChildren(
      ...this.pictures.map((picture) => this.#thumbnail(picture)),
      ...waiting,
    );
    this.row.hidden = !this.row.children.length;
  }

  #thumbnail(picture) {
    const remove = () => {
      this.pictures = this.pictures.filter((other) => other !== picture);
      this.#refresh();
      this.focus();
    };
    const image = element("img", {
      src: this.urls.get(picture.id),
      alt: picture.name,
      title: picture.name,
    });
    return element("li", {}, image, iconButton("close", `Remove ${picture.name}`, remove));
  }
}
