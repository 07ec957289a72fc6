import csv
import io
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tests.support.command_line import CommandLine
from tests.support.fake_api import problem, reply


def a_series(name: str, *values: float, gap_after: int = -1) -> dict[str, Any]:
    at = [number + (5 if 0 <= gap_after < number else 0) for number in range(len(values))]
    points = [
        {"at": f"2026-01-01T12:00:{at[i]:02}+00:00", "value": value, "count": 1} for i, value in enumerate(values)
    ]
    return {"name": name, "points": points}


def answered(cli: CommandLine, *series: dict[str, Any]) -> CommandLine:
    cli.api.on("GET", "/jobs/j1/metrics/series", reply({"agg": "mean", "resolution_s": 1, "items": list(series)}))
    return cli


def test_each_metric_is_one_line_where_none_is_named(cli: CommandLine) -> None:
    done = answered(cli, a_series("loss", 4, 2, 1), a_series("bytes", 3_000_000_000), a_series("never")).run(
        "metrics", "j1"
    )
    assert done.exit_code == 0, done.stderr
    head, loss, large = (line.split() for line in done.stdout.splitlines())
    assert head == ["NAME", "LAST", "LEAST", "MOST", "OVER", "TIME"]
    assert (loss[:4], large[:4]) == (["loss", "1", "1", "4"], ["bytes", "3G", "3G", "3G"])


def test_a_metric_that_is_named_is_drawn_between_its_least_and_its_most(cli: CommandLine) -> None:
    done = answered(cli, a_series("loss", *range(10, 0, -1))).run("metrics", "j1", "loss")
    lines = done.stdout.splitlines()
    assert lines[0] == "loss, mean of every 1 s"
    assert (lines[1].split()[0], lines[10].split()[0]) == ("10", "1")
    assert max(map(len, lines)) <= 100


def test_times_without_a_value_are_left_blank(cli: CommandLine) -> None:
    done = answered(cli, a_series("loss", 1, 1, 1, gap_after=1)).run("metrics", "j1", "loss")
    assert any("\u2800" * 5 in line.strip("\u2800 ") for line in done.stdout.splitlines())


def test_a_metric_that_is_measured_now_and_then_is_one_curve(cli: CommandLine) -> None:
    points = [{"at": f"2026-01-01T12:00:{at:02}+00:00", "value": 1, "count": 1} for at in range(0, 60, 10)]
    done = answered(cli, {"name": "cpu", "points": points}).run("metrics", "j1", "cpu")
    drawn = [line[12:] for line in done.stdout.splitlines()[1:11] if line[12:].strip("\u2800 ")]
    assert len(drawn) == 1
    assert "\u2800" not in drawn[0]
    assert "\\x0a" not in done.stdout


def test_what_is_asked_for_reaches_the_question(cli: CommandLine) -> None:
    answered(cli, a_series("a", 1))
    cli.run(
        "metrics", "j1", "a", "b", "--agg", "max", "--resolution", "5m", "--replica", "2", "--from", "2026-01-01T12:00"
    )
    query = dict(cli.api.asked[-1].url.params.multi_items())
    assert (query["agg"], query["resolution"], query["replica"]) == ("max", "300", "2")
    assert cli.api.asked[-1].url.params.get_list("names") == ["a", "b"]
    assert query["from"].startswith("2026-01-01T12:00:00")


def test_programs_get_the_points(cli: CommandLine) -> None:
    done = answered(cli, a_series("loss", 4, 2)).run("metrics", "j1", "--json")
    assert [point["value"] for point in json.loads(done.stdout)[0]["points"]] == [4, 2]


@pytest.mark.parametrize("series", [[], [a_series("loss")]])
def test_nothing_measured_is_said(cli: CommandLine, series: list[dict[str, Any]]) -> None:
    assert answered(cli, *series).run("metrics", "j1").stdout == "Nothing was measured in that time.\n"


def test_a_name_that_a_terminal_would_obey_is_shown_harmless(cli: CommandLine) -> None:
    done = answered(cli, a_series("\x1b[2Jevil", 1)).run("metrics", "j1", "x")
    assert "\x1b" not in done.stdout


def test_a_resolution_that_is_none_is_explained(cli: CommandLine) -> None:
    done = cli.run("metrics", "j1", "--resolution", "often")
    assert (done.exit_code, "--resolution" in done.stderr) == (2, True)


def test_a_job_that_is_not_there_is_said(cli: CommandLine) -> None:
    cli.api.on("GET", "/jobs/j1/metrics/series", problem(404, "not_found", "there is no job j1"))
    assert cli.run("metrics", "j1").exit_code == 1


def test_each_replica_has_a_curve_of_its_own(cli: CommandLine) -> None:
    two = [{**a_series("loss", 4, 2), "replica": index} for index in (0, 1)]
    done = answered(cli, *two).run("metrics", "j1", "loss", "--each-replica")
    assert cli.api.asked[-1].url.params["each_replica"] == "true"
    heads = [line for line in done.stdout.splitlines() if line.startswith("loss")]
    assert heads == ["loss [0], mean of every 1 s", "loss [1], mean of every 1 s"]


def test_points_are_given_as_rows_that_a_spreadsheet_takes_for_nothing_else(cli: CommandLine) -> None:
    done = answered(cli, a_series("loss", 4.5), {**a_series("=1+1", 2), "replica": 3}).run("metrics", "j1", "--csv")
    rows = list(csv.reader(io.StringIO(done.stdout)))
    assert rows == [
        ["name", "replica", "at", "value", "count"],
        ["loss", "", "2026-01-01T12:00:00+00:00", "4.5", "1"],
        ["'=1+1", "3", "2026-01-01T12:00:00+00:00", "2", "1"],
    ]


def test_curves_are_written_as_a_picture(cli: CommandLine, tmp_path: Path) -> None:
    found = [a_series("loss", 4, 2), a_series("one", 1), a_series("equal", 3, 3), a_series("<evil>&", 1e308, -1e308)]
    for name in ("a.svg", "a.png"):
        done = answered(cli, *found).run("metrics", "j1", f"--{name[2:]}", str(tmp_path / name))
        assert (done.exit_code, done.stdout) == (0, ""), done.stderr
    picture = ET.fromstring((tmp_path / "a.svg").read_text())
    words = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert "<evil>&, mean of every 1 s" in words
    assert "nan" not in (tmp_path / "a.svg").read_text()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "field"),
    [(["--png", "a.svg"], "--png"), (["--svg", "nowhere/a.svg"], "--svg"), (["--watch", "--csv"], "--watch")],
)
def test_a_picture_that_could_not_be_written_is_refused_before_anything_is_asked(
    cli: CommandLine, options: list[str], field: str
) -> None:
    done = cli.run("metrics", "j1", *options)
    assert (done.exit_code, field in done.stderr, cli.api.asked) == (2, True, [])


def test_nothing_to_draw_is_said(cli: CommandLine, tmp_path: Path) -> None:
    done = answered(cli, a_series("loss")).run("metrics", "j1", "--svg", str(tmp_path / "a.svg"))
    assert (done.exit_code, (tmp_path / "a.svg").exists()) == (1, False)


def test_it_is_watched_until_the_job_has_ended(cli: CommandLine) -> None:
    answered(cli, a_series("loss", 4, 2))
    states = iter([None, None, "2026-01-01T12:00:00+00:00"])
    cli.api.on("GET", "/jobs/j1", lambda _: reply({"id": "j1", "ended_at": next(states)}))
    done = cli.run("metrics", "j1", "loss", "--watch", "--interval", "0.5")
    assert done.exit_code == 0, done.stderr
    assert "loss, mean of every 1 s" in done.stdout
    asked = [request.url.path for request in cli.api.asked]
    assert (asked.count("/api/v1/jobs/j1"), asked.count("/api/v1/jobs/j1/metrics/series")) == (3, 3)
