// From the file a person gives to the picture that is sent.
// Contract: a picture that is small and of a kind the server reads is sent byte for byte; a large
// one is made smaller here, upright, once; what the browser cannot read is one sentence.

export const MAX_SIDE = 1568;
// The encoder sees a few hundred pixels a side, and each turn carries all pictures again.
const MAX_BYTES = 1_500_000;
const READ_BY_SERVER = new Set(["image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp"]);
const JPEG_QUALITY = 0.9;

/** Says in one sentence why a file is no picture. */
export class ImageError extends Error {}

/**
 * The picture in a file: `{id, name, width, height, blob}`, at most MAX_SIDE pixels a side.
 * Throws ImageError for what is no picture.
 */
export async function prepareImage(file) {
  const name = file.name || "picture";
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    throw new ImageError(
      `${name} is not a picture that this browser can read; save it as JPEG or PNG.`,
    );
  }
  const scale = Math.min(1, MAX_SIDE / Math.max(bitmap.width, bitmap.height));
  const width = Math.max(1, Math.round(bitmap.width * scale));
  const height = Math.max(1, Math.round(bitmap.height * scale));
  const asItIs = scale === 1 && file.size <= MAX_BYTES && READ_BY_SERVER.has(file.type);
  // A copy in memory: the file may change or vanish before it is sent.
  const blob = asItIs
    ? new Blob([await file.arrayBuffer()], { type: file.type })
    : await encode(bitmap, width, height, file.type !== "image/jpeg");
  bitmap.close();
  return { id: randomId(), name, width, height, blob };
}

/** PNG where that stays small, as drawings and screenshots do; JPEG over white otherwise. */
async function encode(bitmap, width, height, tryPng) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  if (tryPng) {
    const png = await canvas.convertToBlob({ type: "image/png" });
    if (png.size <= MAX_BYTES) return png;
  }
  context.globalCompositeOperation = "destination-over";
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  return canvas.convertToBlob({ type: "image/jpeg", quality: JPEG_QUALITY });
}

/** A `data:` URL of the blob. */
export function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

/** The blob of a `data:` URL, without a request: the page may fetch from its server only. */
export function fromDataUrl(url) {
  const found = /^data:(image\/[a-z]+);base64,([A-Za-z0-9+/=]+)$/.exec(url);
  if (!found || !READ_BY_SERVER.has(found[1])) throw new ImageError("It holds what is no picture.");
  return new Blob([Uint8Array.from(atob(found[2]), (c) => c.charCodeAt(0))], { type: found[1] });
}

/** 128 random bits; randomUUID is missing on pages that another machine serves without TLS. */
export function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
