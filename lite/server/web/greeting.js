// What the empty page says: which model answers here, or what is in the way.

import { model } from "./api.js";
import { keyForm } from "./key.js";

const get = (id) => document.getElementById(id);

/** Ask the server which model it serves, and for its key where it wants one. */
export async function greet(key) {
  const about = get("about");
  try {
    const found = await model(key.get());
    about.textContent = found?.id ? `Answers come from ${found.id}, on this server.` : "";
    get("model").textContent = found?.id;
    get("model").hidden = !found?.id;
  } catch (error) {
    about.textContent = error.message;
    if (error.status !== 401) return;
    const save = (value) => {
      key.set(value);
      greet(key);
    };
    about.append(keyForm("Save", save));
  }
}
