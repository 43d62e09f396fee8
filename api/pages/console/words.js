// How instants, spans and states are said.

export const STATES = {
  queued: "Queued",
  in_progress: "Running",
  cancelling: "Cancelling",
  completed: "Completed",
  failed: "Failed",
  cancelled: "Cancelled",
  expired: "Expired",
};

export function seconds(span) {
  if (span >= 120) return `${Math.round(span / 60)} min`;
  return `${span < 10 ? span.toFixed(2) : span.toFixed(0)} s`;
}

export function tokens(usage) {
  return `${usage.prompt_tokens ?? "?"} read, ${usage.completion_tokens} written`;
}

/** The time of an RFC 3339 instant here, with the day unless it is today. */
export function clock(instant) {
  const at = new Date(instant);
  const time = at.toLocaleTimeString();
  return at.toDateString() === new Date().toDateString() ? time : `${at.toLocaleDateString()} ${time}`;
}

/** A new element with text in it, never HTML. */
export function element(name, text, className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

/** Put text where it is not there already, so that nothing is announced twice. */
export function put(where, text) {
  if (where.textContent !== text) where.textContent = text;
}
