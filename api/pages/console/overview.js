// What goes on besides the job that is watched: models, queue, recent jobs. Looked at again and again while it is seen.

import { Problem, read } from "./service.js";
import { STATES, clock, element, put, seconds } from "./words.js";

const at = (id) => document.getElementById(id);
const PERIOD = 4000; // ms
const PAGE = 10;
const MOST = 100; // jobs that one call lists

export class Overview {
  /** `open` is called with the id of a job that was chosen; `promptOf` gives a job's prompt if it was asked here. */
  constructor({ open, promptOf }) {
    this.open = open;
    this.promptOf = promptOf;
    this.count = PAGE;
    this.rows = new Map();
    this.chosen = null;
    this.timer = 0;
    /** Aborted when nobody is to see anything any more. */
    this.shown = new AbortController();
    this.looking = false;
    this.again = false;
    at("more").addEventListener("click", () => {
      this.count = Math.min(MOST, this.count + PAGE);
      this.look();
    });
    document.addEventListener("visibilitychange", () => this.look());
  }

  /** Begin to look; throws a Problem if the first look fails. */
  async start() {
    this.shown = new AbortController();
    await this.refresh();
    this.next(PERIOD);
  }

  stop() {
    this.shown.abort();
    clearTimeout(this.timer);
    this.count = PAGE;
    this.rows.clear();
    at("recent").replaceChildren();
    at("model").replaceChildren();
    put(at("trouble"), "");
  }

  /** Mark the job that is watched. */
  choose(id) {
    this.chosen = id;
    this.rows.forEach((row, job) => this.mark(row, job));
  }

  /** Look now, unless nobody sees it; then again and again. */
  async look() {
    if (this.looking) {
      this.again = true; // what is being read may be older than what has just happened
      return;
    }
    const { signal } = this.shown;
    clearTimeout(this.timer);
    if (signal.aborted || document.hidden) return;
    this.looking = true;
    let wait = PERIOD;
    try {
      await this.refresh();
      put(at("trouble"), "");
    } catch (problem) {
      if (signal.aborted) return;
      if (!(problem instanceof Problem)) throw problem;
      put(at("trouble"), problem.message);
      wait = Math.max(wait, problem.retryAfter * 1000);
    } finally {
      this.looking = false;
    }
    this.next(this.again ? 0 : wait);
    this.again = false;
  }

  next(ms) {
    clearTimeout(this.timer);
    if (!this.shown.signal.aborted) this.timer = setTimeout(() => this.look(), ms);
  }

  async refresh() {
    const { signal } = this.shown;
    const paths = ["v1/models", "v1/queue", `v1/jobs?limit=${this.count}`];
    const [models, queue, jobs] = await Promise.all(paths.map((path) => read(path, { signal })));
    this.showModels(models.data);
    at("engines").replaceChildren(...queue.engines.map(engine));
    this.showJobs(jobs);
  }

  showModels(models) {
    const select = at("model");
    const known = new Map([...select.options].map((option) => [option.value, option]));
    for (const { id, state, default: usual } of models) {
      let option = known.get(id);
      if (!option) {
        option = new Option("", id, usual, usual);
        select.append(option);
      }
      put(option, state === "ready" ? id : `${id} (${state})`);
    }
  }

  showJobs({ data, next_cursor: more }) {
    const rows = new Map(data.map((job) => [job.id, this.row(job)]));
    const list = at("recent");
    if ([...rows.values()].some((row, place) => list.children[place] !== row) || list.children.length !== rows.size) {
      const focused = document.activeElement;
      list.replaceChildren(...rows.values());
      if (list.contains(focused)) focused.focus({ preventScroll: true });
    }
    this.rows = rows;
    at("none").hidden = rows.size > 0;
    at("more").hidden = !more || this.count >= MOST;
  }

  /** The row of a job: the one it has, so that whoever is about to press it still can. */
  row(job) {
    let row = this.rows.get(job.id);
    if (!row) {
      row = document.createElement("li");
      const button = element("button", "", "row");
      button.type = "button";
      button.addEventListener("click", () => this.open(job.id));
      const time = element("time", clock(job.created_at));
      time.dateTime = job.created_at;
      button.append(element("span", "", "state"), time, element("span", "", "what"));
      row.append(button);
    }
    const [state, , what] = row.firstChild.children;
    state.dataset.state = job.status;
    put(state, STATES[job.status]);
    const written = job.terminal && job.usage ? `, ${job.usage.completion_tokens} tokens` : "";
    put(what, this.promptOf(job.id) ?? `${job.model}${written}`);
    this.mark(row, job.id);
    return row;
  }

  mark(row, id) {
    row.firstChild.setAttribute("aria-current", String(id === this.chosen));
  }
}

function engine({ engine: name, waiting, depth, predicted_wait_s: wait, oldest_s: oldest, paused, workers }) {
  const box = document.createElement("div");
  const list = element("dl", "", "facts");
  const byPriority = ["high", "normal", "low"].filter((one) => waiting[one]).map((one) => `${waiting[one]} ${one}`);
  const facts = [
    ["Waiting", depth ? `${depth} (${byPriority.join(", ")})` : "none"],
    ["Oldest", depth ? seconds(oldest) : null],
    ["A new job waits", wait === null ? "nobody can say" : seconds(wait)],
    ["Workers", workers.length ? workers.map(worker).join("; ") : "none"],
  ];
  for (const [term, value] of facts) {
    if (value !== null) list.append(element("dt", term), element("dd", value));
  }
  box.append(element("h3", paused ? `${name} (paused)` : name), list);
  return box;
}

function worker({ state, slots, running }) {
  return state === "ready" ? `ready, ${running} of ${slots} slots in use` : state;
}
