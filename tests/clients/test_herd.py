"""Many clients that ask the same thing at the same moment, through the official async SDK."""

import asyncio
from collections import Counter
from collections.abc import Callable

from anthropic import AsyncAnthropic

from bench.provider import SimulatedProvider, count_tokens
from tests.server import KEY, Tallygate

CLIENTS = 200


def test_a_herd_shares_one_upstream_call(
    provider: SimulatedProvider, start: Callable[..., Tallygate]
) -> None:
    params = {
        "model": "anthropic/claude-a",
        "api_key": "sk-ant-upstream",
        "api_base": provider.url,
    }
    server = start({"model_list": [{"model_name": "claude", "litellm_params": params}]})
    content = "Does anybody else want to know this?"
    answers: list[int] = []
    sources: Counter[str] = Counter()

    async def ask(client: AsyncAnthropic) -> None:
        reply = await client.messages.with_raw_response.count_tokens(
            model="claude", messages=[{"role": "user", "content": content}]
        )
        sources[reply.headers["x-tallygate-source"]] += 1
        answers.append((await reply.parse()).input_tokens)

    async def ask_together() -> None:
        sdk = AsyncAnthropic(base_url=server.url, api_key=KEY, max_retries=0)
        async with sdk as client, asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(ask(client))

    provider.behave(delay_s=5, times=1)
    asyncio.run(ask_together())
    assert provider.calls == 1
    expected = count_tokens({"messages": [{"role": "user", "content": content}]})
    assert answers == [expected] * CLIENTS
    assert sources == {"live": 1, "coalesced": CLIENTS - 1}
