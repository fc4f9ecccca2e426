"""Where the tests' Redis and PostgreSQL come from.

The first of these that is there, for each of the two: an URL in the environment, a Docker engine that answers within a
second, the embedded wheels. `--services` forces one. What was taken stands in the header of the run. Servers start when
the first test asks for one; a service that cannot be had fails the run.
"""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import asyncpg
import docker
import pytest
import redis
from docker.errors import DockerException, ImageNotFound
from redis.backoff import NoBackoff
from redis.retry import Retry
from testcontainers.core.container import DockerContainer

from asynccache import embedded
from asynccache.clock import SYSTEM_CLOCK

T = TypeVar("T")

WAYS = ("url", "docker", "embedded")
ENGINE_ANSWERS_WITHIN = 1.0
URL_ANSWERS_WITHIN = 5.0
CONTAINER_IS_READY_WITHIN = 60.0
PASSWORD = "asynccache"


@dataclass(frozen=True)
class Service:
    """One of the two servers: the environment variables and the image that stand for it."""

    name: str
    url_variable: str
    image_variable: str
    default_image: str

    @property
    def url(self) -> str:
        return os.environ.get(self.url_variable, "")

    @property
    def image(self) -> str:
        return os.environ.get(self.image_variable) or self.default_image


REDIS = Service("redis", "ASYNCCACHE_TEST_REDIS_URL", "ASYNCCACHE_TEST_REDIS_IMAGE", "redis:7-alpine")
POSTGRES = Service("postgres", "ASYNCCACHE_TEST_DATABASE_URL", "ASYNCCACHE_TEST_POSTGRES_IMAGE", "postgres:16-alpine")


@dataclass
class Choice:
    """Which way each service comes, and why a better one was passed over."""

    redis: str
    postgres: str
    note: str = ""

    def __str__(self) -> str:
        parts = [f"{service.name} {_described(service, getattr(self, service.name))}" for service in (REDIS, POSTGRES)]
        return ", ".join(parts) + (f" ({self.note})" if self.note else "")


CHOICE = pytest.StashKey[Choice]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--services",
        choices=WAYS,
        default=None,
        help=f"where Redis and PostgreSQL come from: url ({REDIS.url_variable}, {POSTGRES.url_variable}), docker "
        f"({REDIS.image_variable}, {POSTGRES.image_variable}) or embedded (wheels); default: the first that is there",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.option.collectonly or config.option.help:
        return
    decided = getattr(config, "workerinput", {}).get("services")
    config.stash[CHOICE] = Choice(*decided) if decided else _choose(config.getoption("services"))


class _ToWorkers:
    """pytest-xdist: the controller decides, its workers start their own servers."""

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        choice = node.config.stash[CHOICE]
        node.workerinput["services"] = (choice.redis, choice.postgres, choice.note)


def pytest_plugin_registered(plugin: object, manager: pytest.PytestPluginManager) -> None:
    if not manager.has_plugin("asynccache-services-to-workers"):
        manager.register(_ToWorkers(), "asynccache-services-to-workers")


def pytest_report_header(config: pytest.Config) -> str:
    choice = config.stash.get(CHOICE, None)
    return f"services: {choice}" if choice else ""


@pytest.fixture(scope="session")
def services(request: pytest.FixtureRequest) -> Choice:
    """Which way each service comes."""
    return request.config.stash[CHOICE]


@pytest.fixture(scope="session")
def redis_url(services: Choice) -> Iterator[str]:
    """A running Redis or Valkey; tests share it, each with a namespace of its own."""
    with _running(REDIS, services.redis) as url:
        yield url


@pytest.fixture(scope="session")
def database_url(services: Choice) -> Iterator[str]:
    """A running PostgreSQL; tests share it, each with a schema of its own."""
    with _running(POSTGRES, services.postgres) as url:
        yield url


def _choose(forced: str | None) -> Choice:
    """Decides before the first test, so that the header is true.

    Raises:
        pytest.UsageError: the forced way is not there.
    """
    if forced == "url":
        missing = [service.url_variable for service in (REDIS, POSTGRES) if not service.url]
        if missing:
            raise pytest.UsageError(f"--services=url needs {' and '.join(missing)} in the environment")
        return Choice("url", "url")
    if forced == "embedded":
        return Choice("embedded", "embedded")
    wanted = [service for service in (REDIS, POSTGRES) if forced or not service.url]
    with warnings.catch_warnings():
        # docker-py forgets to close the socket of a connection that failed; no test shall be blamed for it.
        warnings.simplefilter("ignore", ResourceWarning)
        trouble = _docker_trouble(wanted) if wanted else None
        gc.collect()
    if forced == "docker":
        if trouble:
            raise pytest.UsageError(f"--services=docker: {trouble}")
        return Choice("docker", "docker")
    rest = "embedded" if trouble else "docker"
    redis_way, postgres_way = (rest if service in wanted else "url" for service in (REDIS, POSTGRES))
    return Choice(redis_way, postgres_way, f"no docker: {trouble}" if wanted and trouble else "")


def _docker_trouble(wanted: list[Service]) -> str | None:
    """Why these services cannot come from a Docker engine; `None` if they can."""
    try:
        client = docker.from_env(timeout=ENGINE_ANSWERS_WITHIN)
    except DockerException:
        return "no engine answers"
    try:
        client.ping()
    except (DockerException, OSError):
        return "no engine answers"
    else:
        for service in wanted:
            try:
                client.images.get(service.image)
            except ImageNotFound:
                trouble = _pull_trouble(service.image)
                if trouble:
                    return trouble
            except (DockerException, OSError) as error:
                return _first_line(error)
        return None
    finally:
        client.close()


def _pull_trouble(image: str) -> str | None:
    patient = docker.from_env(timeout=60)
    try:
        patient.images.pull(image)
    except (DockerException, OSError):
        return f"image {image} cannot be pulled"
    finally:
        patient.close()
    return None


@contextmanager
def _running(service: Service, way: str) -> Iterator[str]:
    if way == "url":
        _wait_until_ready(service, service.url, URL_ANSWERS_WITHIN)
        yield service.url
    elif way == "docker":
        with _container(service) as container:
            url = _container_url(service, container)
            _wait_until_ready(service, url, CONTAINER_IS_READY_WITHIN)
            yield url
    else:
        start = embedded.redis_server_sync if service is REDIS else embedded.postgres_server_sync
        with start() as server:
            yield server.url


def _container(service: Service) -> DockerContainer:
    if service is REDIS:
        return DockerContainer(service.image).with_exposed_ports(6379)
    return (
        DockerContainer(service.image)
        .with_exposed_ports(5432)
        .with_env("POSTGRES_USER", "postgres")
        .with_env("POSTGRES_PASSWORD", PASSWORD)
        .with_env("POSTGRES_DB", "asynccache")
    )


def _container_url(service: Service, container: DockerContainer) -> str:
    host = container.get_container_host_ip()
    if service is REDIS:
        return f"redis://{host}:{container.get_exposed_port(6379)}/0"
    return f"postgresql://postgres:{PASSWORD}@{host}:{container.get_exposed_port(5432)}/asynccache"


def _wait_until_ready(service: Service, url: str, timeout: float) -> None:
    ask = _ask_redis if service is REDIS else _ask_postgres
    deadline = SYSTEM_CLOCK.monotonic() + timeout
    while True:
        try:
            ask(url)
        except (redis.RedisError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            if SYSTEM_CLOCK.monotonic() >= deadline:
                pytest.fail(f"{service.name} did not answer in {timeout:g} s: {_first_line(error)}", pytrace=False)
            threading.Event().wait(0.05)
        else:
            return


def _ask_redis(url: str) -> None:
    client = redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5, retry=Retry(NoBackoff(), 0))
    try:
        client.ping()
    finally:
        client.close()


def _ask_postgres(url: str) -> None:
    async def ask() -> None:
        connection = await asyncpg.connect(url, timeout=5)
        try:
            await connection.fetchval("SELECT 1")
        finally:
            await connection.close()

    _in_thread(ask)


def _in_thread(call: Callable[[], Awaitable[T]]) -> T:
    """Runs async code from a synchronous fixture without touching the loop of the test that asks for it."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        async def work() -> T:
            return await call()

        try:
            results.append(asyncio.run(work()))
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _described(service: Service, way: str) -> str:
    return f"from docker image {service.image}" if way == "docker" else f"from {way}"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
