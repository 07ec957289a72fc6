"""A registry of images in small: one image, by a tag and by its digest, on this machine alone."""

import gzip
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class Registry:
    """Serves `name`:1. What is asked for is counted in `asked`."""

    def __init__(self, layer: bytes) -> None:
        """`layer` is a tar."""
        packed = gzip.compress(layer, compresslevel=1)
        config = json.dumps(
            {
                "architecture": "amd64", "os": "linux", "config": {"Env": ["FROM_IMAGE=yes"], "Entrypoint": ["/bin/false"]},
                "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
            }
        ).encode()  # fmt: skip
        self.manifest = json.dumps(
            {
                "schemaVersion": 2, "mediaType": _MANIFEST,
                "config": _described("application/vnd.oci.image.config.v1+json", config),
                "layers": [_described("application/vnd.oci.image.layer.v1.tar+gzip", packed)],
            }
        ).encode()  # fmt: skip
        self.digest = _digest(self.manifest)
        self.blobs = {_digest(block): block for block in (config, packed)}
        self.asked: list[str] = []

    def start(self) -> None:
        registry = self

        class Handler(_Handler):
            served = registry

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.place = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Registry

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        registry, path = self.served, self.path
        registry.asked.append(path)
        word = path.rpartition("/")[2]
        if path == "/v2/":
            return self._send(200, b"{}", "application/json", body=body)
        if path.startswith("/v2/tool/manifests/") and word in ("1", registry.digest):
            return self._send(200, registry.manifest, _MANIFEST, body=body)
        if path.startswith("/v2/tool/blobs/") and word in registry.blobs:
            return self._send(200, registry.blobs[word], "application/octet-stream", body=body)
        unknown = json.dumps({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}).encode()
        return self._send(404, unknown, "application/json", body=body)

    def _send(self, status: int, block: bytes, kind: str, *, body: bool) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(block)))
        if kind == _MANIFEST:
            self.send_header("Docker-Content-Digest", self.served.digest)
        self.end_headers()
        if body:
            self.wfile.write(block)


def _digest(block: bytes) -> str:
    return f"sha256:{hashlib.sha256(block).hexdigest()}"


def _described(kind: str, block: bytes) -> dict[str, Any]:
    return {"mediaType": kind, "size": len(block), "digest": _digest(block)}
