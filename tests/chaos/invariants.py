"""What must hold when everything has settled, each rule as a query that returns what violates it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection, text

from tasktrail.states import ENDED, TRANSITIONS

Rule = Callable[[Connection], list[str]]

_ENDED: Final = ", ".join(f"'{status}'" for status in sorted(ENDED))
_TRANSITIONS: Final = ", ".join(f"('{source}', '{target}')" for source, target in TRANSITIONS)
_OUTAGE: Final = "error ~ '^(DatabaseUnavailable|OperationalError|InterfaceError|PendingRollbackError)'"


def _found(db: Connection, query: str) -> list[str]:
    """Return one sentence per row of a query."""
    return [str(row[0]) for row in db.execute(text(query))]


def every_row_has_ended(db: Connection) -> list[str]:
    """No row is PENDING or PROCESSING for ever."""
    return _found(
        db,
        f"""
        SELECT format('%s %s is %s, attempts %s, due %s, dispatched %s, heartbeat %s, worker %s',
                      domain, id, status, attempts, next_attempt_at, dispatched_at, heartbeat_at, worker)
        FROM chaos.row WHERE status NOT IN ({_ENDED})
        """,
    )


def no_row_is_lost(db: Connection) -> list[str]:
    """Each job whose enqueue was acknowledged has its row."""
    return _found(
        db,
        """
        SELECT format('%s %L, acknowledged to %s as id %s, is not there',
                      o.domain, o.key, o.how, o.tracking_id)
        FROM chaos.ordered o
        LEFT JOIN chaos.row r
          ON r.domain = o.domain AND r.key = o.key AND r.id = coalesce(o.tracking_id, r.id)
        WHERE o.outcome = 'acknowledged' AND r.id IS NULL
        """,
    )


def no_row_was_not_ordered(db: Connection) -> list[str]:
    """Each row is there once and was acknowledged; one that was rolled back is not there."""
    return _found(
        db,
        """
        SELECT format('%s: %s rows, acknowledged %s times', key, r.rows, coalesce(o.times, 0))
        FROM (SELECT key, count(*) AS rows FROM chaos.row GROUP BY key) r
        LEFT JOIN (SELECT key, count(*) AS times FROM chaos.ordered
                   WHERE outcome = 'acknowledged' GROUP BY key) o USING (key)
        WHERE r.rows <> 1 OR o.times IS DISTINCT FROM 1
        """,
    )


def rolled_back_rows_sent_no_message(db: Connection) -> list[str]:
    """A message of a rolled-back row never reached a worker.

    A crash of PostgreSQL may hand out again an id that only a rolled-back transaction had.
    """
    return _found(
        db,
        """
        SELECT DISTINCT format('%s %s was rolled back, but sent a message', o.domain, o.tracking_id)
        FROM chaos.ordered o JOIN chaos.evidence e ON (e.domain, e.tracking_id) = (o.domain, o.tracking_id)
        WHERE o.outcome = 'rolled back'
          AND NOT EXISTS (SELECT FROM chaos.row r WHERE (r.domain, r.id) = (o.domain, o.tracking_id))
        """,
    )


def each_side_effect_happened_once(db: Connection) -> list[str]:
    """A COMPLETED row left its side effect exactly once, any other row none."""
    return _found(
        db,
        """
        SELECT format('%s %s (%s) is %s and has %s side effects',
                      r.domain, r.id, r.kind, r.status, count(e.id))
        FROM chaos.row r
        LEFT JOIN chaos.effect e ON (e.domain, e.tracking_id, e.key) = (r.domain, r.id, r.key)
        GROUP BY r.domain, r.id, r.kind, r.status
        HAVING count(e.id) <> (r.status = 'COMPLETED' AND r.kind <> 'plain')::int
        UNION ALL
        SELECT format('a side effect of %s %s, which has another key or is not there', domain, tracking_id)
        FROM chaos.effect e
        WHERE NOT EXISTS (SELECT FROM chaos.row r
                          WHERE (r.domain, r.id, r.key) = (e.domain, e.tracking_id, e.key))
        """,
    )


def side_effects_are_of_the_attempt_that_completed(db: Connection) -> list[str]:
    """The side effect was written under the claim with which the row was completed."""
    return _found(
        db,
        """
        SELECT format('%s %s: the effect is of claim %s, the completion of claim %s',
                      r.domain, r.id, e.claim, r.started_at)
        FROM chaos.row r JOIN chaos.effect e ON (e.domain, e.tracking_id) = (r.domain, r.id)
        WHERE e.claim IS DISTINCT FROM r.started_at
        """,
    )


def attempts_equal_the_failures_logged(db: Connection) -> list[str]:
    """``attempts`` counts the failures in the log, and their numbers run from 1 without a gap."""
    return _found(
        db,
        """
        SELECT format('%s %s: attempts %s, failures logged: %s', domain, id, attempts, numbers)
        FROM (SELECT r.domain, r.id, r.attempts,
                     coalesce(array_agg(a.number ORDER BY a.place)
                              FILTER (WHERE a.outcome IN ('error', 'lost', 'timeout')), '{}') AS numbers
              FROM chaos.row r LEFT JOIN chaos.attempt a ON (a.domain, a.id) = (r.domain, r.id)
              GROUP BY r.domain, r.id, r.attempts) counted
        WHERE numbers <> ARRAY(SELECT generate_series(1, attempts))
        """,
    )


def logged_claims_do_not_overlap(db: Connection) -> list[str]:
    """By the row alone: its attempts, the logged ones and the last, are disjoint and in order."""
    return _found(
        db,
        """
        SELECT format('%s %s: a claim began at %s and ended at %s, the one before ended at %s',
                      domain, id, began, ended, before)
        FROM (SELECT domain, id, began, ended,
                     lag(ended) OVER (PARTITION BY domain, id ORDER BY place) AS before
              FROM (SELECT domain, id, place, "start" AS began, "end" AS ended FROM chaos.attempt
                    UNION ALL
                    SELECT domain, id, 1000000, started_at, completed_at FROM chaos.row
                    WHERE status = 'COMPLETED') claims) ordered
        WHERE before > began OR ended < began OR began IS NULL OR ended IS NULL
        """,
    )


def rows_moved_as_the_states_allow(db: Connection) -> list[str]:
    """By the history: each change is a transition, so that nobody took a row that another one had."""
    return _found(
        db,
        f"""
        SELECT format('%s %s went from %s (claim %s) to %s (claim %s) at %s',
                      domain, tracking_id, was, claim_was, became, claim_became, at)
        FROM chaos.history
        WHERE (was, became) NOT IN (VALUES {_TRANSITIONS})
           OR (became = 'PROCESSING') <> (claim_was IS DISTINCT FROM claim_became)
        """,
    )


def no_row_started_before_it_was_due(db: Connection) -> list[str]:
    """A claim is never earlier than the due time."""
    return _found(
        db,
        """
        SELECT format('%s %s, due %s, was claimed at %s', domain, tracking_id, due, claim_became)
        FROM chaos.history WHERE became = 'PROCESSING' AND (due IS NULL OR claim_became < due)
        """,
    )


def each_claim_ran_one_body(db: Connection) -> list[str]:
    """By the evidence: no body ran twice under one claim, and none without one.

    A claim that is not in the history was lost in a crash of PostgreSQL, which must be among the blows.
    """
    return _found(
        db,
        """
        SELECT format('%s %s: claim %s ran %s bodies', domain, tracking_id, claim, count(*))
        FROM chaos.evidence WHERE event = 'start' GROUP BY domain, tracking_id, claim HAVING count(*) > 1
        UNION ALL
        SELECT format('%s %s: a body ran under claim %s, which nobody made', domain, tracking_id, claim)
        FROM chaos.evidence e
        WHERE event = 'start'
          AND NOT EXISTS (SELECT FROM chaos.history h WHERE (h.domain, h.tracking_id, h.claim_became)
                                                          = (e.domain, e.tracking_id, e.claim))
          AND NOT EXISTS (SELECT FROM chaos.struck WHERE blow = 'restart PostgreSQL immediately'
                          AND e.claim BETWEEN at - interval '2 s' AND until)
        """,
    )


def no_body_began_while_another_owned_the_row(db: Connection) -> list[str]:
    """By evidence and history: when a body began, the claim of the one before it had ended."""
    return _found(
        db,
        """
        SELECT format('%s %s: claim %s began while claim %s was held', domain, tracking_id, claim, before)
        FROM (SELECT domain, tracking_id, claim,
                     lag(claim) OVER (PARTITION BY domain, tracking_id ORDER BY claim) AS before
              FROM chaos.evidence WHERE event = 'start') e
        WHERE EXISTS (SELECT FROM chaos.history h
                      WHERE (h.domain, h.tracking_id, h.claim_became) = (e.domain, e.tracking_id, before))
          AND NOT EXISTS (SELECT FROM chaos.history h
                          WHERE (h.domain, h.tracking_id, h.claim_was) = (e.domain, e.tracking_id, before)
                            AND h.was = 'PROCESSING' AND h.became <> 'PROCESSING' AND h.at <= claim)
        """,
    )


def jobs_ended_as_they_were_told(db: Connection) -> list[str]:
    """What was to succeed is COMPLETED, what was to fail is FAILED, unless it was cancelled."""
    return _found(
        db,
        """
        SELECT format('%s %s (%s) is %s after %s of %s attempts: %s',
                      domain, id, kind, status, attempts, max_attempts, error_message)
        FROM chaos.row
        WHERE status <> 'CANCELLED' AND CASE kind
            WHEN 'always fails' THEN status <> 'FAILED' OR attempts <> max_attempts
            WHEN 'gives up' THEN
                status <> 'FAILED' OR NOT (error_message = 'GiveUp: as told' OR attempts = max_attempts)
            ELSE status <> 'COMPLETED' OR attempts < failures
        END
        """,
    )


def attempts_failed_as_they_were_told(db: Connection) -> list[str]:
    """No attempt failed by itself that was not told to."""
    return _found(
        db,
        f"""
        SELECT format('%s %s (%s), attempt %s: %s', domain, id, kind, number, error)
        FROM chaos.attempt
        WHERE outcome = 'error' AND NOT CASE
            WHEN error = 'ChaosError: as told' THEN kind = 'always fails' OR number <= failures
            WHEN error = 'GiveUp: as told' THEN kind = 'gives up'
            ELSE {_OUTAGE}
        END
        """,
    )


def database_errors_have_a_cause(db: Connection) -> list[str]:
    """An attempt fails for want of the database only if the database went away while it ran.

    A connection that was dropped before, while it lay in a pool, is no reason. A soft time limit that
    strikes in the middle of a statement is.
    """
    return _found(
        db,
        f"""
        SELECT format('%s %s, from %s to %s: %s', domain, id, "start", "end", error)
        FROM chaos.attempt
        WHERE outcome = 'error' AND {_OUTAGE} AND error NOT LIKE '%another command is already in progress%'
          AND NOT EXISTS (SELECT FROM chaos.struck WHERE blow LIKE 'restart PostgreSQL%'
                          AND at <= "end" AND "start" <= until)
        """,
    )


def cancellations_hold(db: Connection) -> list[str]:
    """A row whose cancellation was accepted is CANCELLED, with the reason; no other row is."""
    return _found(
        db,
        """
        SELECT format('%s %s is %s (%s); its cancellation: %s',
                      r.domain, r.id, r.status, r.error_message, coalesce(c.outcome, 'none'))
        FROM chaos.row r
        LEFT JOIN chaos.cancelled c ON (c.domain, c.tracking_id) = (r.domain, r.id)
        WHERE (c.outcome = 'accepted' AND (r.status <> 'CANCELLED' OR r.error_message <> 'chaos'))
           OR (c.outcome IS NULL AND r.status = 'CANCELLED' AND r.error_message NOT LIKE 'prerequisite %')
        """,
    )


def prerequisites_were_waited_for(db: Connection) -> list[str]:
    """A row started after those it waits for were COMPLETED; it was cancelled only if they weren't."""
    return _found(
        db,
        """
        SELECT format('%s %s is %s, started %s; it waited for %s %s, which is %s, completed %s',
                      w.domain, w.id, w.status, w.started_at, n.domain, n.id, n.status, n.completed_at)
        FROM chaos.ordered o
        JOIN chaos.row w ON w.key = o.key
        JOIN chaos.row n ON n.key = o.after
        WHERE (w.started_at IS NOT NULL AND (n.status <> 'COMPLETED' OR w.started_at < n.completed_at))
           OR (w.error_message LIKE 'prerequisite %' AND n.status NOT IN ('FAILED', 'CANCELLED'))
        """,
    )


def columns_tell_the_same_as_the_state(db: Connection) -> list[str]:
    """An ended row has its time and no lease; a completed one has no error and nothing undone."""
    return _found(
        db,
        f"""
        SELECT format('%s %s: %s', r.domain, r.id, to_jsonb(r))
        FROM chaos.row r
        WHERE (status IN ({_ENDED})) <> (completed_at IS NOT NULL)
           OR (status = 'PROCESSING') <> (heartbeat_at IS NOT NULL)
           OR (status = 'COMPLETED' AND (error_message IS NOT NULL OR started_at > completed_at))
           OR (status = 'COMPLETED' AND kind = 'progress' AND done <> round(seconds * 10))
           OR (status = 'FAILED' AND error_message IS DISTINCT FROM attempt_log -> -1 ->> 'error')
        """,
    )


RULES: Final[tuple[Rule, ...]] = (
    every_row_has_ended,
    no_row_is_lost,
    no_row_was_not_ordered,
    rolled_back_rows_sent_no_message,
    each_side_effect_happened_once,
    side_effects_are_of_the_attempt_that_completed,
    attempts_equal_the_failures_logged,
    logged_claims_do_not_overlap,
    rows_moved_as_the_states_allow,
    no_row_started_before_it_was_due,
    each_claim_ran_one_body,
    no_body_began_while_another_owned_the_row,
    jobs_ended_as_they_were_told,
    attempts_failed_as_they_were_told,
    database_errors_have_a_cause,
    cancellations_hold,
    prerequisites_were_waited_for,
    columns_tell_the_same_as_the_state,
)


def violations(db: Connection) -> dict[str, list[str]]:
    """Return what violates each rule, for the rules that are violated.

    Args:
        db: a connection to the database of a run that has settled.
    """
    found = {rule.__name__: rule(db) for rule in RULES}
    return {name: sentences for name, sentences in found.items() if sentences}
