"""Server addresses in params: bad ones are refused by name, without showing secrets."""

import itertools
import random
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from doors import Bad, try_all

from lever_plus.config.file import changed_params, load_params, merged_params
from lever_plus.config.vlm import OpenAiVlmParams
from lever_plus.errors import UserError
from lever_plus.files.secrets import without_secrets
from lever_plus.vlm.open import open_vlm
from tiny_world import ROOT

SECRET = "T0psecret"
SCHEMES = ("", "http:", "http:/", "http://", "https://", "ftp://", "file://", "ws://", "HTTP://")
USERS = ("", "u@", f"u:{SECRET}@", f":{SECRET}@", f"{SECRET}%40@", "@")
HOSTS = (
    *("", "127.0.0.1", "host:8000", "[::1]:8000", "[::1", "host:0", "host:99999", "host:x", "a b"),
    *("host:-1", "höst", "a" * 300, "\u2024", "host\n", "host\0", "\\host", "..", "host:8000:1"),
)
PATHS = (
    *("", "/", "/v1", "/v1/", "/v1/chat/completions", "/v1/models", "/v1#x", "/v1?a=b", "/v1#"),
    *(f"/v1?api_key={SECRET}", f"/v1?token={SECRET}&a=b", f"/v1?sig={SECRET}", "/v1\r\nX: y"),
)
VLM = {
    **{"kind": "openai", "url": "http://127.0.0.1:8000/v1", "model": "m", "revision": "r"},
    **{"dtype": "-", "instruction": "", "max_new_tokens": 3, "concurrency": 1, "timeout_s": 5.0},
    "patience_s": 0.0,
    "canary": "off",
}


PARAMS = load_params(ROOT / "params.yaml")


def with_vlm(**changes: object) -> OpenAiVlmParams:
    vlm = changed_params(PARAMS, {"vlm": {**VLM, **changes}}).vlm
    assert isinstance(vlm, OpenAiVlmParams)
    return vlm


@contextmanager
def no_secret_shown() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        if SECRET in str(error):
            raise AssertionError(f"a secret is shown: {error}") from error
        raise


def test_addresses() -> None:
    def bad(url: str) -> Bad:
        def run() -> None:
            with no_secret_shown():
                with_vlm(url=url)
            parts = urlsplit(url)
            assert parts.scheme in ("http", "https")
            assert parts.hostname
            assert "@" not in parts.netloc
            assert SECRET not in url
            assert without_secrets(url) == url

        return Bad(repr(url), run, ("vlm.url",))

    every = itertools.product(SCHEMES, USERS, HOSTS, PATHS)
    chosen = random.Random(1).sample(["".join(parts) for parts in every], 150)
    chosen += ["http://" + "".join(parts) for parts in itertools.product(USERS, HOSTS[:3], PATHS)]
    try_all("addresses of servers", map(bad, random.Random(2).sample(chosen, 200)))


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/v1", "https://host/v1/", "http://[::1]:1"])
def test_addresses_that_can_be_asked_are_taken(url: str) -> None:
    assert with_vlm(url=url).url == url


def test_several_addresses_are_a_list() -> None:
    several = ["http://127.0.0.1:8000/v1", "http://127.0.0.1:8001/v1"]
    assert with_vlm(url=several).urls == several
    assert with_vlm(url=several[0]).urls == several[:1]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ([], "nor a list of addresses"),
        ([1], "nor a list of addresses"),
        (None, "nor a list of addresses"),
        (["http://h/v1", "h"], "write it like http"),
        (["http://h/v1", "http://h/v1"], "names a server twice"),
        (["http://h/v1", f"http://u:{SECRET}@h/v1"], "it holds a user"),
    ],
)
def test_lists_that_name_no_servers_are_refused(url: object, message: str) -> None:
    with no_secret_shown(), pytest.raises(UserError, match=rf"vlm\.url: .*{message}"):
        with_vlm(url=url)


@pytest.mark.parametrize("url", [f"http://u:{SECRET}@h/v1", f"http://h/v1?key={SECRET}"])
def test_a_secret_is_shown_nowhere_when_it_is_refused(url: str) -> None:
    with pytest.raises(UserError, match=r"vlm\.url: it holds a user.*OPENAI_API_KEY") as caught:
        with_vlm(url=url)
    assert SECRET not in str(caught.value)
    with pytest.raises(UserError, match="open_vlm: url: it holds a user") as refused:
        open_vlm("m", url=url)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        (
            {
                "vlm": {"kind": "plugin", "factory": "a:b", "options": {"api_key": "x1"}},
                "evaluate": {"instructions": []},
            },
            "vlm.options",
        ),
        ({"scoring": {"ray": {"address": f"ray://u:{SECRET}@h:1"}}}, "scoring.ray.address"),
        ({"scoring": {"store": f"s3://u:{SECRET}@h/answers"}}, "scoring.store"),
    ],
)
def test_no_setting_holds_a_secret(changes: dict[str, object], place: str) -> None:
    with pytest.raises(UserError, match=place) as caught:
        merged_params(ROOT / "params.yaml", None, changes)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("timeout_s", value) for value in (0, -1.0, 1e9, float("inf"), "5", True)),
        *(("concurrency", value) for value in (0, -1, 10**6, 1.5, "4", True)),
        *(("patience_s", value) for value in (-1.0, 10.0**6, "long")),
        *(("max_new_tokens", value) for value in (0, -3, 1.0, None)),
        *(("model", value) for value in ("", None, 3)),
    ],
)
def test_numbers_that_cannot_work_are_refused(name: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"vlm\.{name}"):
        with_vlm(**{name: value})
