// One job, watched: where it stands, its text as it is written, its end, and how long everything took.

import { follow } from "./events.js";
import { Problem, read } from "./service.js";
import { STATES, clock, element, put, seconds, tokens } from "./words.js";

const at = (id) => document.getElementById(id);

export class JobView {
  /** `changed` is called whenever a job has begun, moved on or ended. */
  constructor(changed) {
    this.changed = changed;
    this.job = null;
    this.watching = new AbortController();
    /** Prompts that were asked here, by job: the service does not give them back. */
    this.prompts = new Map();
    this.text = document.createTextNode("");
    at("answer").append(this.text);
    at("cancel").addEventListener("click", () => this.cancel());
  }

  /** Show a job that was just asked here, and follow it. */
  begin(job, prompt) {
    if (job.id) this.prompts.set(job.id, prompt);
    this.watch(job, prompt);
  }

  /** Show a job by its id, and follow it if it is not over. */
  async open(id) {
    const signal = this.fresh();
    try {
      this.watch(await read(`v1/jobs/${id}`, { signal }), this.prompts.get(id));
    } catch (problem) {
      this.tellProblem(problem, signal);
    }
    at("job-title").focus();
  }

  /** Show nothing, and forget what was asked. */
  close() {
    this.fresh();
    this.prompts.clear();
    at("job").hidden = true;
  }

  watch(job, prompt) {
    const signal = this.fresh();
    at("asked").hidden = !prompt;
    put(at("asked-text"), prompt ?? "");
    this.show(job);
    if (!job.terminal) this.follow(job.id, signal);
  }

  /** Leave whatever was watched; returns the signal of what is watched now. */
  fresh() {
    this.watching.abort();
    this.watching = new AbortController();
    this.job = null;
    this.text.data = "";
    at("job").hidden = false;
    at("asked").hidden = true;
    at("cancel").hidden = true;
    at("details").replaceChildren();
    for (const id of ["job-status", "job-note", "job-error", "asked-text"]) put(at(id), "");
    return this.watching.signal;
  }

  async follow(id, signal) {
    try {
      await follow(id, {
        signal,
        tell: (event) => this.hear(event, signal),
        cut: (problem) => this.say("cut", `${problem.message} The job goes on; looking for it again.`),
      });
      if (!signal.aborted) this.show(await read(`v1/jobs/${id}`, { signal }));
    } catch (problem) {
      this.tellProblem(problem, signal);
    }
  }

  hear({ event, data }, signal) {
    if (signal.aborted) return;
    if (event === "token") this.text.appendData(data.text);
    if (event === "restarted") {
      this.text.data = "";
      put(at("job-note"), `Attempt ${data.attempt} ended early, as its worker was lost or gave it back. Its text is void.`);
    }
    if (event === "status") {
      this.sayState(data);
      if (data.status === "in_progress" && this.job.status !== "in_progress") this.lookAgain(signal);
    }
  }

  /** Read the record for what the events do not say. */
  async lookAgain(signal) {
    try {
      const job = await read(`v1/jobs/${this.job.id}`, { signal });
      if (!job.terminal) this.show(job); // its end is shown when all its text is there
    } catch (problem) {
      if (!(problem instanceof Problem) && !signal.aborted) throw problem;
    }
  }

  async cancel() {
    const { id } = this.job;
    const { signal } = this.watching;
    try {
      const job = await read(`v1/jobs/${id}/cancel`, { method: "POST", signal });
      if (!job.terminal) this.show(job);
    } catch (problem) {
      this.tellProblem(problem, signal);
    }
  }

  show(job) {
    const moved = this.job?.id !== job.id || this.job?.status !== job.status;
    this.job = job;
    if (job.output) put(this.text, job.output.text);
    at("answer").ariaBusy = String(!job.terminal);
    if (job.terminal && document.activeElement === at("cancel")) at("job-title").focus();
    at("cancel").hidden = job.terminal || job.status === "cancelling";
    this.sayState(job);
    at("details").replaceChildren(...details(job).map(([name, value]) => {
      const pair = element("div", "", name === "Id" ? "wide" : "");
      pair.append(element("dt", name), element("dd", value));
      return pair;
    }));
    if (moved) this.changed();
  }

  sayState({ status, attempt, queue, output, error, cache }) {
    let said = STATES[status];
    if (queue) {
      if (queue.position) said += `, position ${queue.position}`;
      said += queue.eta_s === null ? "; nobody can say when it starts" : `, should start in ${seconds(queue.eta_s)}`;
    }
    if (status === "in_progress" && attempt > 1) said += `, attempt ${attempt}`;
    if (status === "completed" && cache?.status === "hit") said += " from the cache";
    if (output?.finish_reason === "length") said += ", cut off at the most tokens it may have";
    if (error) said += `: ${error.message}`;
    this.say(status, said);
  }

  say(state, text) {
    at("job-status").dataset.state = state;
    put(at("job-status"), text);
  }

  tellProblem(problem, signal) {
    if (signal.aborted) return;
    if (!(problem instanceof Problem)) throw problem;
    put(at("job-error"), problem.message);
  }
}

function details(job) {
  const { metrics, usage, cache } = job;
  const pairs = [
    ["Waited", metrics.queue_s, seconds],
    ["First token after", metrics.ttft_s, seconds],
    ["Ran", metrics.run_s, seconds],
    ["Altogether", metrics.total_s, seconds],
    ["Tokens", job.terminal ? usage : null, tokens],
    ["Cache", cache.age_s === null ? cache.status : `${cache.status}, ${seconds(cache.age_s)} old`],
    ["Model", job.model],
    ["Priority", job.priority],
    ["Attempt", job.attempt || null],
    ["Submitted", job.created_at, clock],
    ["Kept until", job.expires_at, clock],
    ["Id", job.id],
    ...Object.entries(job.metadata ?? {}),
  ];
  return pairs.filter(([, value]) => value !== null).map(([name, value, said = String]) => [name, said(value)]);
}
