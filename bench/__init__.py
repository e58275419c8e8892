"""Speaks HTTP only: simulated providers, load, scenarios, reports. Imports nothing of the proxy."""
