"""A program without Trio submits a job within its own transaction; a worker elsewhere runs it."""

import os

import psycopg
import trio

import jobtrio
from jobtrio.stores.postgres import PostgresJobStore, Submitter

executors = jobtrio.Executors()


@executors.register("greet")
async def greet(job: jobtrio.JobContext) -> str:
    return f"Welcome, {job.payload}!"


submitter = Submitter(executors, worker="web")


def sign_up(name: str) -> str:
    """Handle a request, in a thread of a web server."""
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        connection.execute("INSERT INTO users VALUES (%s)", [name])
        return submitter.submit_in(connection, "greet", name).id


async def main() -> None:
    store = PostgresJobStore(os.environ["DATABASE_URL"])
    async with jobtrio.open_registry(executors, store=store) as registry:  # the worker, which also makes the schema
        with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
            connection.execute("CREATE TABLE users (name text)")
        job_id = await trio.to_thread.run_sync(sign_up, "Ann")
        print(await (await registry.get(job_id)).result())


if __name__ == "__main__":
    trio.run(main)
