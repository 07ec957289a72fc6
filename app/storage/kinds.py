"""What a file probably is, by its name alone: its content is its owner's, and never opened by the platform."""

import mimetypes

# The tables that come with Python, and none of this machine: the same name is the same type everywhere.
_TYPES = mimetypes.MimeTypes()
_MEDIA = {
    ".jsonl": "application/jsonl", ".ndjson": "application/x-ndjson", ".parquet": "application/vnd.apache.parquet",
    ".arrow": "application/vnd.apache.arrow.file", ".yaml": "application/yaml", ".yml": "application/yaml",
    ".md": "text/markdown", ".log": "text/plain", ".ipynb": "application/x-ipynb+json", ".gz": "application/gzip",
    ".zst": "application/zstd", ".webp": "image/webp",
}  # fmt: skip
_KINDS = {
    "model": "pt pth safetensors onnx h5 keras gguf ckpt pkl joblib tflite mlmodel pb",
    "dataset": "csv tsv parquet arrow feather jsonl ndjson npy npz tfrecord avro",
    "plot": "png jpg jpeg svg gif webp",
    "report": "html htm pdf md ipynb",
    "log": "log txt out err",
    "archive": "zip tar gz tgz zst bz2 xz",
    "config": "json yaml yml toml ini",
}
_BY_ENDING = {ending: kind for kind, endings in _KINDS.items() for ending in endings.split()}
UNKNOWN_KIND, UNKNOWN_MEDIA = "file", "application/octet-stream"


def kind_of(name: str) -> str:
    """The word for files of such a name: `model`, `dataset`, `plot`, ... or `file`."""
    return _BY_ENDING.get(name.lower().rpartition(".")[2], UNKNOWN_KIND)


def media_type_of(name: str) -> str:
    """The media type (RFC 6838) of files of such a name."""
    ending = name.lower().rpartition(".")[2]
    return _MEDIA.get(f".{ending}") or _TYPES.guess_type(f"x.{ending}", strict=True)[0] or UNKNOWN_MEDIA
