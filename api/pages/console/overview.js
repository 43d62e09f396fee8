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
    this.running = false;
    this.timer = 0;
    at("more").addEventListener("click", () => {
      this.count = Math.min(MOST, this.count + PAGE);
      this.look();
    });
    document.addEventListener("visibilitychange", () => this.look());
  }

  /** Begin to look; throws a Problem if the first look fails. */
  async start() {
    await this.refresh();
    this.running = true;
    this.next(PERIOD);
  }

  stop() {
    this.running = false;
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
    clearTimeout(this.timer);
    if (!this.running || document.hidden) return;
    let wait = PERIOD;
    try {
      await this.refresh();
      put(at("trouble"), "");
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      if (this.running) put(at("trouble"), problem.message);
      wait = Math.max(wait, problem.retryAfter * 1000);
    }
    this.next(wait);
  }

  next(ms) {
    clearTimeout(this.timer);
    if (this.running) this.timer = setTimeout(() => this.look(), ms);
  }

  async refresh() {
    const [models, queue, jobs] = await Promise.all([
      read("v1/models"), read("v1/queue"), read(`v1/jobs?limit=${this.count}`),
    ]);
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
