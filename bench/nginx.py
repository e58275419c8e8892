"""nginx with one worker: no authentication, no events."""

import os
import shutil
from pathlib import Path

_CONFIG = """\
{user}
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
  {http}
  server {{
    listen 127.0.0.1:{port};
    default_type application/json;
    location / {{ {location} }}
  }}
}}
"""


def path() -> str | None:
    """Where nginx is."""
    return shutil.which("nginx")


def constant(tokens: int) -> str:
    """Directives that answer always the same, without a look-up."""
    return f"""return 200 '{{"input_tokens":{tokens}}}';"""


def command(scratch: Path, port: int, location: str, http: str = "") -> tuple[str, ...]:
    """Write its configuration; return the command that starts it on 127.0.0.1.

    ``location`` and ``http`` are directives for blocks of those names.
    """
    config = scratch / "nginx.conf"
    # Started by root, it would change to a user who may not write to a folder of ours.
    user = "user root;" if os.geteuid() == 0 else ""
    config.write_text(
        _CONFIG.format(user=user, scratch=scratch, port=port, location=location, http=http)
    )
    return (path() or "nginx", "-e", "stderr", "-p", str(scratch), "-c", str(config))
