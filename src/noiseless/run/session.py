"""Opens a run for training: the workers check that they agree, and the first one locks the run's directory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from noiseless.files.directory import RunDirectory
from noiseless.files.environment import differences, environment
from noiseless.files.environment import read as read_environment
from noiseless.files.runcopy import refuse_target
from noiseless.files.storage import FLAGS, Names, refuse_unfit
from noiseless.objective.workers import Workers
from noiseless.plain import real
from noiseless.recipes.config import Config
from noiseless.run.build import Experiment, Training, build, rebuild
from noiseless.run.speed import keep_memory
from noiseless.run.team import refuse_disagreement, restarted


@dataclass(frozen=True)
class Session:
    """An experiment and its directory, which this job has locked."""

    experiment: Experiment
    directory: RunDirectory
    changed: str | None = None
    """message about versions and the like that have changed since the run was made; None: nothing has"""


@contextmanager
def new(
    config: Config, path: Path, command: list[str], workers: Workers, again: bool = False, tags: Sequence[str] = ()
) -> Iterator[Session]:
    """Opens a new run.

    Args:
        config: as the user gave it.
        path: of its directory; all workers use the first worker's.
        command: command line, for the record.
        workers: that compute the run.
        again: whether to resume the run if the directory holds it already, for queues that restart jobs.
        tags: words of the user about the run, for the record.

    Yields:
        The session; the directory is locked until the block ends.
    """
    keep_memory()
    path = Path(workers.exchange(str(real(path)))[0])
    with in_first(workers, lambda: checked_storage(path)):
        pass
    experiment = build(replace(config, settings=replace(config.settings, run_dir=str(path))), workers, path)
    refuse_disagreement(workers, experiment)
    directory = RunDirectory(path)
    resumes = (again or restarted()) and (path / "config.json").exists()
    if bool(int(workers.exchange(str(int(resumes)))[0])):
        with existing(path, workers, experiment.config) as session:
            yield session
        return
    record = environment(experiment.config, experiment.data_sha256, command) | ({"tags": list(tags)} if tags else {})
    with in_first(workers, lambda: directory.created(experiment.config, record)):
        yield Session(experiment, directory)


@contextmanager
def existing(path: Path, workers: Workers, config: Config | None = None) -> Iterator[Session]:
    """Opens an existing run.

    Args:
        path: of its directory.
        workers: that go on with the run; their number may differ from before.
        config: whose recipe the run must have; None: any.

    Yields:
        The session; the directory is locked until the block ends.

    Raises:
        ValueError: if the run has another recipe.
    """
    directory = RunDirectory.open(path)
    if config is not None and directory.config().recipe != config.recipe:
        raise ValueError(f"{path} holds a run made by another config: choose another --run-dir")
    with in_first(workers, lambda: checked_storage(path)):
        pass
    keep_memory()
    experiment = rebuild(directory, workers)
    refuse_disagreement(workers, experiment)
    with in_first(workers, directory.locked):
        yield Session(experiment, directory, changed(experiment, directory))


@contextmanager
def checked_storage(path: Path, names: Names = FLAGS, copy: Path | None = None) -> Iterator[None]:
    """A context that is refused if a run cannot be kept in a directory, or its copy in another."""
    if copy is not None:
        refuse_target(copy, path, names)
    refuse_unfit(path, names)
    yield


def changed(experiment: Training, directory: RunDirectory) -> str | None:
    """A message about what has changed since a run was made of the things that its bits can depend on."""
    recorded = read_environment(directory.path)
    now = environment(experiment.config, experiment.data_sha256, [])
    if experiment.config.recipe.model.portable:  # its bits do not depend on these
        now = {name: value for name, value in now.items() if name not in ("processor", "threads")}
    listed = differences(recorded, now)
    if not listed:
        return None
    return (
        f"{directory.path} was made with others than now: {'; '.join(listed)}. The bits of its next steps can differ"
        " from those that it would have had"
    )


@contextmanager
def in_first(workers: Workers, enter: Callable[[], AbstractContextManager[object]]) -> Iterator[None]:
    """Enters a context in the first worker; if that fails, all workers fail with its message.

    Args:
        workers: of the job; all of them call this.
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
        message = workers.exchange(str(problem or ""))[0]
        if problem is not None:
            raise problem
        if message:
            raise ValueError(message)
        yield
