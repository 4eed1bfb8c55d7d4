#!/usr/bin/env python3
"""Checks the compose file where no container engine runs: it parses, every ${VARIABLE:?} stands in the sample
environment, every mounted file of ours exists, our services are hardened, and NGINX takes its configuration."""
import pathlib
import re
import subprocess
import sys
import tempfile

import yaml

path, sample = map(pathlib.Path, sys.argv[1:])
text = path.read_text()
compose = yaml.safe_load(text)
given = {line.split("=")[0] for line in sample.read_text().splitlines() if "=" in line and not line.startswith("#")}
problems = [f"{name} is needed but not in {sample}" for name in sorted(set(re.findall(r"\$\{(\w+):\?", text)) - given)]
for name, service in compose["services"].items():
    if "build" in service:
        target = service["build"]["target"]
        if f" AS {target}\n" not in (path.parent / "Dockerfile").read_text():
            problems.append(f"{name}: the Dockerfile has no target {target}")
        if not service.get("read_only") or service.get("cap_drop") != ["ALL"]:
            problems.append(f"{name}: root must be read-only and without capabilities")
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        if source.startswith("./") and not (path.parent / source).exists():
            problems.append(f"{name}: {source} does not exist")
        elif re.fullmatch(r"[\w-]+", source) and source not in compose["volumes"]:
            problems.append(f"{name}: volume {source} is not declared")
with tempfile.TemporaryDirectory() as scratch:
    folder = pathlib.Path(scratch)
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "1",
                    "-keyout", folder / "tls.key", "-out", folder / "tls.crt"], check=True, capture_output=True)
    site = (path.parent / "nginx.conf").read_text()
    site = site.replace("/etc/nginx/tls", str(folder)).replace("message-server:8065", "127.0.0.1:8065")
    # Debian 12's NGINX is older than the `http2` directive; the listen flag says the same.
    version = subprocess.run(["/usr/sbin/nginx", "-v"], capture_output=True, text=True).stderr
    if tuple(map(int, re.search(r"(\d+)\.(\d+)\.(\d+)", version).groups())) < (1, 25, 1):
        site = site.replace("    http2 on;\n", "").replace("listen 8443 ssl;", "listen 8443 ssl http2;")
    whole = folder / "nginx.conf"
    whole.write_text(f"pid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{}}\nhttp {{\naccess_log off;\n{site}}}\n")
    done = subprocess.run(["/usr/sbin/nginx", "-t", "-c", whole], capture_output=True, text=True)
    if done.returncode:
        problems.append(done.stderr)
print("\n".join(problems) or f"{path}: fine")
sys.exit(bool(problems))
