"""A question of Anthropic's format in Google's own types: a second hand beside the adapters'."""

from base64 import b64decode
from typing import Any

from google.genai import types

ROLES = {"user": "user", "assistant": "model"}
LEFT_OUT = {"thinking", "redacted_thinking"}
"""Claude's own reasoning, which its signature ties to Claude."""


def google_contents(question: dict[str, Any]) -> list[types.Content]:
    """Write the messages as a user of google-genai would."""
    names = {
        block["id"]: block["name"]
        for message in question["messages"]
        for block in _blocks(message["content"])
        if block["type"] == "tool_use"
    }
    return [
        types.Content(
            role=ROLES[message["role"]],
            parts=[part for block in _blocks(message["content"]) for part in _parts(block, names)],
        )
        for message in question["messages"]
    ]


def google_config(question: dict[str, Any]) -> types.CountTokensConfig | None:
    """Write system and tools, which only Vertex AI's client takes; ``tool_choice`` neither does."""
    system = [part for block in _blocks(question.get("system", "")) for part in _parts(block, {})]
    functions = [
        types.FunctionDeclaration(
            name=tool["name"],
            description=tool["description"],
            parameters_json_schema=tool["input_schema"],
        )
        for tool in question.get("tools", [])
    ]
    if not system and not functions:
        return None
    return types.CountTokensConfig(
        system_instruction=types.Content(parts=system) if system else None,
        tools=[types.Tool(function_declarations=functions)] if functions else None,
    )


def _blocks(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, list):
        return content
    return [{"type": "text", "text": content}] if content else []


def _parts(block: dict[str, Any], names: dict[str, str]) -> list[types.Part]:
    match block["type"]:
        case "text":
            return [types.Part(text=block["text"])]
        case "image" | "document":
            title = [types.Part(text=block["title"])] if "title" in block else []
            source = block["source"]
            data = b64decode(source["data"])
            return [*title, types.Part.from_bytes(data=data, mime_type=source["media_type"])]
        case "tool_use":
            call = types.FunctionCall(id=block["id"], name=block["name"], args=block["input"])
            return [types.Part(function_call=call)]
        case "tool_result":
            (text,) = (part["text"] for part in _blocks(block["content"]))
            id_ = block["tool_use_id"]
            response = types.FunctionResponse(id=id_, name=names[id_], response={"output": text})
            return [types.Part(function_response=response)]
        case left_out:
            assert left_out in LEFT_OUT
            return []
