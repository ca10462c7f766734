"""The captions of one source."""

from dataclasses import dataclass, field

from .spilled import SpilledDict, SpilledTuples


@dataclass
class SourceCaptions:
    """The captions that one kind of source holds, and what is wrong with it. `problems` are (name, reason)."""

    label: str                                  # how the user is told of the source: "sidecar .txt"
    present: bool                               # whether there is such a source at all, with captions or without
    by_name: SpilledTuples = field(default_factory=SpilledTuples)           # of pictures that have any
    excluded: SpilledDict[None] = field(default_factory=SpilledDict)    # pictures that a metadata file leaves out
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)      # other captions that are there, and the option that uses them
    problems: list[tuple[str, str]] = field(default_factory=list)
    files: SpilledDict[None] = field(default_factory=SpilledDict)       # the files that captions were read from
    filled_from: set[str] = field(default_factory=set)    # kinds of other sources that give captions to the rest

    def take(self, other: "SourceCaptions", kind: str) -> None:
        """Take the captions of another source of this kind; of a picture in both, the other's count."""
        if other.by_name:
            self.label += f" and {other.label}"
            self.filled_from.add(kind)
            self.by_name.update(other.by_name.items())
            self.files.update(other.files.items())
            self.notes += other.notes
