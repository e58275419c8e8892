// Counts as a user of the official TypeScript SDK does: one JSON line in, one JSON line out.
// The lines are those of ask.py beside this folder.

import readline from "node:readline";
import Anthropic from "@anthropic-ai/sdk";

const clients = new Map();

async function ask({ url, key, how, max_retries, arguments: fields, betas }) {
  const options = { baseURL: url, apiKey: key };
  if (max_retries !== undefined) options.maxRetries = max_retries;
  const identity = JSON.stringify(options);
  if (!clients.has(identity)) clients.set(identity, new Anthropic(options));
  const client = clients.get(identity);
  try {
    const counted = how.includes("beta")
      ? await client.beta.messages.countTokens({ ...fields, betas })
      : await client.messages.countTokens(fields);
    return { answer: counted, request_id: counted._request_id };
  } catch (error) {
    if (!(error instanceof Anthropic.APIError)) throw error;
    return { error: described(error) };
  }
}

function described(error) {
  const classes = [];
  for (let kind = error.constructor; kind.name; kind = Object.getPrototypeOf(kind)) {
    classes.push(kind.name);
  }
  return {
    classes,
    status: error.status,
    type: error.error.error.type,
    message: error.error.error.message,
    request_id: error.requestID,
    retry_after: error.headers.get("retry-after"),
  };
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await ask(JSON.parse(line))));
}
