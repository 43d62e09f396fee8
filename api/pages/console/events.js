// A job's server-sent events. EventSource can send no key, so the body of an ordinary answer is read as it comes.

import { away, call, Problem } from "./service.js";

/** Without a byte for so long (ms) a connection is taken for dead; the service sends signs of life. */
const SILENCE = 60_000;
const LONGEST_PAUSE = 10_000; // ms

/**
 * Tell a job's events, `{event, id, data}`, until its last. A connection that is cut is opened again after the last
 * event that came, and `cut` told of it, with the problem. Throws a Problem when there is nothing to come back for.
 */
export async function follow(job, { tell, cut, signal }) {
  let last = "";
  let failures = 0;
  while (!signal.aborted) {
    let problem = away();
    try {
      const headers = last ? { "Last-Event-ID": last } : {};
      const answer = await call(`v1/jobs/${job}/events`, { headers, signal });
      if (answer.status === 204) return;
      for await (const event of events(answer.body)) {
        failures = 0;
        last = event.id;
        tell(event);
        if (event.event === "done" || event.event === "error") return;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof Problem) || !error.passes) throw error;
      problem = error;
    }
    cut(problem);
    await pause(Math.max(problem.retryAfter * 1000, Math.min(LONGEST_PAUSE, 250 * 2 ** failures)), signal);
    failures += 1;
  }
}

/** Yield the events in a body of bytes, however they are cut into chunks; comments are left out. */
export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const timer = setTimeout(() => reader.cancel(), SILENCE);
      const { done, value } = await reader.read().catch((error) => {
        throw error.name === "AbortError" ? error : away();
      }).finally(() => clearTimeout(timer));
      if (done) return;
      const blocks = (text + value).split("\n\n");
      text = blocks.pop();
      for (const block of blocks) {
        const event = parsed(block);
        if (event.data) yield { ...event, data: JSON.parse(event.data) };
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parsed(block) {
  const fields = {};
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 1).replace(/^ /, "");
  }
  return fields;
}

function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
