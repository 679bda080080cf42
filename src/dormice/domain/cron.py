"""When a schedule ticks: a cron expression, read in a time zone.

Five fields as cron of Debian reads them: 0 and 7 are Sunday; names, lists, ranges and steps; a day has to fit day-of-month or
day-of-week, and both if one of the two fields begins with a star. Where clocks are put forward, what stands at an hour that is left out ticks
right after it; where they are put back, it ticks once, the first time. What stands at every hour or every minute goes on as time does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from dormice.domain.errors import Invalid
from dormice.domain.execution import Micros

EXPRESSION_CHARS = 256
SECOND: Micros = 1_000_000
_FIRST_WINDOW = 3_600 * SECOND
_LONGEST_CHANGE = 3 * 3_600 * SECOND
"""More than clocks are ever put forward or back."""
_MINUTE = timedelta(minutes=1)
_FIELDS = (
    "five fields are wanted: minute (0-59), hour (0-23), day of month (1-31), month (1-12 or JAN-DEC), "
    "day of week (0-7 or SUN-SAT; 0 and 7 are Sunday)"
)


class Cron:
    """Knows all ticks. Raises Invalid for an expression or a zone that means nothing, and for one that never ticks."""

    def __init__(self, expression: str, timezone: str, *, now: Micros) -> None:
        self._expression = expression
        self._fixed = not any(field.startswith("*") for field in expression.split()[:2])
        """It stands at certain times of a day, not at every hour or minute."""
        self._zone = _zone(timezone)
        if len(expression) > EXPRESSION_CHARS or not expression.isascii() or len(expression.split()) != 5:
            raise _invalid(f"cron is not an expression of at most {EXPRESSION_CHARS} ASCII characters: {_FIELDS}")
        try:
            CronSim(expression, _local(now, self._zone))
        except CronSimError as error:
            raise _invalid(f"cron is wrong ({str(error).lower()}): {_FIELDS}") from None
        if self.next(now) is None:
            raise _invalid(
                "cron names days that do not come within 50 years: change day of month, month or day of week"
            )

    def after(self, moment: Micros) -> Iterator[Micros]:
        """Yield the ticks after a moment, each once, in their order."""
        for tick in self._from(moment):
            if tick > moment:  # times that are left out have one moment together
                moment = tick
                yield tick

    def _from(self, moment: Micros) -> Iterator[Micros]:
        """Yield ticks in their order, repeats and some of a little before the moment among them.

        Clocks are read here and not by CronSim, which knows only of hours that are left out or come twice, and not of halves (Lord Howe).
        """
        wall = _local(moment, self._zone)
        if _local(moment + _LONGEST_CHANGE, self._zone).utcoffset() != wall.utcoffset():
            wall -= timedelta(microseconds=_LONGEST_CHANGE)  # what clocks show before now may come again
        repeats: deque[Micros] = deque()
        for found in CronSim(self._expression, wall.replace(tzinfo=None)):
            first, second = self._moments(found)
            if first > second:
                continue
            while repeats and repeats[0] < first:
                yield repeats.popleft()
            yield first
            if second > first and not self._fixed:
                repeats.append(second)
        yield from repeats

    def _moments(self, wall: datetime) -> tuple[Micros, Micros]:
        """When clocks show this for the first and for the last time. What they leave out has them in the wrong order, or, if it is
        not to be left out, those of when clocks go on.
        """
        while True:
            first, second = (round(wall.replace(tzinfo=self._zone, fold=fold).timestamp()) * SECOND for fold in (0, 1))
            if first <= second or not self._fixed:
                return first, second
            wall += _MINUTE

    def next(self, moment: Micros) -> Micros | None:
        """Return the first tick after a moment; None when there is none within 50 years."""
        return next(self.after(moment), None)

    def latest(self, since: Micros, until: Micros, limit: int) -> list[Micros]:
        """Return the last ticks from `since` to `until`, both included, in their order; at most `limit`."""
        window = _FIRST_WINDOW
        while True:
            begin = max(since - 1, until - window)
            found = list(takewhile(lambda tick: tick <= until, self.after(begin)))
            if len(found) >= limit or begin == since - 1:
                return found[-limit:]
            window *= 4


def _zone(name: str) -> ZoneInfo:
    """Raises Invalid."""
    try:
        if name.startswith(("posix", "right/", "localtime")):
            raise ZoneInfoNotFoundError(name)
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # no such file, not a name, not a file of zones
        raise Invalid(
            "timezone is not a name of the IANA time zone database: write it as in Europe/Berlin or UTC",
            location="body.timezone",
            status=400,
        ) from None


def _local(moment: Micros, zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(moment // SECOND, zone)


def _invalid(message: str) -> Invalid:
    return Invalid(message, location="body.cron", status=400)
