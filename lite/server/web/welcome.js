// The start of an empty conversation: which model answers here, or why none can.

import { model } from "./api.js";
import { apiKeyForm } from "./api-key.js";
import { byId } from "./dom.js";

/** Ask the server which model it serves, and for its key where it wants one. */
export async function showModel(apiKey) {
  const about = byId("about");
  try {
    const found = await model(apiKey.get());
    about.textContent = found?.id ? `Answers come from ${found.id}, on this server.` : "";
    byId("model").textContent = found?.id;
    byId("model").hidden = !found?.id;
  } catch (error) {
    about.textContent = error.message;
    if (error.status !== 401) return;
    const save = (value) => {
      apiKey.set(value);
      showModel(apiKey);
    };
    about.append(apiKeyForm("Save", save));
  }
}
