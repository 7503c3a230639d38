"""Every error that slg-wds raises on purpose.

SlgWdsError
├── UsageError
├── MissingDependencyError
├── ImageSourceError
│   ├── NoImagesError
│   │   └── NoSplitError
│   ├── NoTargetsError
│   ├── DuplicateKeyError
│   └── ImageShardError
├── ImageError
│   ├── ImageDecodeError
│   ├── ImageGoneError
│   ├── ImageTooLargeError
│   └── ImageChangedError
├── TeacherError
│   ├── UnknownArchError
│   ├── WeightsError
│   ├── TeacherOutputError
│   └── MemoryFullError
├── DeviceError
├── FormatError
│   ├── RecordError
│   ├── ShardError
│   │   ├── ShardTruncatedError
│   │   └── ChecksumError
│   ├── ManifestError
│   └── UnsupportedFeatureError
├── LabelSetError
│   ├── NotALabelSetError
│   ├── IncompleteSetError
│   ├── IdentityMismatchError
│   ├── ReferenceSetError
│   └── RuleError
├── InteropError
│   └── LabelFileError
├── ReplayError
│   └── BatchTooLargeError
└── StoreError
    ├── NotFoundError
    ├── PermissionDeniedError
    ├── StoreFullError
    ├── UnsupportedStoreError
    ├── InvalidNameError
    ├── ObjectTooLargeError
    ├── OutOfRangeError
    └── StoreUnavailableError

The message says what is wrong; `url`, `shard` and `key` say where; `hint` says what to do. All errors can be pickled.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, ClassVar

from slg_wds.masking import masked

_OPTION = re.compile(r"(?<![\w-])--[A-Za-z][\w-]*")


class SlgWdsError(Exception):
    """Base class of all errors of this package.

    Secrets in its texts are masked as soon as they are set, so an error never holds one.

    Attributes:
        message: what is wrong, in one line.
        url: the label set, image source or file concerned; None if there is none.
        shard: object name of the shard concerned, such as `train-000000.tar`; None if there is none.
        key: key or path of the image concerned; None if there is none.
        hint: what to do about it; None if the message says enough.
        exit_code: of a command that ends with it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        message: str,
        *,
        url: str | None = None,
        shard: str | None = None,
        key: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(masked(message))
        self.message = message
        self.url = url
        self.shard = shard
        self.key = key
        self.hint = hint

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, masked(value) if isinstance(value, str) else value)

    def for_command(self, options: Collection[str]) -> str:
        """Return the text for whoever ran a command: without the hint if that names an option that the command lacks.

        Code that several commands share hints at the options of one of them. Options after `slg-wds COMMAND` are that
        command's.

        Args:
            options: the command's, such as --split.
        """
        own = (self.hint or "").partition("slg-wds ")[0]
        named = {name.replace("_", "-") for name in _OPTION.findall(own)}
        return self._text(self.hint if named <= {one.replace("_", "-") for one in options} else None)

    def __str__(self) -> str:
        return self._text(self.hint)

    def _text(self, hint: str | None) -> str:
        places = [f"{name} {value}" for name in ("key", "shard", "url") if (value := getattr(self, name))]
        text = f"{self.message} ({', '.join(places)})" if places else self.message
        return f"{text}; {hint}" if hint else text

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, dict(vars(self))))

    def located(
        self, *, url: str | None = None, shard: str | None = None, key: str | None = None
    ) -> SlgWdsError:
        """Set those of `url`, `shard` and `key` that are None, and return self: `raise error.located(...)`."""
        self.url = self.url or url
        self.shard = self.shard or shard
        self.key = self.key or key
        return self


def _rebuild(kind: type[SlgWdsError], message: str, state: dict[str, Any]) -> SlgWdsError:
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class UsageError(SlgWdsError):
    """An option or argument has an impossible value, or contradicts another one."""

    exit_code = 2


class MissingDependencyError(SlgWdsError):
    """An optional package is not installed."""


class ImageSourceError(SlgWdsError):
    """The folder or the tars of images cannot be used as a whole."""


class NoImagesError(ImageSourceError):
    """There is no image where images were expected."""


class NoSplitError(NoImagesError):
    """There are images, and none of the split that was asked for."""


class NoTargetsError(ImageSourceError):
    """Targets were needed, and the images have none."""


class DuplicateKeyError(ImageSourceError):
    """Two images have the same key."""


class ImageShardError(ImageSourceError):
    """A tar of images is truncated or corrupt."""


class ImageError(SlgWdsError):
    """One image cannot be used."""


class ImageDecodeError(ImageError):
    """The bytes of an image cannot be decoded."""


class ImageGoneError(ImageError):
    """An image of the plan is not in its folder any more."""


class ImageTooLargeError(ImageError):
    """An image has more pixels or bytes than the limit."""


class ImageChangedError(ImageError):
    """The bytes or the size of an image are not those that were labelled."""


class TeacherError(SlgWdsError):
    """A teacher cannot be loaded or used."""


class UnknownArchError(TeacherError):
    """There is no model of that name."""


class WeightsError(TeacherError):
    """Weights do not fit the model, or cannot be read safely."""


class TeacherOutputError(TeacherError):
    """A teacher returned something other than finite logits [N, classes]."""


class MemoryFullError(TeacherError):
    """The memory of the device is full. Its hint comes from the command: each has other options that take less."""


class DeviceError(SlgWdsError):
    """A GPU failed. This process cannot use it any more; another process may."""


class FormatError(SlgWdsError):
    """Bytes are not what FORMAT.md says."""


class RecordError(FormatError):
    """A record is malformed, or values cannot be stored in one."""


class ShardError(FormatError):
    """A shard is malformed, or is not the shard that belongs in its place."""


class ShardTruncatedError(ShardError):
    """A shard ends too early."""


class ChecksumError(ShardError):
    """Bytes do not have the checksum that was stored for them."""


class ManifestError(FormatError):
    """The plan, slg.json, an index part or _info.json is malformed."""


class UnsupportedFeatureError(FormatError):
    """A set was written by a newer version, or requires a feature that this one lacks."""


class LabelSetError(SlgWdsError):
    """A label set cannot be used as asked."""


class NotALabelSetError(LabelSetError):
    """There is no label set at the URL."""


class IncompleteSetError(LabelSetError):
    """Shards of a label set are missing."""

    exit_code = 3


class IdentityMismatchError(LabelSetError):
    """A set at the URL was begun with other settings. The message names each difference."""


class ReferenceSetError(LabelSetError):
    """Crops cannot be taken from the reference set."""


class RuleError(LabelSetError):
    """The stored columns cannot give the rule of recovery that was asked for."""


class InteropError(SlgWdsError):
    """Label files of FKD and a label set do not go together."""


class LabelFileError(InteropError):
    """One label file cannot be read, is unsafe, or differs from the others."""


class ReplayError(SlgWdsError):
    """A loader cannot be made as asked, or its state cannot be loaded."""


class BatchTooLargeError(ReplayError):
    """The images do not fill one batch; `images` says how many they are."""

    images = 0


class StoreError(SlgWdsError):
    """A file system or object store refused or failed."""


class NotFoundError(StoreError):
    """There is no object of that name."""


class PermissionDeniedError(StoreError):
    """The store denies access."""


class StoreFullError(StoreError):
    """The disk is full, or a quota is used up."""


class UnsupportedStoreError(StoreError):
    """The store or file system cannot do what is needed, such as atomic commits."""


class InvalidNameError(StoreError):
    """The name of an object is not a plain relative path within its store."""


class ObjectTooLargeError(StoreError):
    """An object has more bytes than its reader allows."""


class OutOfRangeError(StoreError):
    """Bytes past the end of an object were asked for."""


class StoreUnavailableError(StoreError):
    """The store did not answer in time, or failed after all retries."""
