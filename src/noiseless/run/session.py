"""From a command to a run under way: the workers agree, the first one holds the directory, all train."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from noiseless.files.directory import RunDirectory, environment
from noiseless.objective.workers import Workers
from noiseless.recipes.config import Config
from noiseless.run.build import Experiment, build, rebuild
from noiseless.run.speed import keep_memory
from noiseless.run.team import refuse_disagreement, restarted


@dataclass(frozen=True)
class Session:
    """An experiment and the directory that this job holds for it."""

    experiment: Experiment
    directory: RunDirectory


@contextmanager
def new(config: Config, path: Path, command: list[str], workers: Workers, again: bool = False) -> Iterator[Session]:
    """A new run.

    Args:
        config: as the user gave it.
        path: of its directory; the first worker's counts.
        command: for the record.
        workers: who compute it.
        again: goes on where the directory holds this run already, as a queue that starts a job anew needs.

    Yields:
        The session; the directory is held until the block ends.
    """
    keep_memory()
    path = Path(workers.exchange(str(path.resolve()))[0])
    experiment = build(replace(config, settings=replace(config.settings, run_dir=str(path))), workers, path)
    refuse_disagreement(workers, experiment)
    directory = RunDirectory(path)
    old = (again or restarted()) and (path / "config.json").exists()
    if bool(int(workers.exchange(str(int(old)))[0])):
        with existing(path, workers, experiment.config) as session:
            yield session
        return
    record = environment(experiment.config, experiment.data_sha256, command)
    with in_first(workers, lambda: directory.created(experiment.config, record)):
        yield Session(experiment, directory)


@contextmanager
def existing(path: Path, workers: Workers, wanted: Config | None = None) -> Iterator[Session]:
    """A run that was begun.

    Args:
        path: of its directory.
        workers: who go on with it, as many as they are.
        wanted: the config that it must have, if any.

    Yields:
        The session; the directory is held until the block ends.

    Raises:
        ValueError: if the run has another config.
    """
    directory = RunDirectory.open(path)
    if wanted is not None and directory.config().recipe != wanted.recipe:
        raise ValueError(f"{path} holds a run made by another config: choose another --run-dir")
    keep_memory()
    experiment = rebuild(directory, workers)
    refuse_disagreement(workers, experiment)
    with in_first(workers, directory.locked):
        yield Session(experiment, directory)


@contextmanager
def in_first(workers: Workers, enter: Callable[[], AbstractContextManager[object]]) -> Iterator[None]:
    """Enters a context in the first worker; where that fails, all workers fail with its message.

    Args:
        workers: of the job, who all call it.
        enter: makes the context.

    Yields:
        Nothing.

    Raises:
        ValueError: with the first worker's message.
    """
    with ExitStack() as stack:
        problem: Exception | None = None
        if workers.rank == 0:
            try:
                stack.enter_context(enter())
            except (ValueError, OSError) as error:
                problem = error
        told = workers.exchange(str(problem or ""))[0]
        if problem is not None:
            raise problem
        if told:
            raise ValueError(told)
        yield
