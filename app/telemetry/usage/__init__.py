"""The ledger: who asked how much, minute by minute; every count is in it, hits of the lane too."""

from app.telemetry.usage.cells import Cell, Names
from app.telemetry.usage.file import UsageFile
from app.telemetry.usage.ledger import Usage

__all__ = ["Cell", "Names", "Usage", "UsageFile"]
