// The tables: each is built anew from what the server says, and only when that has changed.

const shownRows = new Map();

function cell(column, content) {
  const attributes = { role: "cell", "data-label": column.name };
  const classes = [column.right && "right", column.roomy && "roomy", content === "" && "none"];
  attributes.class = classes.filter(Boolean).join(" ") || undefined;
  return make("td", attributes, content);
}

// A table of `columns` ({name, right, roomy, width}), of which a roomy one is left out where there is
// little room; a row is a list of texts or elements, its first
// one the row's head.
function table(id, columns, rows, basis) {
  const written = JSON.stringify(basis);
  const node = byId(id);
  node.hidden = rows.length === 0;
  if (shownRows.get(id) === written) return;
  shownRows.set(id, written);
  const heads = columns.map((one) =>
    make(
      "th",
      {
        scope: "col",
        role: "columnheader",
        class:
          [one.right && "right", one.roomy && "roomy", one.width].filter(Boolean).join(" ") ||
          undefined,
      },
      one.name,
    ),
  );
  const lines = rows.map(([first, ...rest]) =>
    make(
      "tr",
      { role: "row" },
      make("th", { scope: "row", role: "rowheader" }, first),
      ...rest.map((content, at) => cell(columns[at + 1], content)),
    ),
  );
  node.replaceChildren(
    make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...heads)),
    make("tbody", { role: "rowgroup" }, ...lines),
  );
}

function under(text, small) {
  return make("div", {}, text, make("small", {}, small));
}

const HEALTH = {
  closed: "answers",
  cooling: "limits us",
  open: "left alone",
  probing: "being tried",
  unusable: "no credential",
  estimate: "counts here",
};

function health(one) {
  const left = one.left_s > 0 ? `, ${Math.ceil(one.left_s)} s` : "";
  const dot = make("span", { class: `dot ${one.state}`, "aria-hidden": "true" });
  return make("span", { class: "health" }, dot, HEALTH[one.state] + left);
}

function budget(rpm) {
  if (!rpm) return make("span", { class: "muted" }, "no limit");
  const low = rpm.left < rpm.burst / 4;
  const meter = make("div", { class: "meter", "aria-hidden": "true" });
  meter.append(bar(rpm.left / rpm.burst, low ? "fill low" : "fill"));
  const waiting = rpm.waiting ? `, ${number(rpm.waiting)} waiting` : "";
  const said = `${number(rpm.left)} of ${number(rpm.burst)} free now${waiting}`;
  return make("div", {}, `${number(rpm.limit)} a minute`, meter, make("small", {}, said));
}

function lastError(one, now) {
  const error = one.last_error;
  if (!error) return make("span", { class: "muted" }, "none");
  return under(
    `${error.status} ${error.type}`,
    `${error.reason ? `${error.reason}, ` : ""}${duration(now - error.time_s)} ago`,
  );
}

function showDeployments(status) {
  const columns = [
    { name: "Deployment", width: "w-name" },
    { name: "Health" },
    { name: "Budget left", width: "w-budget" },
    { name: "Calls", right: true },
    { name: "Failed", right: true },
    { name: "Last error", width: "w-error" },
  ];
  const rows = status.deployments.map((one) => [
    under(one.alias, `${one.provider} · ${one.upstream_model}`),
    health(one),
    one.state === "estimate" ? make("span", { class: "muted" }, "asks nobody") : budget(one.rpm),
    number(one.calls),
    number(one.failures + one.limited),
    lastError(one, status.time_s),
  ]);
  const ages = status.deployments.map((one) =>
    one.last_error ? duration(status.time_s - one.last_error.time_s) : "",
  );
  table("deployments", columns, rows, [status.deployments, ages]);
  const asked = status.deployments.filter((one) => one.state !== "estimate");
  const well = asked.filter((one) => one.state === "closed").length;
  put("deployments-about", asked.length ? `${well} of ${asked.length} answer` : "");
}

function ranked(name, detail, value, most) {
  const line = under(name, detail);
  line.append(make("div", { class: "bar", "aria-hidden": "true" }, bar(value / most)));
  return line;
}

function showModels(status) {
  const top = status.models
    .filter((one) => one.requests)
    .sort((a, b) => b.requests - a.requests)
    .slice(0, 10);
  const columns = [{ name: "Model" }, { name: "Requests", right: true }, { name: "Hits", right: true }];
  const rows = top.map((one) => {
    const counted = Object.values(one.counts).reduce((sum, value) => sum + value, 0);
    const refused = one.requests - counted;
    return [
      ranked(one.name, refused ? `${number(refused)} refused` : "", one.requests, top[0].requests),
      number(one.requests),
      percent(one.counts.cache ?? 0, counted),
    ];
  });
  table("models", columns, rows, top);
  byId("models-empty").hidden = top.length > 0;
}

const REASONS = {
  authentication_error: "no key, or a wrong one",
  permission_error: "a model that this key may not use",
  not_found_error: "a model that is not configured",
  client_closed: "the client left without its answer",
};

// Errors that differ in nothing but their time are one row.
function grouped(errors) {
  const groups = new Map();
  for (const one of errors) {
    const like = JSON.stringify([one.status, one.type, one.reason, one.model, one.deployment, one.caller]);
    const known = groups.get(like);
    if (known) known.times += 1;
    else groups.set(like, { ...one, times: 1 });
  }
  return [...groups.values()].slice(0, 12);
}

function showErrors(status) {
  const columns = [
    { name: "Error" },
    { name: "Model" },
    { name: "Deployment" },
    { name: "Key" },
    { name: "Last request", roomy: true },
    { name: "When", right: true },
  ];
  const errors = grouped(status.recent_errors);
  const ages = errors.map((one) => `${duration(status.time_s - one.time_s)} ago`);
  const rows = errors.map((one, at) => [
    under(
      `${one.status} ${one.type}${one.times > 1 ? ` × ${one.times}` : ""}`,
      one.reason || (REASONS[one.type] ?? ""),
    ),
    one.model,
    one.deployment,
    one.caller,
    make("span", { class: "mono muted" }, one.request_id),
    make("span", { title: new Date(one.time_s * 1000).toISOString() }, ages[at]),
  ]);
  table("errors", columns, rows, [errors, ages]);
  byId("errors-empty").hidden = errors.length > 0;
  const all = Object.values(status.totals.errors).reduce((sum, value) => sum + value, 0);
  put("errors-about", all ? `${number(all)} since the start` : "");
}

function showUsers(rows) {
  const most = Math.max(1, ...rows.map((one) => one.requests));
  const columns = [{ name: "End user" }, { name: "Requests", right: true }, { name: "Tokens", right: true }];
  const lines = rows.map((one) => [
    ranked(
      one.end_user || "not named",
      `${number(one.upstream_calls_saved)} calls saved${one.errors ? `, ${number(one.errors)} refused` : ""}`,
      one.requests,
      most,
    ),
    number(one.requests),
    number(one.input_tokens),
  ]);
  table("users", columns, lines, rows);
}
