"""What the owner decided, put together from the answer file and the kernel command line."""

from dataclasses import dataclass

from installer.model.answers import AnswerFile


@dataclass(frozen=True)
class Config:
    """An answer file and where it came from, as errors name it."""

    answers: AnswerFile
    source: str
