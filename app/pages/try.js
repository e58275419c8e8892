// The box: one prompt, counted by every model side by side.

const MAX_MODELS = 40;
const AT_A_TIME = 4;

// Make a body of what was pasted: a JSON object that holds messages, or else a prompt.
function bodyOf(text) {
  try {
    const parsed = JSON.parse(text);
    if (parsed !== null && typeof parsed === "object" && Array.isArray(parsed.messages)) return parsed;
  } catch {
    // No JSON: a prompt.
  }
  return { messages: [{ role: "user", content: text }] };
}

async function modelsFor(body) {
  const response = await ask("/v1/models");
  if (!response.ok) throw new Error(await faultOf(response));
  const names = (await response.json()).data.map((one) => one.id);
  const plain = names.filter((name) => !name.includes("*"));
  // A wildcard stands for names that only the one who asks knows: that of the body is one.
  const own = typeof body.model === "string" && body.model ? [body.model] : [];
  return { models: [...new Set([...own, ...plain])].slice(0, MAX_MODELS), wild: names.length - plain.length };
}

async function countOne(model, body) {
  const started = performance.now();
  try {
    const response = await ask("/v1/messages/count_tokens", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ ...body, model }),
    });
    const fault = response.ok ? "" : await faultOf(response);
    const tokens = response.ok ? (await response.json()).input_tokens : null;
    const took = performance.now() - started;
    const source = response.headers.get("x-tallygate-source") ?? "error";
    const counter = response.headers.get("x-tallygate-model") ?? "";
    return { model, counter, tokens, source, took, fault };
  } catch {
    return { model, counter: "", tokens: null, source: "error", took: null, fault: "the server does not answer" };
  }
}

function showTried(results) {
  const most = Math.max(1, ...results.map((one) => one?.tokens ?? 0));
  const columns = [
    { name: "Model", width: "w-name" },
    { name: "Tokens", right: true },
    { name: "Source" },
    { name: "Time", right: true },
    { name: "Compared", width: "w-error" },
  ];
  const rows = results.map((one) => {
    if (one.waiting) return [one.model, "…", "", "", ""];
    const pill = make(
      "span",
      { class: "pill" },
      make("i", { class: `of-${one.source}`, "aria-hidden": "true" }),
      one.fault ? "refused" : one.source,
    );
    const beside = one.fault
      ? make("span", { class: "bad" }, one.fault)
      : make("div", { class: "meter", "aria-hidden": "true" }, bar(one.tokens / most));
    return [
      one.counter && one.counter !== one.model ? under(one.model, one.counter) : one.model,
      one.tokens === null ? "–" : number(one.tokens),
      pill,
      milliseconds(one.took),
      beside,
    ];
  });
  table("tried", columns, rows, results);
}

async function tryIt() {
  const text = byId("prompt").value;
  if (!text.trim()) {
    put("try-state", "Paste something first.");
    byId("prompt").focus();
    return;
  }
  const body = bodyOf(text);
  byId("count").disabled = true;
  put("try-hint", "");
  put("try-state", "Counting…");
  try {
    const { models, wild } = await modelsFor(body);
    if (!models.length) throw new Error("this key has no model that can be named; put one into a JSON body as “model”");
    const results = models.map((model) => ({ model, waiting: true }));
    showTried(results);
    const rest = [...models.keys()];
    const work = async () => {
      for (let at = rest.shift(); at !== undefined; at = rest.shift()) {
        results[at] = await countOne(models[at], body);
        showTried(results);
      }
    };
    await Promise.all(Array.from({ length: AT_A_TIME }, work));
    const counted = results.filter((one) => !one.fault).length;
    put("try-state", `${counted} of ${models.length} counted it.`);
    if (wild) put("try-hint", `${wild} wildcard name${wild > 1 ? "s are" : " is"} left out.`);
  } catch (error) {
    put("try-state", `Not counted: ${error.message}`);
  } finally {
    byId("count").disabled = false;
  }
}

byId("try-form").addEventListener("submit", (event) => {
  event.preventDefault();
  tryIt();
});
byId("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    if (!byId("count").disabled) tryIt();
  }
});
