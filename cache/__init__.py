"""Remembers counts. Knows bytes and integers only; nothing of app/ or adapters/."""
