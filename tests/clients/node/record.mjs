// Loaded before anything else (NODE_OPTIONS), writes down what `fetch` receives, a line of JSON for each piece, in the
// file that OMA_TRAFFIC names. Each piece is written when it comes, since scenarios end without reading streams out.

import { randomUUID } from "node:crypto";
import { appendFileSync } from "node:fs";

const path = process.env.OMA_TRAFFIC;
const fetched = globalThis.fetch;

async function recorded(input, init) {
  const request = new Request(input, { ...init, body: undefined, signal: undefined });
  const response = await fetched(input, init);
  const id = randomUUID();
  const write = (entry) => appendFileSync(path, `${JSON.stringify({ id, ...entry })}\n`);
  write({
    method: request.method,
    url: request.url,
    request: Object.fromEntries(request.headers),
    status: response.status,
    headers: Object.fromEntries(response.headers),
  });
  if (response.body === null) {
    write({ end: true });
    return response;
  }
  const noted = new TransformStream({
    transform(chunk, controller) {
      write({ chunk: Buffer.from(chunk).toString("base64") });
      controller.enqueue(chunk);
    },
    flush: () => write({ end: true }),
  });
  const { status, statusText, headers } = response;
  const copy = new Response(response.body.pipeThrough(noted), { status, statusText, headers });
  Object.defineProperty(copy, "url", { value: response.url });
  return copy;
}

if (path) globalThis.fetch = recorded;
