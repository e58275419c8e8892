// The stream of snapshots, and what their differences say.

const SILENT_MS = 6000;
const WINDOW_S = 30;

// Read a stream's lines as objects, one after the other.
async function* snapshots(response, heard) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    heard();
    rest += value;
    const lines = rest.split("\n");
    rest = lines.pop();
    for (const line of lines) yield JSON.parse(line);
  }
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Follow the server until `signal` says stop, or it refuses: then return its answer.
async function follow(signal, show, lost) {
  let wait = 250;
  while (!signal.aborted) {
    const silence = new AbortController();
    let timer = 0;
    const heard = () => {
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), SILENT_MS);
    };
    const stop = () => silence.abort();
    signal.addEventListener("abort", stop);
    try {
      heard();
      const response = await ask("/status/stream", { signal: silence.signal });
      if (response.status === 401 || response.status === 403) return response;
      if (!response.ok) {
        lost(await faultOf(response));
        throw new Error("refused");
      }
      for await (const status of snapshots(response, heard)) {
        wait = 250;
        show(status);
      }
    } catch (error) {
      if (!signal.aborted && error.message !== "refused") lost("");
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", stop);
    }
    await pause(wait);
    wait = Math.min(wait * 2, 8000);
  }
  return null;
}

// The last two minutes, as differences of totals.
class History {
  constructor() {
    this.clear();
  }

  clear() {
    this.snapshots = [];
    this.rates = [];
    this.calls = [];
  }

  add(status) {
    const last = this.snapshots.at(-1);
    if (last && (status.started_s !== last.started_s || status.totals.requests < last.totals.requests)) {
      this.clear();
    } else if (last) {
      const seconds = Math.max(status.time_s - last.time_s, 0.001);
      this.rates.push((status.totals.requests - last.totals.requests) / seconds);
      this.calls.push((status.totals.upstream_calls - last.totals.upstream_calls) / seconds);
    }
    this.snapshots.push(status);
    for (const list of [this.snapshots, this.rates, this.calls]) {
      if (list.length > POINTS) list.shift();
    }
  }

  // Counts a second, of the last three.
  get rate() {
    const last = this.rates.slice(-3);
    return last.length ? last.reduce((sum, one) => sum + one, 0) / last.length : 0;
  }

  // The histogram of some sources, of the last WINDOW_S; all there is where nothing came in it.
  buckets(sources) {
    const now = this.snapshots.at(-1);
    const then = this.snapshots.at(-1 - Math.min(WINDOW_S, this.snapshots.length - 1));
    const sum = (status) =>
      now.le_ms
        .concat(0)
        .map((_, at) => sources.reduce((all, source) => all + status.latency[source].buckets[at], 0));
    const [all, before] = [sum(now), sum(then)];
    const lately = all.map((value, at) => value - before[at]);
    return lately.some((value) => value > 0)
      ? { counts: lately, lately: true }
      : { counts: all, lately: false };
  }
}

// Read a quantile off a histogram, as if its buckets were filled evenly.
function quantile(counts, limits, share) {
  const total = counts.reduce((sum, value) => sum + value, 0);
  if (!total) return null;
  let before = 0;
  for (const [at, value] of counts.entries()) {
    if (value && before + value >= share * total) {
      if (at === limits.length) return limits.at(-1);
      const low = at ? limits[at - 1] : 0;
      return low + ((limits[at] - low) * (share * total - before)) / value;
    }
    before += value;
  }
  return limits.at(-1);
}
