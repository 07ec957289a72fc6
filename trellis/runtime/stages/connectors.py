"""Where data comes from and goes to: files by path or URL, databases, streams. Pure: says what, opens nothing."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from trellis.runtime.stages.fields import NAME, VARIABLE, Fields

# What a file's name ends with, and how it is written.
FORMATS = {
    ".parquet": "parquet", ".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".avro": "avro",
    ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow",
}  # fmt: skip
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd"}
SCHEMES = ("", "file", "s3", "gs", "gcs", "http", "https")
_WRITABLE = ("", "file", "s3", "gs", "gcs")
_SSL = ("prefer", "require", "verify-ca", "verify-full", "disable")
_KEYS = {"key", "secret", "token"}


@dataclass(frozen=True, slots=True)
class Files:
    """Files by path (below the roots of the job) or URL; the last part may hold wildcards when they are read.

    `credentials` names environment variables: `key`, `secret`, `token`. `columns` gives types to the columns of a
    CSV file; the others are guessed from what is there.
    """

    url: str
    format: str
    endpoint_url: str = ""
    delimiter: str = ""
    header: bool = True
    columns: tuple[tuple[str, str], ...] = ()
    credentials: tuple[tuple[str, str], ...] = ()

    @property
    def scheme(self) -> str:
        """In small letters; "" of a path."""
        return scheme_of(self.url)

    @property
    def local(self) -> bool:
        """Whether they lie in the job's own file system."""
        return self.scheme in {"", "file"}

    @property
    def names_a_file(self) -> bool:
        """Whether the URL ends as a file does; else it names a folder."""
        return suffixes_of(self.url)[0] != ""


@dataclass(frozen=True, slots=True)
class Database:
    """A table or query of PostgreSQL or SQLite. SQLite has a `path`, PostgreSQL a host; passwords are variables' names."""

    kind: str
    table: str = ""
    query: str = ""
    path: str = ""
    host: str = ""
    port: int = 5432
    database: str = ""
    schema: str = ""
    user: str = ""
    sslmode: str = "prefer"
    credentials: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream of Redis or Valkey. `batch` bounds how many entries one run takes."""

    host: str
    port: int
    stream: str
    number: int = 0
    user: str = ""
    tls: bool = False
    batch: int = 100_000
    credentials: tuple[tuple[str, str], ...] = ()


Connector = Files | Database | Stream
NOWHERE = Files(url="", format="parquet")


def parse_connector(fields: Fields, *, writes: bool = False) -> Connector:
    """The connector that `fields` describe; with faults, one that must not be used."""
    kind = fields.one_of("connector", ("files", "postgres", "sqlite", "redis"))
    if kind == "files":
        found: Connector = _files(fields, writes)
    elif kind == "redis":
        found = _stream(fields)
    else:
        found = _database(fields, kind, writes)
    fields.close()
    return found


def scheme_of(url: str) -> str:
    """The scheme of a URL in small letters; "" of a path."""
    return urlsplit(url).scheme.lower() if "://" in url else ""


def suffixes_of(url: str) -> tuple[str, str]:
    """What the name says of its format and compression, e.g. (".csv", ".gz"); "" where it says nothing."""
    path = urlsplit(url).path if "://" in url else url
    name = path.rsplit("/", 1)[-1].lower()
    packed = next((end for end in COMPRESSIONS if name.endswith(end)), "")
    plain = name.removesuffix(packed)
    return next((end for end in FORMATS if plain.endswith(end)), ""), packed


def _files(fields: Fields, writes: bool) -> Files:
    url = fields.text("url")
    ending, packed = suffixes_of(url)
    known = FORMATS.get(ending)
    if url and known is None and not fields.has("format"):
        fields.fault("format", f"{url[:80]!r} does not end in a known format: say which of {', '.join(_formats())}")
    if url:
        _check_url(fields, url, writes)
    kept = fields.one_of("format", _formats(), known or "parquet")
    if packed and kept not in {"csv", "jsonl"}:
        fields.fault("url", f"{kept} packs itself: a name ending in {packed} is for CSV and JSON lines")
    delimiter = fields.text("delimiter", "") if fields.raw("delimiter") != "\t" else "\t"
    if len(delimiter.encode()) > 1:
        fields.fault("delimiter", "must be one character")
    endpoint = fields.text("endpoint_url", "")
    if endpoint and scheme_of(endpoint) not in {"http", "https"}:
        fields.fault("endpoint_url", "must begin with https:// or http://")
    columns = tuple(fields.mapping("columns").items())
    header = fields.flag("header", True)
    return Files(
        url, kept, endpoint, delimiter or ("\t" if ending == ".tsv" else ""), header, columns, _secrets(fields, _KEYS)
    )


def _formats() -> list[str]:
    return sorted(set(FORMATS.values()))


def _check_url(fields: Fields, url: str, writes: bool) -> None:
    scheme = scheme_of(url)
    allowed = _WRITABLE if writes else SCHEMES
    if scheme not in allowed or "::" in url:
        fields.fault("url", f"must be a path or begin with one of {', '.join(f'{s}://' for s in allowed if s)}")
        return
    split = urlsplit(url) if scheme else None
    if split is not None and (split.username or split.password):
        fields.fault("url", "must not hold credentials: name environment variables in `credentials`")
    if split is not None and scheme not in {"", "file"} and not split.netloc:
        fields.fault("url", "names no bucket or host")
    path = split.path if split is not None else url
    if ".." in path.split("/"):
        fields.fault("url", "must not hold '..'")
    if writes and any(sign in path for sign in "*?["):
        fields.fault("url", "must name one place: no wildcards where something is written")
    if scheme in {"http", "https"} and any(sign in path for sign in "*["):
        fields.fault("url", "HTTP has no wildcards: name one file")


def _database(fields: Fields, kind: str, writes: bool) -> Database:
    table = fields.text("table", "", like=NAME)
    query = "" if writes else fields.text("query", "")
    if bool(table) == bool(query):
        fields.fault("table", "is missing" if writes else "give `table` or `query`, one of them")
    if kind == "sqlite":
        path = fields.text("path")
        if ".." in path.split("/") or "?" in path or "://" in path:
            fields.fault("path", "must be a plain path without '..' and '?'")
        return Database(kind, table, query, path)
    host = fields.text("host")
    if host.startswith(("/", "@")) or "," in host:
        fields.fault("host", "must be one host name or address")
    return Database(
        kind,
        table,
        query,
        host=host,
        port=fields.integer("port", 5432, 1, 65535),
        database=fields.text("database"),
        schema=fields.text("schema", "", like=NAME),
        user=fields.text("user"),
        sslmode=fields.one_of("sslmode", _SSL, "prefer"),
        credentials=_secrets(fields, {"password"}),
    )


def _stream(fields: Fields) -> Stream:
    return Stream(
        host=fields.text("host"),
        port=fields.integer("port", 6379, 1, 65535),
        stream=fields.text("stream"),
        number=fields.integer("database", 0, 0, 65535),
        user=fields.text("user", ""),
        tls=fields.flag("tls", False),
        batch=fields.integer("batch", 100_000, 1, 1_000_000),
        credentials=_secrets(fields, {"password"}),
    )


def _secrets(fields: Fields, allowed: set[str]) -> tuple[tuple[str, str], ...]:
    found = fields.mapping("credentials")
    for name, variable in found.items():
        if name not in allowed:
            fields.fault(f"credentials.{name[:40]}", f"is not known here; known are {', '.join(sorted(allowed))}")
        elif not VARIABLE.fullmatch(variable):
            # The value is not repeated: somebody may have put the secret itself there.
            fields.fault(f"credentials.{name}", "must be the name of an environment variable, not the secret itself")
    return tuple(found.items())
