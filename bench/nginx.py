"""nginx as it answers a constant with one worker: no authentication, no look-up, no events."""

import shutil
from pathlib import Path

_CONFIG = """\
daemon off;
worker_processes 1;
pid {scratch}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  keepalive_timeout 120;
  keepalive_requests 1000000000;
  client_max_body_size 32m;
  client_body_temp_path {scratch}/nginx-body;
  proxy_temp_path {scratch}/nginx-proxy;
  fastcgi_temp_path {scratch}/nginx-fastcgi;
  uwsgi_temp_path {scratch}/nginx-uwsgi;
  scgi_temp_path {scratch}/nginx-scgi;
  server {{
    listen 127.0.0.1:{port};
    default_type application/json;
    location / {{ return 200 '{{"input_tokens":{tokens}}}'; }}
  }}
}}
"""


def path() -> str | None:
    """Where nginx is."""
    return shutil.which("nginx")


def command(scratch: Path, port: int, tokens: int) -> tuple[str, ...]:
    """Write its configuration; return the command that starts it on 127.0.0.1."""
    config = scratch / "nginx.conf"
    config.write_text(_CONFIG.format(scratch=scratch, port=port, tokens=tokens))
    return (path() or "nginx", "-e", "stderr", "-p", str(scratch), "-c", str(config))
