// The key: entered once, kept for this tab, sent in a header and never in an address.

const KEY = "tallygate.key";
let heldKey = ""; // where the browser keeps nothing

function ownKey() {
  try {
    return sessionStorage.getItem(KEY) ?? heldKey;
  } catch {
    return heldKey;
  }
}

function keepKey(key) {
  heldKey = key;
  try {
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
  } catch {
    // It is held for as long as the page is.
  }
}

// Ask this server. Rejects where there is no answer. No word of `cache`: with "no-store" a browser
// sends cache-control: no-cache, and what is remembered would be asked again.
function ask(path, options = {}) {
  const key = ownKey();
  const headers = { ...options.headers };
  if (key) headers.authorization = `Bearer ${key}`;
  return fetch(path, {
    credentials: "omit",
    redirect: "error",
    referrerPolicy: "no-referrer",
    ...options,
    headers,
  });
}

// What an error says, in the server's own words.
async function faultOf(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `status ${response.status}`;
  }
}
