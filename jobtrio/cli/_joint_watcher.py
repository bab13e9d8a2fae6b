"""Watches several jobs together, and says how each of them ended.

How one is watched is the `Watcher`'s, and what its lines begin with the `LabelledOutput`'s. It must not know how the
jobs were chosen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from jobtrio._errors import UnknownJobError
from jobtrio.cli._endings import FAILED, one_line
from jobtrio.cli._labels import LabelledOutput, labels_of
from jobtrio.cli._output import STDERR, Output
from jobtrio.cli._signals import line_start
from jobtrio.cli._watcher import Watcher, watch_until_left

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobtrio.cli._sources import Source


class JointWatcher:
    """Shows the messages of several jobs until all have ended, or until the user leaves."""

    def __init__(self, sources: Mapping[str, Source], *, as_json: bool = False) -> None:
        """Prepare to watch.

        Args:
            sources: The jobs' streams, by their ids.
            as_json: Whether stdout gets each message as a line of JSON, rather than what it says.
        """
        turn = trio.Lock()
        labels = zip(sources, labels_of(sources), strict=True)
        self._sources = sources
        self._as_json = as_json
        self._outputs = {job_id: LabelledOutput(label, turn, as_json=as_json) for job_id, label in labels}
        self._endings: dict[str, tuple[str, int]] = {}  # the line that says how a job ended, and its exit code
        self._fault: Exception | None = None  # why none can be watched on

    async def watch(self) -> int:
        """Watch, sum up, and return the exit code: that of the first that did not complete, or 0.

        Raises what `Watcher.watch` raises, but for a job that is gone: the others go on.

        *Cancellation*: the jobs go on.
        """
        if (left := await watch_until_left(self._follow_all, self._say_farewell)) is not None:
            return 128 + left
        for job_id, output in self._outputs.items():
            await output.write([(STDERR, f"{self._endings[job_id][0]}\n")])
        return next((code for job_id in self._sources if (code := self._endings[job_id][1])), 0)

    async def _follow_all(self) -> None:
        async with trio.open_nursery() as nursery:
            for job_id in self._sources:
                nursery.start_soon(self._follow, job_id, nursery.cancel_scope)
        if self._fault is not None:
            raise self._fault

    async def _follow(self, job_id: str, scope: trio.CancelScope) -> None:
        output = self._outputs[job_id]
        watcher = Watcher(self._sources[job_id], as_json=self._as_json, job=job_id, output=output)
        try:
            await watcher.follow()
            self._endings[job_id] = await watcher.ending()
        except UnknownJobError as exc:
            line = f"jobtrio: {one_line(str(exc), 1000)}"
            self._endings[job_id] = line, FAILED
            await output.say(line)
        except Exception as exc:  # as where nobody reads, which the others may find as well
            self._fault = self._fault or exc
            scope.cancel()

    async def _say_farewell(self, number: int) -> None:
        living = sum(not (job_id in self._endings or source.has_ended) for job_id, source in self._sources.items())
        said = f"{line_start(number)}jobtrio: jobs that go on: {living} of {len(self._sources)}\n"
        await Output().write([(STDERR, said)])
