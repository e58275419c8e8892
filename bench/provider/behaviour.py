"""What a simulated provider can be told to do instead of answering truly and at once."""

from typing import Annotated, Any

from msgspec import Meta, Struct

_Seconds = Annotated[float, Meta(ge=0)]
_Latin1 = Annotated[str, Meta(pattern=r"^[\x00-\xff]*\Z")]


class Behaviour(Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One departure from normal; its fields combine.

    - ``delay_s``: wait that long before anything else.
    - ``status``: the provider's own error of that status; with ``body`` (text, bytes or a JSON
      value) exactly that answer. ``headers`` are set on that or on the true answer; null removes.
    - ``raw``: write these bytes (one character is one byte) instead of an answer, then close.
    - ``truncate_bytes``: send that many bytes of the answer, its head included, then close; a
      negative number leaves off that many at the end.
    - ``drip_s``: send one byte each so many seconds.
    - ``hang``: never answer. ``reset``: end the connection with a TCP reset.
    - ``times``: only the next so many requests. ``model``: only requests about this model.
    """

    delay_s: _Seconds = 0.0
    status: Annotated[int, Meta(ge=200, le=599)] | None = None
    body: Any = None
    headers: dict[_Latin1, _Latin1 | None] = {}
    raw: _Latin1 | None = None
    truncate_bytes: int | None = None
    drip_s: _Seconds = 0.0
    hang: bool = False
    reset: bool = False
    times: Annotated[int, Meta(ge=1)] | None = None
    model: str | None = None
