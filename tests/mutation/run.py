"""Mutation testing: each small change of the modules below must make one of their quick tests fail.

::

    python -m tests.mutation.run retry statements

The mutants and their results are cosmic-ray's: ``cr-report`` and ``cr-html`` read the sessions in the folder
``.mutation``. Its own runner would start an interpreter for each mutant, whose imports take longer than the
tests, and would change files on disk. Here a mutant is a fork of a process that has imported all foreign
packages, and it is only in memory.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import hashlib
import importlib
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import cosmic_ray.plugins
from cosmic_ray.commands import init
from cosmic_ray.mutating import mutate_code
from cosmic_ray.work_db import WorkDB, WorkResultStorage
from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkResult

from tests.mutation import operators
from tests.mutation.mutants import PLUGINS, Mutant, Trial, judge
from tests.mutation.subjects import SUBJECTS, Subject

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / ".mutation"
TESTS: Final = ("__main__", "apps", "conftest", "tests", "pytest_asyncio", *PLUGINS)
"""What pytest imports by itself, in each mutant."""
SLOWNESS: Final = 5.0
"""By how much longer than those of the code as it is the tests of a mutant may take."""
LONGEST: Final = 120.0
"""What they may take in any case, in seconds."""
TOO_LONG: Final = "took too long"


@dataclass(frozen=True, slots=True)
class Mutation:
    """What is still to be judged.

    Attributes:
        job: cosmic-ray's name of it.
        path: the module's file.
        code: what stands in it.
        mutated: what would stand in it.
    """

    job: str
    path: Path
    code: str
    mutated: str


def _prepare(subject: Subject, folder: Path) -> float:
    """Run the tests on the code as it is, then import what they needed and what no mutant changes.

    Returns:
        How long the tests of a mutant may take, in seconds.
    """
    start = time.monotonic()
    modules, output = folder / "modules", folder / "output"
    trial = judge(subject.tests, None, output, modules=modules)
    _, status = os.waitpid(trial.process, 0)
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"the tests fail without any mutation:\n{output.read_text(encoding='utf-8')}")
    for name in modules.read_text(encoding="utf-8").split():
        if not any(f"{name}.".startswith(f"{one}.") for one in (*TESTS, *subject.dependents)):
            with suppress(Exception), warnings.catch_warnings(action="ignore"):
                importlib.import_module(name)
    return max(LONGEST, SLOWNESS * (time.monotonic() - start))


def _session(subject: Subject) -> WorkDB:
    """Open the subject's session; a new one when a module has changed."""
    FOLDER.mkdir(exist_ok=True)
    sources = [*subject.paths(ROOT), Path(operators.__file__)]
    state = hashlib.sha256(b"".join(path.read_bytes() for path in sources))
    return WorkDB(FOLDER / f"{subject.name}-{state.hexdigest()[:8]}.sqlite", WorkDB.Mode.create)


def _mutants(subject: Subject, session: WorkDB) -> Iterator[Mutation]:
    """Yield the mutants without a result, in random order: what a run gets to is a fair sample."""
    if not session.num_work_items:
        init(subject.paths(ROOT), session, {})
    for item in session.pending_work_items:
        (spec,) = item.mutations
        code = spec.module_path.read_text(encoding="utf-8")
        operator = cosmic_ray.plugins.get_operator(spec.operator_name)()
        mutated = None if subject.omits(spec.operator_name) else mutate_code(code, operator, spec.occurrence)
        if mutated is None or not _is_other_code(code, mutated):
            session.set_result(item.job_id, WorkResult(worker_outcome=WorkerOutcome.SKIPPED))
        else:
            yield Mutation(item.job_id, spec.module_path, code, mutated)


def _is_other_code(code: str, mutated: str) -> bool:
    """Return whether a mutant is Python, and neither the same nor only has another star in a signature."""
    if mutated.count("/,") != code.count("/,"):
        return False
    with suppress(SyntaxError):
        return ast.dump(ast.parse(mutated)) != ast.dump(ast.parse(code))
    return False


def _run(subject: Subject, session: WorkDB, *, workers: int, end: float, folder: Path) -> None:
    """Judge mutants until none is left or the time is over."""
    longest = _prepare(subject, folder)
    mutations = _mutants(subject, session)
    running: list[tuple[Trial, Mutation]] = []
    numbers = count()
    try:
        while True:
            while len(running) < workers and time.monotonic() < end and (new := next(mutations, None)):
                output = folder / f"{next(numbers)}.txt"
                mutant = Mutant(new.path, new.mutated)
                running.append((judge(subject.tests, mutant, output, longest=longest), new))
            if not running:
                return
            for trial, mutation in list(running):
                if (code := trial.code()) is not None:
                    running.remove((trial, mutation))
                    session.set_result(mutation.job, _result(trial, mutation, code))
            time.sleep(0.02)
    except KeyboardInterrupt:
        for trial, _ in running:
            trial.interrupt()
        for trial, _ in running:
            os.waitpid(trial.process, 0)
        raise


def _result(trial: Trial, mutation: Mutation, code: int) -> WorkResult:
    name = str(mutation.path.relative_to(ROOT))
    lines = (mutation.code.splitlines(), mutation.mutated.splitlines())
    said = trial.output.read_text(encoding="utf-8", errors="replace")[-2000:]
    return WorkResult(
        worker_outcome=WorkerOutcome.NORMAL,
        test_outcome=TestOutcome.KILLED if code else TestOutcome.SURVIVED,
        diff="\n".join(difflib.unified_diff(*lines, name, name, n=0, lineterm="")),
        output=TOO_LONG if trial.is_interrupted else said,
    )


def _forget_survivors(session: WorkDB) -> None:
    """Make the survivors of earlier runs ones that are still to be judged."""
    with session._session_maker.begin() as rows:
        rows.query(WorkResultStorage).filter_by(test_outcome=TestOutcome.SURVIVED).delete()


def _report(subject: Subject, session: WorkDB) -> None:
    """Print the survivors and the figures."""
    results = [(item, result) for item, result in session.completed_work_items if result.test_outcome]
    survivors = [(item.mutations[0], result) for item, result in results if not result.is_killed]
    for mutation, result in sorted(survivors, key=lambda one: (one[0].module_path, one[0].start_pos)):
        print(f"{mutation.operator_name} in {mutation.definition_name}\n{result.diff}\n")
    for path in subject.paths(ROOT):
        of_path = [result for item, result in results if item.mutations[0].module_path == path]
        if of_path:
            killed = sum(result.is_killed for result in of_path)
            late = sum(result.output == TOO_LONG for result in of_path)
            print(
                f"{path.relative_to(ROOT)}: {killed} of {len(of_path)} mutants killed, {late} of them by time"
            )
    if session.num_results < session.num_work_items:
        print(f"{subject.name}: {session.num_work_items - session.num_results} are still to be judged")


def main() -> None:
    """Judge the mutants of the subjects that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation.run", description="Mutation testing.")
    names = [subject.name for subject in SUBJECTS]
    parser.add_argument("subjects", nargs="*", metavar="subject", help=f"{', '.join(names)}; all by default")
    parser.add_argument("--workers", type=int, default=2, help="how many mutants are judged at a time")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop then; the next run goes on")
    parser.add_argument("--again", action="store_true", help="judge those once more that survived")
    parser.add_argument("--report", action="store_true", help="only show what came of earlier runs")
    options = parser.parse_args()
    if unknown := set(options.subjects) - set(names):
        parser.error(f"no such subject: {', '.join(sorted(unknown))}")
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.chdir(ROOT)
    cosmic_ray.plugins.OPERATOR_PROVIDERS["tasktrail"] = operators.OPERATORS
    end = time.monotonic() + options.seconds
    for subject in SUBJECTS:
        if options.subjects and subject.name not in options.subjects:
            continue
        session = _session(subject)
        if options.again:
            _forget_survivors(session)
        if not options.report:
            with TemporaryDirectory() as folder:
                _run(subject, session, workers=options.workers, end=end, folder=Path(folder))
        _report(subject, session)


if __name__ == "__main__":
    main()
