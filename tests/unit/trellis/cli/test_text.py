"""Words for terminals."""

import pytest

from trellis.cli.text import files


@pytest.mark.parametrize(("number", "words"), [(0, "0 files"), (1, "1 file"), (2, "2 files")])
def test_one_file_is_no_plural(number: int, words: str) -> None:
    assert files(number) == words
