"""What the tools do, asked by the official client over stdio and over HTTP."""

from __future__ import annotations

import base64
from pathlib import Path

import httpx
import pytest

from dormice.mcp.tools import MOST_ENTRIES
from tests.live import Live
from tests.mcp.conftest import Connect, call, over_stdio, refused

TOOLS = {
    "create_machine",
    "list_machines",
    "get_machine",
    "delete_machine",
    "run_command",
    "wait_for_command",
    "cancel_command",
    "list_commands",
    "read_output",
    "read_file",
    "write_file",
    "list_files",
}


async def test_every_tool_says_what_it_is_for(connect: Connect) -> None:
    async with connect() as client:
        assert client.server_info is not None
        assert client.server_info.name == "dormice"
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert set(tools) == TOOLS
    for tool in tools.values():
        assert tool.description
        assert tool.output_schema
        assert tool.annotations
        assert "context" not in tool.input_schema["properties"]


async def test_a_machine_is_made_used_and_deleted(connect: Connect) -> None:
    async with connect() as client:
        made = await call(client, "create_machine", memory_mib=256, storage_gib=1, autosleep="never")
        machine = made["machine_id"]
        assert made["phase"] == "running"
        assert machine in [one["machine_id"] for one in (await call(client, "list_machines"))["machines"]]
        done = await call(
            client, "run_command", machine_id=machine, command=["sh", "-c", "echo out; echo err >&2; exit 3"]
        )
        assert (done["status"], done["exit_code"], done["ended"]) == ("failed", 3, True)
        assert (done["stdout"], done["stderr"]) == ("out\n", "err\n")
        assert (await call(client, "list_commands", machine_id=machine))["commands"][0]["execution_id"] == done[
            "execution_id"
        ]
        assert (await call(client, "delete_machine", machine_id=machine))["phase"] == "destroyed"


async def test_a_command_gets_what_it_is_given(connect: Connect, machine: str) -> None:
    async with connect() as client:
        script = 'pwd; echo "$A"; cat'
        done = await call(
            client,
            "run_command",
            machine_id=machine,
            command=["sh", "-c", script],
            cwd="/tmp",
            env={"A": "b"},
            stdin="in",
        )
        assert done["stdout"].splitlines()[1:] == ["b", "in"]
        late = await call(client, "run_command", machine_id=machine, command=["sleep", "60"], timeout_seconds=0.2)
        assert (late["status"], "timeout" in late["error"] or late["signal"]) != ("succeeded", True)


async def test_a_long_command_is_waited_for_read_and_cancelled(connect: Connect, machine: str) -> None:
    async with connect() as client:
        begun = await call(
            client, "run_command", machine_id=machine, command=["sh", "-c", "echo first; sleep 600"], wait_seconds=0.5
        )
        assert (begun["status"], begun["ended"], begun["exit_code"]) == ("running", False, None)
        ids = {"machine_id": machine, "execution_id": begun["execution_id"]}
        assert (await call(client, "wait_for_command", wait_seconds=0.1, **ids))["stdout"] == "first\n"
        piece = await call(client, "read_output", **ids)
        assert (piece["content"], piece["end"], piece["ended"]) == ("first\n", 6, False)
        assert (await call(client, "cancel_command", **ids))["status"] == "cancelled"
        assert (await call(client, "wait_for_command", **ids))["ended"]


async def test_whoever_waits_is_told_how_far_it_is(connect: Connect, machine: str) -> None:
    heard: list[str | None] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append(message)

    async with connect() as client:
        command = ["sh", "-c", "echo begun; sleep 2; echo done"]
        result = await client.call_tool(
            "run_command", {"machine_id": machine, "command": command}, progress_callback=hear
        )
        assert result.structured_content["stdout"] == "begun\ndone\n"
    assert "begun" in heard


async def test_much_output_shows_its_end_and_is_read_in_pieces(connect: Connect, machine: str) -> None:
    async with connect() as client:
        done = await call(client, "run_command", machine_id=machine, command=["seq", "20000"])
        assert done["stdout"].endswith("19999\n20000\n")
        assert len(done["stdout"]) < done["stdout_bytes"]
        text, start, ended = "", 0, False
        while not ended:
            piece = await call(
                client, "read_output", machine_id=machine, execution_id=done["execution_id"], start=start
            )
            text, start, ended = text + piece["content"], piece["end"], piece["ended"]
        assert text == "".join(f"{number}\n" for number in range(1, 20_001))


@pytest.mark.parametrize("name", ["plain.txt", "-n", "with blank", "ünï/deep/er", "quote'\"$(x)"])
async def test_files_are_written_listed_and_read(connect: Connect, machine: str, name: str, tmp_path: Path) -> None:
    path = f"{tmp_path}/{name}"
    async with connect() as client:
        written = await call(client, "write_file", machine_id=machine, path=path, content="hällo\n")
        assert written["bytes"] == 7
        await call(client, "write_file", machine_id=machine, path=path, content="more", append=True)
        found = await call(client, "read_file", machine_id=machine, path=path)
        assert (found["content"], found["size"]) == ("hällo\nmore", 11)
        folder, _, last = path.rpartition("/")
        listed = await call(client, "list_files", machine_id=machine, path=folder)
        assert {"name": last, "kind": "file", "size": 11} in listed["entries"]


async def test_bytes_survive(connect: Connect, machine: str, tmp_path: Path) -> None:
    data = bytes(range(256)) * 2_000
    content = base64.b64encode(data).decode()
    where = {"machine_id": machine, "path": f"{tmp_path}/data"}
    async with connect() as client:
        await call(client, "write_file", content=content, encoding="base64", **where)
        back, size = b"", 1
        while len(back) < size:
            piece = await call(client, "read_file", offset=len(back), encoding="base64", max_bytes=100_000, **where)
            back, size = back + base64.b64decode(piece["content"]), piece["size"]
        assert back == data


async def test_a_file_ends_where_it_ends(connect: Connect, machine: str, tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    async with connect() as client:
        for name, offset, content, size in (
            ("empty", 0, "", 0),
            ("link", 3, "45", 5),
            ("link", 5, "", 5),
            ("file", 1 << 53, "", 5),
        ):
            found = await call(client, "read_file", machine_id=machine, path=f"{tmp_path}/{name}", offset=offset)
            assert (found["content"], found["bytes"], found["size"]) == (content, len(content), size)
        kinds = (await call(client, "list_files", machine_id=machine, path=str(tmp_path)))["entries"]
        assert [(one["name"], one["kind"]) for one in kinds] == [
            ("empty", "file"),
            ("file", "file"),
            ("link", "symlink"),
        ]


async def test_a_file_is_replaced_as_a_whole_and_added_to_where_it_is(
    connect: Connect, machine: str, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    async with connect() as client:
        where = {"machine_id": machine, "path": str(file)}
        await call(client, "write_file", content="first", append=True, **where)
        with file.open("rb") as before:
            await call(client, "write_file", content="second\n", **where)
            assert before.read() == b"first"
        with file.open("rb") as before:
            await call(
                client,
                "write_file",
                content=base64.b64encode(b"\xff").decode(),
                encoding="base64",
                append=True,
                **where,
            )
            assert before.read() == b"second\n\xff"


async def test_files_are_read_written_and_listed_without_commands(
    connect: Connect, machine: str, tmp_path: Path
) -> None:
    async with connect() as client:
        before = await call(client, "list_commands", machine_id=machine, limit=1)
        await call(client, "write_file", machine_id=machine, path=f"{tmp_path}/a/b", content="x")
        await call(client, "read_file", machine_id=machine, path=f"{tmp_path}/a/b")
        await call(client, "list_files", machine_id=machine, path=f"{tmp_path}/a")
        assert await call(client, "list_commands", machine_id=machine, limit=1) == before


async def test_a_large_directory_says_that_there_is_more(connect: Connect, machine: str, tmp_path: Path) -> None:
    for number in range(MOST_ENTRIES):
        (tmp_path / f"{number:04}").touch()
    async with connect() as client:
        listed = await call(client, "list_files", machine_id=machine, path=str(tmp_path))
        assert (len(listed["entries"]), listed["more"]) == (MOST_ENTRIES, False)
        (tmp_path / "zz").touch()
        listed = await call(client, "list_files", machine_id=machine, path=str(tmp_path))
        assert ([one["name"] for one in listed["entries"][-1:]], listed["more"]) == ([f"{MOST_ENTRIES - 1:04}"], True)


async def test_what_goes_wrong_is_told_in_words(connect: Connect, machine: str, tmp_path: Path) -> None:
    async with connect() as client:
        unknown = "dm-01234567-89ab-7cde-8f01-23456789abcd"
        assert "no such machine" in await refused(client, "get_machine", machine_id=unknown)
        said = await refused(client, "run_command", machine_id=unknown, command=["true"])
        assert "no such machine; list_machines shows" in said
        assert "memory_mib" in await refused(client, "create_machine", memory_mib=1)
        assert "command" in await refused(client, "run_command", machine_id=machine, command=[])
        assert "no such file" in await refused(client, "read_file", machine_id=machine, path=f"{tmp_path}/none")
        assert "is a directory" in await refused(client, "read_file", machine_id=machine, path=str(tmp_path))
        assert "not a directory" in await refused(client, "list_files", machine_id=machine, path="/etc/passwd")
        for append, below in ((False, "not a directory"), (True, "file exists")):
            for path, words in ((str(tmp_path), "is a directory"), ("/etc/passwd/below", below)):
                said = await refused(client, "write_file", machine_id=machine, path=path, content="x", append=append)
                assert words in said.lower()
        assert "path" in await refused(client, "read_file", machine_id=machine, path="a\0b")
        assert "offset" in await refused(client, "read_file", machine_id=machine, path="/etc/passwd", offset=-1)
        assert "base64" in await refused(
            client, "write_file", machine_id=machine, path="/tmp/x", content="!", encoding="base64"
        )
        assert "wait_seconds" in await refused(
            client, "run_command", machine_id=machine, command=["true"], wait_seconds=601
        )


async def test_a_bad_argument_is_told_in_plain_words(connect: Connect) -> None:
    async with connect() as client:
        said = await refused(client, "run_command", machine_id="dm-1", command="ls -l")
        assert (
            said == 'command must be a list. Program and arguments, as a list. For a shell, give ["sh", "-c", "ls -l"].'
        )
        for tool, arguments, words in (
            ("run_command", {"machine_id": "dm-1", "command": ["a", 1]}, "command[1] must be a string."),
            ("run_command", {"machine_id": "dm-1", "command": []}, "command must not be empty."),
            ("run_command", {"command": ["a"]}, "machine_id is missing. As create_machine returned it."),
            ("run_command", {"machine_id": "dm-1", "command": ["a"], "timeout_seconds": 0}, "must be more than 0.0."),
            ("wait_for_command", {"machine_id": "a", "execution_id": "b", "wait_seconds": 601}, "must be at most 600"),
            ("list_machines", {"limit": "many"}, "limit must be an integer. How many at most."),
            ("list_machines", {"limit": 0}, "limit must be at least 1."),
            ("read_file", {"machine_id": "a", "path": "b", "encoding": "hex"}, "encoding must be 'text' or 'base64'."),
        ):
            said = await refused(client, tool, **arguments)
            assert words in said
            assert "pydantic" not in said


async def test_a_server_that_is_not_there_is_named(live: Live) -> None:
    async with over_stdio(live, DORMICE_BASE_URL="http://127.0.0.1:9") as client:
        said = await refused(client, "list_machines")
    assert "no answer from http://127.0.0.1:9/v1/machines: Connection refused;" in said
    assert "DORMICE_BASE_URL of `dormice mcp` sets its address" in said


def test_nobody_gets_in_without_the_key(http_url: str, live: Live) -> None:
    for headers in (
        {},
        {"authorization": f"Bearer {live.api_key}x"},
        {"authorization": f"Basic {live.api_key}"},
        {"authorization": live.api_key},
        {"x-api-key": live.api_key},
    ):
        answer = httpx.post(
            http_url, headers=headers, json={"jsonrpc": "2.0", "id": 1, "method": "ping"}, trust_env=False
        )
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert live.api_key not in answer.text


@pytest.mark.machines
async def test_it_works_on_a_real_machine(container_live: Live) -> None:
    async with over_stdio(container_live) as client:
        made = await call(client, "create_machine", memory_mib=256, storage_gib=1)
        machine = {"machine_id": made["machine_id"]}
        await call(client, "write_file", path="deep/er/hello.sh", content="echo hello from $(hostname)\n", **machine)
        done = await call(client, "run_command", command=["sh", "/root/deep/er/hello.sh"], **machine)
        assert (done["exit_code"], done["stdout"]) == (0, f"hello from {made['machine_id']}\n")
        assert [one["name"] for one in (await call(client, "list_files", path="deep", **machine))["entries"]] == ["er"]
        data = base64.b64encode(bytes(range(256)) * 4_096).decode()
        await call(client, "write_file", path="/tmp/data", content=data, encoding="base64", **machine)
        found = await call(client, "read_file", path="/tmp/data", encoding="base64", offset=255, max_bytes=2, **machine)
        assert (found["content"], found["size"]) == (base64.b64encode(b"\xff\x00").decode(), 1 << 20)
        assert (await call(client, "delete_machine", **machine))["phase"] == "destroyed"
