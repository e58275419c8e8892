"""The list of fields that a count does not take, held against the SDK's own types."""

from typing import get_type_hints

import anthropic.types.beta.message_count_tokens_params as beta_count
import anthropic.types.beta.message_create_params as beta_create
import anthropic.types.message_count_tokens_params as count
import anthropic.types.message_create_params as create

from cache.key import NOT_COUNTED

# Older SDKs, and so clients, have these (anthropic 0.125); and those that name the end user.
NOT_OF_THE_SDK = {"temperature", "top_k", "top_p"}
END_USERS = {"litellm_metadata", "safety_identifier", "user"}
# A count without what it stands for would be wrong: it goes on, and the provider refuses it.
DECIDES_THE_NUMBER = {"thread"}


def of_inference_alone() -> set[str]:
    asked: set[str] = set()
    for one in (create, beta_create):
        asked |= get_type_hints(one.MessageCreateParamsNonStreaming).keys()
        asked |= get_type_hints(one.MessageCreateParamsStreaming).keys()
    counted = get_type_hints(count.MessageCountTokensParams).keys()
    return asked - counted - get_type_hints(beta_count.MessageCountTokensParams).keys() - {"betas"}


def test_a_field_that_the_sdk_asks_with_and_does_not_count_is_known() -> None:
    assert of_inference_alone() - NOT_OF_THE_SDK == (
        NOT_COUNTED - NOT_OF_THE_SDK - END_USERS | DECIDES_THE_NUMBER
    )


def test_nothing_else_is_left_out() -> None:
    assert NOT_COUNTED >= NOT_OF_THE_SDK | END_USERS
    assert not NOT_COUNTED & DECIDES_THE_NUMBER
