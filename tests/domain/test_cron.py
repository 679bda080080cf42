"""Ticks of cron expressions: against examples that people know, and against a slow reading of the same rules."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dormice.domain.cron import EXPRESSION_CHARS, SECOND, Cron
from dormice.domain.errors import Invalid

MINUTE = timedelta(minutes=1)
ZONES = (
    *("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Chatham"),
    "Australia/Lord_Howe",  # half an hour
    "Antarctica/Troll",  # two hours
    *("Africa/Cairo", "America/Havana", "Asia/Beirut"),  # at midnight
)

NONSENSE = (
    *("", "x", "* * * *", "* * * * * *", "@daily", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *"),
    *("* * * 13 *", "* * * * 8", "*/0 * * * *", "5-1 * * * *", "1,,2 * * * *", "-1 * * * *", "1.5 * * * *"),
    *("* * * FOO *", "0 12 ? * MON", "\u0663 * * * *", "* * * * fr\u0131", "\0 * * * *"),
    *("0 0 30 2 *", "0 0 31 4,6 *", "* * * * " + "1," * EXPRESSION_CHARS, "9" * 5_000 + " * * * *"),
)
NO_ZONES = (
    *("", "Mars/Olympus", "America", "../../etc/passwd", "/etc/localtime", "localtime", "right/UTC", "posix/UTC"),
    *("zone.tab", "Europe/Berlin\0", "x" * 5_000, "x/" * 5_000, "+02:00", "\N{SNOWMAN}"),
)


def moment(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp()) * SECOND


def ticks(expression: str, timezone: str, after: str, count: int) -> list[str]:
    """The next ticks, as clocks of the zone show them."""
    start = moment(after)
    found = islice(Cron(expression, timezone, now=start).after(start), count)
    zone = ZoneInfo(timezone)
    return [datetime.fromtimestamp(tick / SECOND, zone).isoformat(timespec="minutes") for tick in found]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("* * * * *", ["2026-01-01T00:01", "2026-01-01T00:02", "2026-01-01T00:03"]),
        ("*/20 * * * *", ["2026-01-01T00:20", "2026-01-01T00:40", "2026-01-01T01:00"]),
        ("0 8 * * 1-5", ["2026-01-01T08:00", "2026-01-02T08:00", "2026-01-05T08:00"]),
        ("0 8 * * mon-fri", ["2026-01-01T08:00", "2026-01-02T08:00", "2026-01-05T08:00"]),
        ("0 0 * * 0", ["2026-01-04T00:00", "2026-01-11T00:00", "2026-01-18T00:00"]),
        ("0 0 * * 7", ["2026-01-04T00:00", "2026-01-11T00:00", "2026-01-18T00:00"]),
        ("0 0 * * SUN", ["2026-01-04T00:00", "2026-01-11T00:00", "2026-01-18T00:00"]),
        ("0 0 * * 5-7", ["2026-01-02T00:00", "2026-01-03T00:00", "2026-01-04T00:00"]),
        ("0 0 1 * *", ["2026-02-01T00:00", "2026-03-01T00:00", "2026-04-01T00:00"]),
        ("0 0 31 * *", ["2026-01-31T00:00", "2026-03-31T00:00", "2026-05-31T00:00"]),
        ("0 0 29 2 *", ["2028-02-29T00:00", "2032-02-29T00:00", "2036-02-29T00:00"]),
        ("30 6,18 * JAN,jul *", ["2026-01-01T06:30", "2026-01-01T18:30", "2026-01-02T06:30"]),
        ("10-50/20 9 * * *", ["2026-01-01T09:10", "2026-01-01T09:30", "2026-01-01T09:50"]),
        # Day of month or day of week, if both are told; both, if one begins with a star.
        ("0 0 13 * 5", ["2026-01-02T00:00", "2026-01-09T00:00", "2026-01-13T00:00"]),
        ("0 0 */2 * 1", ["2026-01-05T00:00", "2026-01-19T00:00", "2026-02-09T00:00"]),
    ],
)
def test_examples(expression: str, expected: list[str]) -> None:
    assert ticks(expression, "UTC", "2026-01-01T00:00+00:00", 3) == [f"{text}+00:00" for text in expected]


def test_a_moment_of_the_zone_is_another_one_of_the_world_in_summer() -> None:
    assert ticks("0 9 * * *", "Europe/Berlin", "2026-03-28T00:00+01:00", 2) == [
        "2026-03-28T09:00+01:00",
        "2026-03-29T09:00+02:00",
    ]


def test_what_stands_at_an_hour_that_is_left_out_ticks_right_after_it_and_once() -> None:
    for expression in ("30 2 * * *", "0,15,30 2 * * *", "0 2,3 * * *"):
        assert ticks(expression, "Europe/Berlin", "2026-03-29T00:00+01:00", 1) == ["2026-03-29T03:00+02:00"]
    assert ticks("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00+01:00", 3) == [
        "2026-03-29T03:00+02:00",
        "2026-03-30T02:30+02:00",
        "2026-03-31T02:30+02:00",
    ]
    assert ticks("0 2,3 * * *", "Europe/Berlin", "2026-03-29T00:00+01:00", 2)[1] == "2026-03-30T02:00+02:00"


def test_what_stands_at_an_hour_that_comes_twice_ticks_once() -> None:
    expected = ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]
    assert ticks("30 2 * * *", "Europe/Berlin", "2026-10-25T00:00+02:00", 2) == expected
    assert ticks("30 2 * * *", "Europe/Berlin", "2026-10-25T02:10+01:00", 1) == expected[1:]


def test_what_stands_at_every_hour_goes_on_as_time_does() -> None:
    for after in ("2026-03-28T23:30+01:00", "2026-10-24T23:30+02:00"):
        start = moment(after)
        found = list(islice(Cron("0 * * * *", "Europe/Berlin", now=start).after(start), 8))
        assert {later - earlier for earlier, later in pairwise(found)} == {3600 * SECOND}


def test_clocks_may_be_put_forward_or_back_by_less_than_an_hour_or_at_midnight() -> None:
    lord_howe = "Australia/Lord_Howe"  # from 02:00 to 02:30, and back to 01:30
    assert ticks("*/20 3 * * *", lord_howe, "2026-10-04T00:00+10:30", 1) == ["2026-10-04T03:00+11:00"]
    assert ticks("40 * * * *", lord_howe, "2026-10-04T01:45+10:30", 1) == ["2026-10-04T02:40+11:00"]
    assert ticks("*/20 3 * * *", lord_howe, "2026-04-05T00:00+11:00", 1) == ["2026-04-05T03:00+10:30"]
    assert ticks("40 * * * *", lord_howe, "2026-04-05T01:00+11:00", 3) == [
        "2026-04-05T01:40+11:00",
        "2026-04-05T01:40+10:30",
        "2026-04-05T02:40+10:30",
    ]
    assert ticks("15 2 * * *", lord_howe, "2026-10-04T00:00+10:30", 1) == ["2026-10-04T02:30+11:00"]
    chatham = "2026-04-04T10:30+00:00"  # at 02:45 UTC, where CronSim goes round for ever
    assert ticks("*/29 3-6/2 * * *", "Pacific/Chatham", chatham, 3) == [
        "2026-04-05T03:00+13:45",
        "2026-04-05T03:29+13:45",
        "2026-04-05T03:00+12:45",
    ]
    midnight = "2026-04-23T23:00+02:00"  # from 00:00 to 01:00
    assert ticks("*/30 0 * * *", "Africa/Cairo", midnight, 1) == ["2026-04-25T00:00+03:00"]
    assert ticks("30 0 * * *", "Africa/Cairo", midnight, 1) == ["2026-04-24T01:00+03:00"]


@pytest.mark.parametrize(
    "expression",
    NONSENSE,
    ids=lambda expression: ascii(expression[:20]),
)
def test_nonsense_is_refused_and_the_field_is_named(expression: str) -> None:
    with pytest.raises(Invalid, match="cron") as refused:
        Cron(expression, "UTC", now=moment("2026-01-01T00:00+00:00"))
    assert (refused.value.location, refused.value.status) == ("body.cron", 400)


@pytest.mark.parametrize(
    "timezone",
    NO_ZONES,
    ids=lambda timezone: ascii(timezone[:20]),
)
def test_a_zone_that_is_none_is_refused(timezone: str) -> None:
    with pytest.raises(Invalid, match="timezone") as refused:
        Cron("* * * * *", timezone, now=moment("2026-01-01T00:00+00:00"))
    assert (refused.value.location, refused.value.status) == ("body.timezone", 400)


@given(st.text(alphabet="0123456789*/,-LW#MONJAN ", max_size=30))
@settings(deadline=None)
def test_whatever_is_written_either_ticks_or_is_refused(expression: str) -> None:
    now = moment("2026-01-01T00:00+00:00")
    try:
        cron = Cron(expression, "Europe/Berlin", now=now)
    except Invalid:
        return
    found = list(islice(cron.after(now), 3))
    assert found
    assert found == sorted({*found})
    assert found[0] > now


# The slow reading


@st.composite
def fields(draw: st.DrawFn, first: int, last: int) -> tuple[str, frozenset[int]]:
    """A field as it is written, and the numbers that it means."""
    kind = draw(st.sampled_from(("star", "step", "list", "range")))
    if kind == "star":
        return "*", frozenset(range(first, last + 1))
    if kind == "step":
        step = draw(st.integers(1, 30))
        return f"*/{step}", frozenset(range(first, last + 1, step))
    if kind == "list":
        chosen = draw(st.sets(st.integers(first, last), min_size=1, max_size=3))
        return ",".join(map(str, sorted(chosen))), frozenset(chosen)
    begin = draw(st.integers(first, last - 1))
    end, step = draw(st.integers(begin + 1, last)), draw(st.integers(1, 5))
    return f"{begin}-{end}/{step}", frozenset(range(begin, end + 1, step))


def slowly(fields: list[tuple[str, frozenset[int]]], zone: ZoneInfo, start: datetime, hours: int) -> Iterator[int]:
    """Every tick after a moment: minute by minute, by the rules of the module's head."""
    (minute, minutes), (hour, hours_meant), (day, days), (_, months), (weekday, weekdays) = fields
    both = day.startswith("*") or weekday.startswith("*")

    def fits(local: datetime) -> bool:
        of_month, of_week = local.day in days, local.isoweekday() % 7 in weekdays
        fits_day = (of_month and of_week) if both else (of_month or of_week)
        return local.minute in minutes and local.hour in hours_meant and local.month in months and fits_day

    found: set[datetime] = set()
    if minute.startswith("*") or hour.startswith("*"):
        found = {one for n in range(hours * 60) if fits((one := start + n * MINUTE).astimezone(zone))}
    else:
        local = start.astimezone(zone).replace(tzinfo=None) - timedelta(hours=3)
        for n in range((hours + 6) * 60):
            wall = local + n * MINUTE
            if fits(wall):
                while (real := wall.replace(tzinfo=zone)).astimezone(UTC).astimezone(zone).replace(tzinfo=None) != wall:
                    wall += MINUTE
                found.add(real.astimezone(UTC))
    end = start + hours * 60 * MINUTE
    yield from sorted(round(one.timestamp()) * SECOND for one in found if start < one < end)


def changes(zone: str) -> list[datetime]:
    """The moments of 2026 from which on clocks are put forward or back, to the minute; of a zone without any, some."""
    days = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=n) for n in range(365)]
    found = []
    for day in days:
        offsets = [(day + n * MINUTE).astimezone(ZoneInfo(zone)).utcoffset() for n in (0, 24 * 60)]
        if offsets[0] != offsets[1]:
            found += [
                one
                for n in range(1, 24 * 60 + 1)
                if (one := day + n * MINUTE).astimezone(ZoneInfo(zone)).utcoffset()
                != (one - MINUTE).astimezone(ZoneInfo(zone)).utcoffset()
            ]
    return found or days[::180]


CHANGES = [(zone, around) for zone in ZONES for around in changes(zone)]


@given(
    written=st.tuples(fields(0, 59), fields(0, 23), fields(1, 31), fields(1, 12), fields(0, 6)),
    place=st.sampled_from(CHANGES),
    before=st.integers(-3 * 60, 24 * 60),
)
@settings(deadline=None)
def test_it_ticks_as_a_slow_reading_says(
    written: tuple[tuple[str, frozenset[int]], ...], place: tuple[str, datetime], before: int
) -> None:
    zone, around = place
    start = around - before * MINUTE
    now = round(start.timestamp()) * SECOND
    try:
        cron = Cron(" ".join(text for text, _ in written), zone, now=now)
    except Invalid:
        return  # days that never come
    end = now + 48 * 3600 * SECOND
    found = []
    for tick in cron.after(now):
        if tick >= end:
            break
        found.append(tick)
    assert found == list(slowly(list(written), ZoneInfo(zone), start, 48))


@given(
    expression=st.sampled_from(("* * * * *", "*/7 3 * * *", "0 0 1 1 *", "30 2 * * *", "* 9 1 1 *")),
    since=st.integers(0, 2_000_000),
    length=st.integers(0, 2_000_000),
    limit=st.integers(1, 120),
)
@settings(deadline=None)
def test_the_latest_ticks_are_the_last_of_all(expression: str, since: int, length: int, limit: int) -> None:
    begin = moment("2026-10-01T00:00+00:00") + since * SECOND
    end = begin + length * SECOND
    cron = Cron(expression, "Europe/Berlin", now=begin)
    every = []
    for tick in cron.after(begin - 1):
        if tick > end:
            break
        every.append(tick)
    assert cron.latest(begin, end, limit) == every[-limit:]
