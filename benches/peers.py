"""The proxies that are compared, the server behind them, and the processes that all of them are."""
import glob
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
# nginx and HAProxy are in sbin, which ordinary users do not search.
os.environ["PATH"] += ":/usr/sbin"


# ------------------------------------------------------------------------------------------------------- processes

class Processes:
    """Starts processes and ends them: these and their children, nothing else."""

    def __init__(self):
        self.running = []

    def start(self, command, log=None, core=None, **options):
        pinned = command if core is None else ["taskset", "-c", str(core), *command]
        with open(log or os.devnull, "ab") as output:
            options = {"stdout": output, "stderr": output, **options}
            process = subprocess.Popen(pinned, stdin=subprocess.DEVNULL, start_new_session=True, **options)
        self.running.append(process)
        return process

    def stop(self, process):
        """TERM, then KILL. The children are looked up before, while it is known whose they are."""
        pids = tree(process.pid) if process.poll() is None else []
        for stop, seconds in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
            for pid in filter(alive, pids):
                try:
                    os.kill(pid, stop)
                except ProcessLookupError:
                    pass
            end = time.monotonic() + seconds
            while any(map(alive, pids)) and time.monotonic() < end:
                process.poll()
                time.sleep(0.02)
        process.wait()
        self.running.remove(process)

    def stop_all(self):
        while self.running:
            self.stop(self.running[-1])


def tree(root):
    """The process and all its descendants."""
    found = [root]
    for pid in found:
        for children in glob.glob(f"/proc/{pid}/task/*/children"):
            found += map(int, text_of(children).split())
    return found


def alive(pid):
    state = text_of(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return bool(state) and state[0] != "Z"


def cpu_seconds(root):
    """CPU time of the process tree so far. schedstat counts nanoseconds; `stat` would count hundredths of a second."""
    threads = (path for pid in tree(root) for path in glob.glob(f"/proc/{pid}/task/*/schedstat"))
    return sum(int(fields[0]) for fields in (text_of(path).split() for path in threads) if fields) / 1e9


def text_of(path):
    """What the file says; nothing when the process it was about is gone."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def wait_until(condition, seconds, what, process, log):
    """Polls, because there is nothing to wait on; ends early with the log when the process has ended."""
    end = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"{what}: not within {seconds} s\n{text_of(log)[-1000:]}")
        time.sleep(0.02)


def need(packages):
    """Ends with the names of the Debian packages whose program is missing."""
    missing = sorted({package for program, package in packages.items() if not shutil.which(program)})
    if missing:
        sys.exit(f"missing: {' '.join(missing)}; on Debian: apt-get install --no-install-recommends {' '.join(missing)}")


# ----------------------------------------------------------------------------------------------------------- files

class Workshop:
    """A temporary directory and everything that runs in it; both are gone when the `with` ends, however it ends."""

    def __enter__(self):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        # In memory where that is possible: what the origin keeps must not wait for a disk.
        self.dir = Path(tempfile.mkdtemp(prefix="ingre-bench-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
        # A worker of nginx may be another user.
        self.dir.chmod(0o755)
        self.processes = Processes()
        self.cert, self.key = self.dir / "cert.pem", self.dir / "key.pem"
        return self

    def __exit__(self, *_):
        self.processes.stop_all()
        shutil.rmtree(self.dir, ignore_errors=True)

    def make_certificate(self):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                        "-days", "30", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE",
                        "-keyout", self.key, "-out", self.cert], check=True, capture_output=True)


def free_ports(count):
    """Held together until all are known, so that none is given twice."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def ingre_config(values, access_log=None):
    """benches/ingre.yaml with one route for everything."""
    text = (HERE / "ingre.yaml").read_text()
    text = re.sub(r"\{\{[#/]routes\}\}\n", "", text)
    values = {"workers": 1, "host": "*", "path": "/", **values}
    text = re.sub(r"\{\{(\w+)\}\}", lambda name: str(values[name.group(1)]), text)
    return text if access_log is None else text.replace("output: off", f"output: {access_log}")


# --------------------------------------------------------------------------------------------------------- proxies

class Proxy:
    """A proxy that runs on one core with one worker."""

    def __init__(self, workshop, name, core, origin, make):
        self.name, self.dir = name, workshop.dir / name.replace(" ", "-")
        self.dir.mkdir()
        self.http, self.https, admin = free_ports(3)
        self.access_log = None
        values = {"http_port": self.http, "https_port": self.https, "admin_port": admin, "upstream": f"127.0.0.1:{origin}",
                  "cert": workshop.cert, "key": workshop.key, "dir": self.dir}
        log = self.dir / "log"
        self.process = workshop.processes.start(make(self, values), log, core)
        for port in (self.http, self.https):
            wait_until(lambda: answers(port), 10, f"{name} listens", self.process, log)

    def url(self, tls, path):
        return f"https://localhost:{self.https}{path}" if tls else f"http://localhost:{self.http}{path}"


def ingre(binary, logged=False):
    def make(proxy, values):
        proxy.access_log = proxy.dir / "access.log" if logged else None
        config = proxy.dir / "config.yaml"
        config.write_text(ingre_config(values, proxy.access_log))
        return [str(binary), "run", "-c", str(config)]
    return make


def nginx(program=("nginx",), quic=False):
    """Request bodies are streamed and nothing goes to a file, as in the two others; HTTP/1.1 and kept connections to the
    origin, which are not nginx's defaults; TLS records as large as they can be. `quic` needs 1.25 and has no HTTP/2."""
    def make(proxy, values):
        https = f"127.0.0.1:{proxy.https}"
        listen = f"listen {https} quic reuseport; listen {https} ssl" if quic else f"listen {https} ssl http2 backlog=4096"
        config = proxy.dir / "nginx.conf"
        config.write_text(nginx_config(proxy.dir, nginx_site(proxy, values, listen)))
        return nginx_command(config, program)
    return make


def nginx_site(proxy, values, listen):
    return f"""
  client_max_body_size 0; client_body_buffer_size 256k; http2_max_concurrent_streams 256; http2_recv_buffer_size 1m;
  ssl_certificate {values['cert']}; ssl_certificate_key {values['key']}; ssl_protocols TLSv1.2 TLSv1.3; ssl_buffer_size 16k;
  ssl_session_cache shared:tls:20m; proxy_http_version 1.1; proxy_request_buffering off; proxy_max_temp_file_size 0;
  proxy_buffer_size 16k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k;
  upstream origin {{ server {values['upstream']}; keepalive 1024; keepalive_requests 1000000000; keepalive_timeout 1h; }}
  server {{
    listen 127.0.0.1:{proxy.http} backlog=4096; {listen};
    location / {{
      proxy_pass http://origin; proxy_set_header Host $host; proxy_set_header Connection "";
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Real-IP $remote_addr;
    }}
  }}"""


def haproxy(program=("haproxy",), quic=False):
    """`bufsize` holds two TLS records; `http-reuse always` shares the connections to the origin, as the two others do.
    `quic` needs 2.6 that is built with it; with Debian's OpenSSL it has to be allowed."""
    def make(proxy, values):
        both = proxy.dir / "site.pem"
        both.write_text(values["cert"].read_text() + values["key"].read_text())
        config = proxy.dir / "haproxy.cfg"
        bind = f"bind quic4@127.0.0.1:{proxy.https} ssl crt {both} alpn h3" if quic else ""
        config.write_text(haproxy_config(proxy, values, both, "limited-quic" if quic else "", bind))
        return [*program, "-db", "-q", "-f", str(config)]
    return make


def haproxy_config(proxy, values, both, more, bind):
    return f"""global
  {more}
  nbthread 1
  maxconn 4096
  no strict-limits
  tune.bufsize 32768
  tune.h2.max-concurrent-streams 256
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  http-reuse always
  option splice-auto
frontend clients
  bind 127.0.0.1:{proxy.http} backlog 4096
  bind 127.0.0.1:{proxy.https} backlog 4096 ssl crt {both} alpn h2,http/1.1
  {bind}
  option forwardfor
  http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]
  http-request set-header X-Real-IP %[src]
  default_backend origin
backend origin
  server origin {values['upstream']} pool-max-conn 1024 pool-purge-delay 1h
"""


# ---------------------------------------------------------------------------------------------------------- origin

def start_origin(workshop, core):
    """nginx with a page of 1 KiB, a file of 1 MiB, and a place for uploads; returns its port."""
    directory = workshop.dir / "origin"
    (directory / "up").mkdir(parents=True)
    (directory / "up").chmod(0o777)
    (directory / "1m").write_bytes(b"0123456789abcdef" * (1 << 16))
    port, = free_ports(1)
    config = directory / "nginx.conf"
    config.write_text(nginx_config(directory, f"""
  open_file_cache max=10 inactive=1h; client_max_body_size 0; client_body_buffer_size 1m; default_type application/octet-stream;
  server {{
    listen 127.0.0.1:{port} backlog=4096; listen 127.0.0.2:{port} backlog=4096; root {directory};
    location = /1k {{ return 200 "{'x' * 1024}"; }}
    location /up/ {{ dav_methods PUT; }}
  }}"""))
    process = workshop.processes.start(nginx_command(config), directory / "log", core)
    wait_until(lambda: answers(port), 10, "the origin listens", process, directory / "log")
    return port


def nginx_config(directory, http):
    """What the proxy and the origin have in common: one worker, no logs, no idle limits, its files in its directory."""
    user = "user root;" if os.geteuid() == 0 else ""
    temporary = " ".join(f"{kind}_temp_path {directory}/{kind};"
                         for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    return f"""{user} worker_processes 1; daemon off; pid {directory}/pid; error_log {directory}/error.log crit;
worker_rlimit_nofile 8192;
events {{ worker_connections 4096; multi_accept on; }}
http {{
  access_log off; server_tokens off; sendfile on; tcp_nopush on; keepalive_timeout 1h; keepalive_requests 1000000000;
  {temporary}{http}
}}
"""


def nginx_command(config, program=("nginx",)):
    return [*program, "-p", str(config.parent), "-e", str(config.parent / "error.log"), "-c", str(config)]
