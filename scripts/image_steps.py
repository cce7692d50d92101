"""Run the steps of examples/docker/Dockerfile without Docker, in bare Debian trees that debootstrap makes; needs root.

    python scripts/image_steps.py FOLDER

The first stage's RUN and COPY lines run in a tree of Debian.  Then /opt/smtpd is copied into a second tree that has
Python and no pip, in the place of the distroless image, and the server runs there as the Dockerfile says: as its user,
with its entry point.  A client sends a message, the health check asks it, and a signal stops it.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import smtplib
import subprocess
import sys
import time
from pathlib import Path

PROJECT = Path(__file__).parent.parent
DOCKERFILE = PROJECT / "examples" / "docker" / "Dockerfile"
MIRROR = "http://deb.debian.org/debian"
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
PORT = 8025


def instructions() -> list[tuple[str, str]]:
    """The lines of the Dockerfile, as instruction and rest."""
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def tree(path: Path, *packages: str) -> Path:
    """A tree of Debian with some packages."""
    if not path.exists():
        include = [f"--include={','.join(packages)}"] if packages else []
        subprocess.run(["debootstrap", "--variant=minbase", *include, "bookworm", str(path), MIRROR], check=True)
    shutil.copy("/etc/resolv.conf", path / "etc/resolv.conf")
    return path


def build(root: Path) -> None:
    """The first stage."""
    folder = "/"
    for word, rest in instructions():
        if word == "FROM" and "AS" not in rest:
            return
        if word == "WORKDIR":
            folder = rest
            (root / folder.lstrip("/")).mkdir(exist_ok=True)
        elif word == "COPY":
            archive = subprocess.run(["git", "-C", PROJECT, "archive", "HEAD"], check=True, capture_output=True).stdout
            subprocess.run(["tar", "-x", "-C", root / folder.lstrip("/")], input=archive, check=True)
        elif word == "RUN":
            print("RUN", rest, flush=True)
            command = f"cd {shlex.quote(folder)} && {rest}"
            environment = {**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
            # Where a proxy of the network has a certificate authority of its own, pip has to know it.
            if Path(AUTHORITIES).exists() and (root / "etc/ssl/certs").exists():
                shutil.copy(AUTHORITIES, root / AUTHORITIES.lstrip("/"))
            subprocess.run(["chroot", root, "/bin/sh", "-ec", command], check=True, env=environment)


def run(root: Path) -> None:
    """The second stage, and what happens in a container."""
    given = dict(instructions())
    user = given["USER"]
    words = [*json.loads(given["ENTRYPOINT"]), *json.loads(given["CMD"])]
    chroot = [shutil.which("chroot") or "chroot", f"--userspec={user}", root]
    print("USER", user, "ENTRYPOINT", *words, flush=True)
    server = subprocess.Popen([*chroot, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={})
    try:
        check = [*chroot, *json.loads(given["HEALTHCHECK"].partition("CMD ")[2])]
        for _ in range(100):
            if subprocess.run(check, env={}, capture_output=True).returncode == 0:
                break
            time.sleep(0.1)
        else:
            sys.exit("the health check does not succeed")
        with smtplib.SMTP("127.0.0.1", PORT) as client:
            client.sendmail("anne@example.com", ["bart@example.com"], b"Subject: in the image\r\n\r\nHello\r\n")
        server.send_signal(signal.SIGTERM)
        printed, logged = server.communicate(timeout=60)
    finally:
        server.kill()
    print(logged, end="")
    failed = subprocess.run(check, env={}, capture_output=True, text=True)
    assert "in the image" in printed, printed
    assert server.returncode == -signal.SIGTERM, server.returncode
    assert failed.returncode == 1, failed
    print("printed the message; stopped by SIGTERM; then the health check says:", failed.stderr, end="")


def main(folder: Path) -> None:
    builder = tree(folder / "build")
    build(builder)
    image = tree(folder / "image", "python3-minimal", "libpython3-stdlib")
    for name in ("opt/smtpd", "data"):
        shutil.rmtree(image / name, ignore_errors=True)
        shutil.copytree(builder / name, image / name, symlinks=True)
    size = sum(path.lstat().st_size for path in (image / "opt/smtpd").rglob("*"))
    print(f"/opt/smtpd has {size / 2**20:.0f} MiB")
    run(image)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
