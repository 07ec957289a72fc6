import pytest

from trellis import errors
from trellis.errors import BY_CODE, Conflict, Field, Invalid, RateLimited, TrellisError, from_problem


def test_every_code_names_one_class() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, TrellisError)]
    assert {kind.code: kind for kind in kinds} == BY_CODE
    assert len(kinds) == len(BY_CODE)


@pytest.mark.parametrize("code", sorted(BY_CODE))
def test_an_error_comes_back_as_its_class_by_its_code(code: str) -> None:
    error = from_problem({"code": code, "detail": "because", "trace_id": "t"}, 418)
    assert type(error) is BY_CODE[code]
    assert (str(error), error.detail, error.trace_id) == ("because", "because", "t")


def test_a_code_of_a_newer_server_falls_back_to_the_status() -> None:
    assert type(from_problem({"code": "gpu_on_fire", "detail": "hot"}, 409)) is Conflict
    assert type(from_problem({}, 429)) is RateLimited
    assert str(from_problem({}, 418)) == "HTTP 418"


def test_the_fields_of_a_fault_come_along_for_every_kind() -> None:
    problem = {"errors": [{"pointer": "/a", "message": "is odd"}], "detail": "x"}
    for code in ("invalid", "too_large", "quota_exceeded"):
        assert from_problem({**problem, "code": code}, 422).fields == (Field("/a", "is odd"),)


def test_faults_are_told_by_field() -> None:
    assert str(Invalid(Field("/a", "is odd"), Field("", "is empty"))) == "/a is odd; / is empty"


def test_an_error_without_words_says_its_title() -> None:
    assert str(TrellisError()) == TrellisError.title
