import pytest

from trellis import units


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0", 0), (512, 512), ("1k", 1000), ("1KB", 1000), ("1Ki", 1024), ("1KiB", 1024), ("80GB", 80 * 10**9),
        ("1.5GiB", 3 * 2**29), (" 2 TiB ", 2**41), ("1p", 10**15), ("9007199254740991", 2**53 - 1),
    ],
)  # fmt: skip
def test_bytes_are_read_as_people_write_them(text: str | int, amount: int) -> None:
    assert units.parse_bytes(text) == amount


@pytest.mark.parametrize(
    ("text", "amount"),
    [(2, 2000), (0.5, 500), ("0.5", 500), ("500m", 500), ("1.001", 1001), (0.1, 100), ("0", 0), (1.0, 1000)],
)
def test_thousandths_are_exact(text: str | float, amount: int) -> None:
    assert units.parse_milli(text) == amount


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (90, 90), ("90", 90), ("90s", 90), ("2m", 120), ("2h", 7200), ("1d", 86400), ("1w", 604800), ("1.5h", 5400),
        ("30:00", 1800), ("2:00:00", 7200), ("1-12", 129600), ("1-12:30", 131400), ("1-12:30:15", 131415),
        ("00:00:09", 9),
    ],
)  # fmt: skip
def test_durations_are_read_as_people_and_slurm_write_them(text: str | int, seconds: int) -> None:
    assert units.parse_seconds(text) == seconds


@pytest.mark.parametrize("parse", [units.parse_bytes, units.parse_milli, units.parse_seconds])
@pytest.mark.parametrize(
    "junk",
    [
        "", "-1", -1, "nan", "inf", float("nan"), float("inf"), -0.5, True, False, None, [], {}, "1e3", "0x10", "1,5",
        "1 2", "٣", "1QiB", "9" * 19, 2**53, "1\n2", "--", "1__0",
    ],
)  # fmt: skip
def test_what_is_no_amount_is_refused_with_the_way_out(parse: object, junk: object) -> None:
    with pytest.raises(ValueError, match=r"must be|too large|finer"):
        parse(junk)  # type: ignore[operator]


def test_finer_than_the_smallest_unit_is_refused() -> None:
    for parse, text in ((units.parse_bytes, "1.5"), (units.parse_milli, "0.0001"), (units.parse_seconds, "0.5s")):
        with pytest.raises(ValueError, match="finer"):
            parse(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.418, "0.42 s"), (42.4, "42 s"), (185, "3 m 05 s"), (7800, "2 h 10 m"), (90000, "25 h 00 m")],
)
def test_durations_are_shown_short(seconds: float, text: str) -> None:
    assert units.format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("amount", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**31, "2.0 GiB"), (2**52, "4096.0 TiB")]
)
def test_bytes_are_shown_short(amount: int, text: str) -> None:
    assert units.format_bytes(amount) == text
