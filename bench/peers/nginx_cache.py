"""nginx as the plainest cache that there is: what was answered to these bytes on this path."""

from pathlib import Path

from bench import nginx
from bench.slice import Address

_HTTP = """\
  proxy_cache_path {folder}/cache levels=1:2 keys_zone=counts:64m max_size=2g inactive=1d;
  upstream provider {{
    server {host}:{port};
    keepalive 64;
    keepalive_requests 1000000000;
  }}
"""
_LOCATION = """
      client_body_buffer_size 1m;
      proxy_pass http://provider;
      proxy_http_version 1.1;
      proxy_set_header connection "";
      proxy_cache counts;
      proxy_cache_methods POST;
      proxy_cache_key "$request_uri$request_body";
      proxy_cache_valid 200 1d;
      proxy_cache_lock on;
    """


def command(folder: Path, port: int, provider: Address) -> tuple[str, ...]:
    """Write its configuration; return the command that starts it on 127.0.0.1."""
    http = _HTTP.format(folder=folder, host=provider.host, port=provider.port)
    return nginx.command(folder, port, _LOCATION, http)
