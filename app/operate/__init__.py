"""``python -m app cache``: look at what is remembered, carry it, forget it, check it."""
