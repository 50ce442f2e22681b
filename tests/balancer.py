"""nginx before several servers, as somebody would set it up who runs replicas."""

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

# Each call goes to the next server; one that cannot be reached is left out for a second. A call
# that a server may have begun is not made again.
CONF = """
{user} worker_processes 1; daemon off; pid nginx.pid; error_log nginx.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_max_body_size 0; underscores_in_headers on;
  client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u;
  scgi_temp_path s;
  upstream traceway {{ {servers} keepalive 64; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://traceway; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host localhost; proxy_buffering off; proxy_request_buffering off;
      proxy_read_timeout 1h; proxy_next_upstream error;
    }}
  }}
}}
"""


def program() -> str | None:
    """Give the path of nginx; None where it is not installed."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@asynccontextmanager
async def balanced(folder: Path, ports: Sequence[int]) -> AsyncIterator[int]:
    """Run nginx before the servers on these ports; give its own port."""
    nginx = program()
    assert nginx is not None, "Debian: apt-get install nginx"
    port = free_port()
    servers = "".join(f"server 127.0.0.1:{one} max_fails=1 fail_timeout=1s; " for one in ports)
    # Its worker writes into our folder, which nobody else may read.
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(CONF.format(user=user, servers=servers, port=port))
    process = await asyncio.create_subprocess_exec(
        *(nginx, "-p", f"{folder}/", "-c", "nginx.conf"), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        while True:
            with contextlib.suppress(ConnectionError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            assert process.returncode is None, (folder / "nginx.log").read_text()
            await asyncio.sleep(0.05)
        yield port
    finally:
        process.terminate()
        await process.wait()
