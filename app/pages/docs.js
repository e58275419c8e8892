// /openapi.json, readably: what to send, what comes back, and a command to try.

const HELLO = '{"model": "claude-3-5-sonnet", "messages": [{"role": "user", "content": "Hello, how are you?"}]}';
const anchor = (method, path) => `${method}${path.replaceAll(/[^a-z0-9]+/gi, "-")}`.replace(/-$/, "");

function command(method, path, operation) {
  const lines = [`curl ${location.origin}${path}`];
  if (operation.security) lines.push('  -H "authorization: Bearer $KEY"');
  if (operation.requestBody) {
    lines.push('  -H "content-type: application/json"', `  -d '${HELLO}'`);
  } else if (method === "post") {
    lines.push("  -X POST");
  }
  return lines.join(" \\\n");
}

function example(text) {
  const button = make("button", { type: "button" }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      put(button, "Copied");
    } catch {
      put(button, "Select it");
    }
    setTimeout(() => put(button, "Copy"), 2000);
  });
  // Who cannot use a mouse scrolls what has the focus.
  const shown = make("pre", { tabindex: "0", role: "region", "aria-label": "Example command" }, text);
  return [make("div", { class: "over" }, make("h3", {}, "Example"), button), shown];
}

function response(status, given) {
  const found = resolved(given);
  const line = make(
    "summary",
    {},
    make("code", { class: `code-${status[0]}` }, status),
    make("span", {}, given.description ?? found.description ?? ""),
  );
  const inside = make("div", { class: "inside" });
  for (const [type, { schema }] of Object.entries(found.content ?? {})) {
    const name = nameOf(schema) || typeOf(schema);
    inside.append(make("p", { class: "heads" }, `${type}: ${name}`));
    if (inner(schema)) inside.append(members(schema));
  }
  const heads = Object.keys(found.headers ?? {});
  if (heads.length) inside.append(make("p", { class: "heads" }, `Headers: ${heads.join(", ")}`));
  const shown = make("details", {}, line, inside);
  shown.open = status === "200";
  return shown;
}

function operationCard(method, path, operation) {
  const id = anchor(method, path);
  const title = make("h2", {}, make("span", { class: `method ${method}` }, method.toUpperCase()));
  title.append(make("a", { href: `#${id}` }, path));
  const card = make("section", { class: "card operation", id, "aria-label": `${method} ${path}` }, title);
  const key = operation.security ? " Needs a key." : "";
  card.append(make("p", {}, `${operation.summary}.${key}`));
  card.append(...example(command(method, path, operation)));
  if (operation.parameters?.length) {
    const lines = operation.parameters.map((one) => member(one.name, one.schema, one.required, 0));
    card.append(make("h3", {}, "Headers that it reads"), make("ul", { class: "members" }, ...lines));
  }
  const body = operation.requestBody?.content?.["application/json"]?.schema;
  if (body) card.append(make("h3", {}, "Body"), members(body));
  card.append(make("h3", {}, "Answers"));
  const statuses = Object.entries(operation.responses).sort(([a], [b]) => a.localeCompare(b));
  card.append(...statuses.map(([status, given]) => response(status, given)));
  return card;
}

function showDocument(api) {
  root = api;
  put("about", api.info.description);
  put("keys", Object.keys(api.components.securitySchemes).join(", "));
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      byId("operations").append(operationCard(method, path, operation));
      const link = make("a", { href: `#${anchor(method, path)}` });
      link.append(make("span", { class: `method ${method}` }, method.toUpperCase()), path);
      byId("contents").append(make("li", {}, link));
    }
  }
  put("state", "");
  // What the address points at was not there before.
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

async function readDocument() {
  for (let wait = 500; ; wait = Math.min(wait * 2, 8000)) {
    try {
      const answer = await fetch("/openapi.json", { credentials: "omit", redirect: "error" });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      return showDocument(await answer.json());
    } catch {
      put("state", "The server does not answer. Trying again…");
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}

readDocument();
