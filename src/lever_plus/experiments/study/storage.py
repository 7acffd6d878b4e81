"""The storage of a study: a journal file, or a database.

A file or database of another program is refused and not changed. Errors never show the password in
a database's URL.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.exceptions import DuplicatedStudyError, StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.study import StudyDirection
from sqlalchemy import create_engine, inspect
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from lever_plus.errors import UserError
from lever_plus.experiments.study.journal import Journal
from lever_plus.experiments.study.settings import StudySettings, scheme_of
from lever_plus.files.secrets import without_secrets

CONNECT_S: Final = 10
TABLES: Final = {"studies", "trials", "version_info"}
"""Tables that every database of Optuna has."""


def open_study(settings: StudySettings) -> optuna.Study:
    """Create or join the study.

    Raises:
        UserError: Its storage can't be used, or another kind of study has its name.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = open_storage(settings.storage)
    with explained(settings):
        if settings.name not in optuna.get_all_study_names(storage):
            with suppress(DuplicatedStudyError):  # another worker was faster
                optuna.create_study(storage=storage, study_name=settings.name, direction="maximize")
        return _load(settings, storage)


def find_study(settings: StudySettings) -> optuna.Study:
    """Return an existing study.

    Raises:
        UserError: There is no study of this name, or see `open_study`.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    where = without_secrets(settings.storage)
    none = UserError(
        f"there is no study {settings.name} in {where}: run `lever-plus study run` first."
    )
    journal = scheme_of(settings.storage) is None
    if journal and not Path(settings.storage).exists():
        raise none
    storage = open_storage(settings.storage)
    with explained(settings):
        if settings.name not in optuna.get_all_study_names(storage):
            raise none
        return _load(settings, storage)


def _load(settings: StudySettings, storage: BaseStorage) -> optuna.Study:
    study = optuna.load_study(
        study_name=settings.name,
        storage=storage,
        # Warm-up: the first epochs of RCE say little, because they depend on its temperature.
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=4),
    )
    if study.directions != [StudyDirection.MAXIMIZE]:
        raise UserError(
            f"study {settings.name} in {without_secrets(settings.storage)} is another kind of "
            "study: give yours another name (search/params.yaml)."
        )
    return study


def open_storage(place: str) -> BaseStorage:
    """Open a journal file, or a database by its URL.

    Raises:
        UserError: The file is not a journal or is damaged, the database can't be reached or belongs
            to another program, or its driver is not installed.
    """
    if scheme_of(place) is None:
        # Absolute: the link that Optuna locks with must not depend on the current folder.
        return JournalStorage(Journal(Path(place).absolute()))
    where = without_secrets(place)
    try:
        _check_database(place, where)
        return RDBStorage(place, engine_kwargs={"connect_args": _limits(place)})
    except (ImportError, NoSuchModuleError) as error:
        raise UserError(
            f"{where}: {_said(error)}. Install the database's driver (that of PostgreSQL: `pip "
            "install 'lever-plus[postgres]'`)."
        ) from error
    except (ArgumentError, ValueError) as error:
        raise UserError(
            f"{where}: {_said(error)}. Write it as postgresql+psycopg://user@host/database."
        ) from error
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"{where}: {_said(error)}. Use the version of Optuna that made it, or another database."
        ) from error
    except (SQLAlchemyError, StorageInternalError, OSError) as error:
        raise UserError(
            f"{where}: {_said(error)}. Is the server running, and may this user use the database?"
        ) from error


@contextmanager
def explained(settings: StudySettings) -> Iterator[None]:
    """Turn a database's errors during a study into a UserError with advice."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        raise UserError(
            f"{without_secrets(settings.storage)}: {_said(error)}. Is the server running? Run the "
            "command again: trials that have ended are not lost."
        ) from error


def _check_database(url: str, where: str) -> None:
    """Refuse another program's database: Optuna would add its tables to it."""
    engine = create_engine(url, connect_args=_limits(url))
    try:
        tables = set(inspect(engine).get_table_names())
    finally:
        engine.dispose()
    if tables and not tables >= TABLES:
        raise UserError(
            f"{where} is the database of another program (its tables: "
            f"{', '.join(sorted(tables)[:3])}, ...); it was not changed. Give the study a database "
            "of its own."
        )


def _limits(url: str) -> dict[str, Any]:
    """Return the driver's setting of how many seconds it may wait for its server."""
    return {"timeout" if scheme_of(url) == "sqlite" else "connect_timeout": CONNECT_S}


def _said(error: BaseException) -> str:
    """Return the first line of what a database or its driver said, without secrets."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else None
    text = str(getattr(cause or error, "orig", None) or cause or error).strip()
    return without_secrets(text.partition("\n")[0][:300]).rstrip(". ") or type(error).__name__
