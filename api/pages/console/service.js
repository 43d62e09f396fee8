// Calls of the API. The key is kept in this tab's sessionStorage, and nowhere else; it is never part of an address.

const STORED = "inferq-key";
const AWAY = "The service does not answer.";

let key = sessionStorage.getItem(STORED) ?? "";
let whenRefused = () => {};

/** A call that was not answered as hoped. `status` is 0 when nobody answered. */
export class Problem extends Error {
  constructor(status, { detail, code = "", errors = [] }, retryAfter = 0) {
    super(detail);
    this.status = status;
    this.code = code;
    this.errors = errors;
    this.retryAfter = retryAfter; // seconds
  }

  /** Whether the same call may well be answered later. */
  get passes() {
    return [0, 429, 502, 503, 504].includes(this.status);
  }
}

export function away() {
  return new Problem(0, { detail: AWAY });
}

/** The public part of the key in use; "" without one. Of a token nothing is worth showing. */
export function keyName() {
  if (!key) return "";
  const parts = key.split("_");
  return parts[0] === "iq" && parts.length > 2 ? `${parts[0]}_${parts[1]}` : "(token)";
}

/** Use another key for the calls to come; it is kept only once it has been good. */
export function useKey(text) {
  key = text.trim();
}

export function keepKey() {
  sessionStorage.setItem(STORED, key);
}

export function forgetKey() {
  key = "";
  sessionStorage.removeItem(STORED);
}

/** Have `told` hear the problem whenever the key is refused. */
export function onRefused(told) {
  whenRefused = told;
}

/** Call the API; resolves to an answer that is no error, throws a Problem. */
export async function call(path, { method = "GET", body, headers = {}, signal } = {}) {
  if (!/^[\x21-\x7e]+$/.test(key)) {
    // What no header can hold is not sent; the service would say the same.
    throw new Problem(401, { detail: "The API key is malformed; it looks like iq_<id>_<secret>." });
  }
  const request = { method, headers: { Authorization: `Bearer ${key}`, ...headers }, signal };
  // Of a submit it would say `Cache-Control: no-cache`, which is for who submits to decide.
  if (method === "GET") request.cache = "no-store";
  if (body !== undefined) {
    request.body = JSON.stringify(body);
    request.headers["Content-Type"] = "application/json";
  }
  let answer;
  try {
    answer = await fetch(path, request);
  } catch (error) {
    throw error.name === "AbortError" ? error : away();
  }
  if (answer.ok) return answer;
  const problem = await problemOf(answer);
  signal?.throwIfAborted();
  if (problem.status === 401 || problem.code.startsWith("tenant-")) whenRefused(problem);
  throw problem;
}

/** Call the API and read the JSON of its answer. */
export async function read(path, options) {
  const answer = await call(path, options);
  try {
    return await answer.json();
  } catch (error) {
    throw error.name === "AbortError" ? error : away();
  }
}

async function problemOf(answer) {
  const retryAfter = Number(answer.headers.get("Retry-After")) || 0;
  try {
    return new Problem(answer.status, await answer.json(), retryAfter);
  } catch {
    // A proxy's own page.
    return new Problem(answer.status, { detail: `The service answered with status ${answer.status}.` }, retryAfter);
  }
}
