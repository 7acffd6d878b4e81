"""Foreign hosts and pages send requests to the dashboard: the study does not change."""

import http.client
import itertools
import random
import threading
from collections.abc import Iterator

import pytest
from doors import Bad, try_all

from lever_plus.errors import UserError

optuna = pytest.importorskip("optuna", reason="Optuna (extra [study]) is not installed")
pytest.importorskip("optuna_dashboard", reason="extra [dashboard] is not installed")


class Dashboard:
    """A dashboard on loopback, and the study that it shows."""

    def __init__(self) -> None:
        """Make a study and listen."""
        from lever_plus.experiments.study.dashboard import dashboard_server

        self.storage = optuna.storages.InMemoryStorage()
        self.study = optuna.create_study(study_name="a", storage=self.storage)
        self.server = dashboard_server(self.storage, "127.0.0.1", 0)
        self.port: int = self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def ask(self, method: str, path: str, headers: list[tuple[str, str]]) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.putrequest(method, path, skip_host=True)
        for name, value in headers:
            connection.putheader(name, value.encode("latin-1", "replace"))
        connection.endheaders()
        reply = connection.getresponse()
        return reply.status, reply.read().decode("utf-8", "replace")

    @property
    def studies(self) -> list[str]:
        return [study.study_name for study in optuna.get_all_study_summaries(self.storage)]


@pytest.fixture(scope="module")
def dashboard() -> Iterator[Dashboard]:
    made = Dashboard()
    yield made
    made.server.shutdown()
    made.server.server_close()
    made.thread.join()


def test_its_own_pages_are_served_and_may_change_the_study(dashboard: Dashboard) -> None:
    own = f"127.0.0.1:{dashboard.port}"
    assert dashboard.server.server_address[0] == "127.0.0.1"
    for host in (own, f"localhost:{dashboard.port}", f"[::1]:{dashboard.port}"):
        status, body = dashboard.ask("GET", "/api/studies", [("Host", host)])
        assert status == 200
        assert '"a"' in body
    optuna.create_study(study_name="gone", storage=dashboard.storage)
    number = dashboard.storage.get_study_id_from_name("gone")
    path = f"/api/studies/{number}"
    status, _ = dashboard.ask("DELETE", path, [("Host", own), ("Origin", f"http://{own}")])
    assert status < 300
    assert dashboard.studies == ["a"]


HOSTS = (
    *("", "evil.example", "evil.example:{port}", "127.0.0.1.evil.example:{port}", "0.0.0.0:{port}"),
    *("localhost.evil.example:{port}", "127.0.0.1", "localhost:1", "127.0.0.1:{port}@evil", "[::]"),
    *(
        "evil:{port}#localhost:{port}",
        "127.0.0.1:{port}:{port}",
        "192.168.0.1:{port}",
        "a b:{port}",
    ),
    *("[::1", "[::1%25x]:{port}", "127.0.0.1:{port}/", "//127.0.0.1:{port}", "localhost\t:{port}"),
    *("2130706433:{port}", "127.1:{port}", "0x7f.1:{port}", "localhos\u0131:{port}", ":{port}"),
)
ORIGINS = (
    *(
        "http://evil.example",
        "null",
        "http://127.0.0.1",
        "http://127.0.0.1:1",
        "file://",
        "http://[",
    ),
    *(
        "http://127.0.0.1:{port}.evil.example",
        "http://127.0.0.1:{port}@evil.example",
        "about:blank",
    ),
    *("http://evil.example/http://127.0.0.1:{port}", "127.0.0.1:{port}", "http://localhost:{port}"),
)


def test_foreign_hosts_and_pages(dashboard: Dashboard) -> None:
    study = dashboard.storage.get_study_id_from_name("a")
    own = f"127.0.0.1:{dashboard.port}"

    def bad(method: str, headers: list[tuple[str, str]]) -> Bad:
        given = [(name, value.format(port=dashboard.port)) for name, value in headers]

        def run() -> None:
            status, body = dashboard.ask(method, f"/api/studies/{study}", given)
            assert dashboard.studies == ["a"], "the study is gone"
            assert status in (400, 403), f"status {status}"
            raise UserError(body)

        return Bad(f"{method} {given}", run, ("127.0.0.1", "Bad Request", "refused"))

    methods = ("GET", "POST", "PUT", "DELETE", "PATCH")
    inputs = [bad(m, [("Host", host)]) for m, host in itertools.product(methods, HOSTS) if host]
    inputs += [bad(m, []) for m in methods]
    for method, origin, name in itertools.product(methods, ORIGINS, ("Origin", "Referer")):
        if method != "GET" or name == "Origin":
            inputs.append(bad(method, [("Host", own), (name, origin)]))
    for method, origin in itertools.product(methods[1:], ORIGINS):
        inputs.append(
            bad(method, [("Host", own), ("Origin", origin), ("Referer", f"http://{own}/")])
        )
    inputs += [bad(m, [("Host", own)]) for m in methods[1:]]
    inputs += [bad(m, [("Host", own), ("Host", "evil.example")]) for m in methods]
    rng = random.Random(1)
    for method in methods:
        host = "".join(rng.choice("abc.:[]127{}@/\\") for _ in range(12)).replace("{", "")
        inputs.append(bad(method, [("Host", host.replace("}", ""))]))
    try_all("the dashboard's hosts and pages", inputs)


def test_a_taken_port_is_named(dashboard: Dashboard) -> None:
    from lever_plus.experiments.study.dashboard import dashboard_server

    with pytest.raises(
        UserError, match=rf"127.0.0.1:{dashboard.port} .*choose another --port or --host"
    ):
        dashboard_server(dashboard.storage, "127.0.0.1", dashboard.port)
    with pytest.raises(UserError, match="cannot listen on no.such.host"):
        dashboard_server(dashboard.storage, "no.such.host.invalid", 0)
