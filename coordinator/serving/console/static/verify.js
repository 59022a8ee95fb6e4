// Checks a certificate's signature in the browser (WebCrypto, Ed25519), where it can.
// Source: DSSE v1, pre-authentication encoding.
"use strict";

const bytes = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));

function encoded(type, payload) {
  const head = new TextEncoder().encode(`DSSEv1 ${new TextEncoder().encode(type).length} ${type} ${payload.length} `);
  const whole = new Uint8Array(head.length + payload.length);
  whole.set(head);
  whole.set(payload, head.length);
  return whole;
}

function importKey(pem) {
  const body = pem.replace(/-----[^-]+-----/g, "").replace(/\s/g, "");
  return crypto.subtle.importKey("spki", bytes(body), { name: "Ed25519" }, false, ["verify"]);
}

async function holds(envelope, keys) {
  const message = encoded(envelope.payloadType, bytes(envelope.payload));
  for (const signature of envelope.signatures) {
    const key = keys.find((one) => one.key_id === signature.keyid);
    if (key && await crypto.subtle.verify("Ed25519", await importKey(key.pem), bytes(signature.sig), message)) return true;
  }
  return false;
}

async function report(element) {
  if (!globalThis.crypto?.subtle) return;
  const load = async (address) => (await fetch(address)).json();
  try {
    const [envelope, keys] = await Promise.all([load(element.dataset.envelope), load(element.dataset.keys)]);
    const good = await holds(envelope, keys.keys);
    element.className = good ? "good" : "bad";
    element.textContent = good
      ? "✓ Your browser checked the signature too, with the key that this server names."
      : "✕ Your browser could not confirm the signature.";
  } catch (error) {
    element.textContent = `Your browser cannot check the signature itself (${error.name}).`;
  }
}

const element = document.getElementById("in-browser");
if (element) report(element);
