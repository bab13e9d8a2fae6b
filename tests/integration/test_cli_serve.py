"""``jobtrio serve``, and ``watch`` and ``submit`` with a server's URL."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import store_jobs
import trio
from raw_client import CLOSE, request
from scripted_bridge import Peer, events, open_bridge

import jobtrio
from jobtrio.stores.sqlite import SqliteJobStore
from jobtrio.websocket.protocol import (
    Cancel,
    Ended,
    Find,
    Get,
    JobFound,
    JobsFound,
    Ok,
    Refused,
    Restarted,
    Submit,
    Submitted,
    Subscribe,
    WireError,
    WireFailed,
    wire_record,
)

if TYPE_CHECKING:
    from pathlib import Path

    from store_shell import Command, Shell

pytestmark = pytest.mark.once

TOKEN = {"JOBTRIO_TOKEN": "open-sesame"}


def serve(shell: Shell, *args: str, token: bool = True) -> tuple[Command, str]:
    """Start a server; return it, and its URL once clients can connect."""
    variables = TOKEN if token else {}
    command = shell.start("serve", "store_jobs:executors", "--port", "0", *args, variables=variables)
    line = command.error_with("jobtrio: serves ")
    found = re.search(r"(wss?://[\w.]+:\d+)/ws and \1/jobs/ID$", line)
    assert found is not None, line
    return command, found[1]


def test_submits_and_watches(shell: Shell) -> None:
    """A job is submitted to a server and watched there, with the looks and exit codes of a store's."""
    _, url = serve(shell)
    code, out, err = shell.run("submit", f"{url}/ws", "words", '"to be or not"', "--watch", variables=TOKEN)
    assert (code, out) == (0, "to \nbe \nor \nnot \n")
    submitted, ended = err.splitlines()
    assert submitted.startswith("jobtrio: submitted ")
    assert re.fullmatch(r"jobtrio: completed in [\d.]+ s, 1 attempt", ended)
    job = submitted.split()[-1]
    assert shell.value("show", job)["job"]["queue"] == "texts"
    assert shell.ask("watch", f"{url}/jobs/{job}", "--text", variables=TOKEN)[:2] == (0, "to be or not ")
    code, out, _ = shell.ask("watch", "--json", "--after", "3", f"{url}/jobs/{job}", variables=TOKEN)
    assert code == 0
    assert [json.loads(line) for line in out.splitlines()] == [
        {"type": "token", "seq": 4, "attempt": 1, "value": "not "},
        {"type": "end", "seq": 5, "outcome": {"type": "completed", "result": 4}},
    ]


def test_runs_no_job(shell: Shell) -> None:
    """A server may leave the work to others; clients submit and watch there what they run."""
    server, url = serve(shell, "--no-work")
    watcher = shell.start("submit", f"{url}/ws", "words", '"to be"', "--watch", variables=TOKEN)
    job = watcher.error_with("jobtrio: submitted ").split()[-1]
    watcher.error_with("the job waits in queue 'texts' for a worker that runs 'words'")
    assert shell.value("show", job)["job"]["state"] == "QUEUED"
    worker = shell.worker("--name", "bench")
    assert watcher.end()[:2] == (0, "to \nbe \n")
    assert shell.value("show", job)["job"]["worker"] == "bench"
    worker.send(signal.SIGTERM)
    server.send(signal.SIGTERM)
    assert (worker.end()[0], server.end()[0]) == (0, 0)


def test_says_that_it_runs_no_job(shell: Shell) -> None:
    """Its first line says what kind of worker it is."""
    command = shell.start("serve", "store_jobs:executors", "--port", "0", "--no-work", "--name", "desk")
    assert command.error_with("desk") == "jobtrio: worker desk runs no jobs"
    command.send(signal.SIGTERM)
    assert command.end()[0] == 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("--queue texts", "--queue"),
        ("--total texts=2 --max-running 3", "--max-running, --total"),
        ("--rate texts=2/s", "--rate"),
        ("--keep 5 --keep-for 2h", "--keep-for, --keep"),
        ("--grace 0 --lease 5", "--grace, --lease"),
        ("--lifespan store_jobs:words", "--lifespan"),
    ],
)
def test_what_is_of_no_use_without_work(shell: Shell, options: str, named: str) -> None:
    """What says how to work, or what to keep, is refused where neither is done, rather than taken without effect."""
    code, _, err = shell.run("serve", "store_jobs:executors", "--no-work", *options.split())
    assert code == 2
    assert f"{named}: of no use with --no-work" in err


def test_prints_the_id(shell: Shell) -> None:
    """Without --watch the id is printed, or the record with --json; a key stands for the job as it does in a store."""
    _, url = serve(shell)
    args = ("submit", f"{url}/ws", "echo", "--payload", "[1]", "--key", "k", "--tag", "a=b", "--priority", "high")
    code, out, err = shell.ask(*args, variables=TOKEN)
    assert (code, err) == (0, "")
    code, again, _ = shell.ask(*args, "--json", variables=TOKEN)
    record = json.loads(again)
    assert (code, record["id"]) == (0, out.strip())
    assert (record["payload"], record["key"], record["tags"], record["priority"]) == ([1], "k", {"a": "b"}, "HIGH")


@pytest.mark.parametrize("options", [[], ["--watch"]])
async def test_id_that_a_terminal_would_obey(shell: Shell, options: list[str]) -> None:
    """What a server calls the job is shown as text, whatever is in it."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.answer(Submit, Submitted(job="\x1b[2J\n\u202e"))
        if options:
            await peer.answer(Get, Refused(code="unknown_job", message="\x1b[2J"))
            await peer.answer(Subscribe, Refused(code="forbidden", message="\x1b[2J"))

    async with open_bridge(script) as url:
        _, out, err = await trio.to_thread.run_sync(shell.run, "submit", f"{url}/ws", "echo", *options)
    assert "\x1b" not in out + err
    assert "\\x1b[2J\\n\\u202e\n" in out + err


async def test_record_that_may_not_be_seen(shell: Shell) -> None:
    """A job that was accepted is named also where the server does not show its record."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.answer(Submit, Submitted(job="the-job"))
        await peer.answer(Get, Refused(code="unavailable", message="the store is away"))

    async with open_bridge(script) as url:
        code, out, err = await trio.to_thread.run_sync(shell.run, "submit", f"{url}/ws", "echo", "--json")
    assert (code, out) == (1, "")
    assert err == "jobtrio submit: submitted the-job, whose record can't be had: the store is away\n"


async def test_watching_what_may_not_be_seen(shell: Shell) -> None:
    """Of a job whose record can't be had nothing is said that isn't known."""
    error = WireError(kind="exception", type="ValueError", message="row 2", traceback="")

    async def watched(peer: Peer) -> None:
        await peer.answer(Get, Refused(code="unknown_job", message="no job has this id"))
        await peer.subscribed()
        await peer.say(
            events(1, 1),
            Restarted(sub=1, seq=2, attempt=1, error=error, delay=0.5),
            Ended(sub=1, seq=3, outcome=WireFailed(error=error)),
        )
        await peer.answer(Get, Refused(code="unknown_job", message="no job has this id"))

    async def watch(peer: Peer) -> None:
        await peer.greet()
        await watched(peer)

    async def submit(peer: Peer) -> None:
        await peer.greet()
        await peer.answer(Submit, Submitted(job="the-job"))
        await watched(peer)

    told = [
        "jobtrio: attempt 1 failed: ValueError: row 2; the next follows in 0.5 s",
        "jobtrio: failed, 2 attempts: ValueError: row 2",
    ]
    async with open_bridge(watch) as url:
        args = ("watch", url.removesuffix("/ws") + "/jobs/the-job")
        code, out, err = await trio.to_thread.run_sync(shell.run, *args)
    assert (code, out, err.splitlines()) == (1, "1\n", told)
    async with open_bridge(submit) as url:
        code, out, err = await trio.to_thread.run_sync(shell.run, "submit", f"{url}/ws", "echo", "--watch")
    assert (code, out, err.splitlines()) == (1, "1\n", ["jobtrio: submitted the-job", *told])


def test_failed(shell: Shell) -> None:
    """A job that failed gives 1; its error is in the last line."""
    _, url = serve(shell)
    code, out, err = shell.ask("submit", f"{url}/ws", "fail", "--watch", variables=TOKEN)
    assert (code, out) == (1, '{"row": 1}\n')
    error = "ValueError: row 2: 'thirty' is not a number"
    assert re.fullmatch(rf"jobtrio: failed after [\d.]+ s, 1 attempt: {re.escape(error)}", err.splitlines()[-1])


@pytest.mark.parametrize("in_file", [False, True])
def test_leaving(shell: Shell, tmp_path: Path, in_file: bool) -> None:
    """Ctrl-C ends the watching, not the job, and says how to end that: by a line that a shell takes as it is."""
    _, url = serve(shell)
    (tmp_path / "my token").write_text(TOKEN["JOBTRIO_TOKEN"])
    file = ["--token-file", "my token"] if in_file else []
    variables = {} if in_file else TOKEN
    shell.submit("wait", "--id", "it's/me", "--payload", json.dumps(str(tmp_path / "gate")))
    watcher = shell.start("watch", *file, f"{url}/jobs/it's%2Fme", variables=variables)
    assert watcher.line() == "attempt 1"
    watcher.send(signal.SIGINT)
    code, out, err = watcher.end()
    told, _, line = err.partition("; to end it: ")
    assert (code, out, told) == (130, "", "jobtrio: the job goes on")
    command = shlex.split(line)
    assert command == ["jobtrio", "cancel", *file, f"{url}/jobs/it%27s%2Fme"]
    assert shell.ask(*command[1:], variables=variables)[0] == 0


def test_leaving_what_was_submitted(shell: Shell, tmp_path: Path) -> None:
    """Who leaves the job that it has just submitted to a server is told as well how to end it."""
    _, url = serve(shell)
    payload = json.dumps(str(tmp_path / "gate"))
    watcher = shell.start("submit", f"{url}/ws?secret=1", "wait", payload, "--watch", variables=TOKEN)
    job = watcher.error_with("jobtrio: submitted ").split()[-1]
    assert watcher.line() == "attempt 1"
    watcher.send(signal.SIGTERM)
    hint = f"; to end it: jobtrio cancel {url}/jobs/{job}"
    assert watcher.end() == (143, "", f"jobtrio: the job goes on{hint}\n")


def test_leaving_without_a_token(shell: Shell, tmp_path: Path) -> None:
    """Who has no token could not cancel the job."""
    _, url = serve(shell, token=False)
    job = shell.submit("wait", "--payload", json.dumps(str(tmp_path / "gate")))
    watcher = shell.start("watch", f"{url}/jobs/{job}")
    assert watcher.line() == "attempt 1"
    watcher.send(signal.SIGINT)
    assert watcher.end() == (130, "", "jobtrio: the job goes on\n")


async def test_what_is_too_deep_to_be_shown(shell: Shell) -> None:
    """A value of another program's, which can just be read here and not be written, ends the watching with one line.

    From Python 3.12 on all these can be written.
    """
    error = WireError(kind="exception", type="ValueError", message="row 2", traceback="")

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.answer(Get, Refused(code="unknown_job", message="none"))
        await peer.subscribed()
        for seq in range(1, 1000):
            deep = "[" * seq + "]" * seq
            await peer.say(f'{{"type":"events","sub":1,"seq":{seq},"attempt":1,"items":[{deep}]}}')
        await peer.say(Ended(sub=1, seq=1000, outcome=WireFailed(error=error)))

    async with open_bridge(script) as url:
        code, out, err = await trio.to_thread.run_sync(shell.run, "watch", f"{url}/jobs/x")
    assert code == 1
    if out.count("\n") < 999:
        assert re.fullmatch(r"jobtrio watch: .* nested too deeply\n", err)


def test_output_that_nobody_takes(shell: Shell) -> None:
    """Where nobody reads the output of a watcher any more it ends with 141, on a full disk with 1 and one line."""
    _, url = serve(shell)
    job = shell.submit("words", "--payload", '"a"')
    assert shell.ask("watch", job)[0] == 0
    reader, writer = os.pipe()
    os.close(reader)
    command = shell.start("watch", f"{url}/jobs/{job}", stdout=writer, variables=TOKEN)
    os.close(writer)
    assert command.end() == (141, "", "")
    with open("/dev/full", "wb") as full:
        code, _, err = shell.run("watch", f"{url}/jobs/{job}", stdout=full, variables=TOKEN)
    assert (code, err) == (1, "jobtrio watch: the output can't be written: No space left on device\n")


def test_server_that_comes_back(shell: Shell, tmp_path: Path) -> None:
    """A watcher lives through its server's restart, and says that it did."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    shell.worker("--queue", "work")
    gate = tmp_path / "gate"
    job = shell.submit("wait", "--payload", json.dumps(str(gate)), "--queue", "work")
    server, url = serve(shell, "--queue", "none", "--port", port)
    watcher = shell.start("watch", f"{url}/jobs/{job}", variables=TOKEN)
    assert watcher.line() == "attempt 1"
    server.send(signal.SIGTERM)
    assert watcher.error_with("next try in").startswith(f"jobtrio: {url}/ws: closed with 1012; next try in ")
    assert server.end()[0] == 0
    serve(shell, "--queue", "none", "--port", port)
    gate.touch()
    code, out, err = watcher.end()
    assert (code, out) == (0, "")
    assert err.splitlines()[-1].startswith("jobtrio: completed in ")


async def submit_words(path: Path, jobs: list[str]) -> None:
    """Submit jobs with these ids and a tag, and one with neither."""
    specs = [jobtrio.JobSpec("words", "a", job_id=job, tags={"user": "ann"}) for job in jobs]
    async with jobtrio.open_registry(store_jobs.executors, store=SqliteJobStore(path), queues={}) as registry:
        await registry.submit_many([*specs, jobtrio.JobSpec("words", "b")])


def test_several(shell: Shell) -> None:
    """Several jobs of a server are watched together, by URLs or as they match, also more than a connection takes."""
    _, url = serve(shell)
    jobs = [f"it's/{n}" for n in range(10, 43)]
    trio.run(submit_words, shell.folder / "jobs.db", jobs)
    lines = [f"{job} | a " for job in jobs]
    urls = [f"{url}/jobs/it's%2F{n}" for n in range(10, 43)]
    for args in (urls, ["--tag", "user=ann", f"{url}/ws"], [url, "--tag", "user=ann", "--state", "completed"]):
        code, out, err = shell.ask("watch", *args, variables=TOKEN)
        assert (code, sorted(out.splitlines())) == (0, lines)
        summaries = [re.fullmatch(r"(.*) \| jobtrio: completed\b.*", line) for line in err.splitlines()[-33:]]
        assert [found and found[1] for found in summaries] == jobs
    none = (1, "", "jobtrio watch: no job matches\n")
    assert shell.ask("watch", "--tag", "user=ann", "--state", "failed", url, variables=TOKEN) == none
    gone = "none   | jobtrio: no job has the id 'none': it never existed or is no longer kept\n"
    code, out, err = shell.ask("watch", f"{url}/jobs/none", urls[0], variables=TOKEN)
    assert (code, out, err.count(gone)) == (1, "it's/1 | a \n", 2)


def test_several_with_a_wrong_token(shell: Shell) -> None:
    """That the server does not know who asks is one line, however many jobs are asked for."""
    _, url = serve(shell)
    assert shell.run("watch", f"{url}/jobs/a", f"{url}/jobs/b", variables={"JOBTRIO_TOKEN": "no"}) == (
        1,
        "",
        "jobtrio watch: the server refused: the token in JOBTRIO_TOKEN is not the one that it wants\n",
    )


def test_several_at_a_server_that_is_killed(shell: Shell, tmp_path: Path) -> None:
    """The watching of several lives through their server's death."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    shell.worker("--queue", "work")
    gate = tmp_path / "gate"
    for job in "ab":
        shell.submit("wait", "--id", job, "--payload", json.dumps(str(gate)), "--queue", "work")
    server, url = serve(shell, "--queue", "none", "--port", port)
    watcher = shell.start("watch", f"{url}/jobs/a", f"{url}/jobs/b", variables=TOKEN)
    assert sorted([watcher.line(), watcher.line()]) == ["a | attempt 1", "b | attempt 1"]
    server.send(signal.SIGKILL)
    watcher.error_with("next try in")
    serve(shell, "--queue", "none", "--port", port)
    gate.touch()
    code, out, err = watcher.end()
    assert (code, out) == (0, "")
    first, second = err.splitlines()[-2:]
    assert first.startswith("a | jobtrio: completed")
    assert second.startswith("b | jobtrio: completed")


def test_drains(shell: Shell, tmp_path: Path) -> None:
    """At a signal a server lets jobs end, and their watchers see it."""
    server, url = serve(shell, "--grace", "60")
    gate = tmp_path / "gate"
    watcher = shell.start("submit", f"{url}/ws", "wait", json.dumps(str(gate)), "--watch", variables=TOKEN)
    assert watcher.line() == "attempt 1"
    server.send(signal.SIGTERM)
    server.error_with("starts nothing more; 1 job may take")
    gate.touch()
    assert watcher.end()[0] == 0
    code, _, err = server.end()
    assert (code, err.splitlines()[-1]) == (0, "jobtrio: stopped; 1 completed")


def test_second_signal_while_a_client_does_not_leave(shell: Shell) -> None:
    """Ctrl-C ends a server at once also where it drains, the jobs are gone, and a client takes its time to be."""
    server, url = serve(shell)
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port)) as client:
        client.sendall(request("/ws"))
        said = client.makefile("rb")
        while (line := said.readline()) != b"\r\n":
            assert line, "the server has left"
        server.send(signal.SIGTERM)
        while (frame := said.read(2))[0] != 0x80 | CLOSE:  # which it does not answer
            said.read(int.from_bytes(said.read(2), "big") if frame[1] == 126 else frame[1])
        server.send(signal.SIGINT)
        server.error_with("Ctrl-C: ends at once")
        assert server.end()[0] == 130


def test_without_a_token(shell: Shell) -> None:
    """Without a token clients can watch, and neither submit nor cancel."""
    server, url = serve(shell, token=False)
    job = shell.submit("words", "--payload", '"to be"')
    assert shell.ask("watch", f"{url}/jobs/{job}")[:2] == (0, "to \nbe \n")
    code, out, err = shell.ask("submit", f"{url}/ws", "echo")
    assert (code, out) == (1, "")
    assert err.startswith("jobtrio submit: the server refused (forbidden)")
    server.send(signal.SIGTERM)
    assert server.end()[0] == 0


def test_cancels(shell: Shell, tmp_path: Path) -> None:
    """A server's job is cancelled by its URL, as a store's is by its id."""
    _, url = serve(shell)
    job = shell.submit("wait", "--payload", json.dumps(str(tmp_path / "gate")))
    watcher = shell.start("watch", f"{url}/jobs/{job}", variables=TOKEN)
    assert watcher.line() == "attempt 1"
    args = ("cancel", f"{url}/jobs/{job}", "--reason", "enough")
    assert shell.ask(*args, "--grace", "0.5", variables=TOKEN)[0] == 0
    code, _, err = watcher.end()
    assert (code, "enough" in err) == (125, True)
    code, out, err = shell.ask(*args, variables=TOKEN)
    assert (code, out, err) == (1, "", f"jobtrio cancel: job {job!r} has ended already: cancelled\n")
    code, out, _ = shell.ask("cancel", f"{url}/jobs/{shell.submit('wait', '--delay', '1h')}", variables=TOKEN)
    assert (code, out) == (0, "cancelled\n")
    code, out, _ = shell.ask(*args, "--json", variables=TOKEN)
    answer = json.loads(out)
    assert (code, answer["cancelled"], answer["job"]["cancel_reason"]) == (1, False, "enough")
    code, out, err = shell.ask("cancel", f"{url}/jobs/none", variables=TOKEN)
    assert (code, out) == (1, "")
    assert "no job has the id 'none'" in err


def test_runs_again(shell: Shell) -> None:
    """Jobs of a server are run again by their URLs, or as they match; those that were before are told apart."""
    server, url = serve(shell)
    given = ("--tag", "user=ann", "--priority", "high", "--time-limit", "1h", "--retry", "0")
    jobs = [shell.submit("fail", "--id", f"it's/{n}", *given) for n in range(40)]
    done = shell.submit("echo", "[1]", "--tag", "user=ann")
    hidden = shell.submit("cling", "--delay", "1h", "--tag", "user=ann")
    shell.ask("cancel", hidden)
    assert shell.ask("watch", *jobs, done)[0] == 1

    def rerun(*args: str) -> tuple[int, dict[str, dict[str, str]], str]:
        code, out, err = shell.ask("rerun", "--json", *args, variables=TOKEN)
        return code, json.loads(out), err

    urls = [f"{url}/jobs/{job.replace('/', '%2F')}" for job in (*jobs[:2], done)]
    code, told, err = rerun(*urls)
    assert (code, [*told["submitted"]], told["already"], err) == (0, [*jobs[:2], done], {}, "")
    new = shell.value("show", told["submitted"][jobs[0]])["job"]
    assert (new["executor"], new["priority"], new["tags"], new["metadata"]) == (
        "fail",
        "HIGH",
        {"user": "ann"},
        {"again": jobs[0]},
    )
    assert (new["time_limit"], new["retry"]["max_attempts"]) == (3600, 1)
    assert shell.value("show", told["submitted"][done])["job"]["payload"] == [1]
    assert shell.ask("watch", *told["submitted"].values())[0] == 1

    before = {job: told["submitted"][job] for job in jobs[:2]}
    code, told, err = rerun("--tag", "user=ann", "--state", "failed", f"{url}/ws")
    assert (code, err, told["already"]) == (0, "", before)
    assert [*told["submitted"]] == [*jobs[2:], *before.values()]
    assert shell.ask("watch", *told["submitted"].values())[0] == 1
    assert [*rerun("--tag", "user=ann", "--state", "failed", url)[1]["already"]] == [*jobs, *before.values()]
    code, told, err = rerun(f"{url}/jobs/none", f"{url}/jobs/{hidden}", urls[0])
    assert (code, told) == (1, {"submitted": {}, "already": {jobs[0]: before[jobs[0]]}})
    assert err.splitlines() == [
        "jobtrio rerun: no job has the id 'none': it never existed or is no longer kept",
        f"jobtrio rerun: job '{hidden}' is not run again: the server exposes no executor called 'cling'",
    ]
    server.send(signal.SIGTERM)
    server.end()
    _, url = serve(shell, "--no-work", token=False)
    code, out, err = shell.ask("rerun", f"{url}/jobs/{done}")
    assert (code, out, err) == (
        1,
        "",
        f"jobtrio rerun: job '{done}' is not run again: the server refused (forbidden): without authentication, "
        "no job can be submitted\n",
    )


def test_waits_in_a_paused_queue(shell: Shell) -> None:
    """Who watches a server's job is told that its queue is paused, as with a store."""
    server, url = serve(shell)
    assert shell.ask("pause", "default")[0] == 0
    job = shell.submit("echo")
    watcher = shell.start("watch", f"{url}/jobs/{job}", variables=TOKEN)
    watcher.error_with("jobtrio: the job waits in queue 'default', which is paused\n")
    assert shell.ask("resume", "default")[0] == 0
    assert watcher.end()[0] == 0
    server.send(signal.SIGTERM)
    server.end()


def test_retries(shell: Shell) -> None:
    """A server takes a retry policy, up to as many attempts as it allows."""
    server, url = serve(shell)
    code, out, _ = shell.ask("submit", f"{url}/ws", "echo", "--retry", "9", "--json", variables=TOKEN)
    assert (code, json.loads(out)["retry"]["max_attempts"]) == (0, 10)
    code, out, err = shell.ask("submit", f"{url}/ws", "echo", "--retry", "10", variables=TOKEN)
    assert (code, out) == (2, "")
    assert err == "jobtrio submit: retry must allow at most 10 attempts at this server; got 11\n"
    server.send(signal.SIGTERM)
    server.end()


async def test_runs_again_what_may_be_submitted(shell: Shell) -> None:
    """What the server refuses of one job alone is told of that one, and the others are run again."""
    async with jobtrio.open_registry() as registry:
        jobs = [await registry.submit(store_jobs.echo, job_id=job_id) for job_id in ("his", "taken", "hers")]
        for job in jobs:
            await job.wait()
        found = [wire_record(job.record) for job in jobs]

    async def script(peer: Peer) -> None:
        await peer.greet()
        for record in found:
            await peer.answer(Get, JobFound(job=record))
        await peer.answer(Find, JobsFound(jobs=[]))
        await peer.answer(Submit, Refused(code="forbidden", message="you may not submit this job"))
        await peer.answer(Submit, Refused(code="duplicate_job", message="the key belongs to another job"))
        await peer.answer(Submit, Submitted(job="new"))

    async with open_bridge(script) as url:
        urls = [f"{url}/jobs/{record.id}" for record in found]
        code, out, err = await trio.to_thread.run_sync(shell.run, "rerun", *urls)
    assert (code, out) == (1, "hers is run again as new\n")
    assert err.splitlines() == [
        "jobtrio rerun: job 'his' is not run again: the server refused (forbidden): you may not submit this job",
        "jobtrio rerun: job 'taken' is not run again: the key belongs to another job, which this client may not see: "
        "give another",
    ]


@pytest.mark.parametrize("payload", [{"repr": "<object>"}, {"repr": 1}, {"repr": "a", "b": 2}, 1])
async def test_runs_nothing_again_that_is_not_shown(shell: Shell, payload: Any) -> None:
    """A job is not run again with the text that a server shows in the place of what JSON can't hold."""
    is_hidden = payload == {"repr": "<object>"}
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(store_jobs.echo, payload, job_id="old")
        await job.wait()
        record = job.record

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.answer(Get, JobFound(job=wire_record(record)))
        await peer.answer(Find, JobsFound(jobs=[]))
        if not is_hidden:
            await peer.answer(Submit, Submitted(job="new"))

    async with open_bridge(script) as url:
        said = await trio.to_thread.run_sync(shell.run, "rerun", f"{url}/jobs/old")
    why = "jobtrio rerun: job 'old' is not run again: the server shows its payload by its repr alone\n"
    assert said == ((1, "", why) if is_hidden else (0, "old is run again as new\n", ""))


def test_lists(shell: Shell) -> None:
    """A server's jobs are listed as a store's are, however many pages they take."""
    _, url = serve(shell, "--no-work")
    jobs = [shell.submit("echo", "--tag", f"n={n % 2}", "--delay", "1h") for n in range(5)]
    jobs.append(shell.submit("echo", "--key", "k"))

    def ids(*args: str) -> list[str]:
        code, out, err = shell.ask("list", f"{url}/ws", "--json", *args, variables=TOKEN)
        assert (code, err) == (0, "")
        return [record["id"] for record in json.loads(out)]

    assert ids() == jobs
    assert ids("--limit", "2") == jobs[:2]
    assert ids("--after", jobs[1], "--limit", "5000") == jobs[2:]
    assert ids("--newest-first", "--after", jobs[1]) == [jobs[0]]
    assert ids("--state", "scheduled", "--tag", "n=1") == [jobs[1], jobs[3]]
    assert ids("--key", "k") == jobs[5:]
    assert ids("--key", "k", "--state", "failed") == ids("--key", "other") == []
    _, out, _ = shell.ask("list", f"{url}/ws", variables=TOKEN)
    assert out == shell.ask("list")[1]
    code, out, err = shell.ask("list", f"{url}/ws", "--limit", "3", variables=TOKEN)
    assert (code, len(out.splitlines())) == (0, 4)
    assert err == f"jobtrio list: there may be more: --after {jobs[2]}\n"


def test_lists_what_a_page_at_a_time_brings(shell: Shell) -> None:
    """A page that is short because its records are large is not the last."""
    _, url = serve(shell, "--no-work")
    jobs = [shell.submit("echo", "--payload", json.dumps("x" * 60_000)) for _ in range(20)]
    code, out, _ = shell.ask("list", f"{url}/ws", variables=TOKEN)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == jobs


@pytest.mark.parametrize("accepted", [True, False])
async def test_cancels_what_may_not_be_seen(shell: Shell, accepted: bool) -> None:
    """What became of the request is told also where the server does not show the job's record."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.answer(Cancel, Ok(cancelled=accepted))
        await peer.answer(Get, Refused(code="unknown_job", message="none"))

    async with open_bridge(script) as url:
        code, out, err = await trio.to_thread.run_sync(shell.run, "cancel", f"{url}/jobs/x")
    assert (code, out) == ((0, "asked to stop\n") if accepted else (1, ""))
    assert err == ("" if accepted else "jobtrio cancel: job 'x' has ended already\n")


@pytest.mark.parametrize("token", ["", "close-sesame"])
def test_wrong_token(shell: Shell, token: str) -> None:
    """A server with a token refuses whoever has none, or another."""
    _, url = serve(shell)
    code, out, err = shell.ask("watch", f"{url}/jobs/x", variables={"JOBTRIO_TOKEN": token})
    assert (code, out) == (1, "")
    assert err == (
        "jobtrio watch: the server refused: it wants a token: by --token-file, or JOBTRIO_TOKEN in the environment\n"
        if not token
        else "jobtrio watch: the server refused: the token in JOBTRIO_TOKEN is not the one that it wants\n"
    )
    assert shell.ask("submit", f"{url}/ws", "echo", variables={"JOBTRIO_TOKEN": token})[2] == err.replace(
        "watch", "submit"
    )


def test_token_in_a_file(shell: Shell, tmp_path: Path) -> None:
    """A token may be the first line of a file, without the space around it, on either side."""
    (tmp_path / "token").write_text("from-a-file \nsecond line\n")
    _, url = serve(shell, "--token-file", "token", token=False)
    code, out, _ = shell.ask("submit", f"{url}/ws", "echo", "--watch", "--token-file", "token")
    assert (code, out) == (0, "")


def test_encrypted(shell: Shell, tmp_path: Path) -> None:
    """With a certificate it serves wss://, and clients check whose it is."""
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    extra = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run([*command.split(), *extra], cwd=tmp_path, check=True, capture_output=True)
    _, url = serve(shell, "--certificate", "cert.pem", "--private-key", "key.pem")
    assert url.startswith("wss://")
    trusting = {**TOKEN, "SSL_CERT_FILE": str(tmp_path / "cert.pem")}
    assert shell.run("submit", f"{url}/ws", "echo", "--watch", variables=trusting)[0] == 0
    code, _, err = shell.run("submit", f"{url}/ws", "echo", variables=TOKEN)
    assert code == 1
    assert re.search(r"^jobtrio submit: .*CERTIFICATE_VERIFY_FAILED", err)


def test_nobody_there(shell: Shell) -> None:
    """Where no server answers, it is said once at the first try, and after a bounded wait."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    code, out, err = shell.run("watch", f"ws://127.0.0.1:{port}/jobs/x")
    assert (code, out) == (1, "")
    first, last = err.splitlines()
    why = "no connection: .*: Connection refused"
    assert re.match(rf"jobtrio: ws://127.0.0.1:{port}/ws: {why}; next try in 0.1 s$", first)
    assert re.match(rf"jobtrio watch: ws://127.0.0.1:{port}/ws was away for 5 s: {why}$", last)


def test_unknown(shell: Shell) -> None:
    """What the server doesn't know ends with 1 and one line, as it does in a store."""
    _, url = serve(shell)
    assert shell.ask("watch", f"{url}/jobs/x", variables=TOKEN) == (
        1,
        "",
        "jobtrio watch: no job has the id 'x': it never existed or is no longer kept\n",
    )
    code, _, err = shell.ask("submit", f"{url}/ws", "cling", variables=TOKEN)
    assert (code, err) == (1, "jobtrio submit: the server exposes no executor called 'cling'\n")
    job = shell.submit("words", "--payload", '"a"')
    assert shell.ask("watch", job)[0] == 0
    code, _, err = shell.ask("watch", f"{url}/jobs/{job}", "--after", "1000", variables=TOKEN)
    assert code == 2
    assert err.startswith("jobtrio watch: after must be the number of a message so far, 0 to 2; got 1000")


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["serve", "store_jobs:executors", "--port", "65536"], ["--port", "0 to 65535"]),
        (["serve", "store_jobs:executors", "--host", "0.0.0.0"], ["--host must be", "--token-file", "0.0.0.0"]),
        (["submit", "a", "--retry", "3", "1", "2"], ["must be [URL] EXECUTOR [JSON]"]),
        (["submit", "a", "--retried", "3", "1"], ["unknown, or out of place: --retried 3 1", "submit --help"]),
        (["serve", "store_jobs:executors", "--host", "a..b"], ["serve: --host must be a name or an address; got 'a"]),
        (["serve", "store_jobs:executors", "--allow-origin", "example"], ["--allow-origin must be", "'example'"]),
        (["serve", "store_jobs:executors", "--private-key", "x"], ["--private-key", "--certificate"]),
        (["serve", "store_jobs:executors", "--certificate", "x"], ["--certificate", "can't use x", "No such file"]),
        (["serve", "store_jobs:executors", "--certificate", __file__, "--private-key", "x"], ["directory: 'x'"]),
        (["serve", "store_jobs:executors", "--certificate", __file__], [f"can't use {__file__}", "as PEM without"]),
        (["serve", "store_jobs:executors", "--token-file", "x"], ["--token-file: can't read 'x': No such"]),
        (["serve", "store_jobs:executors", "--token-file", sys.executable], ["--token-file: can't read", "utf-8"]),
        (["serve", "store_jobs:nothing"], ["store_jobs:nothing has no executor"]),
        (["watch", "ws://host/ws"], ["ws://HOST:PORT/jobs/ID", "'ws://host/ws'"]),
        (["watch", "ws://ann:secret@host/jobs/x"], ["url must be"]),
        (["watch", "http://ann:secret@host/jobs/x"], ["a job's URL must be ws://", "'http://…@host/jobs/x'"]),
        (["submit", "http://ann:secret@host/ws", "a"], ["url must be", "'http://…@host/ws'"]),
        (["show", "ws://ann:secret@host/jobs/x"], ["ID: must be the job's id", "'ws://…@host/jobs/x'"]),
        (["list", "postgresql://ann:secret@host/db"], ["argument URL: must be a server's", "'postgresql://…@host/db'"]),
        (["watch", "http://host:8765/jobs/x"], ["ws://HOST:PORT/jobs/ID", "'http://host:8765/jobs/x'"]),
        (["watch", "ws://host/jobs/x", "y"], ["ws://HOST:PORT/jobs/ID", "'y'"]),
        (["watch", "ws://host/jobs/x", "ws://other/jobs/x"], ["must be of one server"]),
        (["watch", "ws://host/ws", "--queue", "a"], ["--queue: not for a server"]),
        (["watch", "ws://host/jobs/x", "--tag", "a=b"], ["url must be", "ends with /ws"]),
        (["rerun", "ws://host/ws"], ["ws://HOST:PORT/jobs/ID", "'ws://host/ws'"]),
        (["rerun", "ws://host/jobs/x", "--executors", "a:b"], ["--executors: not for a server, which decides that"]),
        (["rerun", "ws://host/ws", "--executor", "a"], ["--executor: not for a server"]),
        (
            ["show", "ws://host:8765/jobs/x"],
            ["ID: must be the job's id", "only watch, cancel, rerun, list and submit", "jobs/x'"],
        ),
        (["list", "jobs.db"], ["argument URL: must be a server's, ws://HOST:PORT/ws or wss://…; got 'jobs.db'"]),
        (["list", "ws://host:8765/ws", "--queue", "a"], ["--queue: not for a server"]),
        (["list", "ws://host:8765/jobs/x"], ["got 'ws://host:8765/jobs/x'"]),
        (
            ["remove", "http://host:8765/jobs/x"],
            ["ID: must be the job's id", "only watch, cancel, rerun, list and submit"],
        ),
        (["cancel", "http://host:8765/jobs/x"], ["a job's URL must be ws://HOST:PORT/jobs/ID or wss://…; got "]),
        (["cancel", "ws://host/jobs/x", "--store", "sqlite:///jobs.db"], ["--store: not for a server"]),
        (["watch", "ws://host/jobs/x", "--store", "sqlite:///jobs.db"], ["--store: not for a server"]),
        (["submit", "HTTPS://host/ws", "a"], ["ws://HOST:PORT/ws", "must be ws or wss, not https"]),
        (["submit", "http://host:8765", "a", "1"], ["ws://HOST:PORT/ws", "must be ws or wss, not http"]),
        (["submit", "ws://host/ws"], ["[URL] EXECUTOR [JSON]"]),
        (["submit", "ws://host/ws", "a", "1", "2"], ["[URL] EXECUTOR [JSON]", "got ws://host/ws a 1 2"]),
        (["submit", "a", '{"steps":', "5}"], ["with quotes around the JSON; got a '{\"steps\":' '5}'"]),
        (["submit", "ws://host/ws", "a", "one"], ["JSON", "'one'"]),
        (["submit", "a", "@-"], ["JSON", "got ''", "in the standard input"]),
        (["submit", "a", "1", "--payload", "1"], ["the payload was given twice"]),
        (["submit", "ws://host/ws", "a", "--executors", "b:c", "--id", "x"], ["--id, --executors: not for a server"]),
        (["submit", "ws://host/jobs/x", "a"], ["url must be", "ends with /ws"]),
    ],
)
def test_bad_usage(shell: Shell, args: list[str], parts: list[str]) -> None:
    """What makes no sense ends with 2, and with what is allowed."""
    # A server takes the streams of its process; the tests' own standard input is not to be read.
    code, out, err = (shell.run if args[0] == "serve" or "@-" in args else shell.ask)(*args)
    assert (code, out) == (2, "")
    for part in parts:
        assert part in err
    assert "secret" not in err


def test_bad_token(shell: Shell) -> None:
    """A token that can't stand in a header is refused by its place, and not repeated."""
    code, _, err = shell.ask("watch", "ws://host/jobs/x", variables={"JOBTRIO_TOKEN": "open sesame"})
    assert code == 2
    assert "JOBTRIO_TOKEN: token must be 1 to 4096 printable" in err
    assert "sesame" not in err


def test_port_in_use(shell: Shell, tmp_path: Path) -> None:
    """A port that isn't free ends with 1 and one line, before anything else is said or done."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        code, out, err = shell.run("serve", "store_jobs:executors", "--port", str(port))
    assert (code, out) == (1, "")
    assert err.lower() == f"jobtrio serve: can't listen on 127.0.0.1, port {port}: address already in use\n"
    assert not (tmp_path / "jobs.db").exists()


@pytest.mark.parametrize(
    ("args", "code"),
    [(["--host", "no-such-host.invalid"], 1), (["--host", "0.0.0.0"], 2), (["--allow-origin", "example"], 2)],
)
def test_place_that_makes_no_sense(shell: Shell, tmp_path: Path, args: list[str], code: int) -> None:
    """Where it can't listen, and what it can't allow, is found before anything else is said or done."""
    got, out, err = shell.run("serve", "store_jobs:executors", "--port", "0", *args)
    assert (got, out) == (code, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("jobtrio serve: ")
    assert not (tmp_path / "jobs.db").exists()


@pytest.mark.parametrize(
    "args", [["serve", "store_jobs:executors"], ["watch", "ws://host/jobs/x"], ["submit", "ws://host/ws", "a"]]
)
def test_without_the_extra(shell: Shell, args: list[str]) -> None:
    """Without the extra, the commands that need it say which."""
    folder = shell.folder / "trio_websocket"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise ImportError('not there')")
    code, out, err = shell.run(*args, variables={"PYTHONPATH": f"{shell.folder}:{os.environ.get('PYTHONPATH', '')}"})
    assert (code, out) == (1, "")
    assert err == f"jobtrio {args[0]}: it needs the extra websocket: pip install 'jobtrio[websocket]'\n"


@pytest.mark.parametrize("name", ["serve", "watch", "submit"])
def test_help(shell: Shell, name: str) -> None:
    """The help of all three tells of the token."""
    code, out, err = shell.ask(name, "--help")
    assert (code, err) == (0, "")
    assert "--token-file FILE" in out
    assert "JOBTRIO_TOKEN" in out
