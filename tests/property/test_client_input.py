import contextlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from trellis import sbatch
from trellis.answers import Event, Job, Node, answer
from trellis.cli.text import safe
from trellis.errors import Invalid
from trellis.sse import read_events

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
WORDS = st.sampled_from(
    ["-t", "--time=", "--gres=gpu:", "-N", "--array=", "-d", "afterok:", "--mem", "8G", "=", "'", "%"]
)
LINES = st.lists(st.one_of(WORDS, st.text(max_size=8)), max_size=6).map(" ".join)


@given(st.dictionaries(st.sampled_from(sorted(Job.__dataclass_fields__)), JSON), st.sampled_from([Job, Node, Event]))
def test_no_answer_of_a_stranger_server_breaks_the_client(body: dict[str, Any], kind: Any) -> None:
    assert answer(kind, body).raw == body


@given(st.lists(LINES, max_size=4))
def test_any_batch_script_is_understood_or_refused_in_words(lines: list[str]) -> None:
    script = "\n".join(["#!/bin/sh", *(f"#SBATCH {line}" for line in lines), "true"])
    with contextlib.suppress(Invalid):
        assert sbatch.parse(script)["script"] == script


@given(st.lists(st.binary(max_size=20), max_size=10))
def test_events_do_not_depend_on_how_the_bytes_are_cut(pieces: list[bytes]) -> None:
    assert list(read_events(pieces)) == list(read_events([b"".join(pieces)]))


@given(st.text())
def test_no_text_can_command_a_terminal(text: str) -> None:
    assert all(ch == "\t" or not (ch < " " or "\x7f" <= ch <= "\x9f") for ch in safe(text))
