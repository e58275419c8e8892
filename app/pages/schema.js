// JSON schemas as nested lists: name, type, what may be in it.

const DEEPEST = 6;
let root = {};

function resolved(schema) {
  let found = schema ?? {};
  for (let hops = 0; found.$ref && hops < DEEPEST; hops += 1) {
    found = found.$ref.slice(2).split("/").reduce((node, step) => node?.[step], root) ?? {};
  }
  return found;
}

const nameOf = (schema) => schema?.$ref?.split("/").at(-1) ?? "";

// Say in a few words what a value is.
function typeOf(schema) {
  if (schema?.$ref) return typeOf(resolved(schema));
  const any = schema?.anyOf ?? schema?.oneOf;
  if (any) return [...new Set(any.map(typeOf))].join(" or ");
  if (schema?.const !== undefined) return JSON.stringify(schema.const);
  if (schema?.enum) return schema.enum.map((one) => (one === null ? "null" : String(one))).join(" | ");
  if (schema?.type === "array") return `array of ${typeOf(schema.items ?? {})}`;
  if (schema?.type === "object" && schema.additionalProperties?.type) {
    return `object of ${typeOf(schema.additionalProperties)}`;
  }
  return [schema?.type ?? "any"].flat().join(" or ");
}

function bounds(schema) {
  const said = [];
  if (schema.minimum !== undefined) said.push(`from ${schema.minimum}`);
  if (schema.maximum !== undefined) said.push(`to ${schema.maximum}`);
  if (schema.minLength !== undefined) said.push(`at least ${schema.minLength} characters`);
  if (schema.minItems !== undefined) said.push(`at least ${schema.minItems}`);
  if (schema.pattern) said.push(`matches ${schema.pattern}`);
  if (schema.default !== undefined && schema.default !== null) said.push(`default ${JSON.stringify(schema.default)}`);
  if (schema.examples) said.push(`such as ${schema.examples.join(", ")}`);
  return said.join(", ");
}

// Find the object that is shown beneath a member: itself, an array's item, or one of several.
function inner(schema) {
  const found = resolved(schema);
  if (found.properties) return found;
  if (found.items) return inner(found.items);
  if (found.additionalProperties && typeof found.additionalProperties === "object") {
    return inner(found.additionalProperties);
  }
  const some = (found.anyOf ?? found.oneOf ?? []).map(inner);
  return some.find(Boolean) ?? null;
}

function member(name, schema, required, depth) {
  const found = resolved(schema);
  const said = [typeOf(schema), required && "required"].filter(Boolean).join(", ");
  const line = make("li", {}, make("code", {}, name), make("span", { class: "type" }, said));
  const more = [schema?.description ?? found.description, bounds(found)].filter(Boolean).join("; ");
  if (more) line.append(make("p", {}, more));
  const beneath = depth < DEEPEST ? inner(schema) : null;
  if (beneath) line.append(members(beneath, depth + 1));
  return line;
}

function members(schema, depth = 0) {
  const found = resolved(schema);
  const required = new Set(found.required ?? []);
  const lines = Object.entries(found.properties ?? {}).map(([name, one]) =>
    member(name, one, required.has(name), depth),
  );
  return make("ul", { class: "members" }, ...lines);
}
