"""What may stand where, by the newest Anthropic SDK: the places that blocks and sources have.

The kinds themselves, and their fields, are decided on in test_gemini_vocabulary.py.
"""

from collections.abc import Iterable
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from anthropic.types import (
    base64_image_source_param,
    base64_pdf_source_param,
    content_block_source_param,
    message_count_tokens_params,
    message_param,
    plain_text_source_param,
    search_result_block_param,
)
from anthropic.types.beta import (
    beta_base64_image_source_param,
    beta_base64_pdf_source_param,
    beta_content_block_source_param,
    beta_message_param,
    beta_plain_text_source_param,
    beta_search_result_block_param,
)
from anthropic.types.beta import message_count_tokens_params as beta_count_tokens_params

from adapters._gemini_blocks import (
    DROPPED,
    FIELDS,
    IMAGES,
    IN_DOCUMENT,
    IN_MESSAGE,
    PDFS,
    TEXT_ONLY,
)
from adapters._gemini_wire import MESSAGE
from tests.contract.test_gemini_vocabulary import (
    CANNOT,
    REFUSED_BLOCKS,
    literals,
    refusal,
    union_members,
    user,
    variants,
)

MESSAGES = [
    *union_members(message_param.MessageParam),
    *union_members(beta_message_param.BetaMessageParam),
]
REFUSED_IN_MESSAGES = {"clear_at", "output_config"}
REFUSED_FOR_SYSTEM = {"tool_addition", "tool_removal"}
REQUESTS = (
    message_count_tokens_params.MessageCountTokensParams,
    beta_count_tokens_params.MessageCountTokensParams,
)


def held(*owners: Any, field: str = "content") -> set[str]:
    """List the kinds of blocks that a field of these types may hold in a list."""
    return {kind for owner in owners for kind in variants(_items(get_type_hints(owner)[field]))}


def _items(hint: Any) -> Any:
    (items,) = (get_args(one)[0] for one in union_members(hint) if get_origin(one) is Iterable)
    return items


def by_role(role: str) -> list[Any]:
    found = [one for one in MESSAGES if literals(get_type_hints(one)["role"]) == [role]]
    assert len(found) == 2
    return found


def test_every_role_and_every_field_of_a_message_is_decided_on() -> None:
    roles = {role for one in MESSAGES for role in literals(get_type_hints(one)["role"])}
    assert roles == {"user", "assistant", "system"}
    fields = {field for one in MESSAGES for field in get_type_hints(one)}
    assert fields == MESSAGE.mapped | MESSAGE.dropped | REFUSED_IN_MESSAGES
    for field in REFUSED_IN_MESSAGES:
        said = refusal({"messages": [{"role": "system", "content": "a", field: "x"}]})
        assert said == f"messages.0.{field}: {CANNOT}"


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_every_kind_in_a_turn_is_decided_on(role: str) -> None:
    assert held(*by_role(role)) == IN_MESSAGE | REFUSED_BLOCKS
    assert FIELDS.keys() | DROPPED == IN_MESSAGE


def test_every_kind_in_a_system_prompt_is_decided_on() -> None:
    assert held(*REQUESTS, field="system") == TEXT_ONLY
    assert held(*by_role("system")) == TEXT_ONLY | REFUSED_FOR_SYSTEM
    for kind in REFUSED_FOR_SYSTEM:
        said = refusal({"messages": [{"role": "system", "content": [{"type": kind}]}]})
        assert said == f"messages.0.content.0: block type '{kind}' {CANNOT}"


def test_every_kind_within_a_block_is_decided_on() -> None:
    documents = (
        content_block_source_param.ContentBlockSourceParam,
        beta_content_block_source_param.BetaContentBlockSourceParam,
    )
    assert held(*documents) == IN_DOCUMENT
    results = (
        search_result_block_param.SearchResultBlockParam,
        beta_search_result_block_param.BetaSearchResultBlockParam,
    )
    assert held(*results) == TEXT_ONLY


def media_types(*sources: Any) -> set[str]:
    hints = [get_type_hints(source) for source in sources]
    assert all(hint.keys() == {"type", "media_type", "data"} for hint in hints)
    assert all(get_origin(hint["media_type"]) is Literal for hint in hints)
    return {kind for hint in hints for kind in literals(hint["media_type"])}


def test_every_media_type_is_decided_on() -> None:
    images = (
        base64_image_source_param.Base64ImageSourceParam,
        beta_base64_image_source_param.BetaBase64ImageSourceParam,
    )
    assert media_types(*images) == IMAGES
    pdfs = (
        base64_pdf_source_param.Base64PDFSourceParam,
        beta_base64_pdf_source_param.BetaBase64PDFSourceParam,
    )
    assert media_types(*pdfs) == PDFS
    texts = (
        plain_text_source_param.PlainTextSourceParam,
        beta_plain_text_source_param.BetaPlainTextSourceParam,
    )
    assert media_types(*texts) == {"text/plain"}


NEW_MEDIA = {"data": "AAAA", "media_type": "image/brand-new"}
GAINED = [
    ({"type": "image", "source": {"type": "base64", **NEW_MEDIA}}, "source.media_type"),
    ({"type": "document", "source": {"type": "base64", **NEW_MEDIA}}, "source.media_type"),
    ({"type": "document", "source": {"type": "text", **NEW_MEDIA}}, "source.media_type"),
    ({"type": "document", "source": {"type": "text", "data": "a", "new": 1}}, "source.new"),
]


@pytest.mark.parametrize(("block", "place"), GAINED)
def test_what_a_source_gains_is_refused_by_its_place(block: dict[str, Any], place: str) -> None:
    assert refusal({"messages": user(block)}).startswith(f"messages.0.content.1.{place}: ")
