"""``python -m app``: serve, check, count, cache, usage.

python -m app serve --workers 8
python -m app check config.yaml
echo "Hello, how are you?" | python -m app count - --model local-estimate
python -m app cache stats
python -m app usage --since 7d --group-by key,model
"""

import argparse
import os
import sys
import time
from pathlib import Path

import httpx
import msgspec

from app.config import ConfigError, Settings, load
from app.operate.commands import add_cache_commands
from app.operate.usage import add_usage_command
from app.operate.verify import Reply, verify
from app.server import start_table

COUNT = "/v1/messages/count_tokens"
COUNT_TIMEOUT_S = 600


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 not understood."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m app", description="Tallygate")
    commands = parser.add_subparsers(required=True, metavar="serve | check | count | cache | usage")

    serve = commands.add_parser("serve", help="serve until SIGTERM")
    serve.add_argument("--config", help="default: $TALLYGATE_CONFIG, else ./config.yaml")
    serve.add_argument("--host", help="default: server.host of the configuration")
    serve.add_argument("--port", type=int, help="default: server.port of the configuration")
    serve.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    serve.set_defaults(run=_serve)

    check = commands.add_parser("check", help="validate a configuration without serving")
    check.add_argument("config", nargs="?", help="default: $TALLYGATE_CONFIG, else ./config.yaml")
    check.set_defaults(run=_check)

    count = commands.add_parser("count", help="count through a running server")
    count.add_argument("file", help="a request body, or plain text; - is standard input")
    count.add_argument("--model", help="in place of the body's own; needed for plain text")
    _add_server_options(count)
    count.set_defaults(run=_count)

    add_usage_command(commands)
    verify_ = add_cache_commands(commands).add_parser(
        "verify", help="count bodies again, and compare with what a running server remembers"
    )
    verify_.add_argument("file", help="NDJSON: a request body in each line; - is standard input")
    _add_server_options(verify_)
    verify_.set_defaults(run=_verify)
    return parser


def _add_server_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", help="default: where the configuration's server listens")
    parser.add_argument("--key", help="default: $TALLYGATE_KEY, else the configured master key")


def _serve(options: argparse.Namespace) -> int:
    """Become ``sanic app.main``, so that there is one way to serve."""
    if options.config:
        os.environ["TALLYGATE_CONFIG"] = str(Path(options.config).resolve())
    load()  # a bad configuration ends here, before anything starts
    command = [sys.executable, "-m", "sanic", "app.main", "--workers", str(options.workers)]
    if options.host:
        command += ["--host", options.host]
    if options.port:
        command += ["--port", str(options.port)]
    sys.stderr.flush()
    os.execv(sys.executable, command)  # noqa: S606 -- our own interpreter, our own arguments


def _check(options: argparse.Namespace) -> int:
    settings = load(options.config)
    settings.callbacks()
    print(start_table(settings))
    for notice in settings.notices:
        print(f"{settings.source}: {notice}", file=sys.stderr)
    print(f"{settings.source}: valid")
    return 0


def _count(options: argparse.Namespace) -> int:
    url, headers = _server(options)
    try:
        body = _body(options)
    except (OSError, ValueError) as error:
        print(f"{options.file}: {error}", file=sys.stderr)
        return 2
    started = time.perf_counter()
    try:
        reply = httpx.post(
            f"{url}{COUNT}",
            content=body,
            headers=headers,
            timeout=COUNT_TIMEOUT_S,
        )
    except httpx.HTTPError as error:
        print(f"{url}: {type(error).__name__}; is the server running?", file=sys.stderr)
        return 1
    took_ms = (time.perf_counter() - started) * 1000
    if reply.status_code != httpx.codes.OK:
        print(f"{reply.status_code}: {_message(reply.content)}", file=sys.stderr)
        return 1
    tokens = msgspec.json.decode(reply.content)["input_tokens"]
    print(f"{tokens}\t{reply.headers['x-tallygate-source']}\t{took_ms:.1f} ms")
    return 0


def _verify(options: argparse.Namespace) -> int:
    url, headers = _server(options)
    try:
        text = _text(options)
    except OSError as error:
        print(f"{options.file}: {error}", file=sys.stderr)
        return 2
    bodies = [(at, line) for at, line in enumerate(text.split(b"\n"), 1) if line.strip()]
    with httpx.Client(headers=headers, timeout=COUNT_TIMEOUT_S) as client:

        def ask(body: bytes, cache_control: str) -> Reply:
            try:
                reply = client.post(
                    f"{url}{COUNT}", content=body, headers={"cache-control": cache_control}
                )
            except httpx.ConnectError:
                raise
            except httpx.HTTPError as error:
                return Reply(0, b"", type(error).__name__)
            told = reply.headers.get
            counter = f"{told('x-tallygate-provider')} {told('x-tallygate-model')}"
            source = told("x-tallygate-source", "")
            return Reply(reply.status_code, reply.content, source, counter)

        try:
            code = verify(bodies, ask)
        except httpx.ConnectError as error:
            print(f"{url}: {type(error).__name__}; is the server running?", file=sys.stderr)
            return 1
    print(f"through {url}", file=sys.stderr)
    return code


def _server(options: argparse.Namespace) -> tuple[str, dict[str, str]]:
    """Say where the server is, and what is sent with every question. Raises ConfigError."""
    settings = _settings_if_needed(options)
    key = options.key or os.environ.get("TALLYGATE_KEY")
    if key is None and settings is not None and settings.master_key is not None:
        key = settings.master_key.reveal()
    headers = {"content-type": "application/json", **({"x-api-key": key} if key else {})}
    return options.url or _own_url(settings), headers


def _settings_if_needed(options: argparse.Namespace) -> Settings | None:
    """Read the configuration only for what the command line leaves open."""
    if options.url and (options.key or os.environ.get("TALLYGATE_KEY")):
        return None
    try:
        return load()
    except ConfigError:
        if options.url:
            return None
        raise


def _own_url(settings: Settings | None) -> str:
    host, port = (settings.server.host, settings.server.port) if settings else ("127.0.0.1", 4000)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _text(options: argparse.Namespace) -> bytes:
    """Read the named file, or standard input. Raises OSError."""
    return sys.stdin.buffer.read() if options.file == "-" else Path(options.file).read_bytes()


def _body(options: argparse.Namespace) -> bytes:
    """Take a request body as it is; make one of plain text. Raises OSError and ValueError."""
    text = _text(options)
    try:
        members = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        members = {}
    if "messages" not in members:
        if not options.model:
            raise ValueError("not a request body; to count it as plain text give --model")
        message = {"role": "user", "content": text.decode()}
        return msgspec.json.encode({"model": options.model, "messages": [message]})
    if options.model:
        members["model"] = msgspec.Raw(msgspec.json.encode(options.model))
        return msgspec.json.encode(members)
    return text


def _message(content: bytes) -> str:
    try:
        message: str = msgspec.json.decode(content)["error"]["message"]
    except (msgspec.DecodeError, KeyError, TypeError):
        return "the server's answer is no error of its own; is it Tallygate?"
    return message


if __name__ == "__main__":
    sys.exit(main())
