// The page without its server: stored conversations can be read all the same.
// Contract: browsers allow it on this machine and over TLS only; elsewhere nothing is stored and
// nothing fails.

const CACHE = "mmgpt-lite";

/** Store the files of this page, as it has loaded them, for service-worker.js to serve. */
export async function storePage() {
  if (!navigator.serviceWorker) return;
  const base = new URL(".", document.baseURI).href;
  const loaded = performance.getEntriesByType("resource").map((entry) => entry.name);
  const files = loaded.filter((url) => url.startsWith(base) && !url.startsWith(`${base}v1/`));
  try {
    await navigator.serviceWorker.register("service-worker.js");
    await (await caches.open(CACHE)).addAll([base, ...new Set(files)]);
  } catch {
    // The server has stopped meanwhile, or the browser stores nothing: what was stored stays.
  }
}
