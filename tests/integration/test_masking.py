"""PostgreSQL masks what Python masks, so that nobody finds out a secret by searching for it."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, literal, select

from tasktrail.masking import mask_text, mask_text_sql
from tests.unit.test_masking import SECRETS

EXAMPLES = (
    "postgresql://me:pw@host/db refused",
    "redis://:p@ss/w@host:6379",
    "redis://:" + "x" * 400 + "@host:6379",
    "Authorization: Bearer abc.def-123",
    "sent Basic dXNlcjpwYXNz",
    "password=hunter2, user=me",
    "password: 'two words' rest",
    '{"api_key": "x\\"y", "a": 1}',
    "GET /x?token=abc&page=2",
    "jwt eyJhbGciOi.eyJzdWIiOi.c2ln",
    "used tt_0123456789abcdef0123",
    "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY----- and -----END X----- it goes on",
    "-----BEGIN PRIVATE KEY-----\nabc",
    "ValueError: 12:30 is no time",
    "GET /x?token=[masked]&page=2 password=[masked]x",
    "",
)


def masked(engine: Engine, text: str) -> str:
    with engine.connect() as db:
        return str(db.scalar(select(mask_text_sql(literal(text)))))


@pytest.mark.parametrize("text", EXAMPLES)
def test_both_mask_alike(engine: Engine, text: str) -> None:
    assert masked(engine, text) == mask_text(text)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    secret=SECRETS,
    before=st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20),
    after=st.text(st.sampled_from(" '\"\\,;&@:/x=Ωſ\n"), max_size=8),
    form=st.sampled_from(("amqp://u:{}@h", "api-key={}", '"token": "{}"', "bearer {}", "passwd:{};")),
)
def test_a_secret_in_a_known_form_cannot_be_searched_for(
    engine: Engine, secret: str, before: str, after: str, form: str
) -> None:
    text = f"{before} {form.format(secret)}{after}"

    assert secret not in mask_text(text)
    assert secret not in masked(engine, text)
