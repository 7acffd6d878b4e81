"""Keys and passwords are taken out of texts in every form, and nothing else is."""

import time
from urllib.parse import quote, quote_plus

import pytest

from lever_plus.files.secrets import HIDDEN, has_secrets, without_secrets

SECRET = "Tr0ub4dor&3/x+y z"
PLAIN = quote(SECRET, safe="")


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql+psycopg://lever:{PLAIN}@db:5432/study",
        f"cannot connect to (postgresql://lever:{PLAIN}@db/study?x=1), see",
        "mysql://u:Tr0ub4dor/3?x#y@db/study",
        "http://Tr0ub4dor@host/v1",
        "http://a@b:Tr0ub4dor@host/v1",
        "//u:Tr0ub4dor@host/x",
        "http%3A%2F%2Fu%3ATr0ub4dor%40host%2Fv1",
        r'{"uri": "http:\/\/u:Tr0ub4dor@host\/v1"}',
        "https://host/v1?api_key=Tr0ub4dor&model=a",
        "https://host/v1?model=a&access_token=Tr0ub4dor",
        "https://host/v1?X-Amz-Signature=Tr0ub4dor",
        "https://host/v1?sig=Tr0ub4dor#x",
        "https://host/v1?key=Tr0ub4dor",
        "next=%2Fv1%3Ftoken%3DTr0ub4dor%26a",
        "host=db password=Tr0ub4dor dbname=study",
        "host=db password='Tr0ub4dor 3' dbname=study",
        '{"api_key": "Tr0ub4dor", "model": "a"}',
        "{'X-Api-Key': 'Tr0ub4dor'}",
        "Authorization: Bearer Tr0ub4dor",
        "authorization: bearer Tr0ub4dor",
        "Authorization: Basic dTpUcjB1YjRkb3I=",
        "x-api-key: Tr0ub4dor",
        "Incorrect API key provided: sk-Tr0ub4dor.",
        "hf_Tr0ub4dorTr0ub4dor is no key",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.Tr0ub4dor",
    ],
)
def test_secrets_are_hidden_and_what_is_around_them_stays(text: str) -> None:
    shown = without_secrets(text)
    assert HIDDEN in shown
    assert not any(part in shown for part in ("Tr0ub4dor", "dTpUcjB1YjRkb3I", "eyJzdWI"))
    assert without_secrets(shown) == shown
    for kept in ("@db", "host", "/study", "model=a", "dbname=study", "see"):
        assert (kept in shown) == (kept in text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "params.yaml: vlm.url: start the server, for example: vllm serve Qwen/Qwen2.5-VL-3B",
        "http://127.0.0.1:8000/v1 offers a, b",
        "http://host:8000/users/a@b.org/v1",
        "write to a@b.org, or see https://host/a?page=2&max_tokens=5",
        "max_tokens=5 is above 3, total_tokens: 7",
        "set the password: use the environment variable OPENAI_API_KEY",
        'question 7: the token "<image>" ends a turn',
        "the key 'a' occurs twice; a basic mistake; key=a",
        "git@github.com:a/b.git and task-scheduling and risk-averse_questions",
    ],
)
def test_other_texts_stay_as_they_are(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setenv("SSL_KEY_FILE", "/etc/ssl/key.pem")
    assert without_secrets(text) == text
    assert without_secrets("/etc/ssl/key.pem") == "/etc/ssl/key.pem"


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "HF_TOKEN", "PGPASSWORD", "my_secret"])
def test_values_of_the_environment_are_hidden_in_every_form(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = SECRET + "\"ä'"
    monkeypatch.setenv(name, secret)
    for form in (secret, quote(secret), quote(secret, safe=""), quote_plus(secret), repr(secret)):
        assert "Tr0ub4dor" not in without_secrets(f"the server said {form} is wrong")


def test_the_password_of_a_database_s_address_is_hidden_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LEVER_PLUS_STUDY_STORAGE", f"postgresql://lever:{PLAIN}@db/study")
    for form in (SECRET, PLAIN):
        assert without_secrets(f"no user lever with {form}") == f"no user lever with {HIDDEN}"


def test_urls_with_secrets_are_told_from_others() -> None:
    assert has_secrets("http://u:p@host/v1")
    assert has_secrets("http://@host/v1")
    assert has_secrets("http://host/v1?api_key=x")
    assert not has_secrets("http://127.0.0.1:8000/v1?version=2")


@pytest.mark.parametrize("part", ["//a:b", "?token=", "Bearer ", "a_", 'password="', "%2F%2F"])
def test_long_texts_take_no_time(part: str) -> None:
    begun = time.process_time()
    without_secrets(part * (200_000 // len(part)))
    assert time.process_time() - begun < 5
