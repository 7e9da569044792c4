// Serves the files of the page that offline.js has stored, only while the server cannot be reached.

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method !== "GET" || new URL(request.url).pathname.includes("/v1/")) return;
  event.respondWith(fetch(request).catch(() => stored(request)));
});

async function stored(request) {
  return (await caches.match(request)) ?? Response.error();
}
