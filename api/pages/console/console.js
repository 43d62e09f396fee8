// The page at /: a key, a prompt, the job it becomes, and what else goes on.

import { JobView } from "./job.js";
import { Overview } from "./overview.js";
import { Problem, forgetKey, keepKey, keyName, onRefused, read, useKey } from "./service.js";
import { put } from "./words.js";

const at = (id) => document.getElementById(id);
const FIELDS = ["prompt", "model", "priority", "max_tokens", "temperature"];

const view = new JobView(() => {
  overview.choose(view.job.id);
  overview.look();
});
const overview = new Overview({ open: (id) => view.open(id), promptOf: (id) => view.prompts.get(id) });
let retrial = 0;

/** Let go of the key and of all it has shown, and ask for one. */
function lock(problem) {
  forgetKey();
  overview.stop();
  view.close();
  at("ask").reset();
  at("desk").hidden = true;
  at("held").hidden = true;
  at("key-form").hidden = false;
  at("key").ariaInvalid = String(Boolean(problem));
  put(at("key-error"), problem?.message ?? "");
  at("key").focus();
}

/** Show the desk if the key is good. While nobody can say whether it is, try again. */
async function unlock() {
  clearTimeout(retrial);
  try {
    await overview.start();
  } catch (problem) {
    if (overview.shown.signal.aborted) return; // the key was refused, or forgotten
    if (!(problem instanceof Problem)) throw problem;
    if (problem.passes) {
      put(at("trouble"), problem.message);
      retrial = setTimeout(unlock, Math.max(2, problem.retryAfter) * 1000);
    } else {
      lock(problem);
    }
    return;
  }
  keepKey();
  at("key").value = "";
  at("key").ariaInvalid = "false";
  put(at("key-error"), "");
  put(at("trouble"), "");
  put(at("held-name"), keyName());
  at("key-form").hidden = true;
  at("held").hidden = false;
  at("desk").hidden = false;
  at("prompt").focus();
}

/** What the form says, as the API takes it. What is no number goes as it is: the service says what is wrong. */
function asked() {
  const body = { stream: true };
  for (const name of FIELDS) {
    const { value } = at(name);
    if (name === "max_tokens" || name === "temperature") {
      if (value.trim()) body[name] = Number.isNaN(Number(value)) ? value : Number(value);
    } else {
      body[name] = value;
    }
  }
  return body;
}

/** Show what is wrong: at its field, or for all of them. */
function complain(problem) {
  const placed = problem.errors.filter(({ field }) => FIELDS.includes(field));
  for (const name of FIELDS) {
    const messages = placed.filter(({ field }) => field === name).map(({ message }) => message);
    put(at(`${name}-error`), messages.join(" "));
    at(name).ariaInvalid = String(messages.length > 0);
  }
  put(at("ask-error"), placed.length < Math.max(1, problem.errors.length) ? problem.message : "");
  if (placed.length) at(placed[0].field).focus();
}

let submitting = false;

async function submit() {
  if (submitting) return;
  submitting = true;
  complain({ errors: [], message: "" });
  const body = asked();
  const headers = at("anew").checked ? { "Cache-Control": "no-cache" } : {};
  try {
    const job = await read("v1/jobs", { method: "POST", body, headers });
    if (!keyName()) return; // forgotten meanwhile
    view.begin(job, body.prompt);
    at("job").scrollIntoView({ block: "nearest" });
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    complain(problem);
  } finally {
    submitting = false;
  }
}

at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(at("key").value);
  unlock();
});
at("forget").addEventListener("click", () => lock());
at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
at("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    submit();
  }
});
onRefused(lock);

at("main").hidden = false;
if (keyName()) unlock();
else at("key").focus();
