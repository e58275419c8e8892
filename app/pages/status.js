// The page: sign in, follow the server, show what it says.

const USERS_EVERY_MS = 10000;
const history = new History();
let watch = null; // ends when somebody signs out

function state(kind, text) {
  byId("dot").className = `dot ${kind}`;
  put("state", text);
}

function show(status) {
  history.add(status);
  state("on", "Live");
  byId("gone").hidden = true;
  byId("sign-in").hidden = true;
  byId("figures").hidden = false;
  const workers = `${status.workers} worker${status.workers === 1 ? "" : "s"}`;
  put("about", `${status.version} · ${workers} · up ${duration(status.time_s - status.started_s)}`);
  showTotals(status);
  showTimes(status);
  showDeployments(status);
  showModels(status);
  showErrors(status);
}

function showTotals(status) {
  const { totals } = status;
  put("rate", rate(history.rate));
  put("requests", number(totals.requests));
  chart("rate-chart", history.rates);
  put("saved", number(totals.saved_calls));
  put("calls", number(totals.upstream_calls));
  chart("calls-chart", history.calls);
  const counted = Object.values(totals.counts).reduce((sum, value) => sum + value, 0);
  put("ratio", percent(totals.counts.cache ?? 0, counted));
  put("ratio-foot", counted ? `of ${number(counted)} counts since the start` : "No count yet");
  split({ ...totals.counts, error: totals.requests - counted });
}

function showTimes(status) {
  const limits = status.le_ms;
  const every = history.buckets(Object.keys(status.latency));
  const hits = history.buckets(["cache"]);
  const misses = history.buckets(["live", "coalesced", "stale"]);
  put("median", milliseconds(quantile(every.counts, limits, 0.5)));
  put("median-what", every.lately ? "median lately" : "median");
  put("span", every.lately ? "last half minute" : "since the start");
  for (const [name, { counts }] of [["hit", hits], ["miss", misses]]) {
    put(`${name}-50`, milliseconds(quantile(counts, limits, 0.5)));
    put(`${name}-99`, milliseconds(quantile(counts, limits, 0.99)));
  }
}

function usersEmpty(text) {
  byId("users").hidden = true;
  byId("users-empty").hidden = false;
  put("users-empty", text);
}

async function readUsers(signal) {
  const response = await ask("/usage?group_by=end_user&since=1h&limit=10");
  if (signal.aborted) return; // it was asked with a key that is gone
  if (response.status === 404) return usersEmpty("This server keeps no ledger of use.");
  if (!response.ok) return usersEmpty(`The ledger cannot be read: ${await faultOf(response)}.`);
  const rows = (await response.json()).data;
  if (signal.aborted) return;
  if (!rows.length) return usersEmpty("Nobody counted within the hour. Name an end user in x-tallygate-end-user.");
  byId("users-empty").hidden = true;
  showUsers(rows);
}

async function watchUsers(signal) {
  while (!signal.aborted) {
    try {
      await readUsers(signal);
    } catch {
      // The server is away: the line above says so.
    }
    await pause(USERS_EVERY_MS);
  }
}

// The server is away, or says why it does not tell.
function lost(fault) {
  const seen = history.snapshots.length > 0;
  const why = fault || (seen ? "connection lost" : "no answer");
  state("off", `${why[0].toUpperCase()}${why.slice(1)}, trying again…`);
  byId("gone").hidden = Boolean(fault) || !seen;
}

function askForKey(fault) {
  watch?.abort();
  watch = null;
  keepKey("");
  history.clear();
  shownRows.clear();
  for (const id of ["deployments", "models", "users", "errors", "tried"]) byId(id).replaceChildren();
  byId("tried").hidden = true;
  byId("prompt").value = "";
  put("try-state", "");
  put("about", "");
  state("wait", "Signed out");
  for (const id of ["figures", "gone", "sign-out"]) byId(id).hidden = true;
  byId("sign-in").hidden = false;
  byId("key-fault").hidden = !fault;
  put("key-fault", fault);
  byId("key").value = "";
  byId("key").focus();
}

async function begin() {
  watch?.abort();
  const own = new AbortController();
  watch = own;
  state("wait", "Connecting…");
  byId("sign-out").hidden = !ownKey();
  const had = ownKey();
  const users = { begun: false };
  const refused = await follow(
    own.signal,
    (status) => {
      if (own.signal.aborted) return;
      show(status);
      if (!users.begun) watchUsers(own.signal);
      users.begun = true;
    },
    lost,
  );
  if (!refused || own.signal.aborted) return;
  if (refused.status === 403) askForKey(await faultOf(refused));
  else askForKey(had ? "This server does not know that key." : "");
}

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const key = byId("key").value.trim();
  if (!/^[\x21-\x7e]+$/.test(key)) {
    byId("key-fault").hidden = false;
    put("key-fault", "A key is made of visible ASCII characters.");
    return;
  }
  byId("key").value = "";
  byId("key-fault").hidden = true;
  keepKey(key);
  begin();
});
byId("sign-out").addEventListener("click", () => askForKey(""));
begin();
