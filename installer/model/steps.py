"""What all steps of a plan have in common, and the devices that they name."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class PartitionRef:
    """A partition that the plan makes: `disk` is a stable path, `start` and `size` in bytes.

    It is found again through sysfs by its number and position below the disk, and known to the
    world by its PARTUUID; never by gluing a number to a disk's name.
    """

    disk: str
    number: int
    partuuid: str
    start: int
    size: int

    def __str__(self) -> str:
        return f"partition {self.number} of {self.disk}"


@dataclass(frozen=True)
class StackedRef:
    """A device that a step of this plan makes on others: an array, an opened LUKS, a volume.

    `path` is the node that its own command makes (/dev/md/root, /dev/mapper/crypt, /dev/vg0/home);
    `uuid` identifies it where the plan chose one, as arrays and LUKS headers have.
    """

    path: str
    uuid: str | None = None

    def __str__(self) -> str:
        return self.path


Device = PartitionRef | StackedRef


class BaseStep:
    """A step; each kind is a frozen dataclass with a literal `kind`."""

    again: ClassVar[str] = "run again: the same result"

    @property
    def id(self) -> str:
        """Short name, unique within a plan; used in events and logs."""
        return str(getattr(self, "kind"))  # noqa: B009 - each step narrows it to a literal

    @property
    def title(self) -> str:
        """What it will do, in a few words."""
        raise NotImplementedError

    @property
    def device(self) -> str | None:
        """To which disk, by its stable path."""
        return None

    @property
    def destroys(self) -> str | None:
        """What is lost by it, in words."""
        return None
